"""The long experiments of chapter 05, recorded: ``make results``.

``python recipes/beyond_logits.py`` runs all of them; names after it run those alone.
"""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from recording import main, student
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments import Comparison, PerSeed, Recipe, compare
from kdft_lib.features import outputs
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import (
    DIST,
    DKD,
    RKD,
    AttentionTransfer,
    Hint,
    Objective,
    SimilarityPreserving,
    SoftTargets,
    Supervised,
)
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache

TEACHER = fashion_teacher()
DECAYS = (0.01, 0.1)
LAYERS = ("block1", "block2", "block3")


class Remembered(nn.Module):
    """The teacher's answers for images seen before, its features too, so that it runs once for each image
    and not at every step. An image is found again by its projection on a random direction.
    """

    def __init__(self, images: Tensor):
        super().__init__()
        self.blocks = nn.ModuleDict({name: nn.Identity() for name in LAYERS})
        self.direction = torch.randn(images[0].numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            parts = [outputs(TEACHER, some, LAYERS) for some in images.split(500)]
        self.keys, self.order = self._key(images).sort()
        self.logits = torch.cat([part.logits for part in parts])
        self.maps = {name: torch.cat([part.features[name] for part in parts]) for name in LAYERS}
        self.card = TEACHER.card
        assert torch.equal(self(images).argmax(dim=1), self.logits.argmax(dim=1))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.order[torch.searchsorted(self.keys, self._key(images) - 1e-6).clamp(max=len(self.keys) - 1)]
        for name, block in self.blocks.items():
            block(self.maps[name][rows])
        return self.logits[rows]

    def _key(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() @ self.direction


def perceptron() -> nn.Sequential:
    """A student of another kind, without a convolution: 26,634 parameters."""
    widths = (28 * 28, 32, 32)
    layers = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), body=nn.Sequential(*layers), head=nn.Linear(32, 10)))


def thousand_labels(seed: int) -> Splits:
    """1,000 labelled images with the teacher's logits."""
    splits = fashion_mnist(labeled=1000, seed=seed)
    return splits._replace(train=cache(TEACHER, splits.train))


@functools.lru_cache(maxsize=1)
def remembered(images: Tensor) -> Remembered:
    """One for each seed's images."""
    return Remembered(images)


Make = Callable[[nn.Module], Objective]


def by_features(recipe: Recipe, make: Make) -> PerSeed:
    """A recipe whose teacher's features are looked up."""

    def changes(splits: Splits, seed: int) -> dict[str, object]:
        data = TensorData(splits.train.inputs, splits.train.targets)
        return {"objective": make(remembered(splits.train.inputs)), "train_data": lambda _: data}

    return PerSeed(recipe, changes)


def attention(teacher: nn.Module) -> Objective:
    """Two pairs of maps of the same resolution, as in the paper."""
    pairs = (("body.1", "blocks.block1"), ("body.3", "blocks.block2"))
    first, second = (AttentionTransfer(teacher, ours, theirs) for ours, theirs in pairs)
    return first + second


CONVOLUTIONAL: dict[str, Sequence[Make]] = {
    "hint": [lambda t, w=w: w * Hint(t, "body.3", "blocks.block2") for w in (10.0, 100.0, 1000.0)],
    "attention": [lambda t, w=w: w * attention(t) for w in (10.0, 100.0, 1000.0)],
    "similarity": [
        lambda t, w=w: w * SimilarityPreserving(t, "body.5", "blocks.block3") for w in (300.0, 3000.0, 30_000.0)
    ],
    "relations": [lambda t, w=w: w * RKD(t, "body.7", "blocks.block3") for w in (0.1, 1.0, 10.0)],
}


def logit_objectives() -> dict[str, list[Objective]]:
    """Three settings of each."""
    return {
        "soft targets": [SoftTargets(TEACHER, temperature=t) for t in (2.0, 4.0, 8.0)],
        "standardised logits": [
            SoftTargets(TEACHER, temperature=2.0, kd_weight=w, ce_weight=0.1, standardize=True) for w in (1.0, 3.0, 9.0)
        ],
        "decoupled KD": [DKD(TEACHER, beta=b) for b in (1.0, 2.0, 8.0)],
        "DIST": [DIST(TEACHER, temperature=t) for t in (1.0, 2.0, 4.0)],
    }


def alone() -> dict[str, Comparison]:
    """Each method beside the labels: six settings, two weight decays times three strengths of its own; labels
    alone search three learning rates instead. And the four of features beside soft targets.
    """
    base = Recipe(student, Supervised(), FullFineTuning(0.3), steps=400)
    decayed = [base.but(strategy=FullFineTuning(0.3, weight_decay=wd)) for wd in DECAYS]
    methods: dict[str, list[Recipe | PerSeed]] = {
        "labels": [base.but(strategy=FullFineTuning(lr, weight_decay=wd)) for wd in DECAYS for lr in (0.1, 0.3, 1.0)]
    }
    for name, objectives in logit_objectives().items():
        methods[name] = [recipe.but(objective=objective) for recipe in decayed for objective in objectives]
    for name, makes in CONVOLUTIONAL.items():
        methods[name] = [
            by_features(recipe, lambda t, make=make: Supervised() + make(t)) for recipe in decayed for make in makes
        ]
    first = compare(methods, thousand_labels, progress=True)
    added: dict[str, list[Recipe | PerSeed]] = {"soft targets": methods["soft targets"]}
    for name, makes in CONVOLUTIONAL.items():
        added[f"soft targets + {name}"] = [
            by_features(recipe, lambda t, make=make: SoftTargets(t) + make(t)) for recipe in decayed for make in makes
        ]
    return {"beside labels": first, "beside soft targets": compare(added, thousand_labels, progress=True)}


def another_kind() -> dict[str, Comparison]:
    """A student without convolutions: six settings each, two learning rates times three strengths of its own."""
    base = Recipe(perceptron, Supervised(), FullFineTuning(0.01), steps=400)
    rated = [base.but(strategy=FullFineTuning(lr, weight_decay=0.1)) for lr in (0.01, 0.1)]
    methods: dict[str, list[Recipe | PerSeed]] = {
        "labels": [
            base.but(strategy=FullFineTuning(lr, weight_decay=wd)) for lr in (0.01, 0.1) for wd in (0.01, 0.1, 0.5)
        ]
    }
    for name, objectives in logit_objectives().items():
        methods[name] = [recipe.but(objective=objective) for recipe in rated for objective in objectives]
    whole: dict[str, Sequence[Make]] = {
        "similarity": [
            lambda t, w=w: w * SimilarityPreserving(t, "body", "blocks.block3") for w in (300.0, 3000.0, 30_000.0)
        ],
        "relations": [lambda t, w=w: w * RKD(t, "body", "blocks.block3") for w in (0.1, 1.0, 10.0)],
    }
    for name, makes in whole.items():
        methods[name] = [
            by_features(recipe, lambda t, make=make: Supervised() + make(t)) for recipe in rated for make in makes
        ]
    return {"a perceptron": compare(methods, thousand_labels, progress=True)}


if __name__ == "__main__":
    main({"beyond-logits": alone, "beyond-logits-perceptron": another_kind})
