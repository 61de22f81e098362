"""The long experiment of chapter 21, recorded: whether noise can teach."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from shared import on_all_labels, thousand_labels, without_labels
from torch import Tensor, nn

from kdft_lib.data import Splits
from kdft_lib.experiments import Comparison, Recipe, Source, Then, Trained, compare, per_seed, record_all
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import Ledger


class Part(nn.Module):
    """Some of a network's outputs: the ten classes, or those that nobody gave a meaning."""

    def __init__(self, body: nn.Module, part: slice):
        super().__init__()
        self.inner, self.part = body, part

    def forward(self, inputs: Tensor) -> Tensor:
        return self.inner(inputs)[:, self.part]


CLASSES, AUXILIARY = slice(0, 10), slice(10, 13)


def beginning(seed: int = 0) -> nn.Module:
    """A perceptron with ten outputs for the classes and three for nothing, as in Cloud et al. (2025)."""
    torch.manual_seed(seed)
    hidden = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, 13))


BEGINNINGS = {"same": per_seed(beginning), "other": per_seed(lambda seed: beginning(100 + seed))}
CLOTHES = Recipe(beginning, Supervised, FullFineTuning(lr=1e-3), steps=1500, start=BEGINNINGS["same"])
WEARER = on_all_labels(CLOTHES.but(change=functools.partial(Part, part=CLASSES)))
"""The beginning of a seed, trained by its ten class outputs alone."""


def uniform_noise(images: Tensor) -> Tensor:
    """In place of the images, and anew at each step."""
    return 2 * torch.rand_like(images) - 1


def showing(part: slice, **counted: int) -> Callable[..., Trained]:
    """Of a network with all outputs those of a part, with what its ledger counts otherwise."""
    return lambda run, *_: run.but(model=Part(run.model.inner, part), **counted)


def teachers_accuracy(trained: Trained, splits: Splits) -> float:
    """Of the network that a student learned from, by its class outputs, whatever it showed of itself."""
    assert trained.objective is not None
    (teacher,) = trained.objective.teachers()
    shown: Part = teacher.model  # type: ignore[assignment]
    return Trained(Part(shown.inner, CLASSES), Ledger()).accuracy(splits.test)


def noise() -> dict[str, Comparison]:
    """Outputs of a teacher of clothes on noise, the classes' or meaningless ones, with its own beginning or another."""

    def student(part: slice, start: Source) -> Then:
        """Which saw no image, only noise, and is asked about clothes."""
        own = CLOTHES.but(start=start, change=functools.partial(Part, part=part), augment=uniform_noise)
        soft = functools.partial(SoftTargets, temperature=1.0, kd_weight=1.0, ce_weight=0.0)
        taught = own.but(train_data=without_labels).taught_by(Then(WEARER, showing(part)), soft)
        return Then(taught, showing(CLASSES, unlabeled=0))

    methods = {
        f"{name} outputs, {which} start": student(part, start)
        for name, part in {"class": CLASSES, "auxiliary": AUXILIARY}.items()
        for which, start in BEGINNINGS.items()
    }
    asked = [(f"{name} outputs, same start", f"{name} outputs, other start") for name in ("class", "auxiliary")]
    measures = {"teacher's accuracy": teachers_accuracy}
    return {"noise": compare(methods, thousand_labels, measures=measures, contrasts=asked)}


EXPERIMENTS = {"good-teachers-noise": noise}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
