"""What objectives check: weights that may follow a schedule, and targets of several labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from kdft_lib.losses.checks import readable

Weight: TypeAlias = float | Callable[[int, int], float]
"""A number, or a schedule: a function of the epoch (from 0) and the number of epochs."""


def check_multi_label(targets: Tensor, labeled: Tensor, logits: Tensor) -> None:
    """Refuse targets that are no probability for each class, where they are labelled."""
    if not targets.is_floating_point() or targets.shape != logits.shape:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}; with multi_label=True it"
            f" must be floating-point, {tuple(logits.shape)}, from 0 to 1 for each class"
        )
    if not readable(targets):
        return
    outside = labeled.unsqueeze(-1) & ((targets < 0) | (targets > 1))
    if outside.any():
        raise ValueError(
            f"targets holds {targets[outside][0]:g}; with multi_label=True it must be from 0 to 1,"
            " or −100 in a whole row for no label"
        )


def weight_at(name: str, schedule: Weight, epoch: int, epochs: int) -> float:
    """A weight in an epoch, if it is one."""
    weight = float(schedule(epoch, epochs) if callable(schedule) else schedule)
    if not (weight >= 0 and math.isfinite(weight)):
        raise ValueError(f"{name} is {weight} at epoch {epoch}; it must be 0 or more and finite")
    return weight


def named(weights: dict[str, Any]) -> str:
    """The arguments by which these weights are set."""
    return " and ".join(f"{name}_weight" for name in weights)
