"""The long experiment of chapter 01, recorded."""

from __future__ import annotations

import functools

from shared import IMAGENET, LOGISTIC, SVM, all_labels, lite0_features, student, thousand_labels
from torch import nn

from kdft_lib.data import Splits
from kdft_lib.experiments import Comparison, Given, OnFeatures, Recipe, compare, grid, record_all
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

WIDTHS = (4, 8, 32)
LABELS = Recipe(student, Supervised, FullFineTuning(lr=0.3, weight_decay=0.1), steps=400)


def with_all_labels(splits: Splits, seed: int) -> Splits:
    """55,000 labelled pictures in place of 1,000; in 400 steps, none of them is seen twice."""
    return splits._replace(train=all_labels(seed).train)


def ladder() -> dict[str, Comparison]:
    """Three sizes, few labels and many; the student taught by a teacher; and what a shop would try first."""
    tuned = functools.partial(grid, lr=(0.1, 0.3))
    methods = {}
    for width in WIDTHS:
        sized = LABELS.but(model=ConvNet, width=width)
        methods[f"width {width}, 1,000 labels"] = tuned(sized)
        methods[f"width {width}, 55,000 labels"] = tuned(Given(sized, with_all_labels))
    methods["width 8, soft targets"] = tuned(LABELS.taught_by(fashion_teacher(), SoftTargets))
    head = LABELS.but(model=functools.partial(nn.Linear, 1280, 10), weight_decay=3.0)
    methods["Lite0's head"] = grid(OnFeatures(head, lite0_features, IMAGENET), lr=(0.01, 0.03))
    methods["logistic regression"] = grid(LOGISTIC, C=(0.01, 0.1))
    methods["SVM"] = grid(SVM, C=(1, 5))
    base = "width 8, 1,000 labels"
    contrasts = [(f"width {width}, 1,000 labels", base) for width in WIDTHS if width != 8]
    contrasts += [(f"width {width}, 55,000 labels", f"width {width}, 1,000 labels") for width in WIDTHS]
    contrasts += [(name, base) for name in ("width 8, soft targets", "Lite0's head", "logistic regression", "SVM")]
    return {"400 steps": compare(methods, thousand_labels, reference=base, contrasts=contrasts)}


EXPERIMENTS = {"background-ladder": ladder}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
