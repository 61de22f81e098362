"""The long experiments of chapter 07, recorded: ``make results``.

``python recipes/frozen_backbone.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable

import torch
from recording import LITE0_HEAD, Remembered, lite0, main
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, Method, OnFeatures, PerSeed, Recipe, Trained, compare
from kdft_lib.models import ConvNet
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

SEEDS = range(5)
STEPS = 300
COUNTS = (50, 500, 5000)
SOURCE_SIZE = 15_000
HALF, FOOTWEAR = (0, 1, 2, 3, 4), (5, 7, 9)
HEAD_RATES = (1e-3, 1e-2, 1e-1, 1.0)
RATES = (0.003, 0.01, 0.03, 0.1)


def within(labels: int, seed: int) -> Splits:
    """So many labelled images, a fifth of them to choose by."""
    return fashion_mnist(labels, validation="within", seed=seed)


@functools.cache
def pool(seed: int) -> TensorData:
    """The 50,000 labelled images that a seed never uses for its target."""
    everything = fashion_mnist(labeled=None).train
    target = within(max(COUNTS), seed)
    used = {image.numpy().tobytes() for part in (target.train, target.val) for image in part.inputs}
    return everything[[row for row, image in enumerate(everything.inputs) if image.numpy().tobytes() not in used]]


def of_classes(data: TensorData, classes: Iterable[int], count: int) -> TensorData:
    """The first so many rows of these classes, as many of each."""
    assert data.targets is not None
    each = count // len(list(classes))
    return data[torch.cat([(data.targets == label).nonzero().flatten()[:each] for label in classes])]


def source(name: str, seed: int) -> TensorData:
    """What a small network is pretrained on: 15,000 labelled images."""
    if name == "random labels":
        data = of_classes(pool(seed), range(10), SOURCE_SIZE)
        made_up = torch.randint(10, (len(data),), generator=torch.Generator().manual_seed(seed))
        return TensorData(data.inputs, made_up)
    return of_classes(pool(seed), {"half of the classes": HALF, "footwear": FOOTWEAR}[name], SOURCE_SIZE)


def small() -> ConvNet:
    """24,058 parameters."""
    return ConvNet(width=16)


@functools.cache
def pretrained(name: str, seed: int) -> nn.Module:
    """A small network that learned from a source, 1,200 steps; untrained, it did not."""
    torch.manual_seed(seed)
    model = small()
    if name != "untrained":
        fit(
            model, source(name, seed), objective=Supervised(), strategy=FullFineTuning(0.03), steps=1200, seed=seed,
            progress=False,
        )  # fmt: skip
    return model


@functools.cache
def features_of(name: str, seed: int) -> Remembered:
    """What a frozen network makes of images."""
    return remembered_lite0() if name == "ImageNet's Lite0" else Remembered(pretrained(name, seed), "head")


@functools.cache
def remembered_lite0() -> Remembered:
    return Remembered(lite0(), LITE0_HEAD)


KNOWN = {
    "untrained": "none",
    "random labels": "15,000 random labels",
    "footwear": "footwear, 15,000 labels",
    "half of the classes": "5 classes, 15,000 labels",
    "ImageNet's Lite0": "ImageNet, 1.3 million labels",
}

SCRATCH = Recipe(small, Supervised(), FullFineTuning(RATES[0]), STEPS)


class Frozen:
    """A head, or a classical method, on the features of a source's network, which each seed trains anew."""

    def __init__(self, name: str, method: Method):
        self.name, self.method = name, method

    def train(self, splits: Splits, seed: int) -> Trained:
        return OnFeatures(self.method, features_of(self.name, seed), KNOWN[self.name]).train(splits, seed)


def frozen(name: str) -> list[Frozen]:
    """The head alone: four learning rates."""
    width = 1280 if name == "ImageNet's Lite0" else 64
    return [
        Frozen(name, SCRATCH.but(model=lambda: nn.Linear(width, 10), strategy=FullFineTuning(rate)))
        for rate in HEAD_RATES
    ]


def moving(name: str) -> list[PerSeed]:
    """Everything moves from a source's network, with a new head: four learning rates."""

    def start(splits: Splits, seed: int) -> dict[str, Callable[[], nn.Module]]:
        def model() -> nn.Module:
            new = copy.deepcopy(pretrained(name, seed))
            new.head = nn.Linear(64, 10)
            return new

        return {"model": model}

    return [PerSeed(SCRATCH.but(strategy=FullFineTuning(rate), pretraining=KNOWN[name]), start) for rate in RATES]


CLASSICAL: dict[str, list[Classical]] = {
    "logistic regression": [Classical(LogisticRegression(C=c, max_iter=1000)) for c in (0.003, 0.01, 0.03, 0.1)],
    "SVM": [Classical(SVC(C=c)) for c in (1.0, 3.0, 10.0, 30.0)],
}

TRAINED = ("random labels", "footwear", "half of the classes")

METHODS = {
    **{f"{name}, frozen": frozen(name) for name in KNOWN},
    "SVM on Lite0's features": [Frozen("ImageNet's Lite0", method) for method in CLASSICAL["SVM"]],
    "from scratch": [SCRATCH.but(strategy=FullFineTuning(rate)) for rate in RATES],
    **{f"{name}, all moves": moving(name) for name in TRAINED},
    **{f"{name} on pixels": methods for name, methods in CLASSICAL.items()},
}


def accuracy_on(classes: Iterable[int], trained: Trained, splits: Splits) -> float:
    """Among the test images of some classes."""
    assert splits.test.targets is not None
    some = splits.test[torch.isin(splits.test.targets, torch.tensor([*classes]))]
    return (trained.decide(some) == some.targets).double().mean().item()


MEASURES = {
    "accuracy, half of the classes": functools.partial(accuracy_on, HALF),
    "accuracy, footwear": functools.partial(accuracy_on, FOOTWEAR),
    "accuracy, shirt and bag": functools.partial(accuracy_on, (6, 8)),
}


def sources() -> dict[str, Comparison]:
    """Sources, frozen and moving, at three numbers of labels, with classical methods beside them: four settings
    each, chosen on a fifth of the labels.
    """
    return {
        f"{labels:,} labels": compare(
            METHODS,
            functools.partial(within, labels),
            seeds=SEEDS,
            reference="from scratch",
            measures=MEASURES,
            progress=True,
        )
        for labels in COUNTS
    }


def sizes() -> dict[str, Comparison]:
    """Lite0's head at 500 labels, with pictures brought to four sizes."""

    def at(size: int) -> list[OnFeatures]:
        features = Remembered(lite0(size), LITE0_HEAD)
        return [
            OnFeatures(
                SCRATCH.but(model=lambda: nn.Linear(1280, 10), strategy=FullFineTuning(rate)),
                features,
                KNOWN["ImageNet's Lite0"],
            )
            for rate in HEAD_RATES
        ]

    return {
        "sizes": compare(
            {f"{size} pixels": at(size) for size in (32, 48, 64, 96)},
            functools.partial(within, 500),
            seeds=SEEDS,
            reference="48 pixels",
            progress=True,
        )
    }


def curved() -> dict[str, Comparison]:
    """An SVM in the place of the linear head, on the features of the small networks: four settings each."""
    return {
        f"{labels:,} labels": compare(
            {
                name: [Frozen(name, method) for method in CLASSICAL["SVM"]]
                for name in KNOWN
                if name != "ImageNet's Lite0"
            },
            functools.partial(within, labels),
            seeds=SEEDS,
            progress=True,
        )
        for labels in COUNTS
    }


if __name__ == "__main__":
    main({"frozen-backbone": sources, "frozen-backbone-svm": curved, "frozen-backbone-sizes": sizes})
