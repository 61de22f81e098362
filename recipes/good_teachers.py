"""The long experiments of chapter 06, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from shared import all_labels, labeled, student, thousand_labels, views, without_labels
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits
from kdft_lib.experiments import Comparison, Given, Members, Once, Recipe, Source, Then, Trained, grid, per_seed
from kdft_lib.metrics import agreement
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Ensemble
from kdft_lib.training import Ledger, one_cycle, predict

ALONE = Recipe(student, Supervised, FullFineTuning(lr=0.3, weight_decay=0.1), steps=400)
FIVE = Once(Members(ALONE, 5))


def on_all_labels(recipe: Recipe) -> Once:
    return Once(Given(recipe, lambda splits, seed: all_labels(seed)))


def stopped(progress: float, epochs: int) -> float:
    """The schedule of six epochs, as far as these go: one run is the other's beginning."""
    return one_cycle(progress * epochs / 6)


MADE = on_all_labels(Recipe(functools.partial(ConvNet, width=32), Supervised, FullFineTuning(lr=0.1), epochs=6))
"""Networks of 94,186 parameters, trained on all 55,000 labels."""
SMALL = MADE.but(width=8)


def three_teachers(splits: Splits, seed: int) -> Trained:
    """Three networks that were trained on all labels, as one."""
    members = [MADE.train(splits, (seed + step) % 5) for step in range(3)]
    return Trained(Ensemble([run.model for run in members]), sum((run.ledger for run in members), Ledger()))


A_STUDENT = Then(FIVE, lambda five, *_: five.but(model=five.model.members[0]))
"""The first of five students on the seed's 1,000 labels, from five initialisations."""


def a_students_student(splits: Splits, seed: int) -> Trained:
    """It learned from a student of the same 1,000 labels."""
    first = A_STUDENT.train(splits, seed)
    return ALONE.taught_by(lambda *_: first, SoftTargets).train(splits, 2000 + seed)


TEACHERS: dict[str, Source] = {
    **{f"{n} of 6 epochs": MADE.but(epochs=n, schedule=functools.partial(stopped, epochs=n)) for n in (1, 2, 4)},
    "6 of 6 epochs": MADE,
    "6,274 parameters": SMALL,
    "24,058 parameters": MADE.but(width=16),
    "the shipped teacher": fashion_teacher(),
    "three teachers": three_teachers,
    "a student": A_STUDENT,
    "a student's student": a_students_student,
    "five students": FIVE,
}


def taught(by: Source, temperatures: Sequence[float] = (2.0, 4.0, 8.0)) -> Any:
    """Students of 400 steps on 1,000 labelled images: weight decays times temperatures."""
    return grid(ALONE.taught_by(by, SoftTargets), lr=0.3, weight_decay=(0.01, 0.1), temperature=temperatures)


def teacher_behind(trained: Trained) -> Any:
    """Whom a student learned from, without what a recipe may have put around it."""
    assert trained.objective is not None
    (teacher,) = trained.objective.teachers()
    return getattr(teacher.model, "inner", teacher.model)


def teachers_accuracy(trained: Trained, splits: Splits) -> float:
    return Trained(Part(teacher_behind(trained), CLASSES), Ledger()).accuracy(splits.test)


def agreeing(trained: Trained, splits: Splits, part: str = "test") -> float:
    data = getattr(splits, part)
    return agreement(trained.logits(data), predict(teacher_behind(trained), data))


MEASURES = {"teacher's accuracy": teachers_accuracy, "agreement": agreeing}


def teachers() -> dict[str, Comparison]:
    """Eleven teachers for the same student: six settings each, two weight decays times three temperatures.
    And two kinds of the fourth, with and without label smoothing, at three fixed temperatures.
    """
    best = "6 of 6 epochs"
    asked = [(name, best) for name in ("1 of 6 epochs", "6,274 parameters", "the shipped teacher", "three teachers")]
    asked += [("a student's student", "a student"), ("five students", "a student")]
    methods = {name: taught(by) for name, by in TEACHERS.items()}
    students = experiments.compare(methods, thousand_labels, reference=best, measures=MEASURES, contrasts=asked)
    kinds = {"plain": MADE, "smoothed": MADE.but(label_smoothing=0.1)}
    methods = {f"{kind}, T = {t}": taught(by, [float(t)]) for t in (1, 4, 8) for kind, by in kinds.items()}
    asked = [(f"smoothed, T = {t}", f"plain, T = {t}") for t in (1, 4, 8)]
    smoothing = experiments.compare(methods, thousand_labels, measures=MEASURES, contrasts=asked)
    return {"teachers": students, "label smoothing": smoothing}


def starts() -> dict[str, Comparison]:
    """A teacher of the student's size, from the student's own first weights (a shared seed makes them) or others."""
    other = taught(lambda splits, seed: SMALL.train(splits, 50 + seed))
    methods = {"the same start": taught(SMALL), "another start": other}
    return {"starts": experiments.compare(methods, thousand_labels, measures=MEASURES)}


class SeesViews(nn.Module):
    """A model that sees its inputs through random views: a student in training mode, a teacher always."""

    def __init__(self, inner: nn.Module, always: bool = False):
        super().__init__()
        self.inner, self.see, self.always = inner, views(1), always

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(self.see(images) if self.always or self.training else images)


def mixed(images: Tensor) -> Tensor:
    """Shifted and mirrored, then each pair mixed in a random proportion, as in Beyer et al. (2022)."""
    images = views(1)(images)
    share = torch.rand(len(images), 1, 1, 1)
    return share * images + (1 - share) * images[torch.randperm(len(images))]


def patience() -> dict[str, Comparison]:
    """The same 1,000 images, four ways of asking a teacher about them, at three budgets; one setting for all."""
    fixed = ALONE.but(train_data=without_labels).taught_by(MADE, SoftTargets, kd_weight=1.0, ce_weight=0.0)
    seeing = Then(MADE, lambda run, *_: run.but(model=SeesViews(run.model, always=True)))
    ways = {
        "fixed view": fixed,
        # What augments changes nothing, but no answer is kept: each step asks the teacher about a view of its own.
        "independent views": fixed.but(model=lambda: SeesViews(student()), teacher=seeing, augment=nn.Identity()),
        "the same view": fixed.but(augment=views(1)),
        "the same mixed images": fixed.but(augment=mixed),
    }
    measures = MEASURES | {"agreement in training": functools.partial(agreeing, part="train")}
    asked = [*((way, "fixed view") for way in ways if way != "fixed view"), ("the same mixed images", "the same view")]
    found = {}
    for steps in (300, 1200, 4800):
        methods = {way: grid(recipe.but(steps=steps), lr=0.3, weight_decay=0.01) for way, recipe in ways.items()}
        found[f"{steps:,} steps"] = experiments.compare(methods, thousand_labels, measures=measures, contrasts=asked)
    return found


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
    return {"noise": experiments.compare(methods, thousand_labels, measures=measures, contrasts=asked)}


def pays(labels: int) -> dict[str, Comparison]:
    """Sizes times steps at so many labels; each learning rate is chosen on validation images with a further seed."""
    splits, further = functools.partial(labeled, labels), 100
    parts = splits(further)
    alone = Recipe(ConvNet, Supervised, FullFineTuning(lr=0.3), steps=200)
    kinds = {"labels": alone, "soft targets": alone.taught_by(fashion_teacher(), SoftTargets)}

    def val_accuracy(candidate: Any) -> float:
        return candidate.method.train(parts, further).accuracy(parts.val)

    chosen = {
        f"width {width}, {steps:,} steps": {
            name: max(grid(kind.but(width=width, steps=steps), lr=(0.1, 0.3), weight_decay=0.1), key=val_accuracy)
            for name, kind in kinds.items()
        }
        for width in (4, 8, 16)
        for steps in (200, 800, 3200)
    }
    return {place: experiments.compare(methods, splits) for place, methods in chosen.items()}


EXPERIMENTS: dict[str, Callable[[], dict[str, Comparison]]] = {
    "good-teachers": teachers,
    "good-teachers-start": starts,
    "good-teachers-patience": patience,
    "good-teachers-noise": noise,
    **{f"where-kd-pays-{labels}": functools.partial(pays, labels) for labels in (250, 1000, 6000)},
}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
