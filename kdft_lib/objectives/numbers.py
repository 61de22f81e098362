"""Numbers to predict, where targets are no classes: what a loss of them is asked, and how outputs meet targets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from kdft_lib.data import Batch, batches

Loss: TypeAlias = Callable[..., Tensor]
"""A function ``f(outputs, targets, reduction="none")``, such as :func:`torch.nn.functional.mse_loss`."""


def check_loss(loss: Any) -> None:
    """Refuse what cannot be called as ``loss(outputs, targets, reduction="none")``."""
    try:
        fits = callable(loss) and not isinstance(loss, nn.Module | type)
        if fits:
            inspect.signature(loss).bind(None, None, reduction="none")
    except TypeError:
        fits = False
    except ValueError:  # A builtin that does not say what it takes.
        fits = True
    if not fits:
        raise TypeError(
            f'loss is {loss!r}; it must be a function f(outputs, targets, reduction="none"), such as'
            " torch.nn.functional.mse_loss or torch.nn.functional.huber_loss"
        )


def given(batch: Batch) -> Tensor:
    """Where there is a number to learn: all positions but those that the mask leaves out, and the rows of a batch
    that come from data without targets.

    Returns:
        Boolean, ``(N,)``, or the shape of the mask.
    """
    rows = batch.get("labeled")
    if rows is None:
        rows = torch.ones(batches.size(batch), dtype=torch.bool, device=batch["targets"].device)
    mask = batch.get("mask")
    return rows if mask is None else mask & rows.view(-1, *[1] * (mask.dim() - 1))


def paired(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets of one shape and one precision, float32 or wider.

    One output ``(N, 1)`` for each target ``(N,)`` is told apart from N × N pairs here; elsewhere they would broadcast.
    """
    if outputs.shape == (*targets.shape, 1):
        outputs = outputs.squeeze(-1)
    if outputs.shape != targets.shape:
        raise ValueError(
            f"the model's outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}; loss compares"
            " them number by number, so give targets the outputs' shape, of which a last dimension of 1 may be left out"
        )
    dtype = torch.promote_types(outputs.dtype, torch.float32)
    return outputs.to(dtype), targets.to(dtype)


def positionwise(loss: Loss, outputs: Tensor, targets: Tensor, dims: int) -> Tensor:
    """The loss of each sample or position, a mean over the numbers of each.

    Args:
        loss: What compares them.
        outputs: ``(N, ...)``.
        targets: As ``outputs``.
        dims: How many leading dimensions count positions; 1 for samples.

    Returns:
        The first ``dims`` dimensions of ``outputs``.
    """
    values = loss(outputs, targets, reduction="none")
    if not isinstance(values, Tensor) or values.shape[:dims] != outputs.shape[:dims]:
        found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(values).__name__}"
        raise ValueError(
            f'loss returned {found} for outputs of shape {tuple(outputs.shape)}; with reduction="none" it must return'
            " a value for each number, or for each sample"
        )
    return values.flatten(dims).mean(-1) if values.dim() > dims else values
