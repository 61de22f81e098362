"""The long experiments of chapter 07, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from shared import IMAGENET, LOGISTIC, SVM, OnViews, all_labels, chosen_before, lite0_features, new_head, views, within
from torch import nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Comparison, Method, OnFeatures, Recipe, Trained, compare, grid, per_seed, record_all
from kdft_lib.experiments.methods import Wrapped
from kdft_lib.features import Remembered
from kdft_lib.models import ConvNet
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

SPLITS = {f"{labels:,} labels": functools.partial(within, labels) for labels in (50, 500, 5000)}
HALF, FOOTWEAR = (0, 1, 2, 3, 4), (5, 7, 9)
HEAD_RATES, RATES, SVM_CS = (1e-3, 1e-2, 1e-1, 1.0), (0.003, 0.01, 0.03, 0.1), (1.0, 3.0, 10.0, 30.0)

SCRATCH = Recipe(functools.partial(ConvNet, width=16), Supervised, FullFineTuning(lr=RATES[0]), steps=300)
HEAD = SCRATCH.but(model=functools.partial(nn.Linear, 64, 10))
ON_LITE0 = OnFeatures(SCRATCH.but(model=functools.partial(nn.Linear, 1280, 10)), lite0_features, IMAGENET)


def of_classes(data: TensorData, classes: Sequence[int], each: int | None = None) -> TensorData:
    """The rows of these classes, class after class; of each all or the first so many."""
    assert data.targets is not None
    return data[torch.cat([data.targets.eq(label).nonzero().flatten()[:each] for label in classes])]


@functools.lru_cache(maxsize=1)
def pool(seed: int) -> TensorData:
    """The 50,000 labelled images that a seed never uses for its target."""
    everything, target = all_labels(seed).train, within(5000, seed)
    used = {image.numpy().tobytes() for part in (target.train, target.val) for image in part.inputs}
    return everything[[row for row, image in enumerate(everything.inputs) if image.numpy().tobytes() not in used]]


def source(classes: Sequence[int], seed: int, *, at_random: bool = False) -> TensorData:
    """15,000 images of these classes, with their labels or such as are drawn at random."""
    data = of_classes(pool(seed), classes, 15_000 // len(classes))
    drawn = torch.randint(10, (len(data),), generator=torch.Generator().manual_seed(seed))
    return TensorData(data.inputs, drawn) if at_random else data


SOURCES: dict[str, tuple[str, Callable[[int], TensorData]]] = {
    "random labels": ("15,000 random labels", functools.partial(source, range(10), at_random=True)),
    "footwear": ("footwear, 15,000 labels", functools.partial(source, FOOTWEAR)),
    "half of the classes": ("5 classes, 15,000 labels", functools.partial(source, HALF)),
}
KNOWN = {"untrained": "none"} | {name: known for name, (known, _) in SOURCES.items()}


@functools.cache
def pretrained(name: str, seed: int) -> Remembered:
    """A small network that learned from a source, 1,200 steps; without one, it did not."""
    torch.manual_seed(seed)
    model, tuning = ConvNet(width=16), FullFineTuning(lr=0.03)
    if name != "untrained":
        data = SOURCES[name][1](seed)
        fit(model, data, objective=Supervised(), strategy=tuning, steps=1200, seed=seed, progress=False)
    return Remembered(model, "head")


@dataclass(frozen=True)
class Frozen(Wrapped):
    """A method on the features of a source's network, which each seed trains anew."""

    name: str
    method: Method

    def train(self, splits: Splits, seed: int) -> Trained:
        return OnFeatures(self.method, pretrained(self.name, seed), KNOWN[self.name]).train(splits, seed)


def moving(name: str) -> Recipe:
    """Everything moves from a source's network, with a new head."""
    start = per_seed(lambda seed: pretrained(name, seed).model)
    return SCRATCH.but(start=start, change=new_head, pretraining=KNOWN[name])


def accuracy_on(classes: Sequence[int], trained: Trained, splits: Splits) -> float:
    """Among the test images of some classes."""
    return trained.accuracy(of_classes(splits.test, classes))


def sources() -> dict[str, Comparison]:
    """Sources, frozen and moving, and classical methods: four settings each, chosen on a fifth of the labels."""
    methods = {
        **{f"{name}, frozen": grid(Frozen(name, HEAD), lr=HEAD_RATES) for name in KNOWN},
        "ImageNet's Lite0, frozen": grid(ON_LITE0, lr=HEAD_RATES),
        "SVM on Lite0's features": grid(ON_LITE0.but(method=SVM), C=SVM_CS),
        "from scratch": grid(SCRATCH, lr=RATES),
        **{f"{name}, all moves": grid(moving(name), lr=RATES) for name in SOURCES},
        "logistic regression on pixels": grid(LOGISTIC, C=(0.003, 0.01, 0.03, 0.1)),
        "SVM on pixels": grid(SVM, C=SVM_CS),
    }
    shown = {"half of the classes": HALF, "footwear": FOOTWEAR, "shirt and bag": (6, 8)}
    measures = {f"accuracy, {name}": functools.partial(accuracy_on, classes) for name, classes in shown.items()}
    contrasts = [(f"{name}, frozen", "from scratch") for name in ("ImageNet's Lite0", "half of the classes")]
    contrasts += [(f"{name}, frozen", f"{name}, all moves") for name in SOURCES]
    contrasts += [("random labels, frozen", "untrained, frozen")]
    against = functools.partial(compare, reference="from scratch", contrasts=contrasts, measures=measures)
    return {title: against(methods, splits) for title, splits in SPLITS.items()}


def curved() -> dict[str, Comparison]:
    """An SVM in the place of the linear head, on the features of the small networks: four settings each."""
    methods = {name: grid(Frozen(name, SVM), C=SVM_CS) for name in KNOWN}
    return {title: compare(methods, splits) for title, splits in SPLITS.items()}


def augmented() -> dict[str, Comparison]:
    """Pictures shifted by up to a pixel and mirrored, anew at each step for the network from scratch, and eight kept
    views of each for Lite0's head and the SVM; beside them the same without views. Of 5,000 labels these are 32,000
    pictures, for which one SVM takes minutes: its C is there the one that :func:`sources` chose.
    """

    def at(title: str, splits: Callable[[int], Splits]) -> Comparison:
        methods = {
            "from scratch": grid(SCRATCH, lr=RATES),
            "from scratch, views": grid(SCRATCH.but(augment=views(1)), lr=RATES),
            "ImageNet's Lite0, frozen": grid(ON_LITE0, lr=HEAD_RATES),
            "ImageNet's Lite0, frozen, views": grid(OnViews(ON_LITE0), lr=HEAD_RATES),
            "SVM on pixels": grid(SVM, C=SVM_CS),
            "SVM on pixels, views": grid(chosen_before(OnViews(SVM)), C=3.0)
            if title == "5,000 labels"
            else grid(OnViews(SVM), C=SVM_CS),
        }
        plain = [name for name in methods if f"{name}, views" in methods]
        scratch, lite0, svm = (f"{name}, views" for name in plain)
        contrasts = [*((f"{name}, views", name) for name in plain), (lite0, scratch), (lite0, svm)]
        return compare(methods, splits, reference=scratch, contrasts=contrasts)

    return {title: at(title, splits) for title, splits in SPLITS.items()}


def half_tested(seed: int) -> Splits:
    """500 labels, and the first half of the test images."""
    splits = within(500, seed)
    return splits._replace(test=splits.test[:5000])


def sizes() -> dict[str, Comparison]:
    """Lite0's head at 500 labels, with pictures brought to seven sizes; beside it an SVM on their pixels."""
    bodies = {size: functools.partial(lite0_features, image_size=size) for size in (32, 48, 64, 96, 128, 160, 224)}
    methods = {f"{size} pixels": grid(ON_LITE0.but(features=body), lr=HEAD_RATES) for size, body in bodies.items()}
    methods["SVM on pixels"] = grid(SVM, C=SVM_CS)
    return {"sizes": compare(methods, half_tested, reference="48 pixels")}


EXPERIMENTS = {
    "frozen-backbone": sources,
    "frozen-backbone-views": augmented,
    "frozen-backbone-svm": curved,
    "frozen-backbone-sizes": sizes,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
