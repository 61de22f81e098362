"""Fewer bits, recorded: the student of chapter 04 in 8, 4 and 2 bits, rounded after its training or during it, on
labels or with a teacher, at equal steps.

Weights alone are rounded, those of the convolutions and of the head, each channel of the output with a scale of its
own, to whole numbers as far to the left of 0 as to the right: in 2 bits to -1, 0 and 1, the fourth pattern unused. What
flows between the layers stays as it was. torchao 0.18 rounds linear layers and embeddings during training and
no convolutions, so it is written out here.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from patience import the_same_view
from shared import Answered, shop, student, views
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import update_bn

from kdft_lib.data import Splits
from kdft_lib.experiments import (
    Candidate,
    Comparison,
    Given,
    Measure,
    Method,
    Once,
    Recipe,
    Then,
    Trained,
    compare,
    grid,
    record_all,
)
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

TEACHER = fashion_teacher()
BITS = (8, 4, 2)
RATES = (0.03, 0.1, 0.3)
SHARES = torch.linspace(0.3, 1.0, 15)
"""Of a channel's largest weight: how far its whole numbers may reach. What is beyond is cut."""

FIRST = Recipe(student, Supervised, FullFineTuning(lr=0.1, weight_decay=0.1), steps=400, augment=views(1))
LABELS, OWN, TAUGHT = "labels", "own teacher", "teacher"
KINDS = (LABELS, OWN, TAUGHT)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """Whole numbers times a scale for each channel: of the scales that are tried, the one that comes nearest."""
    most, flat = 2 ** (bits - 1) - 1, weight.flatten(1)
    widest = flat.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
    scales = SHARES[:, None, None] * widest / most
    tried = (flat / scales).round().clamp(-most, most) * scales
    nearest = (tried - flat).square().sum(dim=-1).argmin(dim=0)
    return tried[nearest, torch.arange(len(flat))].view_as(weight)


class Rounded(nn.Module):
    """A layer's weight, rounded on the way forward; on the way back, as if it were not: a straight-through gradient
    (Bengio et al., 2013).
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (rounded(weight.detach(), self.bits) - weight).detach()


def in_bits(bits: int, model: nn.Module) -> nn.Module:
    """The model, whose layers see rounded weights from now on."""
    for layer in (each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear)):
        parametrize.register_parametrization(layer, "weight", Rounded(bits))
    return model


def afterwards(bits: int, renewed: bool, trained: Trained, splits: Splits, seed: int) -> Trained:
    """Rounded when the training is over; batch normalisation may have its statistics renewed, which takes no labels."""
    model = in_bits(bits, copy.deepcopy(trained.model))
    if renewed:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            update_bn(map(views(1), splits.train.inputs.split(200)), model)
    return trained.but(model=model)


def packed(bits: int, trained: Trained, _: Splits) -> float:
    """Bytes: the bits of each weight side by side, a scale for each channel and everything else in float32."""
    numbers = trained.model.state_dict()
    weights = [each for name, each in numbers.items() if name.endswith("parametrizations.weight.original")]
    others = sum(each.numel() for each in numbers.values() if each.is_floating_point())
    others -= sum(each.numel() for each in weights)
    return sum(math.ceil(bits * each.numel() / 8) + 4 * len(each) for each in weights) + 4 * others


def few_bits(steps: int = 800) -> dict[str, Comparison]:
    """400 steps on labels in float32 for all, then so many more: with float weights, which are rounded afterwards, or
    with rounded ones; on labels, with the answers of the float network that the labels made, or with those of the
    shipped teacher, always to the same views. Three rates for each; each is rounded before one is chosen.
    """
    in_turn = functools.partial(compare, splits=shop, choose="each seed")
    start = in_turn({"start": grid(FIRST, lr=(0.1, 0.3))}).source("start")
    more = FIRST.but(start=start, steps=steps)
    on_labels = grid(Once(more), lr=RATES)
    teachers = {OWN: in_turn({LABELS: on_labels}).source(LABELS), TAUGHT: TEACHER}
    answered = {kind: Answered(teacher, the_same_view) for kind, teacher in teachers.items()}

    def lesson(kind: str, change: Callable[[nn.Module], nn.Module] | None = None) -> Method:
        if kind == LABELS:
            return more.but(change=change)
        return Given(more.but(augment=None, change=change).taught_by(teachers[kind], SoftTargets), answered[kind])

    floats = {LABELS: on_labels} | {kind: grid(Once(lesson(kind)), lr=RATES) for kind in (OWN, TAUGHT)}
    asked = [(OWN, LABELS), (TAUGHT, LABELS)]
    made = {
        "float": in_turn(floats, reference=LABELS, contrasts=asked, measures={"bytes": functools.partial(packed, 32)})
    }
    for bits in BITS:
        after = {kind: f"{kind}, rounded after" for kind in KINDS}
        during = {kind: f"{kind}, rounded during" for kind in KINDS}
        methods: dict[str, Any] = {}
        for kind in KINDS:
            for name, renewed in ((after[kind], False), (f"{after[kind]}, statistics renewed", True)):
                change = functools.partial(afterwards, bits, renewed)
                methods[name] = [Candidate(Then(each.method, change), each.setting) for each in floats[kind]]
            methods[during[kind]] = grid(lesson(kind, functools.partial(in_bits, bits)), lr=RATES)
        asked = [(during[kind], f"{after[kind]}, statistics renewed") for kind in KINDS]
        asked += [(during[kind], during[LABELS]) for kind in (OWN, TAUGHT)]
        measures: dict[str, Measure] = {"bytes": functools.partial(packed, bits)}
        made[f"{bits} bits"] = in_turn(methods, reference=after[LABELS], contrasts=asked, measures=measures, keep=False)
    return made


EXPERIMENTS = {"few-bits": few_bits}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
