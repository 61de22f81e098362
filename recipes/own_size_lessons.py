"""What students of the recipe of a language model of one's own size learn from, and how their settings are chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from own_size_files import Shared
from own_size_parts import SMOLLM2, TUNED, HiddenStates, said, with_states
from own_size_students import cut_from_teacher, llama

from kdft_lib import experiments
from kdft_lib.answers import Rest
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Comparison, Recipe, Then, Trained, grid
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

KEPT, DRAWN = 32, 8
SIZES = {"width": 192, "layers": 6, "heads": 3, "keys": 1, "hidden": 512}
"""3.9 million numbers, 1.6 of them in the table of tokens."""
STEPS, BATCH = 512, 8
"""Each of 4,096 rows once: 1,048,576 tokens."""
RATES, WEIGHTS = (0.002, 0.005, 0.0125), (1.0, 10.0)
"""Tried by two other seeds in an eighth of the steps; so is how much hidden states weigh."""
RATE = 0.004
"""Of what has one setting."""
SHORT = STEPS // 8


def student() -> Any:
    return llama(**SIZES)


def cut_student() -> Any:
    return cut_from_teacher(**SIZES)


HOW: dict[str, Any] = {"steps": STEPS, "batch_size": BATCH, "clip_norm": 1.0}
LABELS = Recipe(student, Supervised, FullFineTuning(lr=RATE), **HOW)
ANSWERS = functools.partial(SoftTargets, None, temperature=1.0, kd_weight=1.0, ce_weight=0.0)


def with_hidden(weight: float = 1.0) -> Any:
    """What the teacher says, and its last hidden states."""
    return ANSWERS() + weight * HiddenStates()


def told(k: int, rest: Rest, splits: Splits) -> TensorData:
    """The text with some of what the teacher says."""
    return said(k, rest)


def answered(k: int, rest: Rest) -> Callable[[Splits], TensorData]:
    return functools.partial(told, k, rest)


def learned_states(splits: Splits) -> TensorData:
    return with_states(said(KEPT, "bucket"))


TOP = LABELS.but(objective=ANSWERS, train_data=answered(KEPT, "bucket"))
DRAWS = LABELS.but(objective=ANSWERS, train_data=answered(DRAWN, "sampled"))
STATES = LABELS.but(objective=with_hidden, train_data=learned_states)
CUT = {"model": cut_student, "pretraining": SMOLLM2}


def taught(trained: Trained, splits: Splits, seed: int) -> Trained:
    """The ledger counts a text of which no label was seen, and what the teacher had read. The objective, which may have
    the teacher in it, is not kept with each run.
    """
    counts = {"labels": 0, "unlabeled": len(splits.train), "teacher_labels": 8 * TUNED}
    return trained.but(objective=None, pretraining=SMOLLM2, **counts)


ON_LABELS, ON_ANSWERS = Shared(LABELS), Then(Shared(TOP), taught)
"""Those that several records have."""


def in_short(
    arms: Mapping[str, Any], axes: Mapping[str, Any], splits: Callable[[int], Splits], **how: Any
) -> Comparison:
    """Two other seeds choose settings in an eighth of the steps."""
    tried = {name: grid(arm.but(steps=SHORT), **axes[name]) for name, arm in arms.items()}
    return experiments.compare(tried, splits, seeds=(5, 6), **how)


def in_full(short: Comparison, arms: Mapping[str, Any], splits: Callable[[int], Splits], **how: Any) -> Comparison:
    """Five seeds in the settings that were chosen."""
    chosen = {name: grid(arm, **short.setting(name)) for name, arm in arms.items()}
    return experiments.compare(chosen, splits, **how)
