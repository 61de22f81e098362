"""Which learning rate to begin with: a range test."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
from torch import nn

from kdft_lib.data.sources import Data
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import checks
from kdft_lib.training.callbacks import RunState
from kdft_lib.training.loop import fit

if TYPE_CHECKING:
    import matplotlib.axes

_OURS = ("steps", "epochs", "schedule", "callbacks", "ema_decay", "keep_best", "checkpoint_dir", "checkpoint_every",
         "log_dir", "metrics", "val_data")  # fmt: skip
_WORSE = 4.0
"""It ends where the loss, a running mean, is so many times the lowest: fastai's rule."""
_MEMORY = 0.9
_FEWEST = 20


@dataclass(frozen=True)
class RangeTest:
    """What :func:`find_lr` found.

    Attributes:
        rates: The learning rate at each step, of several the highest.
        losses: The loss at each step.
        smoothed: The mean over the steps around each, a tenth of all.
        suggestion: A tenth of the rate at which that mean is lowest, and at least the first rate.

    Example:
        >>> RangeTest([1e-3, 1e-2, 1e-1], [1.0, 0.8, 0.9], [1.0, 0.8, 0.9], 1e-3)
        RangeTest(3 rates from 0.001 to 0.1; begin with 0.001)
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float

    def __repr__(self) -> str:
        ends = f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        return f"RangeTest({len(self.rates)} rates from {ends}; begin with {self.suggestion:.2g})"

    def plot(self, ax: matplotlib.axes.Axes | None = None) -> matplotlib.axes.Axes:
        """The loss over the rates, and where to begin."""
        from kdft_lib import plots

        return plots.range_test(self.rates, self.losses, self.smoothed, self.suggestion, ax)


class _Watched:
    """A callback that notes rates and losses, and ends where the loss has become much worse."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean, self.lowest = 0.0, math.inf

    def on_step_end(self, state: RunState) -> bool:
        step = state.history.steps[-1]
        self.rates.append(step["lr"])
        self.losses.append(step["loss"])
        self.mean = _MEMORY * self.mean + (1 - _MEMORY) * step["loss"]
        unbiased = self.mean / (1 - _MEMORY**state.step)
        self.lowest = min(self.lowest, unbiased)
        return unbiased <= _WORSE * self.lowest


def find_lr(
    model: nn.Module,
    train_data: Data,
    *,
    objective: Objective,
    strategy: Strategy,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 200,
    **options: Any,
) -> RangeTest:
    """Try a learning rate at each step, from low to high: a range test (Smith, 2017, section 3.3), also called a
    learning-rate finder.

    It trains a copy of the model, which takes its room, and leaves the model as it was. Where the loss is four times
    the lowest, or not finite, it ends. What it suggests is a start for a search and not its result: it looks at the
    loss on training data after a few steps, and knows nothing of a budget.

    Args:
        model: The model to train, as for :func:`fit`.
        train_data: The data, which must be readable more than once.
        objective: What it learns from.
        strategy: What may move. Its rates stay in proportion, and its ``lr`` takes those that are tried.
        lowest: Where the rates begin, positive; the first that is tried is half a step above it.
        highest: Where they end, above ``lowest``; the last is half a step below it.
        steps: How many rates are tried, 20 or more, at even ratios; 100 is usual.
        **options: Further options of :func:`fit`, such as ``batch_size``, ``augment`` and ``seed``.

    Returns:
        :class:`RangeTest`, which :meth:`~RangeTest.plot` draws.

    Raises:
        TypeError: If an option is unknown, or one that the test sets itself.
        ValueError: If a rate or ``steps`` is out of range, or the loss is not finite at the lowest rates.

    Example:
        >>> import torch
        >>> from kdft_lib.objectives import Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> data = torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8)
        >>> model = nn.Linear(2, 2)
        >>> found = find_lr(model, data, objective=Supervised(), strategy=FullFineTuning(lr=0.1))
        >>> 1e-5 <= found.suggestion <= 10
        True
    """
    checks.check_choices(model, objective, strategy)
    for name in _OURS:
        if name in options:
            raise TypeError(f"find_lr sets {name} itself; leave it out")
    if not (0 < lowest < highest < math.inf):
        raise ValueError(f"lowest is {lowest} and highest {highest}; wanted 0 < lowest < highest")
    if not (isinstance(steps, int) and steps >= _FEWEST):
        raise ValueError(f"steps is {steps!r}; it must be a whole number, {_FEWEST} or more, to see a curve")

    if not hasattr(strategy, "lr"):
        raise ValueError(f"strategy is {strategy!r}, whose parts have rates of their own; give one of them")

    def rising(progress: float) -> float:
        return lowest * (highest / lowest) ** progress / strategy.lr

    seen = _Watched()
    made: dict[str, Any] = {"steps": steps, "schedule": rising, "callbacks": [seen]}
    try:
        fit(copy.deepcopy(model), train_data, objective=objective, strategy=strategy, **made, **options)
    except FloatingPointError as error:
        if len(seen.losses) < _FEWEST:
            raise ValueError(
                f"the loss was not finite after {len(seen.losses)} of {steps} steps; give a lower lowest than"
                f" {lowest:.2g}, or look at the data"
            ) from error
    smoothed = _smoothed(numpy.asarray(seen.losses), max(3, steps // 10))
    best = seen.rates[int(smoothed.argmin())]
    return RangeTest(seen.rates, seen.losses, smoothed.tolist(), max(best / 10, lowest))


def _smoothed(losses: Any, width: int) -> Any:
    """Means over as many values around each; near the ends over those that there are."""
    kernel = numpy.ones(min(width, len(losses)))
    return numpy.convolve(losses, kernel, "same") / numpy.convolve(numpy.ones(len(losses)), kernel, "same")
