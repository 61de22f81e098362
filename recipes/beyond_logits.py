"""The long experiments of chapter 05, recorded. Decoupled KD warms up over 20 of the 58 epochs, since the records were
made with the number of its authors' code, whose runs have 240.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from shared import student, thousand_labels
from torch import Tensor, nn

from kdft_lib.experiments import Candidate, Comparison, Recipe, compare, grid, per_seed, record_all
from kdft_lib.models import fashion_teacher
from kdft_lib.objectives import DIST, DKD, RKD, AttentionTransfer, Hint, SimilarityPreserving, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher

TEACHER = Teacher(fashion_teacher())
LAYERS = ("block1", "block2", "block3")
DECAYS = (0.01, 0.1)
Make: TypeAlias = Callable[..., Any]
Arms: TypeAlias = dict[str, tuple[Make, dict[str, tuple[float, ...]]]]
"""By name: what makes an objective, and the strengths to try."""


class LookedUp(nn.Module):
    """The teacher's answers for some images, its features too, so that it runs once for each and not at every step."""

    def __init__(self, images: Tensor):
        super().__init__()
        parts = [TEACHER.outputs(some, LAYERS) for some in images.split(500)]
        self.rows = {image.numpy().tobytes(): row for row, image in enumerate(images)}
        self.logits = torch.cat([part.logits for part in parts])
        self.maps = {layer: torch.cat([part.features[layer] for part in parts]) for layer in LAYERS}
        for layer in LAYERS:
            self.add_module(layer, nn.Identity())

    def __reduce__(self) -> tuple[type[nn.Module], tuple[()]]:
        """A run that is kept as a file does without: nobody asks its teacher again."""
        return nn.Identity, ()

    def forward(self, images: Tensor) -> Tensor:
        rows = [self.rows[image.numpy().tobytes()] for image in images]
        for layer, maps in self.maps.items():
            self.get_submodule(layer)(maps[rows])
        return self.logits[rows]


@per_seed
def looked_up(seed: int) -> Teacher:
    return Teacher(LookedUp(thousand_labels(seed).train.inputs), labels=TEACHER.labels)


def attention(teacher: Teacher) -> Any:
    """Two pairs of maps of the same resolution, as in the paper."""
    return AttentionTransfer(teacher, "body.1", "block1") + AttentionTransfer(teacher, "body.3", "block2")


standardized = partial(SoftTargets, temperature=2.0, ce_weight=0.1, standardize=True)
similarity = partial(SimilarityPreserving, student_layer="body.5", teacher_layer="block3")
LOGITS: Arms = {
    "soft targets": (SoftTargets, {"temperature": (2.0, 4.0, 8.0)}),
    "standardised logits": (standardized, {"kd_weight": (1.0, 3.0, 9.0)}),
    "decoupled KD": (partial(DKD, warmup=20 / 58), {"beta": (1.0, 2.0, 8.0)}),
    "DIST": (DIST, {"temperature": (1.0, 2.0, 4.0)}),
}
FEATURES: Arms = {
    "hint": (partial(Hint, student_layer="body.3", teacher_layer="block2"), {"weight": (10.0, 100.0, 1000.0)}),
    "attention": (attention, {"weight": (10.0, 100.0, 1000.0)}),
    "similarity": (similarity, {"weight": (300.0, 3000.0, 30_000.0)}),
    "relations": (partial(RKD, student_layer="body.7", teacher_layer="block3"), {"weight": (0.1, 1.0, 10.0)}),
}


def beside(make: Make, base: Make | None = None) -> Make:
    """Weighted features, added to labels or to another objective."""
    return lambda teacher, weight: (Supervised() if base is None else base(teacher)) + weight * make(teacher)


def arms(alone: Recipe, table: Arms, **fixed: Any) -> dict[str, list[Candidate]]:
    """Three strengths of each, times what is the same for all."""
    return {name: grid(alone.taught_by(looked_up, make), **fixed, **axis) for name, (make, axis) in table.items()}


def convolutional() -> dict[str, Comparison]:
    """Each method beside the labels: six settings, two weight decays times three strengths of its own; labels
    alone search three learning rates instead. And the four of features beside soft targets.
    """
    alone = Recipe(student, Supervised, FullFineTuning(lr=0.3), steps=400)
    table = LOGITS | {name: (beside(make), axis) for name, (make, axis) in FEATURES.items()}
    first = {"labels": grid(alone, weight_decay=DECAYS, lr=(0.1, 0.3, 1.0))}
    first |= arms(alone, table, lr=0.3, weight_decay=DECAYS)
    added = {f"soft targets + {name}": (beside(make, SoftTargets), axis) for name, (make, axis) in FEATURES.items()}
    second = {"soft targets": first["soft targets"]} | arms(alone, added, lr=0.3, weight_decay=DECAYS)
    asked = [("soft targets", "labels"), *((name, "soft targets") for name in table if name != "soft targets")]
    more = [(name, "soft targets") for name in added]
    return {
        "beside labels": compare(first, thousand_labels, contrasts=asked),
        "beside soft targets": compare(second, thousand_labels, contrasts=more),
    }


def perceptron() -> nn.Sequential:
    """A student of another kind, without a convolution: 26,634 parameters."""
    body = [nn.Linear(784, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), nn.Sequential(*body), nn.Linear(32, 10))


def another_kind() -> dict[str, Comparison]:
    """A student without convolutions: six settings each, two learning rates times three strengths of its own."""
    alone = Recipe(perceptron, Supervised, FullFineTuning(lr=0.01), steps=400)
    rates = (0.01, 0.1)
    makes = {name: partial(FEATURES[name][0], student_layer="1") for name in ("similarity", "relations")}
    whole = {name: (beside(make), FEATURES[name][1]) for name, make in makes.items()}
    methods = {"labels": grid(alone, lr=rates, weight_decay=(0.01, 0.1, 0.5))}
    methods |= arms(alone, LOGITS | whole, lr=rates, weight_decay=0.1)
    asked = [(name, "labels") for name in LOGITS | whole]
    return {"a perceptron": compare(methods, thousand_labels, contrasts=asked)}


EXPERIMENTS = {"beyond-logits": convolutional, "beyond-logits-perceptron": another_kind}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
