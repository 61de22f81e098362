"""The long experiments of chapter 04, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from patience import four_settings
from shared import LOGISTIC, SVM, all_labels, chosen_before, shifted, shop, student, thousand_labels
from torch import Tensor

from kdft_lib.data import Splits
from kdft_lib.datasets import FASHION_CLASSES
from kdft_lib.experiments import Candidate, Comparison, Given, Recipe, Trained, compare, grid, record_all, recorded
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache

TEACHER = fashion_teacher()
TROUSER = FASHION_CLASSES.index("trouser")
DECAYS = (0.01, 0.1, 0.5)
TEMPERATURES = (2.0, 4.0, 8.0)
RATE = 0.3
"""What an earlier search over 0.03, 0.1 and 0.3 found best for every network."""

LABELS = Recipe(student, Supervised, FullFineTuning(lr=RATE), steps=400)
SOFT = LABELS.taught_by(TEACHER, SoftTargets)
tuned = functools.partial(grid, lr=RATE, weight_decay=DECAYS)


def with_views_as_chosen() -> Recipe:
    """Soft targets with augmentation, in the setting that the record of ``thousand`` chose: what is shipped."""
    return shifted(SOFT)(**recorded("soft-targets-thousand")["1,000 labels"].setting("soft targets + augmentation"))


def thousand() -> dict[str, Comparison]:
    """Nine settings each: weight decays times what a method brings along; labels bring nothing, and try more rates."""

    def hard(kd_weight: float, **settings: float) -> Recipe:
        taught = LABELS.taught_by(TEACHER, HardTargets, kd_weight=kd_weight, ce_weight=1 - kd_weight)
        return taught.but(**settings)

    methods = {
        "labels": grid(LABELS, weight_decay=DECAYS, lr=(0.1, 0.3, 1.0)),
        "label smoothing": tuned(LABELS, label_smoothing=(0.1, 0.2, 0.4)),
        "augmentation": tuned(shifted(LABELS), shift=(0, 1, 2)),
        "hard targets": tuned(hard, kd_weight=(0.5, 0.9, 1.0)),
        "soft targets": tuned(SOFT, temperature=TEMPERATURES),
        "soft targets + augmentation": tuned(shifted(SOFT), shift=(0, 1, 2)),
        "logistic regression": grid(LOGISTIC, C=[10.0**power for power in range(-6, 3)]),
        "SVM": grid(SVM, C=(1, 5, 25), gamma=(5e-4, "scale", 4e-3)),
    }
    contrasts = [("soft targets", other) for other in methods if other != "soft targets"]
    return {"1,000 labels": compare(methods, thousand_labels, reference="labels", contrasts=contrasts)}


def sensitivity() -> dict[str, Comparison]:
    """Temperature and weight of the soft targets, on validation, at 1,000 labels."""

    def soft(kd_weight: float, **settings: float) -> Recipe:
        return SOFT.but(kd_weight=kd_weight, ce_weight=round(1 - kd_weight, 1), **settings)

    fixed = {"lr": RATE, "weight_decay": 0.1}
    methods = {
        "labels": grid(LABELS, **fixed),
        "soft targets": grid(soft, **fixed, temperature=(1.0, 2.0, 4.0, 8.0, 16.0), kd_weight=(0.1, 0.5, 0.9, 1.0)),
    }
    return {"temperature and weight": compare(methods, thousand_labels)}


def everything() -> dict[str, Comparison]:
    """All labels: the rate of each method is chosen at six epochs and kept at sixty."""
    steps = 55_000 // 128
    methods = {"labels": LABELS, "soft targets": SOFT}
    short = {name: grid(method.but(steps=6 * steps), lr=(1e-2, 3e-2, 1e-1)) for name, method in methods.items()}
    made = compare(short, all_labels)
    patient = {name: chosen_before(method.but(steps=60 * steps)) for name, method in methods.items()}
    long = {name: grid(method, **made.setting(name)) for name, method in patient.items()}
    return {"6 epochs": made, "60 epochs": compare(long, all_labels)}


def smoothed(logits: Tensor, targets: Tensor, temperature: float, seed: int) -> Tensor:
    """Logits that smooth each label evenly, all alike, to the teacher's mean entropy at a temperature."""
    wanted = _entropy(logits / temperature).mean()
    low, high = torch.tensor(0.0), torch.tensor(100.0)
    for _ in range(50):
        middle = (low + high) / 2
        softer = _entropy(torch.eye(10)[0] * middle) > wanted
        low, high = (middle, high) if softer else (low, middle)
    return F.one_hot(targets, 10) * middle * temperature


def permuted(logits: Tensor, targets: Tensor, temperature: float, seed: int) -> Tensor:
    """The teacher's logits, those of the classes below its first permuted, for each picture differently."""
    ranked, classes = logits.sort(dim=1, descending=True)
    order = torch.rand(len(logits), 9, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    return torch.cat([ranked[:, :1], ranked[:, 1:].gather(1, order)], dim=1).gather(1, classes.argsort(dim=1))


def of_the_class(logits: Tensor, targets: Tensor, temperature: float, seed: int) -> Tensor:
    """For every picture of a class the same: the teacher's mean distribution on that class."""
    soft = (logits / temperature).softmax(dim=1)
    means = torch.stack([soft[targets == label].mean(dim=0) for label in range(10)])
    return temperature * means[targets].log()


def _entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def parts() -> dict[str, Comparison]:
    """Parts of what soft targets say, learned as in :mod:`patience`, chosen on 250 further labels, at T = 4."""

    def arm(said: Callable[[Tensor, Tensor, float, int], Tensor]) -> list[Candidate]:
        def change(splits: Splits, seed: int) -> Splits:
            train = cache(TEACHER, splits.train)
            logits, targets, who = train.teacher_logits, train.targets, train.teacher
            assert isinstance(logits, Tensor) and targets is not None and who is not None  # noqa: PT018
            return splits._replace(train=train.with_teacher_logits(said(logits, targets, 4.0, seed), who))

        return four_settings(Given(SOFT, change))

    methods = {
        "smoothed as much": arm(smoothed),
        "other classes permuted": arm(permuted),
        "the class's mean": arm(of_the_class),
    }
    return {"400 steps": compare(methods, shop, choose="each seed")}


def factor() -> dict[str, Comparison]:
    """The factor T² at T = 8, there and forgotten, beside the labels and alone; three weight decays each."""

    def at(kd_weight: float, ce_weight: float) -> list[Candidate]:
        return tuned(SOFT.but(temperature=8.0, kd_weight=kd_weight, ce_weight=ce_weight))

    beside = {"with T²": at(0.9, 0.1), "without T²": at(0.9 / 64, 0.1)}
    alone = {"with T²": at(1.0, 0.0), "without T²": at(1 / 64, 0.0)}
    return {"beside labels": compare(beside, thousand_labels), "alone": compare(alone, thousand_labels)}


def without_trousers(splits: Splits, seed: int) -> Splits:
    assert splits.train.targets is not None
    return splits._replace(train=splits.train[splits.train.targets != TROUSER])


def named_trousers(trained: Trained, splits: Splits) -> tuple[Tensor, Tensor]:
    """Of each test picture whether it is named so, once one unlabelled picture in ten is, and whether it shows some."""

    def lacking(logits: Tensor) -> Tensor:
        others = logits.index_fill(1, torch.tensor(TROUSER), -torch.inf)
        return others.max(dim=1).values - logits[:, TROUSER]

    bias = lacking(trained.logits(splits.transfer[:5000])).quantile(0.1)
    assert splits.test.targets is not None
    return lacking(trained.logits(splits.test)) < bias, splits.test.targets == TROUSER


def trousers() -> dict[str, Comparison]:
    """Students that see no trousers, and how many they find by a bias that was set without labels."""

    def share(of: str) -> Callable[[Trained, Splits], float]:
        def measured(trained: Trained, splits: Splits) -> float:
            named, shown = named_trousers(trained, splits)
            among = shown if of == "trousers" else named
            return (named & shown).sum().item() / among.sum().item()

        return measured

    recipe = LABELS.but(weight_decay=0.1)
    said = recipe.taught_by(TEACHER, functools.partial(SoftTargets, kd_weight=1.0, ce_weight=0.0))
    methods = {"labels": Given(recipe, without_trousers), "soft targets": Given(said, without_trousers)}
    measures = {"of the trousers, found": share("trousers"), "of what was found, trousers": share("named")}
    measures["without the bias"] = lambda trained, splits: (
        (trained.decide(splits.test) == TROUSER)[splits.test.targets == TROUSER].float().mean().item()
    )
    return {"a class left out": compare(methods, thousand_labels, measures=measures)}


EXPERIMENTS = {
    "soft-targets-thousand": thousand,
    "soft-targets-sensitivity": sensitivity,
    "soft-targets-everything": everything,
    "soft-targets-parts": parts,
    "soft-targets-factor": factor,
    "soft-targets-trousers": trousers,
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
