"""The long experiments of chapter 01, recorded: what labels, size and steps are each worth to a small network.

They were run as a part of chapter 06's recipe, ``good_teachers.py``; their records hold no learning rates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from shared import chosen_before, labeled

from kdft_lib.experiments import Candidate, Comparison, Recipe, compare, grid, record_all
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning


def ladder(labels: int) -> dict[str, Comparison]:
    """Sizes times steps at so many labels; each learning rate is chosen on validation images with a further seed."""
    splits, further = functools.partial(labeled, labels), 100
    parts = splits(further)
    alone = Recipe(ConvNet, Supervised, FullFineTuning(lr=0.3), steps=200)
    kinds = {"labels": alone, "soft targets": alone.taught_by(fashion_teacher(), SoftTargets)}

    def val_accuracy(candidate: Any) -> float:
        return candidate.method.train(parts, further).accuracy(parts.val)

    made = {}
    for width in (4, 8, 16):
        for steps in (200, 800, 3200):
            tried = {
                name: grid(kind.but(width=width, steps=steps), lr=(0.1, 0.3), weight_decay=0.1)
                for name, kind in kinds.items()
            }
            chosen = {name: max(candidates, key=val_accuracy) for name, candidates in tried.items()}
            counted = {name: Candidate(chosen_before(each.method), each.setting) for name, each in chosen.items()}
            made[f"width {width}, {steps:,} steps"] = compare(counted, splits)
    return made


EXPERIMENTS: dict[str, Callable[[], dict[str, Comparison]]] = {
    "background-250": functools.partial(ladder, 250),
    "background-1000": functools.partial(ladder, 1000),
    "background-6000": functools.partial(ladder, 6000),
}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
