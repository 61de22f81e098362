"""The long experiments of chapter 06, recorded: ``make results``.

``python recipes/good_teachers.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from recording import main, student, views
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Comparison, PerSeed, Recipe, Trained, compare
from kdft_lib.metrics import accuracy, agreement
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Ensemble, cache
from kdft_lib.training import fit, predict

DECAYS = (0.01, 0.1)
EPOCHS = 6
CHECKPOINTS = (1, 2, 4, 6)
SEEDS = range(5)


@functools.cache
def everything() -> TensorData:
    """All 55,000 labelled images."""
    return fashion_mnist(labeled=None).train


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed."""
    return fashion_mnist(labeled=1000, seed=seed)


class Keeping(FullFineTuning):
    """Everything moves, and what the model was at the end of some epochs is kept."""

    def __init__(self, lr: float):
        super().__init__(lr)
        self.kept: dict[int, nn.Module] = {}

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        super().before_epoch(model, epoch)
        if epoch in CHECKPOINTS:
            self.kept[epoch] = copy.deepcopy(model)


@functools.cache
def run_of(seed: int, width: int, smoothing: float) -> dict[int, nn.Module]:
    """A network trained on all 55,000 labels, as it was after 1, 2, 4 and 6 epochs."""
    torch.manual_seed(seed)
    model, strategy = ConvNet(width), Keeping(0.1)
    fit(
        model, everything(), objective=Supervised(label_smoothing=smoothing), strategy=strategy, epochs=EPOCHS,
        seed=seed, progress=False,
    )  # fmt: skip
    kept = strategy.kept | {EPOCHS: model}
    for teacher in kept.values():
        teacher.card = {"labels": 55_000}  # type: ignore[assignment]
    return kept


def teacher_of(seed: int, width: int = 32, *, epoch: int = EPOCHS, smoothing: float = 0.0) -> nn.Module:
    """One of them."""
    return run_of(seed, width, smoothing)[epoch]


ALONE = Recipe(student, Supervised(), FullFineTuning(0.3, weight_decay=0.1), steps=400)


@functools.cache
def students_of(seed: int) -> list[nn.Module]:
    """Five students on the seed's 1,000 labels, from five initialisations."""
    found = [ALONE.train(thousand_labels(seed), 1000 + 5 * seed + member).model for member in range(5)]
    for model in found:
        model.card = {"labels": 1000}
    return found


@functools.cache
def descendant_of(seed: int) -> nn.Module:
    """A student that learned from a student of the same 1,000 labels."""
    recipe = ALONE.but(objective=SoftTargets(students_of(seed)[0]))
    model = recipe.train(thousand_labels(seed), 2000 + seed).model
    model.card = {"labels": 1000}
    return model


def five_students(seed: int) -> nn.Module:
    """Five of them as one."""
    teacher = Ensemble(students_of(seed))
    teacher.card = {"labels": 1000}  # type: ignore[assignment]
    return teacher


def three_teachers(seed: int) -> nn.Module:
    """Three networks that were trained on all labels, as one."""
    teacher = Ensemble([teacher_of(member) for member in ((seed + step) % 5 for step in range(3))])
    teacher.card = {"labels": 55_000}  # type: ignore[assignment]
    return teacher


TEACHERS: dict[str, Callable[[int], nn.Module]] = {
    **{f"{epoch} of 6 epochs": functools.partial(teacher_of, epoch=epoch) for epoch in CHECKPOINTS[:-1]},
    "6 of 6 epochs": teacher_of,
    "6,274 parameters": functools.partial(teacher_of, width=8),
    "24,058 parameters": functools.partial(teacher_of, width=16),
    "the shipped teacher": lambda seed: fashion_teacher(),
    "three teachers": three_teachers,
    "a student": lambda seed: students_of(seed)[0],
    "a student's student": descendant_of,
    "five students": five_students,
}


def taught(
    make: Callable[[int], nn.Module], temperatures: Sequence[float] = (2.0, 4.0, 8.0), decays: Sequence[float] = DECAYS
) -> list[PerSeed]:
    """Students of 400 steps on 1,000 labelled images: weight decays times temperatures."""

    def changes(splits: Splits, seed: int, temperature: float) -> dict[str, object]:
        teacher = make(seed)
        data = cache(teacher, splits.train)
        return {"objective": SoftTargets(teacher, temperature), "train_data": lambda _: data}

    return [
        PerSeed(
            ALONE.but(strategy=FullFineTuning(0.3, weight_decay=wd)),
            functools.partial(changes, temperature=temperature),
        )
        for wd in decays
        for temperature in temperatures
    ]


def teacher_behind(trained: Trained) -> nn.Module:
    """Whom a student learned from, without the views that a recipe may have put around it."""
    assert trained.objective is not None
    (teacher,) = trained.objective.teachers()
    return teacher.model.inner if isinstance(teacher.model, SeesViews) else teacher.model


def teachers_accuracy(trained: Trained, splits: Splits) -> float:
    return accuracy(predict(teacher_behind(trained), splits.test), splits.test.targets)


def agreement_with_teacher(trained: Trained, splits: Splits) -> float:
    return agreement(predict(trained.model, splits.test), predict(teacher_behind(trained), splits.test))


def agreement_in_training(trained: Trained, splits: Splits) -> float:
    """On the images that the student was trained on."""
    return agreement(predict(trained.model, splits.train), predict(teacher_behind(trained), splits.train))


MEASURES = {"teacher's accuracy": teachers_accuracy, "agreement": agreement_with_teacher}


def teachers() -> dict[str, Comparison]:
    """Eleven teachers for the same student: six settings each, two weight decays times three temperatures.
    And two kinds of the fourth, with and without label smoothing, at three fixed temperatures.
    """
    students = compare(
        {name: taught(make) for name, make in TEACHERS.items()},
        thousand_labels,
        seeds=SEEDS,
        reference="6 of 6 epochs",
        measures=MEASURES,
        progress=True,
    )
    smoothing = compare(
        {
            f"{kind}, T = {temperature:.0f}": taught(functools.partial(teacher_of, smoothing=rate), [temperature])
            for temperature in (1.0, 4.0, 8.0)
            for kind, rate in (("plain", 0.0), ("smoothed", 0.1))
        },
        thousand_labels,
        seeds=SEEDS,
        measures=MEASURES,
        progress=True,
    )
    return {"teachers": students, "label smoothing": smoothing}


def starts() -> dict[str, Comparison]:
    """A teacher of the student's own size: from the student's own first weights, as a shared seed makes it
    among ``teachers``, and from others. Six settings each.
    """
    return {
        "starts": compare(
            {
                "the same start": taught(functools.partial(teacher_of, width=8)),
                "another start": taught(lambda seed: teacher_of(50 + seed, width=8)),
            },
            thousand_labels,
            seeds=SEEDS,
            measures=MEASURES,
            progress=True,
        )
    }


class SeesViews(nn.Module):
    """A model that sees its inputs through random views: a student in training mode, a teacher always."""

    def __init__(self, inner: nn.Module, see: Callable[[Tensor], Tensor], always: bool = False):
        super().__init__()
        self.inner, self.see, self.always = inner, see, always

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(self.see(images) if self.always or self.training else images)


def mixed(images: Tensor) -> Tensor:
    """Shifted and mirrored, then each pair mixed in a random proportion, as in Beyer et al. (2022)."""
    images = views(1)(images)
    share = torch.rand(len(images), 1, 1, 1)
    return share * images + (1 - share) * images[torch.randperm(len(images))]


def patience() -> dict[str, Comparison]:
    """The same 1,000 images, four ways of asking a teacher about them, at three budgets; one setting for all."""
    base = Recipe(student, Supervised(), FullFineTuning(0.3, weight_decay=0.01), steps=300)

    def asked(splits: Splits, seed: int, way: str) -> dict[str, object]:
        teacher: nn.Module = teacher_of(seed)
        data = splits.train.without_labels()
        changes: dict[str, object] = {}
        if way == "fixed view":
            data = cache(teacher, data)
        if way == "independent views":
            teacher = SeesViews(teacher, views(1), always=True)
            changes["model"] = lambda: SeesViews(student(), views(1))
        if way == "the same view":
            changes["augment"] = views(1)
        if way == "the same mixed images":
            changes["augment"] = mixed
        objective = SoftTargets(teacher, kd_weight=1.0, ce_weight=0.0)
        return changes | {"objective": objective, "train_data": lambda _: data}

    ways = ("fixed view", "independent views", "the same view", "the same mixed images")
    return {
        f"{steps:,} steps": compare(
            {way: PerSeed(base.but(steps=steps), functools.partial(asked, way=way)) for way in ways},
            thousand_labels,
            seeds=SEEDS,
            measures=MEASURES | {"agreement in training": agreement_in_training},
            progress=True,
        )
        for steps in (300, 1200, 4800)
    }


class Part(nn.Module):
    """Some of a network's outputs: the ten classes, or those that nobody gave a meaning."""

    def __init__(self, body: nn.Module, part: slice):
        super().__init__()
        self.body, self.part = body, part

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs)[:, self.part]


CLASSES, AUXILIARY = slice(0, 10), slice(10, 13)


def beginning(seed: int) -> nn.Module:
    """A perceptron with ten outputs for the classes and three for nothing, as in Cloud et al. (2025)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 13)
    )


@functools.cache
def clothes_teacher(seed: int) -> nn.Module:
    """The beginning of a seed, trained on all labels by its ten class outputs alone."""
    body = beginning(seed)
    fit(
        Part(body, CLASSES), everything(), objective=Supervised(), strategy=FullFineTuning(1e-3), steps=1500,
        seed=seed, progress=False,
    )  # fmt: skip
    body.card = {"labels": 55_000}  # type: ignore[assignment]
    return body


def uniform_noise(images: Tensor) -> Tensor:
    """In place of the images, and anew at each step."""
    return 2 * torch.rand_like(images) - 1


@dataclasses.dataclass(frozen=True)
class OnNoise:
    """A student that sees noise, and matches some of its teacher's outputs there."""

    part: slice
    same_beginning: bool

    def train(self, splits: Splits, seed: int) -> Trained:
        body, teacher = beginning(seed if self.same_beginning else 100 + seed), Part(clothes_teacher(seed), self.part)
        teacher.card = {"labels": 55_000}  # type: ignore[assignment]
        objective = SoftTargets(teacher, temperature=1.0, kd_weight=1.0, ce_weight=0.0)
        history = fit(
            Part(body, self.part), splits.train.without_labels(), objective=objective, strategy=FullFineTuning(1e-3),
            steps=1500, augment=uniform_noise, seed=seed, progress=False,
        )  # fmt: skip
        student = Part(body, CLASSES)
        ledger = history.ledger | {"teacher_labels": 55_000, "pretraining": "none", "unlabeled": 0}
        return Trained(lambda data: predict(student, data).argmax(dim=1), ledger, student, history, objective)


def noise() -> dict[str, Comparison]:
    """What a student learns of clothes from its teacher's outputs on noise: with the teacher's beginning or
    another, from the class outputs or from those that mean nothing.
    """
    methods = {
        f"{name}, {start} start": OnNoise(part, start == "same")
        for name, part in (("class outputs", CLASSES), ("auxiliary outputs", AUXILIARY))
        for start in ("same", "other")
    }
    teacher = {
        "teacher's accuracy": lambda run, splits: accuracy(
            predict(Part(run.objective.teachers()[0].model.body, CLASSES), splits.test), splits.test.targets
        )
    }
    return {"noise": compare(methods, thousand_labels, seeds=SEEDS, measures=teacher, progress=True)}


def pays(labels: int | None) -> dict[str, Comparison]:
    """Where distillation pays at so many labels: sizes times steps. The learning rate of each method in each
    place is chosen on the validation images with one further seed.
    """
    teacher = fashion_teacher()

    @functools.lru_cache(maxsize=1)
    def splits(seed: int) -> Splits:
        parts = fashion_mnist(labeled=labels, seed=seed)
        return parts._replace(train=cache(teacher, parts.train))

    found = {}
    for width in (4, 8, 16):
        for steps in (200, 800, 3200):
            base = Recipe(functools.partial(ConvNet, width), Supervised(), FullFineTuning(0.3), steps=steps)
            kinds = {"labels": Supervised(), "soft targets": SoftTargets(teacher)}
            chosen = {}
            for name, objective in kinds.items():
                rated = [
                    base.but(objective=objective, strategy=FullFineTuning(rate, weight_decay=0.1))
                    for rate in (0.1, 0.3)
                ]
                parts = splits(100)
                scores = [_share(recipe.train(parts, 100), parts.val) for recipe in rated]
                chosen[name] = rated[scores.index(max(scores))]
            place = f"width {width}, {steps:,} steps"
            found[place] = compare(chosen, splits, seeds=SEEDS)
            print(place, found[place].difference("soft targets"), flush=True)
    return found


def _share(trained: Trained, data: TensorData) -> float:
    return (trained.decide(data) == data.targets).double().mean().item()


if __name__ == "__main__":
    everywhere = {
        f"where-kd-pays-{labels or 55_000}": functools.partial(pays, labels) for labels in (250, 1000, 6000, None)
    }
    alone = {
        "good-teachers": teachers,
        "good-teachers-start": starts,
        "good-teachers-patience": patience,
        "good-teachers-noise": noise,
    }
    main(alone | everywhere)
