"""Which parameters move, and how fast."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from difflib import get_close_matches
from typing import Any

from torch import nn


class Strategy(ABC):
    """Decides what is trainable and groups it by learning rate.

    A new strategy is a subclass with :meth:`prepare`; the rest has a default.

    Args:
        lr: The learning rate at the schedule's peak. Positive.
        weight_decay: Of weight matrices and kernels. Biases and the parameters of normalisation
            (all tensors of fewer than two dimensions) have none. The default is that of
            :class:`torch.optim.AdamW`.

    Raises:
        ValueError: If a rate is out of range.
    """

    def __init__(self, lr: float, *, weight_decay: float = 0.01):
        if not (lr > 0 and math.isfinite(lr)):
            raise ValueError(f"lr is {lr}; it must be positive and finite")
        if not (weight_decay >= 0 and math.isfinite(weight_decay)):
            raise ValueError(f"weight_decay is {weight_decay}; it must be 0 or more and finite")
        self.lr, self.weight_decay = lr, weight_decay

    @abstractmethod
    def prepare(self, model: nn.Module) -> None:
        """Set ``requires_grad`` of every parameter."""

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """What the optimiser gets: only what is trainable, each with ``lr`` and ``weight_decay``."""
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in trainable if parameter.dim() >= 2]
        spared = [parameter for parameter in trainable if parameter.dim() < 2]
        groups = [
            {"params": decayed, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": spared, "lr": self.lr, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def before_epoch(self, model: nn.Module, epoch: int) -> None:  # noqa: B027
        """Called after every ``model.train()``: what is frozen goes back to evaluation mode."""

    def finish(self, model: nn.Module) -> None:  # noqa: B027
        """Called once, after the last step."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class FullFineTuning(Strategy):
    """Everything moves, at one rate.

    Args:
        lr: The learning rate at the schedule's peak.
        weight_decay: Of weight matrices and kernels, not of biases and normalisation.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> [group["weight_decay"] for group in FullFineTuning(lr=1e-3).param_groups(model)]
        [0.01, 0.0]
    """

    def prepare(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)


class HeadOnly(Strategy):
    """The head moves; everything else is frozen and in evaluation mode, its dropout and the running
    statistics of its normalisation included.

    Args:
        head: The head's name, as in ``model.named_modules()``.
        lr: The learning rate at the schedule's peak.
        weight_decay: Of weight matrices and kernels, not of biases and normalisation.

    Raises:
        ValueError: In use, if the model has no module of that name, or one without parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> HeadOnly("1", lr=1e-3).prepare(model)
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """

    def __init__(self, head: str, lr: float, *, weight_decay: float = 0.01):
        super().__init__(lr, weight_decay=weight_decay)
        self.head = head

    def prepare(self, model: nn.Module) -> None:
        head = _module(model, self.head)
        model.requires_grad_(False)
        head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        model.eval()
        _module(model, self.head).train()


def _module(model: nn.Module, name: str) -> nn.Module:
    """The module of that name; an error that lists the nearest ones, or all, where there is none."""
    modules = dict(model.named_modules())
    if not name or name not in modules:
        named = [known for known in modules if known]
        near = get_close_matches(name, named, n=5, cutoff=0.4) or named
        raise ValueError(
            f"head is {name!r}, which {type(model).__name__} does not have; choose one of its modules,"
            f" such as {', '.join(map(repr, near[:20])) or '(it has none)'}"
        )
    if not any(True for _ in modules[name].parameters()):
        raise ValueError(
            f"head is {name!r}, a {type(modules[name]).__name__} without parameters; nothing could be trained"
        )
    return modules[name]
