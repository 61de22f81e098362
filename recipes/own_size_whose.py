"""Whose text should a student of the recipe of a language model of one's own size read, and how much of each place must
its teacher say? What one drawn token says of a divergence, and how loud its noise is.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from own_size_draft import ARMS, FORWARD, Whole, bits_per_byte, expected_acceptance, last, scored, tried
from own_size_files import Shared, kept, kept_numbers
from own_size_lessons import BATCH, taught
from own_size_parts import LENGTH, ROWS, Body, asked, everything, heard, rows, spread, teacher
from own_size_written import PROMPT, begun, behind_beginnings, continued, in_rows, written
from torch import Tensor, nn

from kdft_lib import experiments, losses, models
from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.experiments import Comparison, Then, Trained
from kdft_lib.teachers import Teacher

MORE, MORE_RATE = 32, 0.001
"""Steps, on eight texts each, after half a million tokens of forward KL; the rate is untried, and the same for all."""
HELD, FEW = 48, 16
"""So many texts the teacher writes for the test, and each student, to be measured on."""


class Drawn(Whole):
    """Reverse KL by one token drawn from the student at each place.

    With :math:`a = \\log q(x) - \\log p(x)` of the token drawn, k1 is a, and k3 is :math:`e^{-a} - 1 + a`; the mean of
    both is the reverse KL. As a loss, k1 pulls nowhere on average; as a reward, which takes no gradient, towards where
    the reverse KL does; k3 as a loss pulls to where the forward KL does.
    """

    def __init__(self, teacher: Any, by: str, **how: Any):
        super().__init__(teacher, "reverse_kl", **how)
        self.by = by

    def divergence(self, student_logits: Tensor, teacher_logits: Any, batch: Batch) -> Tensor:
        own, theirs = (logits.float().log_softmax(-1) for logits in (student_logits, self.said(teacher_logits)))
        token = torch.multinomial(own.detach().exp().flatten(0, -2), 1).view(*own.shape[:-1], 1)
        own, theirs = own.gather(-1, token).squeeze(-1), theirs.gather(-1, token).squeeze(-1)
        apart = own - theirs
        return apart.detach() * own if self.by == "k1" else (-apart).exp() - 1 + apart


def from_data(divergence: str) -> Whole:
    return Whole(None, divergence, on_policy=0.0)


def on_own_text(by: str) -> Whole:
    """The student goes on with each beginning, and the teacher says what it would have: all of it, or of one token."""
    how: dict[str, Any] = {"on_policy": 1.0}
    return Whole(teacher(), "reverse_kl", **how) if by == "all" else Drawn(teacher(), by, **how)


# Whose text -------------------------------------------------------------------------------------------


@functools.cache
def which() -> Tensor:
    """Some of the beginnings that the teacher went on with, of rows that a draft has read."""
    read = (begun() % 2 == 0).nonzero().squeeze(1)
    return read[torch.randperm(len(read), generator=torch.Generator().manual_seed(0))][: MORE * BATCH]


@functools.cache
def unread() -> TensorData:
    """What authors wrote and neither a student has read nor the teacher in its tuning, with what goes into its last
    layer.
    """
    whole = everything("train")
    left = torch.ones(len(whole), dtype=torch.bool)
    left[spread(len(whole), ROWS["train"])] = False
    data = whole[left.nonzero().squeeze(1)]
    return asked(Body(teacher()), data[spread(len(data), MORE * BATCH)], "states-unread")


def new(splits: Splits) -> TensorData:
    """Behind beginnings of its own."""
    return behind_beginnings(unread())


def given(splits: Splits) -> TensorData:
    """What authors wrote behind the beginnings, which has been read once."""
    return behind_beginnings(asked(Body(teacher()), rows("train")[begun()[which()]], "states-given"))


def beginnings(splits: Splits) -> TensorData:
    """The same, of which the student sees no more than the beginnings."""
    return behind_beginnings(rows("train")[begun()[which()]])


@functools.cache
def teachers() -> TensorData:
    """What the teacher wrote behind them, with what goes into its last layer."""
    return asked(Body(teacher()), behind_beginnings(in_rows(written()[0][which()])), "states-written")


def by_teacher(splits: Splits) -> TensorData:
    return teachers()


def unseen_beginnings(count: int) -> Tensor:
    """Of novels that nobody learns from."""
    tokens = rows("test").inputs["input_ids"]
    return tokens[spread(len(tokens), count), :PROMPT]


@functools.cache
def held_back() -> TensorData:
    """What the teacher writes behind these, with what goes into its last layer."""
    prompts, length = unseen_beginnings(HELD), LENGTH + 1 - PROMPT
    made_of = {"teacher": Teacher(teacher()).fingerprint(), "prompts": TensorData(prompts).fingerprint()}
    make = functools.partial(continued, prompts, length, seed=1000)
    texts = kept("written-held", make, length=length, **made_of)["texts"]
    return asked(Body(teacher()), behind_beginnings(in_rows(texts)), "states-held")


@functools.cache
def read_by_drafts(seed: int = 0) -> Splits:
    """The test is what a draft reads: what the teacher wrote."""
    val = heard("val")
    return scored(seed)._replace(val=val[spread(len(val), FEW)], test=held_back())


# What is measured -------------------------------------------------------------------------------------


def noise(ours: Tensor, theirs: Tensor) -> dict[str, Tensor]:
    """Of each place, from both whole distributions ``(N, C)`` and without drawing: the KL from student to teacher; the
    variance of one token's k1 and k3; and of the slopes that one token gives the student's logits, how large the mean
    is and how large the deviations from it are, both squared.
    """
    own, other = (logits.double().log_softmax(-1) for logits in (ours, theirs))
    q, apart = own.exp(), own - other
    kl, ratio = (q * apart).sum(-1, keepdim=True), (-apart).exp()
    found = {"kl": kl.squeeze(-1)}
    for name, value in (("k1", apart), ("k3", ratio - 1 + apart)):
        found[f"{name}, variance"] = (q * (value - kl).square()).sum(-1)
    squares = 1 - 2 * q + q.square().sum(-1, keepdim=True)  # Of a token's slope, which is 1 there less q.
    slopes = {}
    for name, factor in (("reward", apart), ("reward less KL", apart - kl), ("k3", 1 - ratio)):
        slopes[name] = q * (factor - (q * factor).sum(-1, keepdim=True))
        found[f"{name}, mean"] = slopes[name].square().sum(-1)
        found[f"{name}, noise"] = (q * factor.square() * squares).sum(-1) - found[f"{name}, mean"]
    found["product"] = (slopes["reward"] * slopes["k3"]).sum(-1)
    return found


def places(model: nn.Module, data: TensorData) -> Iterator[tuple[Tensor, Tensor]]:
    """What student and teacher say at the places that count, of a few rows at a time."""
    with models.evaluation_mode(model):
        for batch in data.batches(4):
            states = batch.get("teacher_logits")
            theirs = models.logits(teacher(), batch["inputs"]) if states is None else last(states)
            yield models.logits(model, batch["inputs"])[batch["mask"]], theirs[batch["mask"]]


def own_texts(model: nn.Module, seed: int) -> TensorData:
    """Test novels' beginnings, continued by the student."""
    chance, length = torch.Generator().manual_seed(seed), LENGTH + 1 - PROMPT
    return behind_beginnings(in_rows(models.sample(model, unseen_beginnings(FEW), length, generator=chance)))


@functools.lru_cache(maxsize=1)
def measured(model: nn.Module, seed: int) -> dict[str, float]:
    """How far it is from its teacher on each kind of text, and what one token would tell of that on its own."""
    mark = Teacher(model).fingerprint()[:20]
    return kept_numbers(f"distances/{mark}", functools.partial(distances, model, seed), how=(FEW, HELD, seed))


def distances(model: nn.Module, seed: int) -> dict[str, float]:
    """The same, computed."""
    texts = {"real text": heard("test")[::4], "teacher's text": held_back(), "own text": own_texts(model, seed)}
    found: dict[str, float] = {}
    for where, data in texts.items():
        parts: dict[str, list[Tensor]] = {}
        for ours, theirs in places(model, data):
            row = {"overlap": 1 - losses.total_variation_loss(ours, theirs, reduction="none")}
            row["reverse KL"] = losses.reverse_kl_loss(ours, theirs, reduction="none")
            if where == "own text":
                pieces = [noise(*some) for some in zip(ours.split(256), theirs.split(256), strict=True)]
                row |= {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
            for name, values in row.items():
                parts.setdefault(name, []).append(values.double())
        mean = {name: torch.cat(values).mean().item() for name, values in parts.items()}
        found |= {f"{name}, {where}": mean[name] for name in ("overlap", "reverse KL")}
    found |= {f"{name}, deviation": mean[f"{name}, variance"] ** 0.5 / mean["kl"] for name in ("k1", "k3")}
    for name in ("reward", "reward less KL", "k3"):
        found[f"{name}, noise"] = (mean[f"{name}, noise"] / mean[f"{name}, mean"]) ** 0.5
    return found | {"k3 along reverse KL": mean["product"] / (mean["reward, mean"] * mean["k3, mean"]) ** 0.5}


def measure(name: str, trained: Trained, splits: Splits) -> float:
    assert trained.seed is not None
    return measured(trained.model, trained.seed)[name]


MEASURED = (
    "overlap, real text", "overlap, own text", "reverse KL, real text", "reverse KL, teacher's text",
    "reverse KL, own text", "k1, deviation", "k3, deviation", "reward, noise", "reward less KL, noise", "k3, noise",
    "k3 along reverse KL",
)  # fmt: skip


def on_novels(trained: Trained, splits: Splits) -> float:
    return bits_per_byte(trained, scored())


def whose() -> dict[str, Comparison]:
    """A few steps more, on whose text, and by how much of what the teacher says."""
    chosen = tried({"forward KL": ARMS["forward KL"]})
    before = Shared(FORWARD.but(**chosen.setting("forward KL")))
    more = FORWARD.but(start=before, steps=MORE, lr=MORE_RATE)
    forward, reverse = (more.but(objective=functools.partial(from_data, kind)) for kind in ("forward_kl", "reverse_kl"))
    own = {
        by: more.but(objective=functools.partial(on_own_text, by), train_data=beginnings) for by in ("all", "k1", "k3")
    }
    arms: dict[str, Any] = {
        "before": before,
        "given text, forward KL": forward.but(train_data=given),
        "given text": reverse.but(train_data=given),
        "new text": reverse.but(train_data=new),
        "teacher's text": reverse.but(train_data=by_teacher),
        "own text": own["all"],
        "own text, one token": own["k1"],
        "own text, k3": own["k3"],
    }
    contrasts = [("given text", "given text, forward KL"), ("teacher's text", "new text"), ("own text", "new text")]
    contrasts += [("own text, one token", "own text"), ("own text, k3", "own text")]
    measures = {"bits per byte": on_novels} | {name: functools.partial(measure, name) for name in MEASURED}
    made = experiments.compare(
        {name: Shared(Then(arm, taught)) for name, arm in arms.items()}, read_by_drafts, reference="before",
        contrasts=contrasts, score=expected_acceptance, measures=measures, equal_budgets=False,
    )  # fmt: skip
    return {f"{MORE} steps more": made}


RECORDS = {"own-size-whose": whose}
