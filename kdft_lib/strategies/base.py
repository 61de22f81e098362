"""What all strategies share, and those that need no more: everything, a head, biases."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from kdft_lib.features import find


class Strategy(ABC):
    """Decides what is trainable and groups it by learning rate.

    A new strategy is a subclass with :meth:`prepare`; the rest has a default.

    Args:
        lr: The learning rate at the schedule's peak. Positive.
        weight_decay: Of weight matrices and kernels. The default is that of :class:`torch.optim.AdamW`.
        decay_all: Biases and the parameters of normalisation (all tensors of fewer than two dimensions)
            decay too; by default they do not.

    Raises:
        ValueError: If a rate is out of range.

    Example:
        >>> class VectorsOnly(Strategy):
        ...     def prepare(self, model):
        ...         for parameter in model.parameters():
        ...             parameter.requires_grad_(parameter.dim() < 2)
        >>> model = nn.Linear(3, 2)
        >>> strategy = VectorsOnly(lr=1e-3)
        >>> strategy.prepare(model)
        >>> strategy.rates(model)
        {'bias': 0.001}
    """

    def __init__(self, lr: float, *, weight_decay: float = 0.01, decay_all: bool = False):
        check_rates(lr=lr, weight_decay=weight_decay)
        self.lr, self.weight_decay, self.decay_all = lr, weight_decay, decay_all

    @abstractmethod
    def prepare(self, model: nn.Module) -> None:
        """Set ``requires_grad`` of every parameter. May be called again on the same model."""

    def rates(self, model: nn.Module) -> dict[str, float]:
        """The peak rate of each parameter that moves at some time, by its name."""
        return {name: self.lr for name, parameter in model.named_parameters() if parameter.requires_grad}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """What the optimiser gets: each group with ``params``, ``lr`` and ``weight_decay``.

        It is asked again in each epoch, and may then give other rates to the same groups.
        """
        rates = self.rates(model)
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for decays in (True, False):
            for name, parameter in model.named_parameters():
                if name in rates and (self.decay_all or parameter.dim() >= 2) == decays:
                    groups.setdefault((rates[name], self.weight_decay if decays else 0.0), []).append(parameter)
        return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]

    def before_epoch(self, model: nn.Module, epoch: int) -> None:  # noqa: B027
        """Called after every ``model.train()``: what is frozen goes back to evaluation mode."""

    def phase(self, epoch: int, epochs: int) -> tuple[int, int]:
        """The epochs, from the first to before the last, over which the schedule runs its course."""
        return 0, epochs

    def finish(self, model: nn.Module) -> None:  # noqa: B027
        """Called once, at the end of the run, however it ended."""

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class FullFineTuning(Strategy):
    """Everything moves, at one rate.

    Args:
        lr: The learning rate at the schedule's peak.
        weight_decay: Of weight matrices and kernels.
        decay_all: Of biases and normalisation too.

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
        weight_decay: Of weight matrices and kernels.
        decay_all: Of biases and normalisation too.

    Raises:
        ValueError: In use, if the model has no module of that name, or one without parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> HeadOnly("1", lr=1e-3).prepare(model)
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """

    def __init__(self, head: str, lr: float, *, weight_decay: float = 0.01, decay_all: bool = False):
        super().__init__(lr, weight_decay=weight_decay, decay_all=decay_all)
        self.head = head

    def prepare(self, model: nn.Module) -> None:
        head = find_head(model, self.head)
        model.requires_grad_(False)
        head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        model.eval()
        find_head(model, self.head).train()


class BitFit(Strategy):
    """The biases move, those of normalisation included, and the head: BitFit (Ben Zaken, Goldberg and
    Ravfogel, 2022). Running statistics stay as they are.

    Args:
        lr: The learning rate at the schedule's peak.
        head: The name of a new head, which moves whole, as in ``model.named_modules()``; none by default.
        weight_decay: Of the head's weight matrices.
        decay_all: Of biases too.

    Raises:
        ValueError: In use, if the model has no such head, or no bias.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> BitFit(lr=1e-3, head="2").prepare(model)
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['0.bias', '1.bias', '2.weight', '2.bias']
    """

    def __init__(self, lr: float, head: str | None = None, *, weight_decay: float = 0.01, decay_all: bool = False):
        super().__init__(lr, weight_decay=weight_decay, decay_all=decay_all)
        self.head = head

    def prepare(self, model: nn.Module) -> None:
        head = find_head(model, self.head) if self.head is not None else None
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.split(".")[-1] == "bias")
        if head is not None:
            head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        keep_frozen_still(model)


def keep_frozen_still(model: nn.Module) -> None:
    """Put into evaluation mode each module that is frozen whole, and each batch normalisation whose
    scale is frozen."""
    for module in model.modules():
        own = list(module.parameters())
        frozen = bool(own) and not any(parameter.requires_grad for parameter in own)
        weight = getattr(module, "weight", None)
        scale_frozen = weight is None or not weight.requires_grad
        if frozen or (isinstance(module, nn.modules.batchnorm._BatchNorm) and scale_frozen):
            module.eval()


def find_head(model: nn.Module, name: str) -> nn.Module:
    """The module of that name, which must have parameters."""
    head = find(model, name, "head")
    if not any(True for _ in head.parameters()):
        raise ValueError(f"head is {name!r}, a {type(head).__name__} without parameters; nothing could be trained")
    return head


def check_rates(**rates: float) -> None:
    """Learning rates are positive, decays not negative."""
    for name, rate in rates.items():
        if not math.isfinite(rate) or rate < 0 or (rate == 0 and name.endswith("lr")):
            wanted = "positive" if name.endswith("lr") else "0 or more"
            raise ValueError(f"{name} is {rate}; it must be {wanted} and finite")
