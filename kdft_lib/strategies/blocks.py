"""Strategies that know the order of the layers: rates that fall with depth, layers that move one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from kdft_lib.features import find
from kdft_lib.strategies.base import Strategy


def blocks(model: nn.Module) -> list[str]:
    """A model's blocks, from the input to the head, in the order in which they are defined; elsewhere called
    stages, or layer groups.

    A list of layers is opened, and so is a module that holds a ``ModuleList``, or most of the model and a
    ``Sequential``; what they hold are the blocks. What has no matrix of its own, such as a normalisation,
    goes with the block before.

    Args:
        model: A module that is defined in the order in which it runs, as most are.

    Returns:
        Names, as in ``model.named_modules()``.

    Raises:
        ValueError: If there is no weight matrix or kernel.

    Example:
        >>> from kdft_lib.models import ResNet
        >>> blocks(ResNet())
        ['stem', 'block1', 'block2', 'block3', 'head']
    """
    total = _size(model)
    found = [name for name, module in _opened("", model, total) if _has_matrix(module)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no weight matrix or kernel, so it has no blocks")
    return found


class LayerwiseLRDecay(Strategy):
    """Everything moves, the slower the nearer to the input: layer-wise learning-rate decay, LLRD or layer decay,
    introduced as discriminative fine-tuning (Howard and Ruder, 2018, section 3.2). The rate of a block is the next
    one's times ``decay``.

    Args:
        lr: The head's learning rate at the schedule's peak.
        decay: The factor of the rate from block to block, above 0 and at most 1. Howard and Ruder divide by 2.6;
            0.75 is usual for vision transformers (He et al., 2022, MAE, appendix A.1).
        blocks: The names of the blocks, from the input to the head; by default those of :func:`blocks`. A
            parameter outside of them goes with the block before it.
        weight_decay: The decay of weight matrices and kernels, 0 or more.
        decay_all: Whether biases and the parameters of normalisation decay too.

    Raises:
        ValueError: If an argument is out of range; in use, if a block does not exist.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> LayerwiseLRDecay(lr=1.0, decay=0.5).rates(model)
        {'0.weight': 0.5, '0.bias': 0.5, '1.weight': 1.0, '1.bias': 1.0}
    """

    def __init__(
        self,
        *,
        lr: float,
        decay: float = 0.75,
        blocks: Sequence[str] | None = None,
        weight_decay: float = 0.01,
        decay_all: bool = False,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, decay_all=decay_all)
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; it must be above 0 and at most 1")
        self.decay, self.blocks = decay, _checked(blocks)

    def prepare(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)

    def rates(self, model: nn.Module) -> dict[str, float]:
        places = _places(model, self.blocks)
        top = max(places.values())
        return {name: self.lr * self.decay ** (top - place) for name, place in places.items()}


class GradualUnfreezing(Strategy):
    """The head moves first, and each time another block joins it: gradual unfreezing, also called layer-by-layer or
    progressive unfreezing (Howard and Ruder, 2018, section 3.3). What is frozen is in evaluation mode.

    Args:
        lr: The learning rate at the schedule's peak.
        epochs_per_block: The number of epochs until the next block joins; 1 as in the paper.
        decay: The factor of the rate from block to block, as in :class:`LayerwiseLRDecay`; none by default.
        blocks: The names of the blocks, from the input to the head; by default those of :func:`blocks`.
        weight_decay: The decay of weight matrices and kernels, 0 or more.
        decay_all: Whether biases and the parameters of normalisation decay too.

    Raises:
        ValueError: If an argument is out of range; in use, if a block does not exist.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        >>> strategy = GradualUnfreezing(lr=1e-3)
        >>> for epoch in range(2):
        ...     strategy.before_epoch(model.train(), epoch)
        ...     print([name for name, parameter in model.named_parameters() if parameter.requires_grad])
        ['1.weight', '1.bias']
        ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    def __init__(
        self,
        *,
        lr: float,
        epochs_per_block: int = 1,
        decay: float = 1.0,
        blocks: Sequence[str] | None = None,
        weight_decay: float = 0.01,
        decay_all: bool = False,
    ):
        super().__init__(lr=lr, weight_decay=weight_decay, decay_all=decay_all)
        if epochs_per_block < 1 or int(epochs_per_block) != epochs_per_block:
            raise ValueError(f"epochs_per_block is {epochs_per_block}; it must be a whole number of 1 or more")
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; it must be above 0 and at most 1")
        self.epochs_per_block, self.decay, self.blocks = epochs_per_block, decay, _checked(blocks)

    def prepare(self, model: nn.Module) -> None:
        self._unfreeze(model, 0)

    def rates(self, model: nn.Module) -> dict[str, float]:
        places = _places(model, self.blocks)
        top = max(places.values())
        return {name: self.lr * self.decay ** (top - place) for name, place in places.items()}

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        lowest = self._unfreeze(model, epoch)
        if lowest <= 0:
            return
        model.eval()
        for name in (self.blocks or blocks(model))[lowest:]:
            find(model, name, "blocks").train()
        for module in model.modules():
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                module.training = True

    def _unfreeze(self, model: nn.Module, epoch: int) -> int:
        """Freeze all below the lowest block that moves in an epoch; its place."""
        places = _places(model, self.blocks)
        lowest = max(places.values()) - epoch // self.epochs_per_block
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(places.get(name, -1) >= lowest and parameter.is_floating_point())
        return lowest


def _opened(prefix: str, module: nn.Module, total: int) -> Iterator[tuple[str, nn.Module]]:
    """The blocks of a module that is opened."""
    for name, child in module.named_children():
        full = f"{prefix}.{name}" if prefix else name
        if _is_list(child):
            for place, layer in child.named_children():
                yield f"{full}.{place}", layer
        elif (_size(child) == total and sum(map(_has_matrix, child.children())) > 1) or any(
            _is_list(inner) and (isinstance(inner, nn.ModuleList) or 2 * _size(child) > total)
            for inner in child.modules()
        ):
            yield from _opened(full, child, total)
        else:
            yield full, child


def _is_list(module: nn.Module) -> bool:
    """Whether it holds several layers, one after another."""
    return isinstance(module, nn.Sequential | nn.ModuleList) and sum(map(_has_matrix, module.children())) > 1


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.dim() >= 2 for parameter in module.parameters())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _places(model: nn.Module, names: Sequence[str] | None) -> dict[str, int]:
    """The place of each parameter's block; what stands before the first block belongs to it."""
    names = names or blocks(model)
    for name in names:
        find(model, name, "blocks")
    places, place = {}, 0
    for parameter_name, parameter in model.named_parameters():
        inside = [i for i, name in enumerate(names) if f"{parameter_name}.".startswith(f"{name}.")]
        place = inside[-1] if inside else place
        if parameter.is_floating_point():
            places[parameter_name] = place
    return places


def _checked(names: Sequence[str] | None) -> list[str] | None:
    if names is not None and (isinstance(names, str) or not names):
        raise ValueError(f"blocks is {names!r}; it must be a list of one or more names, from the input to the head")
    return None if names is None else list(names)
