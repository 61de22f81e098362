"""The long experiments of chapter 04, recorded: ``make results``.

``python recipes/soft_targets.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from recording import main, student, views
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, PerSeed, Recipe, compare
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache

TEACHER = fashion_teacher()


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed, with the teacher's logits."""
    splits = fashion_mnist(labeled=1000, seed=seed)
    return splits._replace(train=cache(TEACHER, splits.train))


def uncached(splits: Splits) -> TensorData:
    """The labelled images without the logits: the teacher must see each new view."""
    return TensorData(splits.train.inputs, splits.train.targets)


@functools.cache
def _all_labels() -> Splits:
    splits = fashion_mnist(labeled=None)
    return splits._replace(train=cache(TEACHER, splits.train))


def all_labels(seed: int) -> Splits:
    """All 55,000 labelled images; the seed sets initialisation and order alone."""
    return _all_labels()


def thousand() -> dict[str, Comparison]:
    """Nine settings for each method, chosen on validation: three weight decays times three values of
    what the method brings along, at the learning rate that an earlier search over 0.03, 0.1 and 0.3
    found best for every network; labels alone bring nothing, and search two more rates instead.
    """
    decays = (0.01, 0.1, 0.5)
    base = Recipe(student, Supervised(), FullFineTuning(0.3), steps=400)

    def tuned(make: Callable[[float], Recipe], values: tuple[float, ...]) -> list[Recipe]:
        return [make(value).but(strategy=FullFineTuning(0.3, weight_decay=wd)) for wd in decays for value in values]

    methods = {
        "labels": [base.but(strategy=FullFineTuning(lr, weight_decay=wd)) for wd in decays for lr in (0.1, 0.3, 1.0)],
        "label smoothing": tuned(lambda e: base.but(objective=Supervised(label_smoothing=e)), (0.1, 0.2, 0.4)),
        "augmentation": tuned(lambda p: base.but(augment=views(p)), (0, 1, 2)),
        "hard targets": tuned(lambda w: base.but(objective=HardTargets(TEACHER, w, 1 - w)), (0.5, 0.9, 1.0)),
        "soft targets": tuned(lambda t: base.but(objective=SoftTargets(TEACHER, temperature=t)), (2.0, 4.0, 8.0)),
        "soft targets + augmentation": tuned(
            lambda p: base.but(objective=SoftTargets(TEACHER), augment=views(p), train_data=uncached), (0, 1, 2)
        ),
        "logistic regression": [Classical(LogisticRegression(C=10.0**power, max_iter=1000)) for power in range(-6, 3)],
        "SVM": [Classical(SVC(C=c, gamma=gamma)) for c in (1, 5, 25) for gamma in (5e-4, "scale", 4e-3)],
    }
    return {"1,000 labels": compare(methods, thousand_labels, reference="labels", progress=True)}


def sensitivity() -> dict[str, Comparison]:
    """Temperature and weight of the soft targets, on validation, at 1,000 labels."""
    base = Recipe(student, Supervised(), FullFineTuning(0.3, weight_decay=0.1), steps=400)
    settings = [
        base.but(objective=SoftTargets(TEACHER, temperature, weight, round(1 - weight, 1)))
        for temperature in (1.0, 2.0, 4.0, 8.0, 16.0)
        for weight in (0.1, 0.5, 0.9, 1.0)
    ]
    return {
        "temperature and weight": compare({"labels": base, "soft targets": settings}, thousand_labels, progress=True)
    }


def everything() -> dict[str, Comparison]:
    """All labels: the rate of each method is chosen at six epochs and kept at sixty."""
    rates = (1e-2, 3e-2, 1e-1)
    steps = 55_000 // 128
    labels = Recipe(student, Supervised(), FullFineTuning(1e-2), steps=6 * steps)
    soft = labels.but(objective=SoftTargets(TEACHER))
    short = compare(
        {
            name: [method.but(strategy=FullFineTuning(rate)) for rate in rates]
            for name, method in {"labels": labels, "soft targets": soft}.items()
        },
        all_labels,
        progress=True,
    )
    long = compare(
        {
            name: method.but(strategy=FullFineTuning(rates[short.chosen[name]]), steps=60 * steps)
            for name, method in {"labels": labels, "soft targets": soft}.items()
        },
        all_labels,
        progress=True,
    )
    return {"6 epochs": short, "60 epochs": long}


def smoothed(train: TensorData, temperature: float) -> Tensor:
    """Logits that smooth each label evenly, all alike, to the teacher's mean entropy at a temperature."""
    wanted = _entropy(train.teacher_logits / temperature).mean()
    low, high = torch.tensor(0.0), torch.tensor(100.0)
    for _ in range(50):
        middle = (low + high) / 2
        softer = _entropy(torch.eye(10)[0] * middle) > wanted
        low, high = (middle, high) if softer else (low, middle)
    return F.one_hot(train.targets, 10) * middle * temperature


def permuted(train: TensorData, seed: int) -> Tensor:
    """The teacher's logits, those of the classes below its first permuted, for each picture differently."""
    ranked, classes = train.teacher_logits.sort(dim=1, descending=True)
    order = torch.rand(len(train), 9, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    return torch.cat([ranked[:, :1], ranked[:, 1:].gather(1, order)], dim=1).gather(1, classes.argsort(dim=1))


def of_the_class(train: TensorData, temperature: float) -> Tensor:
    """For every picture of a class the same: the teacher's mean distribution on that class."""
    soft = (train.teacher_logits / temperature).softmax(dim=1)
    means = torch.stack([soft[train.targets == label].mean(dim=0) for label in range(10)])
    return temperature * means[train.targets].log()


def _entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def why() -> dict[str, Comparison]:
    """Parts of what soft targets say, each on the inputs, the budget and the nine settings of ``thousand``."""

    def arm(logits: Callable[[TensorData, float, int], Tensor]) -> list[PerSeed]:
        def changes(splits: Splits, seed: int, temperature: float) -> dict[str, object]:
            made = logits(splits.train, temperature, seed)
            changed = splits.train.with_teacher_logits(made, splits.train.teacher)
            return {"train_data": lambda _: changed}

        return [
            PerSeed(
                Recipe(student, SoftTargets(TEACHER, t), FullFineTuning(0.3, weight_decay=wd), steps=400),
                functools.partial(changes, temperature=t),
            )
            for wd in (0.01, 0.1, 0.5)
            for t in (2.0, 4.0, 8.0)
        ]

    methods = {
        "smoothed as much": arm(lambda train, temperature, seed: smoothed(train, temperature)),
        "other classes permuted": arm(lambda train, temperature, seed: permuted(train, seed)),
        "the class's mean": arm(lambda train, temperature, seed: of_the_class(train, temperature)),
    }
    return {"parts": compare(methods, thousand_labels, progress=True)}


def same_labels() -> dict[str, Comparison]:
    """Teachers of 94,186 parameters, trained on the student's own 1,000 labels, and the students they teach."""
    base = Recipe(lambda: ConvNet(width=32), Supervised(), FullFineTuning(0.1), steps=400)
    kinds = {"plain teacher": None, "teacher with augmentation": views(1)}
    teachers = compare(
        {
            kind: [base.but(augment=augment, strategy=FullFineTuning(rate, weight_decay=0.1)) for rate in (0.1, 0.3)]
            for kind, augment in kinds.items()
        },
        thousand_labels,
        progress=True,
    )

    def taught(kind: str, temperature: float, decay: float) -> PerSeed:
        def changes(splits: Splits, seed: int) -> dict[str, object]:
            teacher = teachers.trained[kind][seed].model
            teacher.card = {"labels": 1000}
            return {
                "objective": SoftTargets(teacher, temperature),
                "train_data": lambda splits: cache(teacher, splits.train),
            }

        recipe = Recipe(student, Supervised(), FullFineTuning(0.3, weight_decay=decay), steps=400)
        return PerSeed(recipe, changes)

    methods = {
        f"taught by the {kind}": [taught(kind, t, wd) for wd in (0.01, 0.1, 0.5) for t in (2.0, 4.0, 8.0)]
        for kind in kinds
    }
    return {"teachers": teachers, "students": compare(methods, thousand_labels, progress=True)}


def factor() -> dict[str, Comparison]:
    """The factor T² at T = 8, there and forgotten, beside the labels and alone; three weight decays each."""

    def at(kd_weight: float, ce_weight: float) -> list[Recipe]:
        objective = SoftTargets(TEACHER, 8.0, kd_weight, ce_weight)
        return [Recipe(student, objective, FullFineTuning(0.3, weight_decay=wd), steps=400) for wd in (0.01, 0.1, 0.5)]

    beside = {"with T²": at(0.9, 0.1), "without T²": at(0.9 / 64, 0.1)}
    alone = {"with T²": at(1.0, 0.0), "without T²": at(1 / 64, 0.0)}
    return {
        "beside labels": compare(beside, thousand_labels, progress=True),
        "alone": compare(alone, thousand_labels, progress=True),
    }


EXPERIMENTS = {
    "soft-targets-thousand": thousand,
    "soft-targets-sensitivity": sensitivity,
    "soft-targets-everything": everything,
    "soft-targets-why": why,
    "soft-targets-same-labels": same_labels,
    "soft-targets-factor": factor,
}

if __name__ == "__main__":
    main(EXPERIMENTS)
