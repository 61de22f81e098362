"""The long experiment of chapter 02, recorded: ``make results``.

``python recipes/concepts.py`` runs it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from recording import main, student, views
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Classical, Comparison, PerSeed, Recipe, compare
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import BitFit, FullFineTuning, HeadOnly, Strategy
from kdft_lib.teachers import cache
from kdft_lib.training import fit

TEACHER = fashion_teacher()
GRID = [(lr, decay) for lr in (0.1, 0.3, 1.0) for decay in (0.01, 0.1)]
BASE = Recipe(student, Supervised(), FullFineTuning(0.3), steps=400)
PRETRAINING = "rotations of 54,000 pictures, 400 steps"


@functools.lru_cache(maxsize=1)
def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images, other ones for each seed, and the others without labels; all with the
    teacher's logits.
    """
    splits = fashion_mnist(labeled=1000, seed=seed)
    return splits._replace(train=cache(TEACHER, splits.train), transfer=cache(TEACHER, splits.transfer))


def uncached(splits: Splits) -> TensorData:
    """The labelled images without the logits: the teacher must see each new view."""
    return TensorData(splits.train.inputs, splits.train.targets)


def turned(pictures: Tensor, seed: int) -> TensorData:
    """Each turned by 0 to 3 quarters, and as its target by how many."""
    quarters = torch.randint(4, (len(pictures),), generator=torch.Generator().manual_seed(seed))
    inputs = torch.empty_like(pictures)
    for count in range(4):
        inputs[quarters == count] = torch.rot90(pictures[quarters == count], count, dims=(2, 3))
    return TensorData(inputs, quarters)


@functools.lru_cache(maxsize=1)
def pretrained(seed: int) -> dict[str, Tensor]:
    """The body of a student that learned, without labels, by how much an image was turned (Gidaris,
    Singh and Komodakis, 2018). One setting, which was not tuned.
    """
    torch.manual_seed(seed)
    model = ConvNet(width=8, num_classes=4)
    fit(
        model, turned(thousand_labels(seed).transfer.inputs, seed), objective=Supervised(),
        strategy=FullFineTuning(0.1), steps=400, seed=seed, progress=False,
    )  # fmt: skip
    return model.body.state_dict()


def starts_pretrained(splits: Splits, seed: int) -> Mapping[str, Any]:
    """The pretrained body, and the head that the seed gives to every other method too."""
    body = pretrained(seed)

    def start() -> nn.Module:
        model = student()
        model.body.load_state_dict(body)
        return model

    return {"model": start, "pretraining": PRETRAINING}


def tuned(
    strategy: Callable[[float, float], Strategy] = lambda lr, decay: FullFineTuning(lr, weight_decay=decay),
    **changes: Any,
) -> list[Recipe]:
    """Six settings: three learning rates times two weight decays."""
    return [BASE.but(strategy=strategy(lr, decay), **changes) for lr, decay in GRID]


def from_pretrained(recipes: list[Recipe]) -> list[PerSeed]:
    """The same from another start."""
    return [PerSeed(recipe, starts_pretrained) for recipe in recipes]


def head(lr: float, decay: float) -> Strategy:
    return HeadOnly("head", lr, weight_decay=decay)


def head_and_biases(lr: float, decay: float) -> Strategy:
    return BitFit(lr, "head", weight_decay=decay)


def choices() -> dict[str, Comparison]:
    """One choice changed at a time, and some pairs; six settings for each, chosen on validation."""
    soft = SoftTargets(TEACHER)
    single = {
        "base": tuned(),
        "start: rotations": from_pretrained(tuned()),
        "inputs: augmented": tuned(augment=views(1)),
        "objective: soft targets": tuned(objective=soft),
        "strategy: head alone": tuned(head),
        "strategy: head and biases": tuned(head_and_biases),
        "logistic regression": [Classical(LogisticRegression(C=10.0**k, max_iter=1000)) for k in range(-5, 1)],
        "SVM": [Classical(SVC(C=c, gamma=gamma)) for c in (1, 5, 25) for gamma in ("scale", 4e-3)],
    }
    pairs = {
        "rotations + head alone": from_pretrained(tuned(head)),
        "rotations + head and biases": from_pretrained(tuned(head_and_biases)),
        "rotations + soft targets": from_pretrained(tuned(objective=soft)),
        "augmented + soft targets": tuned(objective=soft, augment=views(1), train_data=uncached),
        "54,000 more pictures + soft targets": tuned(objective=soft, transfer_data=lambda splits: splits.transfer),
    }
    together = compare(single | pairs, thousand_labels, progress=True)
    return {"one at a time": _part(together, list(single)), "two at a time": _part(together, ["base", *pairs])}


def _part(comparison: Comparison, names: list[str]) -> Comparison:
    """Some of the methods of a comparison."""
    return Comparison(
        test={name: comparison.test[name] for name in names},
        val={name: comparison.val[name] for name in names},
        chosen={name: comparison.chosen[name] for name in names},
        ledgers={name: comparison.ledgers[name] for name in names},
        seeds=comparison.seeds,
        reference=names[0],
    )


if __name__ == "__main__":
    main({"concepts-choices": choices})
