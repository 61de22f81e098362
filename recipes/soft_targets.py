"""The long experiments of chapter 04, recorded: ``make results``.

``python recipes/soft_targets.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from kdft_lib.data import RandomShiftFlip, Splits, TensorData, fashion_mnist
from kdft_lib.data.fashion import BACKGROUND
from kdft_lib.experiments import Classical, Comparison, Recipe, compare, record
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache

TEACHER = fashion_teacher()


def student() -> ConvNet:
    """6,274 parameters."""
    return ConvNet(width=8)


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed, with the teacher's logits."""
    splits = fashion_mnist(labelled=1000, seed=seed)
    return splits._replace(train=cache(TEACHER, splits.train))


def uncached(splits: Splits) -> TensorData:
    """The labelled images without the logits: the teacher must see each new view."""
    return TensorData(splits.train.inputs, splits.train.targets)


def views(padding: float) -> RandomShiftFlip:
    """Shifted by up to so many pixels, half of them mirrored."""
    return RandomShiftFlip(int(padding), fill=BACKGROUND)


@functools.cache
def _all_labels() -> Splits:
    splits = fashion_mnist(labelled=None)
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


EXPERIMENTS = {
    "soft-targets-thousand": thousand,
    "soft-targets-sensitivity": sensitivity,
    "soft-targets-everything": everything,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or EXPERIMENTS:
        started = time.perf_counter()
        comparisons = EXPERIMENTS[name]()
        command = f"python recipes/soft_targets.py {name}"
        print(record(name, comparisons, command=command, seconds=time.perf_counter() - started))
        for title, comparison in comparisons.items():
            print(f"\n{title}\n{comparison}\nchosen: {comparison.chosen}\n")
