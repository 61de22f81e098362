"""The spine of chapter 04, recorded: what 1,000 labels, and 250 to choose by, come to in 400 to 12,800 steps.

Each method has four settings at each budget, two weight decays times two values of what it brings along. Every seed
chooses on its own 250 labels; what choosing on 5,000 would have changed is recorded beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from shared import SVM, Answered, FixedAnswers, all_labels, shifted, shop, student, views
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Batch, TensorData
from kdft_lib.experiments import Candidate, Comparison, Given, Recipe, Source, compare, grid, per_seed
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, ViewData, cache

TEACHER = fashion_teacher()
BUDGETS = (400, 1600, 6400, 12_800)
DECAYS = (0.01, 0.1)
WEIGHTS = (1.0, 0.9)
"""Of the teacher; the rest is the labels'."""

LABELS = Recipe(student, Supervised, FullFineTuning(lr=0.3), steps=BUDGETS[0])
AUGMENTED = "labels + augmentation"
SAME = "soft targets, the same view"


class IndependentViews(ViewData):
    """The student sees one view of a picture, and the teacher has answered another."""

    def __init__(self, seen: ViewData, augment: Callable[[Tensor], Tensor]):
        super().__init__(seen, seen._kept)
        self.augment = augment

    def rows(self, indices: Tensor | slice) -> Batch:
        return super().rows(indices) | {"inputs": self.augment(self.inputs[indices])}


def fixed(teacher: nn.Module, data: TensorData) -> TensorData:
    """A teacher's answers to the pictures as they are."""
    return cache(teacher, data)


def the_same_view(teacher: nn.Module, data: TensorData, shift: int = 1) -> ViewData:
    """A teacher's answers to all views: 18 of each picture for shifts by one pixel, 50 by two."""
    seen: ViewData = cache(teacher, data, views="all", augment=views(shift))
    return seen


def independent_views(teacher: nn.Module, data: TensorData) -> ViewData:
    return IndependentViews(the_same_view(teacher, data), views(1))


def fixed_answers(teacher: nn.Module, data: TensorData) -> TensorData:
    return FixedAnswers(fixed(teacher, data), views(1))


def taught(
    base: Recipe, objective: Callable[..., Any], teacher: Source, look: Callable[..., TensorData]
) -> list[Candidate]:
    """A student that learns from what a teacher answers to some views."""
    return four_settings(Given(base.taught_by(teacher, objective), Answered(teacher, look)))


def four_settings(lesson: Given) -> list[Candidate]:
    """Two weight decays times two weights of the teacher."""

    def make(kd_weight: float, **settings: float) -> Given:
        return lesson.but(kd_weight=kd_weight, ce_weight=round(1 - kd_weight, 1), **settings)

    return grid(make, weight_decay=DECAYS, kd_weight=WEIGHTS)


@functools.cache
def own_teachers() -> Comparison:
    """What one has without a big brother: 94,186 parameters, trained on the student's own 1,000 labels."""
    wide = LABELS.but(model=ConvNet, width=32, augment=views(1), steps=1600, weight_decay=0.1)
    return compare({"own": grid(wide, lr=(0.1, 0.3))}, shop, choose="each seed", keep=False)


def methods(steps: int) -> dict[str, list[Candidate]]:
    base = LABELS.but(steps=steps)
    soft = functools.partial(taught, base, SoftTargets)
    return {
        "labels": grid(base, weight_decay=DECAYS, lr=(0.1, 0.3)),
        AUGMENTED: grid(shifted(base), weight_decay=DECAYS, shift=(1, 2)),
        "labels + smoothing": grid(base, weight_decay=DECAYS, label_smoothing=(0.1, 0.2)),
        "hard targets": taught(base, HardTargets, TEACHER, fixed),
        "soft targets, fixed views": soft(TEACHER, fixed),
        SAME: soft(TEACHER, the_same_view),
        "the same view, shifts by two": soft(TEACHER, functools.partial(the_same_view, shift=2)),
        "the same view, own teacher": soft(own_teachers().source("own"), the_same_view),
        "independent views": soft(TEACHER, independent_views),
        "SVM": grid(SVM, C=(1, 5), gamma=("scale", 4e-3)),
    }


def after(steps: int) -> dict[str, Comparison]:
    """All methods after so many steps."""
    tried = methods(steps)
    asked = [(name, AUGMENTED) for name in tried if name != AUGMENTED]
    asked += [(SAME, "soft targets, fixed views"), (SAME, "independent views")]
    asked += [("the same view, shifts by two", SAME), ("soft targets, fixed views", "hard targets")]
    compared = functools.partial(compare, tried, shop, choose="each seed", reference=AUGMENTED)
    return {
        f"{steps:,} steps": compared(contrasts=asked),
        "chosen on 5,000": compared(choose_on=lambda seed: all_labels(seed).val),
    }


def confident(logits: Tensor, likeness: Tensor, temperature: float) -> Tensor:
    """Logits of the same decision, as sure as before at a temperature, whose other classes have the shares that they
    have on average where this is decided.
    """
    soft = (logits / temperature).softmax(dim=-1)
    sure, decided = soft.max(dim=-1, keepdim=True)
    said = (1 - sure) * likeness[decided.squeeze(-1)]
    return temperature * said.scatter(-1, decided, sure).clamp_min(1e-30).log()


class OfItsClass(nn.Module):
    """A teacher that keeps of a picture what it decides and how sure it is, and says the rest as on average."""

    likeness: Tensor

    def __init__(self, teacher: nn.Module, data: TensorData, temperature: float = 4.0):
        super().__init__()
        self.teacher, self.temperature = teacher, temperature
        logits = cache(teacher, data).teacher_logits
        soft = (logits / temperature).softmax(dim=-1)
        decided = logits.argmax(dim=-1)
        rest = soft.scatter(-1, decided.unsqueeze(-1), 0.0)
        rest = rest / rest.sum(dim=-1, keepdim=True)
        means = [rest[decided == label].mean(dim=0) for label in range(logits.shape[-1])]
        self.register_buffer("likeness", torch.stack(means).nan_to_num(0.1))

    def forward(self, images: Tensor) -> Tensor:
        return confident(self.teacher(images), self.likeness, self.temperature)


@per_seed
def of_its_class(seed: int) -> Teacher:
    return Teacher(OfItsClass(TEACHER, shop(seed).train), labels=Teacher(TEACHER).labels)


def likeness(steps: int) -> dict[str, Comparison]:
    """Whether a picture's own likeness to other classes is needed, beside the soft targets of :func:`after`: a teacher
    that says, of a picture, the decision and how sure it is, and of its class the rest.
    """
    base = LABELS.but(steps=steps)
    looks = {"fixed views": fixed, "the same view": the_same_view}
    tried = {
        f"the class's likeness, {name}": taught(base, SoftTargets, of_its_class, look) for name, look in looks.items()
    }
    return {f"{steps:,} steps": compare(tried, shop, choose="each seed")}


def consistency(steps: int) -> dict[str, Comparison]:
    """Beside :func:`after`: does the same view need more than decisions, and an answer to each view?"""
    base = LABELS.but(steps=steps)
    tried = {
        "hard targets, the same view": taught(base, HardTargets, TEACHER, the_same_view),
        "fixed answers, changing views": taught(base, SoftTargets, TEACHER, fixed_answers),
    }
    return {f"{steps:,} steps": compare(tried, shop, choose="each seed")}


EXPERIMENTS: dict[str, Callable[[], dict[str, Comparison]]] = {
    **{f"patience-{steps}": functools.partial(after, steps) for steps in BUDGETS},
    **{f"likeness-{steps}": functools.partial(likeness, steps) for steps in (400, 6400)},
    **{f"consistency-{steps}": functools.partial(consistency, steps) for steps in BUDGETS[:3]},
}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
