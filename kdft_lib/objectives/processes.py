"""One batch, though several processes hold a share of it each."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def everywhere(rows: Tensor) -> Tensor:
    """The rows of all processes, in order, differentiable; where there is one process, the rows.

    Args:
        rows: The rows of this process, ``(N, ...)``. All dimensions may differ between processes, as where each pads
            its own; what is missing is 0.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    return _Gathered.apply(rows)


class _Gathered(torch.autograd.Function):
    """Each process gets back what all of them found out about its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.own = rows.shape
        shape = torch.tensor(rows.shape, device=rows.device)
        shapes = [torch.empty_like(shape) for _ in range(dist.get_world_size())]
        dist.all_gather(shapes, shape)
        ctx.counts = [int(other[0]) for other in shapes]
        padded = rows.new_zeros(torch.stack(shapes).amax(0).tolist())
        padded[tuple(map(slice, rows.shape))] = rows
        shares = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(shares, padded)
        return torch.cat([share[:number] for share, number in zip(shares, ctx.counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        gradient = upstream[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[dist.get_rank()][tuple(map(slice, ctx.own))]
