"""Weights of which each process holds a share: FSDP2, fully sharded data parallel, elsewhere ZeRO.

Where something is cut, every process makes the same calls, in the same order. PyTorch's part is loaded where it is
used: it takes longer than all of ours.
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_FINGERPRINT = "_kdft_fingerprint"


def on_cpu() -> bool:
    """Whether there is nothing but a CPU; Accelerate, unless it is told, leaves the processes there unconnected."""
    return not torch.accelerator.is_available()


def shard(module: nn.Module, device: torch.device, *, close: bool) -> None:
    """Leave each process its share of every parameter, on its device; a call brings them together, block by block.

    A block is what stands in a ``ModuleList`` or a ``Sequential``.

    Args:
        module: What is cut, in place and for good.
        device: The process's own.
        close: Whether a block's weights are given up as soon as it has run, so that no process ever holds all of them.
            What reads weights, or layers inside of a block, for a gradient, needs ``False``.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP2 cuts no other order in memory
    mesh = init_device_mesh(device.type, (get_world_size(),))
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    blocks = [block for part in reversed(lists) for block in part if any(True for _ in block.parameters())]
    for block in [*blocks, module]:
        if not isinstance(block, FSDPModule):
            fully_shard(block, mesh=mesh, reshard_after_forward=close)


def shard_for_good(model: nn.Module, fingerprint: str) -> None:
    """Cut a model that is only asked from now on, where a launcher has started several processes.

    Args:
        model: The model, whole and the same in each process.
        fingerprint: What it is told by, and keeps: to find it anew would take the weights of all, and one process
            alone may print its teacher.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    from accelerate import PartialState

    shard(model, PartialState(cpu=on_cpu()).device, close=True)
    model.__dict__[_FINGERPRINT] = fingerprint


def kept_fingerprint(model: nn.Module) -> str | None:
    """The fingerprint of a model that :func:`shard_for_good` has cut; of any other, none."""
    return model.__dict__.get(_FINGERPRINT)


def own_type(model: nn.Module) -> type[nn.Module]:
    """A model's class as it was before it was cut: FSDP puts one before it that inherits from its own and from it."""
    return type(model) if kept_fingerprint(model) is None else type(model).__mro__[2]


def close(module: nn.Module) -> None:
    """Give up what a call without a backward pass has left together, so that parameters are shares again."""
    from torch.distributed.fsdp import FSDPModule

    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def is_cut(value: Any) -> TypeGuard[DTensor]:
    """Whether a value is a tensor of which this process has a share: a ``DTensor``."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor with the shares of all processes, where it is cut."""
    return tensor.full_tensor() if is_cut(tensor) else tensor


def gathered(state: Any, *, keep: bool) -> Any:
    """A state with whole tensors on the CPU in place of shares, brought together one after another.

    Args:
        state: Anything made of dicts and lists.
        keep: Whether this process is the one that wants them; the others get ``None`` for each.
    """
    if isinstance(state, dict):
        found = copy.copy(state)
        found.update({name: gathered(value, keep=keep) for name, value in state.items()})
        return found
    if isinstance(state, list):
        return [gathered(value, keep=keep) for value in state]
    if not is_cut(state):
        return state
    tensor = whole(state)
    return tensor.cpu() if keep else None


def shares(state: Any, like: Any) -> Any:
    """A state with this process's shares in place of whole tensors.

    Args:
        state: Anything made of dicts, with the whole tensors that :func:`gathered` has made.
        like: The tensors that it is for, cut or not, in dicts of the same names; one stands for all of a dict. What has
            no likeness, or one of another shape, stays as it is.
    """
    if isinstance(state, dict):
        found = copy.copy(state)
        found.update(
            {name: shares(value, like.get(name) if isinstance(like, dict) else like) for name, value in state.items()}
        )
        return found
    if not (is_cut(like) and isinstance(state, Tensor) and state.shape == like.shape):
        return state
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(state.to(like.device), like.device_mesh, like.placements)
