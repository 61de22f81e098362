"""The long experiments of the chapter on a language model of one's own size, recorded.

``python recipes/own_size.py teacher``, ``… answers`` and ``… written`` do alone what the experiments need first: the
teacher is tuned, is asked about a million tokens, and writes 200,000. All goes on where it was interrupted, and two
commands may run at once, on one record each. Speeds are true where nothing else runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import own_size_draft
import own_size_pace
import own_size_whose
import own_size_written
from own_size_counts import Counted, CountedBytes
from own_size_draft import ARMS, BEST, HOW, ON_TEXT, scored, tried
from own_size_files import FOLDER, OneRun, Shared, programs
from own_size_lessons import (
    CUT,
    DRAWN,
    DRAWS,
    KEPT,
    LABELS,
    ON_ANSWERS,
    ON_LABELS,
    RATES,
    STATES,
    TOP,
    WEIGHTS,
    cut_student,
    in_full,
    in_short,
    taught,
)
from own_size_parts import (
    MEASURES,
    SMOLLM2,
    TUNED,
    Compressed,
    SmolLM2,
    bytes_a_token,
    minus_bits_per_byte,
    said,
    teacher,
    text,
    with_states,
)
from own_size_students import AsMade, fewer_layers, llama

from kdft_lib import experiments
from kdft_lib.data import Splits
from kdft_lib.experiments import Candidates, Comparison, Then, Trained, grid

TWICE = {"width": 256, "layers": 8, "heads": 4, "keys": 2, "hidden": 768}
"""8.3 million numbers."""
LAYERS = 12
"""Of the teacher's 30, in the one student that is the teacher with fewer of them."""


def begun_tuned(trained: Trained, splits: Splits, seed: int) -> Trained:
    """The ledger of who starts from the tuned teacher has the rows that tuned it."""
    return trained.but(teacher_labels=8 * TUNED)


def students() -> dict[str, Comparison]:
    """A student of 3.9 million numbers and a million tokens: what it learns from, and where it starts."""
    arms: dict[str, Any] = {
        "labels": ON_LABELS,
        f"top {KEPT}": ON_ANSWERS,
        f"{DRAWN} drawn": Then(DRAWS, taught),
        f"top {KEPT} and states": Then(STATES, taught),
        "labels, cut from the teacher": Then(LABELS.but(**CUT), begun_tuned),
        f"top {KEPT}, cut from the teacher": Then(TOP.but(**CUT), taught),
    }
    top, from_labels, from_answers = f"top {KEPT}", "labels, cut from the teacher", f"top {KEPT}, cut from the teacher"
    contrasts = [(top, "labels"), (f"{DRAWN} drawn", top), (f"{top} and states", top), (from_labels, "labels")]
    contrasts.append((from_answers, top))
    axes = {name: {"lr": RATES} | ({"weight": WEIGHTS} if "states" in name else {}) for name in arms}
    short = in_short(arms, axes, text, score=minus_bits_per_byte)
    found = in_full(short, arms, text, contrasts=contrasts, score=minus_bits_per_byte, measures=MEASURES)
    asked = dict.fromkeys((top, from_answers), said(KEPT, "bucket"))
    asked |= {f"{DRAWN} drawn": said(DRAWN, "sampled"), f"{top} and states": with_states(said(KEPT, "bucket"))}
    found.measured["bytes of answers a token"] = {
        name: [bytes_a_token(asked[name]) if name in asked else 0.0] * len(found.seeds) for name in arms
    }
    return {"a million tokens, tried": short, "a million tokens": found}


def drafts_from_labels() -> dict[str, Comparison]:
    """A draft that begins with its teacher's weights: is what the teacher says worth more to it than labels?"""
    cut, known = "labels, cut from the teacher", f"{BEST}, cut from the teacher"
    arms: dict[str, Any] = {
        "labels": ARMS["labels"],
        cut: Then(Shared(ARMS["labels"].method.but(**CUT)), begun_tuned),
        known: ARMS[known],
    }
    short = tried(arms)
    contrasts = [(cut, "labels"), (known, cut)]
    found = in_full(short, arms, scored, contrasts=contrasts, measures=ON_TEXT, **HOW)
    return {"half a million tokens, tried": short, "half a million tokens": found}


def one_rate() -> dict[str, Comparison]:
    """Labels and answers at the rate that the other two students with random weights chose. In an eighth of the steps
    rates are hardly told apart, and the one that labels chose there is unsteady in all of them.
    """
    top = f"top {KEPT}"
    methods = {"labels": grid(ON_LABELS, lr=RATES[1]), top: grid(ON_ANSWERS, lr=RATES[1])}
    made = experiments.compare(methods, text, contrasts=[(top, "labels")], score=minus_bits_per_byte, measures=MEASURES)
    return {"one rate": made}


def low_rate() -> dict[str, Comparison]:
    """Labels at the rate that is left: so all three are tried in all steps, and no other method has a better chance."""
    made = experiments.compare(
        {"labels": grid(ON_LABELS, lr=RATES[0])}, text, score=minus_bits_per_byte, measures=MEASURES
    )
    return {"lowest rate": made}


def beside() -> dict[str, Comparison]:
    """What needs no training, or counts. The two seeds differ in nothing but what takes time."""
    alone: dict[str, Candidates] = {
        "n-gram": grid(Counted, order=(2, 3, 4), discount=(0.75, 0.9)),
        "n-gram of bytes": grid(CountedBytes, order=(5, 6, 7), discount=(0.75, 0.9)),
        "gzip": Compressed("gzip"),
        "xz": Compressed("xz"),
        "SmolLM2": SmolLM2("as it came"),
        "SmolLM2, the students' tokens": SmolLM2("students' tokens"),
        "SmolLM2, the students' tokens, tuned": SmolLM2("tuned"),
        f"{LAYERS} of its layers, no step": AsMade(functools.partial(fewer_layers, LAYERS)),
        "cut to 3.9 million, no step": AsMade(cut_student),
    }
    made = experiments.compare(
        alone, text, seeds=range(2), score=minus_bits_per_byte, measures=MEASURES, equal_budgets=False
    )
    return {"beside": made}


def larger() -> dict[str, Comparison]:
    """One run each of what is larger, which stands twice, since a comparison has two seeds."""
    twice = OneRun(LABELS.but(model=functools.partial(llama, **TWICE)))
    pruned = {"model": functools.partial(fewer_layers, LAYERS), "lr": 0.001, "steps": 100, "pretraining": SMOLLM2}
    methods: dict[str, Candidates] = {
        "8 million, labels": grid(twice, lr=(0.0015, 0.003)),
        f"{LAYERS} of its layers, labels, 100 steps": Then(OneRun(LABELS.but(**pruned)), begun_tuned),
    }
    made = experiments.compare(
        methods, text, seeds=range(2), score=minus_bits_per_byte, measures=MEASURES, equal_budgets=False
    )
    return {"larger": made}


def answers() -> None:
    """What the teacher says of the text, in each form that is kept."""
    with_states(said(KEPT, "bucket"))
    said(DRAWN, "sampled")


BEFORE: dict[str, Callable[[], Any]] = {"teacher": teacher, "answers": answers, "written": own_size_written.written}
EXPERIMENTS: dict[str, Callable[[], dict[str, Comparison]]] = {
    "own-size": students,
    "own-size-one-rate": one_rate,
    "own-size-low-rate": low_rate,
    "own-size-beside": beside,
    "own-size-larger": larger,
    "own-size-draft-labels": drafts_from_labels,
}
EXPERIMENTS |= own_size_written.RECORDS | own_size_draft.RECORDS | own_size_pace.RECORDS | own_size_whose.RECORDS

if __name__ == "__main__":
    names = sys.argv[1:] or [*EXPERIMENTS]
    for name in names:
        BEFORE.get(name, lambda: None)()
    if records := [name for name in names if name not in BEFORE]:
        assert FOLDER is not None
        experiments.record_all(EXPERIMENTS, records, folder=FOLDER / "runs" / programs())
