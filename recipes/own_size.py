"""The long experiments of the chapter on a language model of one's own size, recorded.

``python recipes/own_size.py teacher``, ``… answers`` and ``… written`` do alone what the experiments need first, and go
on where they were interrupted: the teacher is tuned, is asked about a million tokens, and writes 200,000.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import own_size_draft
import torch
from own_size_counts import Counted, CountedBytes
from own_size_parts import (
    FOLDER,
    LENGTH,
    MEASURES,
    SMOLLM2,
    TUNED,
    Compressed,
    HiddenStates,
    SmolLM2,
    bytes_a_token,
    minus_bits_per_byte,
    rows,
    said,
    states,
    teacher,
    text,
    with_states,
)
from own_size_students import AsMade, cut_from_teacher, fewer_layers, llama
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdft_lib import experiments
from kdft_lib.answers import Rest
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidates, Comparison, Recipe, Then, Trained, grid
from kdft_lib.files import written_whole
from kdft_lib.objectives import GKD, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

KEPT, DRAWN = 32, 8
SIZES = {"width": 192, "layers": 6, "heads": 3, "keys": 1, "hidden": 512}
"""3.9 million numbers, 1.6 of them in the table of tokens."""
TWICE = {"width": 256, "layers": 8, "heads": 4, "keys": 2, "hidden": 768}
"""8.3 million."""
STEPS, BATCH = 512, 8
"""Each of 4,096 rows once: 1,048,576 tokens."""
RATES, WEIGHTS = (0.002, 0.004, 0.008), (1.0, 10.0)
"""Tried by two other seeds in a quarter of the steps; so is how much hidden states weigh."""
RATE = 0.004
"""Of what has one setting."""
SHORT = STEPS // 4
TEXTS, PROMPT, TOGETHER = 896, 32, 32
"""The teacher writes 224 tokens behind each of so many beginnings of 32, so many texts at a time: 200,704 tokens."""
READ = SHORT
"""Steps in which what it wrote is read once, and a half of it twice."""

LAYERS = 12
"""Of the teacher's 30, in the one student that is the teacher with fewer of them."""


def student() -> Any:
    return llama(**SIZES)


def cut_student() -> Any:
    return cut_from_teacher(**SIZES)


LABELS = Recipe(student, Supervised, FullFineTuning(lr=RATE), steps=STEPS, batch_size=BATCH, clip_norm=1.0)
ANSWERS = functools.partial(SoftTargets, None, temperature=1.0, kd_weight=1.0, ce_weight=0.0)


def with_hidden(weight: float = 1.0) -> Any:
    """What the teacher says, and its last hidden states."""
    return ANSWERS() + weight * HiddenStates()


def answered(k: int, rest: Rest) -> Callable[[Splits], TensorData]:
    """The text with some of what the teacher says."""
    return lambda splits: said(k, rest)


def learned_states(splits: Splits) -> TensorData:
    return with_states(said(KEPT, "bucket"))


TOP = LABELS.but(objective=ANSWERS, train_data=answered(KEPT, "bucket"))
DRAWS = LABELS.but(objective=ANSWERS, train_data=answered(DRAWN, "sampled"))
STATES = LABELS.but(objective=with_hidden, train_data=learned_states)
CUT = {"model": cut_student, "pretraining": SMOLLM2}


def taught(trained: Trained, splits: Splits, seed: int) -> Trained:
    """The ledger counts a text of which no label was seen, and what the teacher had read."""
    return trained.but(labels=0, unlabeled=len(splits.train), teacher_labels=8 * TUNED, pretraining=SMOLLM2)


def tried(arm: Recipe, axes: dict[str, Any]) -> Candidates:
    """An arm in some settings, with its ledger."""
    method: Any = arm if arm.objective is Supervised else Then(arm, taught)
    return grid(method, **axes)


def students() -> dict[str, Comparison]:
    """A student of 3.9 million numbers and a million tokens: what it learns from, and where it starts.

    Settings are chosen by two other seeds in a quarter of the steps.
    """
    arms: dict[str, Recipe] = {
        "labels": LABELS,
        f"top {KEPT}": TOP,
        f"{DRAWN} drawn": DRAWS,
        f"top {KEPT} and states": STATES,
        "labels, cut from the teacher": LABELS.but(**CUT),
        f"top {KEPT}, cut from the teacher": TOP.but(**CUT),
    }
    top, from_labels, from_answers = f"top {KEPT}", "labels, cut from the teacher", f"top {KEPT}, cut from the teacher"
    contrasts = [(top, "labels"), (f"{DRAWN} drawn", top), (f"{top} and states", top), (from_labels, "labels")]
    contrasts.append((from_answers, top))
    axes = {name: {"lr": RATES} | ({"weight": WEIGHTS} if arm is STATES else {}) for name, arm in arms.items()}
    how: dict[str, Any] = {"reference": "labels", "score": minus_bits_per_byte}
    short = experiments.compare(
        {name: tried(arm.but(steps=SHORT), axes[name]) for name, arm in arms.items()}, text, seeds=(5, 6), **how
    )
    found = experiments.compare(
        {name: tried(arm, short.setting(name)) for name, arm in arms.items()}, text, contrasts=contrasts,
        measures=MEASURES, **how,
    )  # fmt: skip
    asked = dict.fromkeys((top, from_answers), said(KEPT, "bucket"))
    asked |= {f"{DRAWN} drawn": said(DRAWN, "sampled"), f"{top} and states": with_states(said(KEPT, "bucket"))}
    found.measured["bytes of answers a token"] = {
        name: [bytes_a_token(asked[name]) if name in asked else 0.0] * len(found.seeds) for name in arms
    }
    return {"settings": short, "a million tokens": found}


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
    """Two runs each of what is larger, or learns for longer: more would take a day."""
    twice = {"model": functools.partial(llama, **TWICE), "lr": 0.003}
    pruned = {"model": functools.partial(fewer_layers, LAYERS), "lr": 0.001, "steps": 100, "pretraining": SMOLLM2}
    methods: dict[str, Candidates] = {
        "8 million, labels": LABELS.but(**twice),
        f"8 million, top {KEPT}": Then(TOP.but(**twice), taught),
        f"{LAYERS} of its layers, top {KEPT}, 100 steps": Then(TOP.but(**pruned), taught),
        "labels, four times as long": LABELS.but(steps=4 * STEPS),
    }
    made = experiments.compare(
        methods, text, seeds=range(2), score=minus_bits_per_byte, measures=MEASURES, equal_budgets=False
    )
    return {"larger": made}


# What the teacher writes ------------------------------------------------------------------------------


def continued(prompts: Tensor, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Texts drawn from the teacher behind their beginnings, and the log-probability of each token that it wrote."""
    model, generator = teacher(), torch.Generator().manual_seed(seed)
    new, state, written, surprise = prompts, None, [prompts], []
    with torch.no_grad():
        for _ in range(length):
            given = model(input_ids=new, past_key_values=state, use_cache=True, logits_to_keep=1)
            state, chances = given.past_key_values, given.logits[:, -1].log_softmax(-1)
            new = torch.multinomial(chances.exp(), 1, generator=generator)
            written.append(new)
            surprise.append(chances.gather(-1, new))
    return torch.cat(written, 1), torch.cat(surprise, 1)


def begun() -> Tensor:
    """Which rows the teacher goes on with, from all over the text."""
    return torch.linspace(0, len(rows("train")) - 1, min(TEXTS, len(rows("train")))).long()


@functools.cache
def written() -> tuple[Tensor, Tensor]:
    """All texts and log-probabilities; each part stays in a file of its own as soon as it is written."""
    prompts = rows("train").inputs["input_ids"][begun(), :PROMPT]
    parts = []
    for number, some in enumerate(prompts.split(TOGETHER)):
        path = None if FOLDER is None else FOLDER / f"written-{number:03d}.safetensors"
        if path is not None and path.exists():
            parts.append(load_file(path))
            continue
        texts, surprise = continued(some, LENGTH + 1 - PROMPT, seed=number)
        parts.append({"texts": texts, "surprise": surprise})
        if path is not None:
            with written_whole(path) as temporary:
                save_file(parts[-1], temporary)
    return torch.cat([part["texts"] for part in parts]), torch.cat([part["surprise"] for part in parts])


def repeated(texts: Tensor, run: int = 3) -> Tensor:
    """Of each text, the share of its runs of three tokens that it had before."""
    runs = texts.unfold(1, run, 1)
    return torch.tensor([1 - len(row.unique(dim=0)) / len(row) for row in runs])


def half(which: str, seed: int = 0) -> Tensor:
    """Which of the texts are read: all, or the half that a filter leaves. Each seed draws some half of its own."""
    texts, surprise = written()
    by = {
        "all": torch.zeros(len(texts)),
        "some half": torch.rand(len(texts), generator=torch.Generator().manual_seed(seed)),
        "those that repeat least": repeated(texts[:, PROMPT:]),
        "the teacher's likeliest": -surprise.mean(-1),
        "the teacher's least likely": surprise.mean(-1),
    }[which]
    return by.argsort(stable=True)[: len(texts) if which == "all" else len(texts) // 2].sort().values


def behind_beginnings(data: TensorData) -> TensorData:
    """Of the beginnings that the teacher was given nothing counts."""
    assert data.targets is not None
    assert data.mask is not None
    counted = data.mask & (torch.arange(LENGTH) >= PROMPT - 1)
    targets = data.targets.masked_fill(~counted, -100)
    return TensorData(data.inputs, targets, teacher_logits=data.teacher_logits, mask=counted, teacher=data.teacher)


@dataclass(frozen=True)
class OnWritten(experiments.Wrapped):
    """A method that reads what the teacher wrote."""

    method: Any
    which: str

    def train(self, splits: Splits, seed: int) -> Trained:
        texts = written()[0][half(self.which, seed)]
        places = torch.arange(LENGTH).expand(len(texts), -1).contiguous()
        inputs = {"input_ids": texts[:, :-1].contiguous(), "position_ids": places}
        data = TensorData(inputs, texts[:, 1:].contiguous(), mask=torch.ones_like(places, dtype=torch.bool))
        trained = self.method.train(splits._replace(train=behind_beginnings(data)), seed)
        return taught(trained, splits._replace(train=data), seed)


def few(splits: Splits, seed: int) -> Splits:
    """As much real text as the teacher wrote, behind the same beginnings."""
    return splits._replace(train=behind_beginnings(splits.train[begun()]))


def few_answered(splits: Splits) -> TensorData:
    """The same with what the teacher says of it."""
    return behind_beginnings(said(KEPT, "bucket")[begun()])


def reading() -> dict[str, Comparison]:
    """200,000 tokens that the teacher wrote, unfiltered and filtered, beside as many that authors wrote, alone and with
    its answers."""
    short, top = LABELS.but(steps=READ), f"real text, top {KEPT}"
    filters = ("all", "some half", "those that repeat least", "the teacher's likeliest", "the teacher's least likely")
    arms: dict[str, Candidates] = {"real text": experiments.Given(short, few)}
    arms[top] = experiments.Given(Then(TOP.but(steps=READ, train_data=few_answered), taught), few)
    arms |= {f"written, {which}": OnWritten(short, which) for which in filters}
    contrasts = [(f"written, {which}", "written, some half") for which in filters[2:4]]
    contrasts += [("written, all", "real text"), (top, "written, all")]
    found = experiments.compare(
        arms, text, reference="written, some half", contrasts=contrasts, score=minus_bits_per_byte, measures=MEASURES
    )
    real = repeated(few(text(), 0).train.inputs["input_ids"][:, PROMPT:]).mean().item()
    shares = {
        f"written, {which}": [
            repeated(written()[0][half(which, seed)][:, PROMPT:]).mean().item() for seed in found.seeds
        ]
        for which in filters
    }
    found.measured["repeated runs"] = dict.fromkeys(("real text", top), [real] * len(found.seeds)) | shares
    return {"200,000 tokens": found}


# As a draft -------------------------------------------------------------------------------------------

DRAFT_RATES = (0.003, 0.006)


def drafts() -> dict[str, Comparison]:
    """The same student as a draft for its teacher: what it learns from, at equal steps, and what that is worth.

    Total variation is what counts, and teaches little where a student finds improbable what its teacher finds probable,
    as it does at first; so one arm begins with forward KL, for half of the steps.
    """
    forward, reverse, variation = (
        TOP.but(objective=functools.partial(GKD, None, divergence=kind, on_policy=0.0))
        for kind in ("forward_kl", "reverse_kl", "total_variation")
    )

    def in_turn(lr: float) -> Then:
        before = forward.but(lr=lr, steps=STEPS // 2)
        return Then(variation.but(start=before, lr=lr, steps=STEPS // 2), taught)

    methods: dict[str, Candidates] = {
        "labels": grid(LABELS, lr=DRAFT_RATES),
        "forward KL": grid(Then(forward, taught), lr=DRAFT_RATES),
        "reverse KL": grid(Then(reverse, taught), lr=DRAFT_RATES),
        "total variation": grid(Then(variation, taught), lr=DRAFT_RATES),
        "forward KL, then total variation": grid(in_turn, lr=DRAFT_RATES),
    }
    others = [name for name in methods if name != "forward KL"]
    found = experiments.compare(
        methods, own_size_draft.heard, reference="forward KL", contrasts=[(name, "forward KL") for name in others],
        score=own_size_draft.expected_acceptance, measures=own_size_draft.MEASURES, equal_budgets=False,
    )  # fmt: skip
    return {"a million tokens": found}


EXPERIMENTS = {
    "own-size": students, "own-size-beside": beside, "own-size-written": reading, "own-size-larger": larger,
    "own-size-draft": drafts,
}  # fmt: skip

if __name__ == "__main__":
    before = {"teacher": teacher, "answers": states, "written": written}
    if asked := [name for name in sys.argv[1:] if name in before]:
        for name in asked:
            before[name]()
    else:
        experiments.record_all(EXPERIMENTS)
