"""What objectives check: weights, which may follow a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

from torch import Tensor

Weight: TypeAlias = float | Callable[[int, int], float]
"""A number, or a schedule: a function of the epoch (from 0) and the number of epochs."""


def refuse_sparse(objective: str, answers: Mapping[str, Tensor]) -> NoReturn:
    """Say what to do where a few classes are kept and all are needed."""
    raise ValueError(
        f"{objective} compares all classes, and the data keeps {answers['values'].shape[-1]} of each answer; keep all"
        " (top_k=None), or learn with SoftTargets(standardize=False), HardTargets or GKD"
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
