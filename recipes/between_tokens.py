"""How far losses between tokenizers lead from a teacher, recorded: who is right already, and whom do they make right?

SmolLM2 is the teacher. Its students have other tokens, and are tables: at each place of a text, their logits. So one
that says exactly what the teacher says can be written down, and a loss is free to lead it anywhere.

What losses compute is what TRL 1.16.0 computes (``ULDLoss``, trl/experimental/gold/gold_trainer.py), which a test
compares: its default, ``uld_token_merge_strategy="observed"``, is GOLD here, ``"bayesian"`` is GOLD by the chain rule,
and ULD with ``use_extended_uld=False``.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from between_tokens_parts import PLACES, WINDOWS, Place, Student, Text, along, place, student
from torch import Tensor

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Comparison, Trained
from kdft_lib.losses import next_bytes, soft_target_loss
from kdft_lib.training import Ledger

Loss = Callable[[Tensor], Tensor]
"""Of a student's logits, before each of its tokens and behind the last, ``(S + 1, V)``."""
Maker = Callable[[Text, Student], Loss]

SMOLLM2 = "SmolLM2-135M-Instruct, 2 trillion tokens"
STEPS, MORE, RATE = 100, 400, 0.3
"""Of Adam, whose rate falls to 0; more, where it might be steps that are missing."""
BESIDE_LABELS = 1.5
"""How much ULD weighs beside cross-entropy in its authors' results, folders ``d1.5`` of their llm-distillation."""
SMALL = 1e-8
"""What GOLD takes for the least chance."""
ALL, LATER = slice(0, -1), slice(1, None)
"""The answers that losses reach, of those before each token and behind the last."""


# Losses ----------------------------------------------------------------------------------------------


def exact(reached: slice = ALL) -> Maker:
    """KL in the student's tokens, from all that the teacher may have said; of bytes, from all tokenizations. It is also
    what labels come to if the teacher draws them, each time others."""
    return lambda text, by: lambda logits: soft_target_loss(logits[reached], text.right[reached], 1.0)


def of_bytes(way: str) -> Maker:
    """KL of the next byte, by what the teacher was asked and along the student's own tokens."""

    def made(text: Text, by: Student) -> Loss:
        tokens, wanted = F.pad(text.spelled, (1, 0)), text.in_bytes[way][ALL]
        if max(map(len, by.vocabulary)) > 1:
            return lambda logits: soft_target_loss(next_bytes(logits, tokens, by.vocabulary).logits[ALL], wanted, 1.0)
        return lambda logits: soft_target_loss(logits[ALL], by.reordered(wanted), 1.0)

    return made


def uld(text: Text, by: Student) -> Loss:
    """Universal logit distillation (Boizard et al., 2025): chances, sorted, of the first token and the first, of the
    second and the second, as far as both go."""
    count = min(len(text.spelled), len(text.tokens))
    theirs = highest(text.teacher[:count].exp())
    return lambda logits: apart(logits[:count].softmax(-1), theirs)


def beside_labels(loss: Maker) -> Maker:
    """In the mean over all labels that the teacher may draw."""

    def made(text: Text, by: Student) -> Loss:
        labels, beside = exact()(text, by), loss(text, by)
        return lambda logits: labels(logits) + BESIDE_LABELS * beside(logits)

    return made


def gold(*, chain_rule: bool = False, matched: bool = False) -> Maker:
    """General online logit distillation, of spans of the text at whose ends both have the end of a token.

    By the chain rule a span has the chances of its last token, times those of the tokens before it. Else, as TRL does
    by default, all chances are those of one token later, and a span has the first one's. Where matched, tokens that
    both know are compared by a Jensen–Shannon divergence and the others alone as ULD does.
    """

    def made(text: Text, by: Student) -> Loss:
        sides = ALL if chain_rule else LATER
        spans = [groups(*text.ends), groups(*reversed(text.ends))]
        theirs = merged(text.teacher[sides].exp(), text.tokens, spans[0], chain_rule)
        ranked, numbers = highest(theirs), ((by.spelled >= 0).sum(1) == 1).nonzero().squeeze(1)
        pairs = by.spelled[numbers, 0], numbers

        def loss(logits: Tensor) -> Tensor:
            ours = merged(logits[sides].softmax(-1), text.spelled, spans[1], chain_rule)
            return of_both(ours, theirs, *pairs) if matched else apart(ours, ranked)

        return loss

    return made


def highest(chances: Tensor) -> Tensor:
    """First."""
    return chances.sort(-1, descending=True).values


def apart(chances: Tensor, ranked: Tensor) -> Tensor:
    """How far chances, ``(N, V)``, are from others that are sorted, ``(N, C)``, in the mean over places."""
    width = max(chances.shape[-1], ranked.shape[-1])
    ours, theirs = (F.pad(each, (0, width - each.shape[-1])) for each in (highest(chances), ranked))
    return (ours - theirs).abs().sum(-1).mean()


def groups(ends: list[int], others: list[int]) -> list[tuple[int, int]]:
    """The first and the last of the tokens between two bytes at which tokens of both sides end."""
    last = [place for place, end in enumerate(ends) if end in others]
    return [*zip([0, *(place + 1 for place in last[:-1])], last, strict=True)]


def merged(chances: Tensor, tokens: Tensor, spans: list[tuple[int, int]], chain_rule: bool) -> Tensor:
    """Of each span the chances of one token times those of the others: by the chain rule ``"bayesian"`` in TRL, else
    ``"observed"``.
    """
    found = []
    for first, last in spans:
        one, others = (last, range(first, last)) if chain_rule else (first, range(first + 1, last + 1))
        found.append(chances[one] * chances[[*others], tokens[[*others]]].clamp(min=SMALL).prod())
    return torch.stack(found)


def of_both(ours: Tensor, theirs: Tensor, own: Tensor, same: Tensor) -> Tensor:
    """TRL's hybrid: Jensen–Shannon over tokens that both sides have, by their numbers, beside the others apart; each
    weighs as much as there are such tokens among the teacher's."""
    first, second = ours[:, own].clamp(min=SMALL).log(), theirs[:, same].clamp(min=SMALL).log()
    middle = torch.logaddexp(first, second) - math.log(2)
    known = (first.exp() * (first - middle) + second.exp() * (second - middle)).sum(-1).mean() / 2
    share = len(same) / theirs.shape[-1]
    left, others = (
        chances[:, torch.ones(chances.shape[-1], dtype=torch.bool).index_fill(0, numbers, False)]
        for chances, numbers in ((ours, own), (theirs, same))
    )
    return share * known + ((1 - share) * apart(left, highest(others)) if left.numel() and others.numel() else 0)


BY_BYTES = "next bytes, of each beginning"
LONGER = f"{BY_BYTES}, {MORE} steps"
LOSSES: dict[str, Maker] = {
    "exactly": exact(),
    BY_BYTES: of_bytes("beginnings"),
    "next bytes, of the text": of_bytes("text"),
    "ULD": uld,
    "ULD beside labels": beside_labels(uld),
    "GOLD": gold(),
    "GOLD, chain rule": gold(chain_rule=True),
    "GOLD, chain rule, matched": gold(chain_rule=True, matched=True),
}


# Where they lead -------------------------------------------------------------------------------------


def expected(loss: Maker, at: Place, by: Student) -> Loss:
    """Over all that the teacher may say, of a table of a student's logits."""
    parts = [*zip(at.chances, (loss(text, by) for text in at.texts), at.rows, strict=True)]
    return lambda table: torch.stack([chance * part(table[rows]) for chance, part, rows in parts]).sum()


def led(loss: Loss, start: Tensor, steps: int) -> Tensor:
    """The table that a student ends with."""
    table = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], RATE)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(table).backward()
        optimizer.step()
        slower.step()
    return table.detach()


def direction(loss: Loss, at: Tensor) -> Tensor:
    """Of the gradient."""
    table = at.clone().requires_grad_()
    return torch.autograd.grad(loss(table), table)[0].flatten()


@dataclass(frozen=True)
class Follow:
    """A student that follows a loss, from where it is right and from where it knows how often each token comes."""

    kind: str
    name: str
    steps: int

    def train(self, splits: Splits, seed: int) -> Trained:
        at, by = place(self.kind, seed), student(self.kind)
        reached = {"GOLD": LATER, "ULD": slice(0, 1)}.get(self.name, ALL)
        loss, truth = expected(LOSSES[self.name], at, by), expected(exact(reached), at, by)
        common = by.often.expand_as(at.right)
        found = {
            "left by one who is right": beyond(led(loss, at.right, self.steps), at, reached),
            "left by one who is not": beyond(led(loss, common, self.steps), at, reached),
            "before": beyond(common, at, reached),
            "direction": float(F.cosine_similarity(direction(loss, common), direction(truth, common), dim=0)),
            "of the loss where it is right": float(loss(at.right) / loss(common)),
        }
        return Trained(found, Ledger(pretraining=SMOLLM2))


def beyond(table: Tensor, at: Place, reached: slice) -> float:
    """Bits that a student needs beyond the teacher's for a token of its own, of the places that a loss reaches."""
    spent = [
        float(soft_target_loss(table[rows[reached]], text.right[reached], 1.0, reduction="sum"))
        for rows, text in zip(at.rows, at.texts, strict=True)
    ]
    sizes = [len(text.right[reached]) for text in at.texts]
    return sum(map(operator.mul, at.chances, spent)) / sum(map(operator.mul, at.chances, sizes)) / math.log(2)


def minus_bits(trained: Trained, data: TensorData) -> float:
    """Beyond the teacher's, by one who was right before; the higher the better, as comparisons have it."""
    return -trained.model["left by one who is right"]


def of(name: str, trained: Trained, splits: Splits) -> float:
    return trained.model[name]


def nothing(seed: int) -> Splits:
    """A place of the text is all that a student sees, and the seed is its number."""
    none = TensorData(torch.tensor([seed]))
    return Splits(none, none, none, none)


@dataclass(frozen=True)
class Read:
    """What the teacher says of a text's bytes, by one way to know it."""

    way: str

    def train(self, splits: Splits, seed: int) -> Trained:
        return Trained(along(seed)[self.way], Ledger(pretraining=SMOLLM2))


def minus_bits_of_text(trained: Trained, data: TensorData) -> float:
    """A byte."""
    return -trained.model["bits"]


def read() -> dict[str, Comparison]:
    """The exact answer and shortcuts to it, over places of the text as its author wrote it."""
    shortcuts = ("of each beginning", "of the text")
    return {
        "along the text": experiments.compare(
            {way: Read(way) for way in ("exactly", *shortcuts)}, nothing, seeds=range(WINDOWS),
            contrasts=[(way, "exactly") for way in shortcuts], score=minus_bits_of_text,
            measures={name: functools.partial(of, name) for name in ("apart", "in tokens")},
        )
    }  # fmt: skip


def led_by_losses() -> dict[str, Comparison]:
    """Students of either kind, over places of the text."""
    names = ("left by one who is not", "before", "direction", "of the loss where it is right")
    return {
        kind: experiments.compare(
            {name: Follow(kind, name, STEPS) for name in LOSSES} | {LONGER: Follow(kind, BY_BYTES, MORE)},
            nothing, seeds=range(places),
            contrasts=[(name, "exactly") for name in LOSSES if name != "exactly"], score=minus_bits,
            measures={name: functools.partial(of, name) for name in names},
        )
        for kind, places in PLACES.items()
    }  # fmt: skip


def all_of_it() -> dict[str, Comparison]:
    return read() | led_by_losses()


EXPERIMENTS = {"between-tokens": all_of_it}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
