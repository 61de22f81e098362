"""One strategy after another."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdft_lib.strategies.base import Strategy


class Phases(Strategy):
    """First one strategy, then another, each with a learning-rate schedule of its own.

    LP-FT, linear probing and then fine-tuning (Kumar et al., 2022), which keeps a new random head from distorting
    good features, is ``Phases(HeadOnly(lr=1e-2, head="head"), FullFineTuning(lr=1e-4), first_epochs=5)``.

    Args:
        first: The strategy of the first epochs.
        second: The strategy of the rest.
        first_epochs: The number of epochs that the first one takes, 1 or more.

    Raises:
        ValueError: If ``first_epochs`` is out of range; in use, if it leaves no epoch for the second.

    Example:
        >>> from kdft_lib.strategies import FullFineTuning, HeadOnly
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> strategy = Phases(HeadOnly(lr=1e-2, head="1"), FullFineTuning(lr=1e-4), first_epochs=2)
        >>> strategy.prepare(model)
        >>> for epoch in (1, 2):
        ...     strategy.before_epoch(model.train(), epoch)
        ...     print([group["lr"] for group in strategy.param_groups(model)], strategy.phase(epoch, 6))
        [0, 0, 0.01, 0.01] (0, 2)
        [0.0001, 0.0001, 0.0001, 0.0001] (2, 6)
    """

    def __init__(self, first: Strategy, second: Strategy, *, first_epochs: int):
        if first_epochs < 1 or int(first_epochs) != first_epochs:
            raise ValueError(f"first_epochs is {first_epochs}; it must be a whole number of 1 or more")
        self.first, self.second, self.first_epochs = first, second, first_epochs
        self._now = first

    def prepare(self, model: nn.Module) -> None:
        self._groups: list[dict[str, tuple[float, float]]] = []
        # Layers are put in place before names are taken.
        self.first.prepare(model)
        for strategy in (self.second, self.first):
            strategy.prepare(model)
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            rates = {
                names[id(parameter)]: (group["lr"], group["weight_decay"])
                for group in strategy.param_groups(model)
                for parameter in group["params"]
            }
            self._groups.insert(0, rates)
        self._now = self.first

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        groups: dict[Any, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            both = tuple(rates.get(name, (0, 0.0)) for rates in self._groups)
            if any(name in rates for rates in self._groups):
                groups.setdefault(both, []).append(parameter)
        place = 0 if self._now is self.first else 1
        return [
            {"params": params, "lr": both[place][0], "weight_decay": both[place][1]} for both, params in groups.items()
        ]

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        second = epoch >= self.first_epochs
        self._now = self.second if second else self.first
        if second:
            self.second.prepare(model)
        self._now.before_epoch(model, epoch - self.first_epochs if second else epoch)

    def phase(self, epoch: int, epochs: int) -> tuple[int, int]:
        if epochs <= self.first_epochs:
            raise ValueError(
                f"first_epochs is {self.first_epochs}, which leaves none of {epochs} epochs for"
                f" {type(self.second).__name__}; train longer, or probe for fewer epochs"
            )
        if epoch < self.first_epochs:
            start, end = self.first.phase(epoch, self.first_epochs)
            return start, end
        start, end = self.second.phase(epoch - self.first_epochs, epochs - self.first_epochs)
        return start + self.first_epochs, end + self.first_epochs

    def finish(self, model: nn.Module) -> None:
        self.second.finish(model)
        self.first.finish(model)
