"""What a student of the recipe of a language model of one's own size is worth as a draft: how much of what it proposes
the teacher would accept, how fast both write together, and what to train it on.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from own_size_counts import AsWriter, Counted, TokenNGram
from own_size_files import Shared, kept_numbers
from own_size_lessons import KEPT, LABELS, RATE, RATES, STEPS, TOP, in_full, in_short, taught
from own_size_parts import Head, bits, cut, heard, rows, said, teacher, text, whole
from own_size_written import goes_on
from torch import Tensor, nn

from kdft_lib import experiments, losses, models
from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.experiments import Comparison, Then, Trained, grid
from kdft_lib.objectives import GKD
from kdft_lib.teachers import Teacher

DRAFTED = (1, 2, 4, 8)
"""Tokens a round, of which the fastest is taken on two beginnings of validation, each continued half as far."""
BEGINNINGS, BEGUN, CONTINUED = 4, 32, 64
"""So many texts of the test are begun with so many tokens, and continued by so many."""
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


# Writing ----------------------------------------------------------------------------------------------


@functools.cache
def writer(who: str) -> tuple[Any, Any]:
    """Who writes, and how the drafts read its tokens: the tuned teacher, which has theirs, or SmolLM2 as it came."""
    if who == "teacher":
        return teacher(), None
    return whole()[0], models.spellings(whole()[1], cut().tokenizer)


@functools.cache
def beginnings(part: str, who: str) -> list[Tensor]:
    """Of texts from all over a part, in the writer's tokens."""
    tokens = rows(part).inputs["input_ids"][:, :BEGUN]
    tokens = tokens[torch.linspace(0, len(tokens) - 1, BEGINNINGS).long()]
    if who == "teacher":
        return [*tokens.split(1)]
    said = cut().tokenizer.batch_decode(tokens)
    return [whole()[1](one, add_special_tokens=False, return_tensors="pt")["input_ids"] for one in said]


def timed(call: Callable[..., Any], *given: Any, **more: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return call(*given, **more), time.perf_counter() - started


def paces(draft: nn.Module, who: str, temperature: float) -> dict[str, float]:
    """A writer continues the beginnings with the draft and alone, in turn, each in a bare loop."""
    model, spelled = writer(who)

    def chance() -> dict[str, Any]:
        return {"temperature": temperature, "generator": torch.Generator().manual_seed(0)}

    def together(prompt: Tensor, most: int, length: int = CONTINUED) -> tuple[models.Speculated, float]:
        write = models.speculative_sample
        return timed(write, model, draft, prompt, length, draft_tokens=most, spelled=spelled, **chance())

    few = beginnings("val", who)[:2]
    spent = {most: sum(together(prompt, most, CONTINUED // 2)[1] for prompt in few) for most in DRAFTED}
    most = min(spent, key=spent.__getitem__)
    pairs = [
        (*timed(goes_on, model, prompt, CONTINUED, **chance()), *together(prompt, most))
        for prompt in beginnings("test", who)
    ]
    texts, alone, found, with_draft = zip(*pairs, strict=True)
    tokens = CONTINUED * len(texts)
    same = [torch.equal(one.text, text) for one, (text, _) in zip(found, texts, strict=True)]
    return {
        "tokens a second": tokens / sum(with_draft),
        "tokens a second alone": tokens / sum(alone),
        "accepted": sum(one.accepted for one in found) / sum(one.checked for one in found),
        "tokens a call": tokens / sum(one.calls for one in found),
        "tokens drafted": float(most),
    } | ({} if temperature else {"the same text": sum(same) / len(same)})


@functools.lru_cache(maxsize=1)
def written(draft: nn.Module) -> dict[str, float]:
    """What the teacher needs, drawing, and SmolLM2, greedily."""

    if isinstance(draft, TokenNGram):
        draft = AsWriter(draft)

    def measured() -> dict[str, float]:
        found = {how: paces(draft, who, temperature) for how, (who, temperature) in WRITING.items()}
        return {f"{name}, {how}": value for how, values in found.items() for name, value in values.items()}

    mark = Teacher(draft).fingerprint()[:20]
    return kept_numbers(f"paces/{mark}", measured, how=(WRITING, DRAFTED, BEGINNINGS, BEGUN, CONTINUED))


def of_writing(name: str, trained: Trained, splits: Splits) -> float:
    return written(trained.model)[name]


WRITING = {"teacher": ("teacher", 1.0), "SmolLM2, greedily": ("SmolLM2", 0.0)}
OF_WRITING = ("tokens a second", "tokens a second alone", "accepted", "tokens a call", "tokens drafted")
"""What is accepted is of the tokens that came up for a decision. Greedily, it must be the same text."""
ON_TEXT = {"agreement": agreement, "bits per byte": bits_per_byte}
MEASURES = ON_TEXT | {
    f"{name}, {how}": functools.partial(of_writing, f"{name}, {how}")
    for how, (_, temperature) in WRITING.items()
    for name in (*OF_WRITING, *(() if temperature else ("the same text",)))
}


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
    probable, as it does at first; so here it comes after forward KL, each for half of the steps, in half of the rows.
    """

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
        return VARIATION.but(start=TOP.but(**first), **second).train(splits, seed)


def learned(arms: dict[str, Any], contrasts: list[tuple[str, str]]) -> dict[str, Comparison]:
    """The same student as a draft for its teacher: what it learns from, at equal steps, and what that is worth."""
    how: dict[str, Any] = {"reference": "forward KL", "score": expected_acceptance, "equal_budgets": False}
    short = in_short(arms, {name: {"lr": STEADY} for name in arms}, scored, **how)
    found = in_full(short, arms, scored, contrasts=contrasts, measures=MEASURES, **how)
    return {"half a million tokens, tried": short, "half a million tokens": found}


LABELED, ANSWERED = Shared(LABELS.but(steps=HALF)), Then(Shared(FORWARD), taught)
VARIED = Then(Shared(VARIATION), taught)


def drafts() -> dict[str, Comparison]:
    """Labels and three divergences from what the teacher says, and an n-gram, which has no chance in it."""
    arms = {
        "labels": LABELED,
        "forward KL": ANSWERED,
        "reverse KL": Then(Shared(REVERSE), taught),
        "total variation": VARIED,
    }
    found = learned(arms, [(name, "forward KL") for name in arms if name != "forward KL"])
    counts = {"n-gram": grid(Counted, order=(2, 3, 4), discount=(0.75, 0.9))}
    counted = experiments.compare(counts, scored, seeds=range(2), score=expected_acceptance, measures=MEASURES)
    return found | {"counted": counted}


def variations() -> dict[str, Comparison]:
    """Two more ways to learn by total variation: over all tokens, and after forward KL."""
    arms = {
        "forward KL": ANSWERED,
        "total variation": VARIED,
        "total variation, all tokens": Then(Shared(OVER_ALL), taught),
        "forward KL, then total variation": Then(Shared(InTurn()), taught),
    }
    contrasts = [("total variation, all tokens", "total variation"), ("forward KL, then total variation", "forward KL")]
    return learned(arms, contrasts)


RECORDS = {"own-size-draft": drafts, "own-size-variations": variations}
