"""Learning-rate schedules: functions of the progress, from 0 to 1, to a factor of the peak rate.

Without state of their own, they resume exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Schedule: TypeAlias = Callable[[float], float]


def constant(progress: float) -> float:
    """The same rate throughout.

    Example:
        >>> constant(0.7)
        1.0
    """
    return 1.0


def cosine(progress: float, *, warmup: float = 0.05) -> float:
    """Linear warm-up over a twentieth of the steps, then half a cosine to 0 (Loshchilov and Hutter,
    2017, without restarts).

    Example:
        >>> [round(cosine(progress), 2) for progress in (0.0, 0.05, 0.525, 1.0)]
        [0.0, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def one_cycle(progress: float, *, rise: float = 0.3) -> float:
    """Up from 1/25 of the peak, then down to almost nothing, both along a cosine: the rates of
    :class:`torch.optim.lr_scheduler.OneCycleLR` with its defaults (Smith and Topin, 2018).

    Example:
        >>> [round(one_cycle(progress), 2) for progress in (0.0, 0.3, 1.0)]
        [0.04, 1.0, 0.0]
    """
    start, end = 1 / 25, 1 / 25e4
    low, part = (start, progress / rise) if progress < rise else (end, (1 - progress) / (1 - rise))
    return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * part))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
