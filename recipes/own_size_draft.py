"""What a student of the recipe of a language model of one's own size is worth as a draft: how much of what it proposes
the teacher would accept, and what to train it on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from own_size_counts import Counted
from own_size_files import Shared
from own_size_lessons import CUT, KEPT, LABELS, RATES, STEPS, TOP, in_full, in_short, taught
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


def merged(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far two distributions overlap where all but the teacher's 32 likeliest tokens count as one."""
    places = theirs.topk(KEPT).indices
    q, p = (logits.softmax(-1).gather(-1, places) for logits in (ours, theirs))
    return torch.minimum(p, q).sum(-1) + torch.minimum(1 - p.sum(-1), 1 - q.sum(-1))


@functools.lru_cache(maxsize=1)
def beside(model: nn.Module, data: TensorData) -> dict[str, float]:
    """Over all places, how far the next token's two distributions overlap, and how often their highest is the same."""
    head, found = Head(teacher()), []
    with models.evaluation_mode(model):
        for batch in data.batches(8):
            ours, theirs = models.logits(model, batch["inputs"]), head(batch["teacher_logits"])
            overlap = 1 - losses.total_variation_loss(ours, theirs, reduction="none")
            alike = (ours.argmax(-1) == theirs.argmax(-1)).float()
            found.append(torch.stack([overlap, alike, merged(ours, theirs)], -1)[batch["mask"]])
    return dict(zip(("overlap", "agreement", "merged"), torch.cat(found).double().mean(0).tolist(), strict=True))


def expected_acceptance(trained: Trained, data: TensorData) -> float:
    """Of tokens drawn from the draft behind real text, the share that the teacher accepts at temperature 1."""
    return beside(trained.model, data)["overlap"]


def agreement(trained: Trained, splits: Splits) -> float:
    """The same at temperature 0."""
    return beside(trained.model, splits.test)["agreement"]


def overlap_merged(trained: Trained, splits: Splits) -> float:
    """What a lesson in which all but 32 tokens are one class sees of the overlap."""
    return beside(trained.model, splits.test)["merged"]


def bits_per_byte(trained: Trained, splits: Splits) -> float:
    return bits(trained, splits.test)


ON_TEXT = {"agreement": agreement, "overlap, 32 and the rest": overlap_merged, "bits per byte": bits_per_byte}


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


FORWARD_ALL, REVERSE_ALL, VARIATION_ALL = (
    FORWARD.but(objective=functools.partial(Whole, None, kind, on_policy=0.0), train_data=all_said)
    for kind in ("forward_kl", "reverse_kl", "total_variation")
)
"""What is outside of the 32 likeliest tokens is not one class of its own."""


BEST = "total variation, all tokens"
ARMS: dict[str, Any] = {
    "labels": Shared(LABELS.but(steps=HALF)),
    "forward KL": Then(Shared(FORWARD), taught),
    "reverse KL": Then(Shared(REVERSE), taught),
    "total variation": Then(Shared(VARIATION), taught),
    "forward KL, all tokens": Then(Shared(FORWARD_ALL), taught),
    "reverse KL, all tokens": Then(Shared(REVERSE_ALL), taught),
    BEST: Then(Shared(VARIATION_ALL), taught),
    f"{BEST}, cut from the teacher": Then(Shared(VARIATION_ALL.but(**CUT)), taught),
}
CONTRASTS = [(name, "forward KL") for name in ("labels", "reverse KL", "total variation")]
CONTRASTS += [(f"{name}, all tokens", name) for name in ("forward KL", "reverse KL", "total variation")]
CONTRASTS += [(f"{name}, all tokens", "forward KL, all tokens") for name in ("reverse KL", "total variation")]
CONTRASTS.append((f"{BEST}, cut from the teacher", BEST))
COUNTS = grid(Counted, order=(2, 3, 4), discount=(0.75, 0.9))
HOW: dict[str, Any] = {"score": expected_acceptance, "equal_budgets": False}


def tried(arms: Mapping[str, Any]) -> Comparison:
    """Two other seeds choose each arm's rate in a quarter of the steps."""
    return in_short(arms, {name: {"lr": STEADY} for name in arms}, scored, **HOW)


def drafts() -> dict[str, Comparison]:
    """The same student as a draft for its teacher: labels, three divergences from some or from all of what the teacher
    says, and another start, at equal steps; and an n-gram, which has no chance in it.
    """
    short = tried(ARMS)
    how: dict[str, Any] = {"reference": "forward KL", "contrasts": CONTRASTS, "measures": ON_TEXT, **HOW}
    found = in_full(short, ARMS, scored, **how)
    counted = experiments.compare({"n-gram": COUNTS}, scored, seeds=range(2), measures=ON_TEXT, **HOW)
    return {"half a million tokens, tried": short, "half a million tokens": found, "counted": counted}


RECORDS = {"own-size-draft": drafts}
