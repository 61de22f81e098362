"""What a student of the recipe of a language model of one's own size is worth as a draft: how much of what it proposes
the teacher would accept, and what to train it on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from own_size_counts import Counted
from own_size_files import Shared
from own_size_lessons import KEPT, LABELS, RATE, RATES, STEPS, TOP, in_full, in_short, taught
from own_size_parts import Head, bits, heard, rows, said, teacher, text
from torch import Tensor, nn

from kdft_lib import experiments, losses, models
from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.experiments import Comparison, Then, Trained, grid
from kdft_lib.objectives import GKD

STEADY = RATES[:2]
"""The rates that are tried. At the highest, labels were unsteady in all steps, which an eighth of them did not show."""
HALF = STEPS // 2
"""Steps of a draft, which reads every second row once."""


@functools.cache
def scored(seed: int = 0) -> Splits:
    """Half of the text; where it is scored, with what goes into the teacher's last layer."""
    return text()._replace(train=rows("half"), val=heard("val"), test=heard("test"))


@functools.lru_cache(maxsize=1)
def beside(model: nn.Module, data: TensorData) -> tuple[float, float]:
    """Over all places, how far the next token's two distributions overlap, and how often their highest is the same."""
    head, found = Head(teacher()), []
    with models.evaluation_mode(model):
        for batch in data.batches(8):
            ours, theirs = models.logits(model, batch["inputs"]), head(batch["teacher_logits"])
            overlap = 1 - losses.total_variation_loss(ours, theirs, reduction="none")
            found.append(torch.stack([overlap, (ours.argmax(-1) == theirs.argmax(-1)).float()], -1)[batch["mask"]])
    overlap, alike = torch.cat(found).double().mean(0).tolist()
    return overlap, alike


def expected_acceptance(trained: Trained, data: TensorData) -> float:
    """Of tokens drawn from the draft behind real text, the share that the teacher accepts at temperature 1."""
    return beside(trained.model, data)[0]


def agreement(trained: Trained, splits: Splits) -> float:
    """The same at temperature 0."""
    return beside(trained.model, splits.test)[1]


def bits_per_byte(trained: Trained, splits: Splits) -> float:
    return bits(trained, splits.test)


ON_TEXT = {"agreement": agreement, "bits per byte": bits_per_byte}


# What to train it on ----------------------------------------------------------------------------------


def half_said(splits: Splits) -> TensorData:
    """The text with what the teacher says."""
    return said(KEPT, "bucket", "half")


FORWARD = TOP.but(steps=HALF, train_data=half_said)
REVERSE, VARIATION = (
    FORWARD.but(objective=functools.partial(GKD, None, divergence=kind, on_policy=0.0))
    for kind in ("reverse_kl", "total_variation")
)


def last(states: Tensor) -> Tensor:
    """What the teacher says, from what goes into its last layer."""
    with torch.no_grad():
        return Head(teacher())(states)


class Whole(GKD):
    """A divergence of whole distributions. Answers that come with the data are what goes into the teacher's last
    layer.
    """

    def __init__(self, teacher: Any, divergence: str, **how: Any):
        super().__init__(teacher, divergence=divergence, end=None, **how)  # type: ignore[arg-type]

    def said(self, answers: Any) -> Any:
        return last(answers) if self.teacher is None else answers

    def divergence(self, student_logits: Tensor, teacher_logits: Any, batch: Batch) -> Tensor:
        return super().divergence(student_logits, self.said(teacher_logits), batch)


def all_said(splits: Splits) -> TensorData:
    return heard("half")


OVER_ALL = FORWARD.but(objective=functools.partial(Whole, None, "total_variation", on_policy=0.0), train_data=all_said)
"""What is outside of the 32 likeliest tokens is not one class of its own."""


def some(places: Tensor, splits: Splits) -> TensorData:
    """Rows of the text with what the teacher says."""
    return half_said(splits)[places]


@dataclass(frozen=True)
class InTurn:
    """Total variation is what counts, and teaches little where a student finds improbable what its teacher finds
    probable, as it does at first; so here it comes after forward KL, each for half of the steps, in half of the rows,
    with a schedule of its own. With forward KL in both halves it shows what the two schedules alone do.
    """

    second: Any
    lr: float = RATE
    steps: int = HALF

    def but(self, **changes: Any) -> InTurn:
        return dataclasses.replace(self, **changes)

    def train(self, splits: Splits, seed: int) -> Trained:
        order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
        first, second = (
            {"lr": self.lr, "steps": self.steps // 2, "train_data": functools.partial(some, places)}
            for places in order.chunk(2)
        )
        return self.second.but(start=FORWARD.but(**first), **second).train(splits, seed)


ARMS: dict[str, Any] = {
    "labels": Shared(LABELS.but(steps=HALF)),
    "forward KL": Then(Shared(FORWARD), taught),
    "reverse KL": Then(Shared(REVERSE), taught),
    "total variation": Then(Shared(VARIATION), taught),
}
MORE: dict[str, Any] = {
    "total variation, all tokens": Then(Shared(OVER_ALL), taught),
    "forward KL, then total variation": Then(Shared(InTurn(VARIATION)), taught),
    "forward KL, twice": Then(Shared(InTurn(FORWARD)), taught),
}
COUNTS = grid(Counted, order=(2, 3, 4), discount=(0.75, 0.9))
HOW: dict[str, Any] = {"score": expected_acceptance, "equal_budgets": False}


def tried(arms: Mapping[str, Any]) -> Comparison:
    """Two other seeds choose each arm's rate in a quarter of the steps."""
    return in_short(arms, {name: {"lr": STEADY} for name in arms}, scored, **HOW)


def learned(arms: Mapping[str, Any], contrasts: list[tuple[str, str]]) -> dict[str, Comparison]:
    """The same student as a draft for its teacher: what it learns from, at equal steps, and what that is worth."""
    short = tried(arms)
    found = in_full(short, arms, scored, reference="forward KL", contrasts=contrasts, measures=ON_TEXT, **HOW)
    return {"half a million tokens, tried": short, "half a million tokens": found}


def drafts() -> dict[str, Comparison]:
    """Labels and three divergences from what the teacher says, and an n-gram, which has no chance in it."""
    found = learned(ARMS, [(name, "forward KL") for name in ARMS if name != "forward KL"])
    counted = experiments.compare({"n-gram": COUNTS}, scored, seeds=range(2), measures=ON_TEXT, **HOW)
    return found | {"counted": counted}


def variations() -> dict[str, Comparison]:
    """Two more ways to learn by total variation: over all tokens, and after forward KL."""
    arms = {name: ARMS[name] for name in ("forward KL", "total variation")} | MORE
    contrasts = [("total variation, all tokens", "total variation")]
    contrasts.append(("forward KL, then total variation", "forward KL, twice"))
    return learned(arms, contrasts)


RECORDS = {"own-size-draft": drafts, "own-size-variations": variations}
