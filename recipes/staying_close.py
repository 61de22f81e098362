"""The long experiments of chapter 09, recorded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from shared import LOGISTIC, SVM, all_labels
from torch import Tensor, nn

from kdft_lib import experiments
from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, Given, Interpolated, Once, Recipe, Then, Trained, compare, grid
from kdft_lib.models import ConvNet
from kdft_lib.objectives import L2SP, LwF, Objective, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.teachers import Teacher
from kdft_lib.training import Ledger, predict

OLD, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
RATES, DECAYS = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03), (0.0, 0.01, 0.1)
LOGISTIC_CS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
KNOWN = "classes 0 to 4, 27,500 labels"


def of_classes(data: TensorData, classes: Sequence[int]) -> TensorData:
    """The rows of these classes."""
    assert data.targets is not None
    return data[torch.isin(data.targets, torch.tensor(classes))]


@functools.cache
def old_data() -> TensorData:
    """All 27,500 labelled images of the classes 0 to 4."""
    return of_classes(all_labels(0).train, OLD)


@functools.lru_cache(maxsize=2)
def new_task(seed: int) -> Splits:
    """2,500 labelled images of the classes 5 to 9, other ones for each seed; val and test of all ten."""
    splits = fashion_mnist(labeled=5000, seed=seed)
    return splits._replace(train=of_classes(splits.train, NEW))


def toward_start(teacher: Teacher, *, weight: float) -> Objective:
    return Supervised() + weight * L2SP(teacher.model)


def without_forgetting(teacher: Teacher, *, weight: float, joint: bool = False) -> Objective:
    return LwF(teacher, classes=OLD, kd_weight=weight, joint=joint)


class StatisticsKept(FullFineTuning):
    """Everything moves but the running statistics of batch normalisation, which stay those of the old task."""

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


FIRST = Recipe(functools.partial(ConvNet, width=16), Supervised, FullFineTuning(lr=0.03), steps=1000)
START = Once(FIRST.but(train_data=lambda splits: old_data()))
"""A network of ten outputs that learned the classes 0 to 4."""
PLAIN = FIRST.but(start=START, steps=400, pretraining=KNOWN)
TOWARD = PLAIN.taught_by(START, toward_start).but(weight_decay=0.0)
"""L2-SP takes the place of a decay toward 0 (Li et al., 2018)."""
KEEPING = PLAIN.taught_by(START, without_forgetting)
KEPT = StatisticsKept(lr=RATES[0])


@functools.cache
def memory(count: int, seed: int) -> TensorData:
    """So many old images that were kept, the classes in turn."""
    shuffled = old_data()[torch.randperm(len(old_data()), generator=torch.Generator().manual_seed(seed))]
    of_each = [torch.where(shuffled.targets == label)[0][: count // len(OLD)] for label in OLD]
    turns = torch.cat([torch.arange(len(rows)) for rows in of_each])
    return shuffled[torch.cat(of_each)[turns.argsort(stable=True)]]


def repeated(data: TensorData, rows: float) -> TensorData:
    return data[torch.arange(round(rows)) % len(data)]


@dataclass(frozen=True)
class Replayed(experiments.Wrapped):
    """Old images that were kept, among the new ones; the fewer are repeated until each is its share of the rows."""

    count: int
    share: float = 0.5
    method: Recipe = PLAIN

    def train(self, splits: Splits, seed: int) -> Trained:
        kept, new = memory(self.count, seed), splits.train
        rows = max(len(kept) / self.share, len(new) / (1 - self.share))
        mixed = repeated(new, rows * (1 - self.share)).with_rows(repeated(kept, rows * self.share))
        return self.method.train(splits._replace(train=mixed), seed).but(labels=len(new) + len(kept))


def class_means(start: Trained, splits: Splits, seed: int) -> Trained:
    """The nearest of ten class means of the start's features decides (as in Rebuffi et al., 2017): a linear head. Old
    means are from all old images, which the start was trained on anyway; new ones from the new labels.
    """
    body = start.model.body
    parts = [of_classes(data, [label]) for data, task in ((old_data(), OLD), (splits.train, NEW)) for label in task]
    means = torch.stack([predict(body, part).mean(dim=0) for part in parts])
    head = nn.Linear(*means.T.shape)
    head.load_state_dict({"weight": means, "bias": -means.square().sum(dim=1) / 2})
    return Trained(nn.Sequential(body, head), Ledger(labels=len(splits.train), pretraining=KNOWN))


class Joined(nn.Module):
    """Two networks, each of five classes; where the task is not told, the surer one decides."""

    def __init__(self, old: nn.Module, new: nn.Module):
        super().__init__()
        self.old, self.new = old, new

    def forward(self, images: Tensor) -> Tensor:
        old, new = self.old(images)[:, : len(OLD)], self.new(images)[:, len(OLD) :]
        return torch.cat([old.log_softmax(dim=1), new.log_softmax(dim=1)], dim=1)


def beside_start(tuned: Trained, splits: Splits, seed: int) -> Trained:
    """The start is kept as it is, beside the copy that was fine-tuned."""
    return tuned.but(model=Joined(START.train(splits, seed).model, tuned.model))


class Scores(nn.Module):
    """A classical method's scores as logits."""

    def __init__(self, estimator: Any):
        super().__init__()
        self.estimator = estimator

    def forward(self, images: Tensor) -> Tensor:
        scores = torch.from_numpy(self.estimator.decision_function(images.flatten(1).numpy())).float()
        known = torch.tensor(self.estimator.classes_)
        return scores.new_full((len(scores), 10), -torch.inf).index_copy(1, known, scores)


def decide(is_told: bool, trained: Trained, data: TensorData) -> Tensor:
    """By the highest logit: of all or, if the task is told, of the classes of an image's own task."""
    logits = trained.logits(data)
    if is_told:
        assert data.targets is not None
        logits = logits.masked_fill((data.targets < len(OLD))[:, None] != (torch.arange(10) < len(OLD)), -torch.inf)
    return logits.argmax(dim=1)


def told(trained: Trained, *_: Any, is_told: bool = True) -> Trained:
    return trained.but(decides=functools.partial(decide, is_told, trained))


def on_pixels(classical: Classical) -> Then:
    """A classical method on the new images and 500 old ones that were kept; its scores serve where the task is told."""

    def with_memory(splits: Splits, seed: int) -> Splits:
        return splits._replace(train=splits.train.with_rows(memory(500, seed)))

    scored = Given(classical, with_memory)
    return Then(scored, lambda trained, *_: trained.but(model=Scores(trained.model), decides=trained.decide))


decayed = functools.partial(grid, lr=RATES, weight_decay=DECAYS)
METHODS = {
    "the start": grid(Then(START, lambda start, *_: start.but(ledger=Ledger(pretraining=KNOWN)))),
    "plain": decayed(PLAIN),
    "plain, statistics kept": decayed(PLAIN.but(strategy=KEPT)),
    "head alone": decayed(PLAIN.but(strategy=HeadOnly(lr=RATES[0], head="head"))),
    "toward the start": grid(TOWARD, lr=RATES, weight=(0.01, 0.03, 0.1)),
    "toward the start, statistics kept": grid(
        TOWARD.but(strategy=StatisticsKept(lr=RATES[0], weight_decay=0.0)), lr=RATES, weight=(0.01, 0.03, 0.1)
    ),
    "moving average": grid(PLAIN, lr=RATES, ema_decay=(0.9, 0.95, 0.99)),
    "interpolation": grid(Interpolated(PLAIN), lr=RATES, alpha=(0.3, 0.5, 0.7)),
    "without forgetting": grid(KEEPING, lr=RATES, weight=(1.0, 4.0, 16.0)),
    "without forgetting, joint": grid(KEEPING.but(joint=True), lr=RATES, weight=(1.0, 4.0, 16.0)),
    **{f"replay of {count}": grid(Replayed(count), lr=RATES, share=(0.1, 0.25, 0.5)) for count in (50, 500)},
    "two networks": decayed(Then(PLAIN, beside_start)),
    "class means": grid(Then(START, class_means)),
    "logistic regression, 500 kept": grid(on_pixels(LOGISTIC), C=LOGISTIC_CS),
    "SVM, 500 kept": grid(on_pixels(SVM), C=(0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
    "all old images": grid(Replayed(27_500), lr=RATES, share=(0.25, 0.5, 0.75)),
}
CONTRASTS = [
    *((name, "plain") for name in ("head alone", "toward the start", "without forgetting", "interpolation")),
    ("two networks", "without forgetting"),
    ("without forgetting", "all old images"),
    ("replay of 500", "SVM, 500 kept"),
]


def accuracy_on(classes: Sequence[int], is_told: bool, trained: Trained, splits: Splits) -> float:
    """Among the test images of one task."""
    return told(trained, is_told=is_told).accuracy(of_classes(splits.test, classes))


MEASURES = {
    f"{task}{', told' * is_told}": functools.partial(accuracy_on, classes, is_told)
    for is_told in (False, True)
    for task, classes in (("old", OLD), ("new", NEW))
}


def forgetting() -> dict[str, Comparison]:
    """Learning the classes 5 to 9 after 0 to 4: six rates each and three values of what a method brings along, weight
    decay where it brings nothing, chosen among all ten and where the task is told.
    """
    once = {name: [replace(each, method=Once(each.method)) for each in tried] for name, tried in METHODS.items()}
    also = {name: [replace(each, method=Then(each.method, told)) for each in tried] for name, tried in once.items()}
    against = functools.partial(compare, reference="plain", contrasts=CONTRASTS, measures=MEASURES, equal_budgets=False)
    return {"among all ten": against(once, new_task), "task told": against(also, new_task)}


SHARES, WEIGHTS = {50: (0.75, 0.9), 500: (0.5, 0.75)}, {50: (4.0, 16.0), 500: (1.0, 4.0)}
"""What the few images of :func:`distilled` are tried with, placed after a look at validation on seed 0."""


def distilled() -> dict[str, Comparison]:
    """Images that were kept, with and without the answers of the old network beside them: six settings each."""
    methods, both = {}, KEEPING.but(joint=True)
    for count, rates in ((50, (0.001, 0.003, 0.01)), (500, (0.003, 0.01, 0.03))):
        methods[f"replay of {count}"] = grid(Replayed(count), lr=rates, share=SHARES[count])
        taught = Replayed(count, method=both)
        methods[f"replay of {count}, with LwF"] = grid(taught, lr=(0.003, 0.01, 0.03), weight=WEIGHTS[count])
    contrasts = [(f"replay of {count}, with LwF", f"replay of {count}") for count in (50, 500)]
    against = functools.partial(compare, reference="replay of 500", contrasts=contrasts, equal_budgets=False)
    return {"among all ten": against(methods, new_task, measures=MEASURES)}


def curve() -> dict[str, Comparison]:
    """Between start and end of plain fine-tuning, eleven places."""
    places = {f"{place / 10:.1f}": Interpolated(PLAIN, place / 10) for place in range(11)}
    at = {lr: {alpha: grid(method, lr=lr) for alpha, method in places.items()} for lr in (0.001, 0.01, 0.03)}
    return {f"learning rate {lr:g}": compare(methods, new_task, measures=MEASURES) for lr, methods in at.items()}


EXPERIMENTS = {"staying-close": forgetting, "staying-close-curve": curve, "staying-close-distilled": distilled}

if __name__ == "__main__":
    experiments.record_all(EXPERIMENTS)
