"""Averages of weights: over the steps of one run, and between the ends of a fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib.data import TensorData
from kdft_lib.training.inference import evaluate


class MovingAverage:
    """An exponential moving average of all that a model holds, in 32 bits where that has fewer, in which small changes
    would be lost; whole numbers, such as counters, are copied.

    Args:
        model: The model whose start is the average's.
        decay: The decay near the end; see :func:`kdft_lib.training.fit`.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.tensors = {name: _wide(tensor.detach()).clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(_wide(tensor), 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averaged weights inside, with its own afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"tensors": self.tensors, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        for name, tensor in state["tensors"].items():
            self.tensors[name].copy_(tensor)
        self.updates = state["updates"]


def interpolate(start: nn.Module, tuned: nn.Module, alpha: float) -> nn.Module:
    r"""The model between two: WiSE-FT (Wortsman et al., 2022, eq. 1), :math:`(1 - \alpha) w_0 + \alpha w_1`.

    Running statistics are interpolated too, an approximation; whole numbers are those of ``tuned``.

    Args:
        start: The model before fine-tuning: a copy, since :func:`~kdft_lib.training.fit` trains in place.
        tuned: The model after it, of the same architecture.
        alpha: The place between them, from 0, the start, to 1.

    Returns:
        A new model, in ``tuned``'s modes and on its device.

    Raises:
        ValueError: If ``alpha`` is out of range or the two have other parameters.

    Example:
        >>> start, tuned = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> _ = start.requires_grad_(False).weight.fill_(0.0), tuned.requires_grad_(False).weight.fill_(4.0)
        >>> interpolate(start, tuned, 0.25).weight.item()
        1.0
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be from 0, the start, to 1, the tuned model")
    before, after = start.state_dict(), tuned.state_dict()
    others = [name for name in before | after if _shape(before, name) != _shape(after, name)]
    if others:
        raise ValueError(
            f"start and tuned differ in {len(others)} tensors, the first of them {others[0]!r};"
            " both must be of one architecture"
        )
    between = copy.deepcopy(tuned)
    between.load_state_dict(
        {
            name: before[name].to(tensor).lerp(tensor, alpha) if tensor.is_floating_point() else tensor
            for name, tensor in after.items()
        }
    )
    return between


def interpolation_curve(
    start: nn.Module,
    tuned: nn.Module,
    data: Mapping[str, TensorData],
    alphas: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
    *,
    class_dim: int = -1,
) -> list[dict[str, float]]:
    """The whole curve between two models, scored on several data sets, such as the old task and the new.

    Args:
        start: The model before fine-tuning.
        tuned: The model after it.
        data: Data sets by name, with targets. Choose by the curve on validation data, not on test data.
        alphas: The places to look at; eleven even steps by default.
        class_dim: The dimension of the classes in the logits.

    Returns:
        A row for each alpha, with ``alpha`` and, for each data set, ``NAME_accuracy`` and ``NAME_loss``.

    Raises:
        ValueError: As :func:`interpolate` and :func:`~kdft_lib.training.evaluate`.

    Example:
        >>> data = {"task": TensorData(torch.eye(2), torch.tensor([0, 1]))}
        >>> curve = interpolation_curve(nn.Linear(2, 2), nn.Linear(2, 2), data, alphas=[0.0, 1.0])
        >>> [sorted(row) for row in curve]
        [['alpha', 'task_accuracy', 'task_loss'], ['alpha', 'task_accuracy', 'task_loss']]
    """
    curve = []
    for alpha in alphas:
        between = interpolate(start, tuned, alpha)
        row = {"alpha": float(alpha)}
        for name, rows in data.items():
            row |= {f"{name}_{score}": value for score, value in evaluate(between, rows, class_dim=class_dim).items()}
        curve.append(row)
    return curve


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _shape(state: Mapping[str, Any], name: str) -> Any:
    return tuple(state[name].shape) if name in state else None
