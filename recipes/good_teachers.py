"""The long experiments of chapter 06, recorded: whom to ask, and where it pays. All students see each picture as their
teacher does, whose answers to all 18 views are cached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from patience import AUGMENTED, DECAYS, TEACHER, fixed_answers, independent_views, the_same_view
from shared import Answered, all_labels, chosen_before, labeled, shop, student, views
from torch import nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Candidate, Comparison, Given, Members, Once, Recipe, Source, Then, Trained, grid
from kdft_lib.metrics import agreement
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import Ledger, one_cycle, predict

BASE = Recipe(student, Supervised, FullFineTuning(lr=0.3, weight_decay=0.1), steps=1600)
FIVE = Once(Members(BASE.but(augment=views(1)), 5))
"""Five students on labels and augmentation, from five initialisations."""


def stopped(progress: float, epochs: int) -> float:
    """The schedule of six epochs, as far as these go: one run is the other's beginning."""
    return one_cycle(progress * epochs / 6)


LARGE = Recipe(functools.partial(ConvNet, width=32), Supervised, FullFineTuning(lr=0.1), epochs=6)
"""A network of 94,186 parameters."""


def made(recipe: Recipe, members: int = 1) -> Once:
    """Teachers of all 55,000 labels, from first weights of their own: a shared seed would give their first layer the
    student's own filters, whatever their width, and one of its size all of its first weights.
    """
    return Once(Members(Given(recipe, lambda splits, seed: all_labels(seed)), members, first=50 * members))


MADE = made(LARGE)


A_STUDENT = Then(FIVE, lambda five, *_: five.but(model=five.model.members[0]))
"""The first of the five."""


def lesson(by: Source, look: Callable[[nn.Module, TensorData], TensorData] = the_same_view) -> Given:
    """A student of a teacher's answers to the views that it sees itself, or to something else."""
    return Given(BASE.taught_by(by, SoftTargets), Answered(by, look))


def pupil_of(first: Trained, splits: Splits, seed: int) -> Trained:
    """It learned from a student of the same 1,000 labels."""
    return lesson(first.model).train(splits, 2000 + seed)


TEACHERS: dict[str, Source] = {
    **{f"{n} of 6 epochs": MADE.but(epochs=n, schedule=functools.partial(stopped, epochs=n)) for n in (1, 2, 4)},
    "6 of 6 epochs": MADE,
    "6 of 6 epochs, on views": MADE.but(augment=views(1)),
    "6,274 parameters": MADE.but(width=8),
    "24,058 parameters": MADE.but(width=16),
    "the shipped teacher": TEACHER,
    "three teachers": made(LARGE, members=3),
    "a student": A_STUDENT,
    "a student's student": Once(Then(A_STUDENT, pupil_of)),
    "five students": FIVE,
}


def taught(by: Source, temperatures: Sequence[float] = (2.0, 8.0)) -> list[Candidate]:
    """Weight decays times temperatures."""
    return grid(lesson(by), weight_decay=DECAYS, temperature=temperatures)


def teacher_behind(trained: Trained) -> nn.Module:
    """Whom a student learned from."""
    assert trained.objective is not None
    (teacher,) = trained.objective.teachers()
    return teacher.model


def teachers_accuracy(trained: Trained, splits: Splits) -> float:
    return Trained(teacher_behind(trained), Ledger()).accuracy(splits.test)


def agreeing(trained: Trained, splits: Splits) -> float:
    return agreement(trained.logits(splits.test), predict(teacher_behind(trained), splits.test))


def knowing_views(trained: Trained, splits: Splits) -> float:
    """The teacher's accuracy on views of the test pictures, of the kind that it was asked about."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        seen = splits.test.with_inputs(views(1)(splits.test.inputs))
    return Trained(teacher_behind(trained), Ledger()).accuracy(seen)


MEASURES = {"teacher's accuracy": teachers_accuracy, "accuracy on views": knowing_views, "agreement": agreeing}


def unseen() -> dict[str, Comparison]:
    """Beside :func:`teachers`: two of them, one that was trained on views and one that was not, whose answers are to
    something else than what the student sees.
    """
    told = {"another view": independent_views, "the picture as it is": fixed_answers}
    methods = {
        f"{name}, {asked}": grid(lesson(TEACHERS[name], look), weight_decay=DECAYS, temperature=(2.0, 8.0))
        for name in ("6 of 6 epochs", "6 of 6 epochs, on views")
        for asked, look in told.items()
    }
    return {"1,600 steps": experiments.compare(methods, shop, choose="each seed")}


def teachers() -> dict[str, Comparison]:
    """Twelve teachers for the same student, each with four settings, of which a seed chooses on its 250 labels; and
    what costs neither a teacher nor a label, label smoothing beside augmentation.
    """
    best, on_views = "6 of 6 epochs", "6 of 6 epochs, on views"
    asked = [(name, best) for name in ("1 of 6 epochs", "6,274 parameters", "three teachers", on_views)]
    asked += [("the shipped teacher", on_views)]
    asked += [("a student's student", "a student"), ("five students", "a student")]
    methods = {name: taught(by) for name, by in TEACHERS.items()}
    students = experiments.compare(
        methods, shop, choose="each seed", reference=best, contrasts=asked, measures=MEASURES
    )
    smoothing = grid(BASE.but(augment=views(1)), weight_decay=DECAYS, label_smoothing=(0.1, 0.2))
    alone = experiments.compare({"labels + augmentation + smoothing": smoothing}, shop, choose="each seed")
    return {"teachers": students, "without a teacher": alone}


def smoothed() -> dict[str, Comparison]:
    """Two kinds of the fourth teacher, with and without label smoothing, at three fixed temperatures."""
    kinds = {"plain": MADE, "smoothed": MADE.but(label_smoothing=0.1)}
    methods = {f"{kind}, T = {t}": taught(by, [float(t)]) for t in (1, 4, 8) for kind, by in kinds.items()}
    asked = [(f"smoothed, T = {t}", f"plain, T = {t}") for t in (1, 4, 8)]
    made = experiments.compare(methods, shop, choose="each seed", contrasts=asked, measures=MEASURES)
    return {"1,600 steps": made}


def pays(labels: int) -> dict[str, Comparison]:
    """Sizes at so many labels and two budgets. Each has one of four settings, two learning rates times two weight
    decays, which a further draw of labels chose on the 5,000 validation images: a shop has none of these, and a map
    needs no shop's luck.
    """
    splits, further = functools.partial(labeled, labels), 100
    parts = splits(further)

    def val_accuracy(candidate: Candidate) -> float:
        return candidate.method.train(parts, further).accuracy(parts.val)

    made = {}
    for steps in (400, 6400):
        alone = BASE.but(model=ConvNet, steps=steps)
        seen = Given(alone.taught_by(TEACHER, SoftTargets), Answered(TEACHER, the_same_view))
        kinds: dict[str, Any] = {AUGMENTED: alone.but(augment=views(1)), "soft targets": seen}
        methods = {
            f"{kind}, width {width}": max(
                grid(recipe.but(width=width), lr=(0.1, 0.3), weight_decay=DECAYS), key=val_accuracy
            )
            for width in (4, 8, 16)
            for kind, recipe in kinds.items()
        }
        counted = {name: Candidate(chosen_before(each.method), each.setting) for name, each in methods.items()}
        asked = [(f"soft targets, width {width}", f"{AUGMENTED}, width {width}") for width in (4, 8, 16)]
        made[f"{steps:,} steps"] = experiments.compare(counted, splits, contrasts=asked)
    return made


EXPERIMENTS: dict[str, Callable[[], dict[str, Comparison]]] = {
    "good-teachers-1600": teachers,
    "good-teachers-views": unseen,
    "good-teachers-smoothing": smoothed,
    **{f"good-teachers-map-{labels}": functools.partial(pays, labels) for labels in (250, 1000, 6000)},
}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
