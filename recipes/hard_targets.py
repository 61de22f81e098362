"""The long experiments of chapter 03, recorded: ``make results``.

``python recipes/hard_targets.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from recording import main, student, views
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, PerSeed, Recipe, compare
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Ensemble, cache
from kdft_lib.training import predict

TEACHER = fashion_teacher()
BASE = Recipe(student, Supervised(), FullFineTuning(0.3), steps=800)
DECAYS = (0.01, 0.1)
COUNTS = (1000, 4000, 16_000, 55_000)


def tuned(make: Callable[[Any], Recipe], values: Sequence[Any]) -> list[Recipe]:
    """Two weight decays times some values of what the method brings along."""
    return [make(value).but(strategy=FullFineTuning(0.3, weight_decay=wd)) for wd in DECAYS for value in values]


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed."""
    return fashion_mnist(labeled=1000, seed=seed)


@functools.cache
def _everything() -> TensorData:
    return cache(TEACHER, fashion_mnist(labeled=None).train)


def more_inputs(seed: int, count: int) -> Splits:
    """So many images with labels and the teacher's logits; a larger draw of a seed holds the smaller."""
    splits = fashion_mnist(labeled=count, seed=seed)
    return splits._replace(train=cache(TEACHER, splits.train) if count < 55_000 else _everything())


def inputs() -> dict[str, Comparison]:
    """What more inputs bring: the same 800 steps on more and more images, named by their labels, by the
    teacher's decisions and by its distributions. Two weight decays for each, chosen on validation.
    """
    objectives = {
        "labels": Supervised(),
        "decisions": HardTargets(TEACHER, kd_weight=1.0, ce_weight=0.0),
        "distributions": SoftTargets(TEACHER, kd_weight=1.0, ce_weight=0.0),
    }
    methods = {name: tuned(lambda o: BASE.but(objective=o), [objective]) for name, objective in objectives.items()}
    return {
        f"{count:,} inputs": compare(methods, functools.partial(more_inputs, count=count), progress=True)
        for count in COUNTS
    }


def pseudo() -> dict[str, Comparison]:
    """1,000 labels and 54,000 images without: who names them? Four settings for each method: two weight
    decays times two values of what it brings along (label smoothing, a shift, a threshold).
    """
    smoothings = (0.0, 0.1)
    alone = compare(
        {
            "labels": tuned(lambda rate: BASE.but(objective=Supervised(label_smoothing=rate)), smoothings),
            "augmentation": tuned(lambda padding: BASE.but(augment=views(padding)), (1, 2)),
            "logistic regression": [Classical(LogisticRegression(C=10.0**k, max_iter=1000)) for k in range(-4, 0)],
            "SVM": [Classical(SVC(C=c, gamma=gamma)) for c in (5, 25) for gamma in ("scale", 4e-3)],
        },
        thousand_labels,
        progress=True,
    )

    def five_of_the_same(splits: Splits, seed: int) -> Ensemble:
        """Five initialisations on the seed's own labels, in the setting that was chosen for one."""
        recipe = tuned(lambda rate: BASE.but(objective=Supervised(label_smoothing=rate)), smoothings)[
            alone.chosen["labels"]
        ]
        return Ensemble([recipe.train(splits, 1000 + 5 * seed + member).model for member in range(5)])

    @functools.lru_cache(maxsize=8)
    def decisions(by: str, seed: int) -> Tensor:
        splits = thousand_labels(seed)
        if by == "five of itself":
            return predict(five_of_the_same(splits, seed), splits.transfer).argmax(dim=1)
        if by == "a teacher with 55,000 labels":
            return predict(TEACHER, splits.transfer).argmax(dim=1)
        return alone.trained[by][seed].decide(splits.transfer)

    def named(splits: Splits, seed: int, by: str) -> dict[str, Any]:
        inputs = torch.cat([splits.train.inputs, splits.transfer.inputs])
        data = TensorData(inputs, torch.cat([splits.train.targets, decisions(by, seed)]))
        return {"train_data": lambda _: data}

    def surely_named(splits: Splits, seed: int, threshold: float) -> dict[str, Any]:
        highest, decided = predict(alone.trained["labels"][seed].model, splits.transfer).softmax(dim=1).max(dim=1)
        sure = highest > threshold
        inputs = torch.cat([splits.train.inputs, splits.transfer.inputs[sure]])
        data = TensorData(inputs, torch.cat([splits.train.targets, decided[sure]]))
        return {"train_data": lambda _: data}

    def of(by: str) -> list[PerSeed]:
        recipes = tuned(lambda rate: BASE.but(objective=Supervised(label_smoothing=rate)), smoothings)
        return [PerSeed(recipe, functools.partial(named, by=by)) for recipe in recipes]

    sure = [
        PerSeed(recipe, functools.partial(surely_named, threshold=threshold))
        for threshold in (0.8, 0.95)
        for recipe in tuned(lambda _: BASE, [None])
    ]
    names = {
        "named by itself": of("labels"),
        "by itself where sure": sure,
        "by five of itself": of("five of itself"),
        "by itself, augmented": of("augmentation"),
        "by the SVM": of("SVM"),
        "by a teacher with 55,000 labels": of("a teacher with 55,000 labels"),
    }
    return {"who names": who_names(alone, compare(names, thousand_labels, progress=True))}


def who_names(alone: Comparison, named: Comparison) -> Comparison:
    """Both in one table. Names are no labels, so the ledger counts them as what they are: inputs without
    labels, and the labels that their namer had.
    """
    ledgers = dict(alone.ledgers)
    for name, entries in named.ledgers.items():
        paid = 55_000 if "55,000" in name else 1000
        ledgers[name] = [entry | {"labels": 1000, "teacher_labels": paid, "unlabeled": 54_000} for entry in entries]
    return Comparison(
        test=alone.test | named.test,
        val=alone.val | named.val,
        chosen=alone.chosen | named.chosen,
        ledgers=ledgers,
        seeds=alone.seeds,
        reference="labels",
    )


if __name__ == "__main__":
    main({"hard-targets-inputs": inputs, "hard-targets-pseudo": pseudo})
