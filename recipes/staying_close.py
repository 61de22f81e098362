"""The long experiments of chapter 09, recorded: ``make results``.

``python recipes/staying_close.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from recording import main
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, Method, PerSeed, Recipe, Trained, compare
from kdft_lib.models import ConvNet
from kdft_lib.objectives import L2SP, LwF, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.training import fit, interpolate, predict

SEEDS = range(5)
STEPS = 400
OLD, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
NEW_LABELS = 2500
RATES = (0.01, 0.03)
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def of_classes(data: TensorData, classes: Iterable[int]) -> TensorData:
    """The rows of these classes."""
    assert data.targets is not None
    return data[torch.isin(data.targets, torch.tensor([*classes]))]


@functools.cache
def old_data() -> TensorData:
    """All 27,500 labelled images of the classes 0 to 4."""
    return of_classes(fashion_mnist(labeled=None).train, OLD)


def new_task(seed: int) -> Splits:
    """2,500 labelled images of the classes 5 to 9, other ones for each seed; val and test of all ten."""
    splits = fashion_mnist(labeled=2 * NEW_LABELS, seed=seed)
    return splits._replace(train=of_classes(splits.train, NEW))


@functools.cache
def start(seed: int) -> nn.Module:
    """A network of ten outputs that learned the classes 0 to 4."""
    torch.manual_seed(seed)
    model = ConvNet(width=16)
    fit(
        model, old_data(), objective=Supervised(), strategy=FullFineTuning(0.03), steps=1000, seed=seed, progress=False
    )  # fmt: skip
    model.card = {"labels": len(old_data())}  # type: ignore[assignment]
    return model


PLAIN = Recipe(ConvNet, Supervised(), FullFineTuning(RATES[0]), STEPS, pretraining="classes 0 to 4, 27,500 labels")


def from_start(recipe: Recipe, also: Callable[[Splits, int], dict[str, object]] = lambda splits, seed: {}) -> PerSeed:
    """A recipe that starts where the seed's old network ended."""
    return PerSeed(recipe, lambda splits, seed: {"model": lambda: copy.deepcopy(start(seed)), **also(splits, seed)})


def at_rates(rates: Iterable[float]) -> list[Recipe]:
    return [PLAIN.but(strategy=FullFineTuning(rate)) for rate in rates]


def toward_start(weight: float) -> Callable[[Splits, int], dict[str, object]]:
    return lambda splits, seed: {"objective": Supervised() + weight * L2SP(start(seed))}


def without_forgetting(weight: float, joint: bool) -> Callable[[Splits, int], dict[str, object]]:
    return lambda splits, seed: {
        "objective": LwF(copy.deepcopy(start(seed)), classes=OLD, kd_weight=weight, joint=joint)
    }


@functools.cache
def memory(count: int, seed: int) -> TensorData:
    """So many old images that were kept, the classes in turn."""
    order = torch.randperm(len(old_data()), generator=torch.Generator().manual_seed(seed))
    shuffled = old_data()[order]
    assert shuffled.targets is not None
    of_each = torch.stack([(shuffled.targets == label).nonzero().flatten()[: count // len(OLD)] for label in OLD])
    return shuffled[of_each.T.flatten()]


class Replayed:
    """Old images that were kept, among the new ones; the fewer are repeated until each is its share of the rows."""

    def __init__(self, rate: float, count: int, share: float):
        self.rate, self.count, self.share = rate, count, share

    def train(self, splits: Splits, seed: int) -> Trained:
        kept, new = memory(self.count, seed), splits.train
        rows = max(len(kept) / self.share, len(new) / (1 - self.share))
        mixed = together(repeated(new, round(rows * (1 - self.share))), repeated(kept, round(rows * self.share)))
        recipe = PLAIN.but(strategy=FullFineTuning(self.rate), train_data=lambda _: mixed)
        trained = from_start(recipe).train(splits, seed)
        trained.ledger["labels"] = len(new) + len(kept)
        return trained


def repeated(data: TensorData, rows: int) -> TensorData:
    return data[torch.arange(rows) % len(data)]


def together(one: TensorData, other: TensorData) -> TensorData:
    """The rows of both."""
    assert one.targets is not None
    assert other.targets is not None
    return TensorData(torch.cat([one.inputs, other.inputs]), torch.cat([one.targets, other.targets]))


class StatisticsKept(FullFineTuning):
    """Everything moves but the running statistics of batch normalisation, which stay those of the old task."""

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class Interpolated:
    """Plain fine-tuning, and then back by a part of the way."""

    def __init__(self, rate: float, alpha: float):
        self.rate, self.alpha = rate, alpha

    def train(self, splits: Splits, seed: int) -> Trained:
        (recipe,) = at_rates([self.rate])
        tuned = from_start(recipe).train(splits, seed)
        between = interpolate(start(seed), tuned.model, self.alpha)
        return Trained(lambda data: predict(between, data).argmax(dim=1), tuned.ledger, between)


class Averaged:
    """The moving average of plain fine-tuning."""

    def __init__(self, rate: float, decay: float):
        self.rate, self.decay = rate, decay

    def train(self, splits: Splits, seed: int) -> Trained:
        model = copy.deepcopy(start(seed))
        history = fit(
            model, splits.train, objective=Supervised(), strategy=FullFineTuning(self.rate), steps=STEPS,
            ema_decay=self.decay, seed=seed, progress=False,
        )  # fmt: skip
        ledger = history.ledger | {"teacher_labels": 0, "pretraining": PLAIN.pretraining}
        return Trained(lambda data: predict(model, data).argmax(dim=1), ledger, model)


def tuned(
    changes: Callable[[float], Callable[[Splits, int], dict[str, object]]], strengths: Iterable[float]
) -> list[PerSeed]:
    """Two learning rates times three strengths."""
    return [from_start(recipe, changes(strength)) for recipe in at_rates(RATES) for strength in strengths]


SIX_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03)


def keeping_statistics(runs: Iterable[PerSeed]) -> list[PerSeed]:
    """The same runs, but the running statistics stay."""
    return [
        dataclasses.replace(run, recipe=run.recipe.but(strategy=StatisticsKept(run.recipe.strategy.lr))) for run in runs
    ]


class Once:
    """A method whose runs are kept, so that two comparisons can share them."""

    def __init__(self, method: Method):
        self.method = method
        self.kept: dict[int, Trained] = {}

    def train(self, splits: Splits, seed: int) -> Trained:
        if seed not in self.kept:
            self.kept[seed] = self.method.train(splits, seed)
        return self.kept[seed]


class Told:
    """A method that is told the task: only the classes of an image's own task are to be told apart."""

    def __init__(self, method: Method):
        self.method = method

    def train(self, splits: Splits, seed: int) -> Trained:
        trained = self.method.train(splits, seed)
        return dataclasses.replace(
            trained, decide=functools.partial(decide_told, trained.model), ledger=dict(trained.ledger)
        )


def decide_told(model: nn.Module, data: TensorData) -> Tensor:
    assert data.targets is not None
    is_old = (data.targets < len(OLD)).unsqueeze(1)
    of_old = torch.arange(10) < len(OLD)
    return predict(model, data).masked_fill(is_old != of_old, -torch.inf).argmax(dim=1)


def without_training(model: nn.Module, labels: int, *, seconds: float = 0.0) -> Trained:
    """What decides without a step."""
    ledger = {"labels": labels, "unlabeled": 0, "steps": 0, "seconds": seconds, "teacher_labels": 0}
    return Trained(lambda data: predict(model, data).argmax(dim=1), ledger | {"pretraining": PLAIN.pretraining}, model)


class Start:
    """Nothing is trained."""

    def train(self, splits: Splits, seed: int) -> Trained:
        return without_training(start(seed), 0)


class NearestMean(nn.Module):
    """The start's features, and the nearest of ten class means of them (as in Rebuffi et al., 2017)."""

    def __init__(self, body: nn.Module, means: Tensor):
        super().__init__()
        self.body = body
        self.register_buffer("means", means)

    def forward(self, images: Tensor) -> Tensor:
        return -torch.cdist(self.body(images), self.means)


class ClassMeans:
    """Old means from all old images, which the start was trained on anyway; new ones from the new labels."""

    def train(self, splits: Splits, seed: int) -> Trained:
        body = start(seed).body
        means = []
        for data, classes in ((old_data(), OLD), (splits.train, NEW)):
            features = predict(body, data)
            means += [features[data.targets == label].mean(dim=0) for label in classes]
        return without_training(NearestMean(body, torch.stack(means)), len(splits.train))


class Joined(nn.Module):
    """Two networks, each of five classes; where the task is not told, the surer one decides."""

    def __init__(self, old: nn.Module, new: nn.Module):
        super().__init__()
        self.old, self.new = old, new

    def forward(self, images: Tensor) -> Tensor:
        old, new = self.old(images)[:, : len(OLD)], self.new(images)[:, len(OLD) :]
        return torch.cat([old.log_softmax(dim=1), new.log_softmax(dim=1)], dim=1)


class TwoNetworks:
    """The start is kept as it is, and a copy of it is fine-tuned for the new task."""

    def __init__(self, rate: float):
        self.rate = rate

    def train(self, splits: Splits, seed: int) -> Trained:
        (recipe,) = at_rates([self.rate])
        tuned = from_start(recipe).train(splits, seed)
        assert isinstance(tuned.model, nn.Module)
        joined = Joined(start(seed), tuned.model)
        return Trained(lambda data: predict(joined, data).argmax(dim=1), tuned.ledger, joined)


class Scores(nn.Module):
    """A classical method's scores as logits."""

    def __init__(self, estimator: Any):
        super().__init__()
        self.estimator = estimator

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.estimator.decision_function(images.flatten(1).numpy())).float()


class OnPixels:
    """A classical method on the new images and 500 old ones that were kept."""

    def __init__(self, estimator: Any):
        self.method = Classical(estimator)

    def train(self, splits: Splits, seed: int) -> Trained:
        data = together(splits.train, memory(500, seed))
        trained = self.method.train(splits._replace(train=data), seed)
        return dataclasses.replace(trained, model=Scores(trained.model))


PLAIN_RUNS = [from_start(recipe) for recipe in at_rates(SIX_RATES)]
TOWARD_RUNS = tuned(toward_start, (0.01, 0.03, 0.1))

METHODS: dict[str, list[Method]] = {
    "the start": [Start()],
    "plain": [*PLAIN_RUNS],
    "plain, statistics kept": [*keeping_statistics(PLAIN_RUNS)],
    "head alone": [from_start(PLAIN.but(strategy=HeadOnly("head", rate))) for rate in SIX_RATES],
    "toward the start": [*TOWARD_RUNS],
    "toward the start, statistics kept": [*keeping_statistics(TOWARD_RUNS)],
    "moving average": [Averaged(rate, decay) for rate in RATES for decay in (0.9, 0.95, 0.99)],
    "interpolation": [Interpolated(rate, alpha) for rate in RATES for alpha in (0.3, 0.5, 0.7)],
    "without forgetting": [*tuned(functools.partial(without_forgetting, joint=False), (1.0, 4.0, 16.0))],
    "without forgetting, joint": [*tuned(functools.partial(without_forgetting, joint=True), (1.0, 4.0, 16.0))],
    "replay of 50": [Replayed(rate, 50, share) for rate in RATES for share in (0.1, 0.25, 0.5)],
    "replay of 500": [Replayed(rate, 500, share) for rate in RATES for share in (0.1, 0.25, 0.5)],
    "two networks": [TwoNetworks(rate) for rate in SIX_RATES],
    "class means": [ClassMeans()],
    "logistic regression, 500 kept": [
        OnPixels(LogisticRegression(C=c, max_iter=1000)) for c in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    ],
    "SVM, 500 kept": [OnPixels(SVC(C=c)) for c in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)],
    "all old images": [Replayed(rate, 27_500, share) for rate in RATES for share in (0.25, 0.5, 0.75)],
}


def accuracy_on(classes: tuple[int, ...], is_told: bool, trained: Trained, splits: Splits) -> float:
    """Among the test images of one task."""
    some = of_classes(splits.test, classes)
    decided = decide_told(trained.model, some) if is_told else predict(trained.model, some).argmax(dim=1)
    return (decided == some.targets).double().mean().item()


MEASURES = {
    "old": functools.partial(accuracy_on, OLD, False),
    "new": functools.partial(accuracy_on, NEW, False),
    "old, told": functools.partial(accuracy_on, OLD, True),
    "new, told": functools.partial(accuracy_on, NEW, True),
}


def forgetting() -> dict[str, Comparison]:
    """Ways to learn the classes 5 to 9 after 0 to 4: six settings each, chosen on validation images of all ten
    classes, and once more for use where the task is told.
    """
    once = {name: [Once(method) for method in methods] for name, methods in METHODS.items()}
    told = {name: [Told(method) for method in methods] for name, methods in once.items()}
    return {
        name: compare(methods, new_task, seeds=SEEDS, reference="plain", measures=MEASURES, progress=True)
        for name, methods in (("among all ten", once), ("task told", told))
    }


def curve() -> dict[str, Comparison]:
    """Between start and end of plain fine-tuning, eleven places."""
    return {
        f"learning rate {rate:g}": compare(
            {f"{alpha:.1f}": Interpolated(rate, alpha) for alpha in ALPHAS},
            new_task,
            seeds=SEEDS,
            measures=MEASURES,
            progress=True,
        )
        for rate in (0.001, 0.01, 0.03)
    }


if __name__ == "__main__":
    main({"staying-close": forgetting, "staying-close-curve": curve})
