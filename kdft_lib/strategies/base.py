"""What all strategies share, and those that need no more: everything, a head, biases."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import nn

from kdft_lib.features import find


class Strategy(ABC):
    """Decides what is trainable, and groups it by learning rate: a fine-tuning method; elsewhere one writes
    parameter groups by hand.

    A new strategy is a subclass with :meth:`prepare`; the rest has a default. Its public attributes are its
    arguments, which its text shows and :meth:`but` changes.

    Args:
        lr: The learning rate at the schedule's peak, positive.
        weight_decay: The decay of weight matrices and kernels, 0 or more. The default is that of
            :class:`torch.optim.AdamW`.
        decay_all: Whether biases and the parameters of normalisation (all tensors of fewer than two dimensions)
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

    def __init__(self, *, lr: float, weight_decay: float = 0.01, decay_all: bool = False):
        check_rates(lr=lr, weight_decay=weight_decay)
        self.lr, self.weight_decay, self.decay_all = float(lr), float(weight_decay), decay_all

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
        """Called once, at the end of a run that has prepared the model, however it ended."""

    def but(self, **changes: Any) -> Self:
        """The same strategy with some arguments changed, a new one.

        Args:
            changes: The arguments to change, by name.

        Raises:
            ValueError: If it has no such argument, or a value is out of range.

        Example:
            >>> FullFineTuning(lr=0.1).but(weight_decay=0.5)
            FullFineTuning(lr=0.1, weight_decay=0.5, decay_all=False)
        """
        arguments = self._arguments()
        for name in changes:
            if name not in arguments:
                raise ValueError(
                    f"{name} is no argument of {type(self).__name__}; choose among {', '.join(map(repr, arguments))}"
                )
        return type(self)(**arguments | changes)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({shown})"

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class FullFineTuning(Strategy):
    """Everything moves, at one rate: ordinary fine-tuning, or training from scratch.

    Args:
        lr: The learning rate at the schedule's peak.
        weight_decay: The decay of weight matrices and kernels, 0 or more.
        decay_all: Whether biases and the parameters of normalisation decay too.

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
    """The head moves: linear probing, also called feature extraction, or a frozen backbone. Everything else is frozen
    and in evaluation mode, its dropout and the running statistics of its normalisation included.

    Args:
        lr: The learning rate at the schedule's peak.
        head: The head's name, as in ``model.named_modules()``.
        weight_decay: The decay of weight matrices and kernels, 0 or more.
        decay_all: Whether biases and the parameters of normalisation decay too.

    Raises:
        ValueError: In use, if the model has no module of that name, or one without parameters.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> HeadOnly(lr=1e-3, head="1").prepare(model)
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['1.weight', '1.bias']
    """

    def __init__(self, *, lr: float, head: str, weight_decay: float = 0.01, decay_all: bool = False):
        super().__init__(lr=lr, weight_decay=weight_decay, decay_all=decay_all)
        self.head = head

    def prepare(self, model: nn.Module) -> None:
        head = find_head(model, self.head)
        model.requires_grad_(False)
        head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        model.eval()
        find_head(model, self.head).train()


class BitFit(Strategy):
    """The biases move, those of normalisation included, and the head: BitFit, bias-only fine-tuning (Ben Zaken,
    Goldberg and Ravfogel, 2022). Running statistics stay as they are.

    Args:
        lr: The learning rate at the schedule's peak.
        head: The name of a new head, which moves whole, as in ``model.named_modules()``; none by default.
        weight_decay: The decay of the head's weight matrices, 0 or more.
        decay_all: Whether biases decay too.

    Raises:
        ValueError: In use, if the model has no such head, or no bias.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        >>> BitFit(lr=1e-3, head="2").prepare(model)
        >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ['0.bias', '1.bias', '2.weight', '2.bias']
    """

    def __init__(self, *, lr: float, head: str | None = None, weight_decay: float = 0.01, decay_all: bool = False):
        super().__init__(lr=lr, weight_decay=weight_decay, decay_all=decay_all)
        self.head = head

    def prepare(self, model: nn.Module) -> None:
        head = find_head(model, self.head) if self.head is not None else None
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            own = name.split(".")[-1]  # in_proj_bias of attention and bias_ih_l0 of recurrent layers are biases too.
            parameter.requires_grad_(own == "bias" or own.endswith("_bias") or own.startswith("bias_"))
        if head is not None:
            head.requires_grad_(True)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        keep_frozen_still(model, but=self.head)


def keep_frozen_still(model: nn.Module, but: str | None = None) -> None:
    """Put into evaluation mode each module that is frozen whole, and each batch normalisation whose
    scale is frozen; but for a head of that name, which moves whole."""
    for module in model.modules():
        own = list(module.parameters())
        frozen = bool(own) and not any(parameter.requires_grad for parameter in own)
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if frozen or (normalises and (module.weight is None or not module.weight.requires_grad)):
            module.eval()
    if but is not None:
        find_head(model, but).train()


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
