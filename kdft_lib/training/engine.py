"""What carries a run: Accelerate, and, among several processes, mean gradients or shares of the weights."""

from __future__ import annotations

import contextlib
import copy
import os
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdft_lib import sharding
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy

if TYPE_CHECKING:
    from accelerate import Accelerator

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
_SHARDED = {
    "FSDP_VERSION": ("1", "2"), "FSDP_OFFLOAD_PARAMS": ("false", "false"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "false"),
}  # fmt: skip
"""What ``accelerate launch --use_fsdp`` says in the variables that it sets, by default, and so that it can be done."""


def accelerator(precision: str) -> Accelerator:
    """What knows the device and the other processes, on a CPU where there is nothing else.

    Raises:
        ValueError: If there is no such precision, or not here.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose {', '.join(_PRECISIONS)}")
    if precision == "float16" and not torch.cuda.is_available():
        raise ValueError('precision is "float16", which needs a GPU; choose "float32" or "bfloat16" here')
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    # Accelerate keeps one precision for the whole process; runs in one notebook may differ in it.
    shared = AcceleratorState._shared_state
    if shared and AcceleratorState().mixed_precision != _PRECISIONS[precision]:
        AcceleratorState._reset_state()
    # An objective may leave layers out; running statistics are given out once an epoch.
    distributed = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(cpu=sharding.on_cpu(), mixed_precision=_PRECISIONS[precision], kwargs_handlers=[distributed])


class Lent:
    """A context in which a caller's model is a run's: itself, or, sharded, a copy of which each process holds a share.
    Afterwards modes, ``requires_grad`` and torch's random state are as before, and no gradient is left, nor is one that
    was there taken along.

    Args:
        model: The caller's.
        objective: What it learns from; the adapters of an objective are never cut.
        strategy: What may move, which has the last word on what is handed back.
        accelerator: What carries the run.

    Raises:
        ValueError: If the run was started for a kind of sharding that there is not.
    """

    def __init__(self, model: nn.Module, objective: Objective, strategy: Strategy, accelerator: Accelerator):
        self.model = self._own = model
        self._objective, self._strategy, self._accelerator = objective, strategy, accelerator
        self.sharded = _is_sharded(accelerator)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Lent:
        device = self._accelerator.device
        self._required = [(parameter, parameter.requires_grad) for parameter in self._own.parameters()]
        self._modes = [(module, module.training) for module in self._own.modules()]
        # A seed that is set reaches all CUDA devices.
        self._random = torch.random.fork_rng(range(torch.cuda.device_count()) if device.type == "cuda" else [])
        self._random.__enter__()
        self.prepared = False
        for parameter in [*self._own.parameters(), *self._objective.parameters()]:
            parameter.grad = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        model = self._handed_back(trained=error is None)
        if self.prepared:
            self._strategy.finish(model)
        for parameter, required in self._required:
            parameter.requires_grad_(required)
            parameter.grad = None
        self._own.train(self._modes[0][1])  # Modules that are new have the mode of the whole.
        for module, training in self._modes:
            module.training = training
        self._random.__exit__(kind, error, trace)

    def move(self) -> None:
        """Model, objective and teachers to the run's device."""
        self._own.to(self._accelerator.device)
        self._objective.to(self._accelerator.device)
        for teacher in self._objective.teachers():
            teacher.to(self._accelerator.device)

    def share(self) -> nn.Module:
        """The model to train, which is cut from now on where the run is sharded."""
        if self.sharded:
            # What fully_shard does to a module cannot be undone, and no device is to hold it twice.
            self.model = copy.deepcopy(self._own.cpu())
            sharding.shard(self.model, self._accelerator.device, close=False)
            adapters = [adapter for adapter in self._objective.parameters() if adapter.requires_grad]
            self._hooks = [adapter.register_hook(self._mean) for adapter in adapters]
        return self.model

    def wrapped(self, step: nn.Module) -> nn.Module:
        """What is run in each step, as Accelerate wraps it."""
        wrapped: nn.Module = self._accelerator.prepare_model(step, evaluation_mode=self.sharded)
        return wrapped

    def held_back(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """As long as this lasts, gradients need not be brought together; those that are cut always are."""
        return contextlib.nullcontext() if self.sharded else self._accelerator.no_sync(wrapped)

    def close(self) -> None:
        """Leave each process its share again, after calls without a backward pass."""
        if self.sharded:
            sharding.close(self.model)

    def shares(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """A checkpoint with this process's shares in place of whole tensors."""
        weights = self.model.state_dict()
        places = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
        like = {
            "model": weights, "best": weights, "average": {"tensors": weights}, "optimizer": {"state": places},
        }  # fmt: skip
        found: dict[str, Any] = sharding.shares(state, like)
        return found

    @torch.no_grad()
    def _handed_back(self, trained: bool) -> nn.Module:
        """The caller's model, on the run's device; what a sharded run has made of it, or, if that broke off, as it was.

        Args:
            trained: Whether all processes come here, with weights to bring together.
        """
        for hook in self._hooks:
            hook.remove()
        if self.model is not self._own:
            self._own.to(self._accelerator.device)
            if trained:
                sharding.close(self.model)
                for own, cut in zip(_tensors(self._own), _tensors(self.model), strict=True):
                    own.copy_(sharding.whole(cut))
        return self._own

    def _mean(self, gradient: Tensor) -> Tensor:
        mean: Tensor = self._accelerator.reduce(gradient, "mean")
        return mean


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _is_sharded(accelerator: Accelerator) -> bool:
    """Whether ``accelerate launch --use_fsdp`` has started this process, and others with it."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return False
    for name, (default, wanted) in _SHARDED.items():
        given = os.environ.get(name, default).lower()
        if given != wanted:
            option = f"--{name.lower()}"
            raise ValueError(f"accelerate launch has {option} {given}, which fit cannot do; give it {option} {wanted}")
    if accelerator.mixed_precision == "fp16":
        raise ValueError('precision is "float16", which a sharded run has no scaler for; choose "bfloat16"')
    return torch.distributed.is_available() and torch.distributed.is_initialized()
