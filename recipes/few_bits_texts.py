"""MiniLM's linear layers in 4 bits, recorded: rounded after fine-tuning or during it, on labels or with a teacher."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from few_bits import afterwards, packed, rounded
from language import MINILM, TOPICS, encoder, everything, pieces, within
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdft_lib.experiments import Comparison, Measure, Once, Recipe, Then, compare, record_all
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

BITS, LABELED, READ = 4, 100, 32


class Briefly(nn.Module):
    """MiniLM with a head for the topics, on the first 32 pieces of the stories that it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.model = copy.deepcopy(encoder())
        self.model.head = nn.Linear(self.model.width, TOPICS)

    def forward(self, numbers: Tensor) -> Tensor:
        ids = pieces(numbers)[:, :READ]
        return self.model(ids, (ids > 0).long())


class RoundedByShares(nn.Module):
    """As :class:`few_bits.Rounded`, but how far a channel's whole numbers reach, as a share of its largest weight, is
    found once, before the training: to try 15 shares of ten million weights would take longer than a step.
    """

    share: Tensor

    def __init__(self, weight: Tensor, bits: int):
        super().__init__()
        self.most = 2 ** (bits - 1) - 1
        reached = rounded(weight, bits).abs().amax(dim=1) / weight.abs().amax(dim=1)
        self.register_buffer("share", reached.unsqueeze(1), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        with torch.no_grad():
            scale = self.share * weight.abs().amax(dim=1, keepdim=True) / self.most
            change = (weight / scale).round_().clamp_(-self.most, self.most).mul_(scale).sub_(weight)
        return weight + change


def in_few_bits() -> nn.Module:
    """The same, whose linear layers see rounded weights from now on; the table of word pieces stays as it is."""
    model = Briefly()
    for layer in (each for each in model.modules() if isinstance(each, nn.Linear)):
        parametrize.register_parametrization(layer, "weight", RoundedByShares(layer.weight.detach(), BITS))
    return model


def few_bits_texts() -> dict[str, Comparison]:
    """60 steps from the shipped weights for each arm, at one rate: float weights, rounded afterwards or not, or weights
    that are rounded from the first step on; on 100 labelled stories, on the answers of the float network that the
    labels made, or on its answers to all stories.
    """
    rate = FullFineTuning(lr=1e-4)
    labels = Recipe(Briefly, Supervised, rate, steps=60, batch_size=8, pretraining=MINILM)
    whole = Once(labels)
    taught = labels.taught_by(whole, SoftTargets)
    on_all = taught.but(train_data=everything)
    again = Once(on_all)
    methods: dict[str, Any] = {
        "float, labels": whole,
        "float, own teacher on all": again,
        "labels, rounded after": Then(whole, functools.partial(afterwards, BITS, False)),
        "own teacher on all, rounded after": Then(again, functools.partial(afterwards, BITS, False)),
        "labels, rounded during": labels.but(model=in_few_bits),
        "own teacher, rounded during": taught.but(model=in_few_bits),
        "own teacher on all, rounded during": on_all.but(model=in_few_bits),
    }
    asked = [
        ("labels, rounded during", "labels, rounded after"),
        ("own teacher, rounded during", "labels, rounded during"),
        ("own teacher on all, rounded during", "labels, rounded during"),
        ("own teacher on all, rounded during", "own teacher on all, rounded after"),
    ]
    measures: dict[str, Measure] = {"bytes": functools.partial(packed, BITS)}
    return {
        "MiniLM, 4 bits": compare(
            methods, functools.partial(within, LABELED), contrasts=asked, measures=measures, keep=False
        )
    }


EXPERIMENTS = {"few-bits-texts": few_bits_texts}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
