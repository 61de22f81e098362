"""A run under torchrun or alone: the first process writes what it ends with."""

from __future__ import annotations

import sys

import torch
from torch import nn

from kdft_lib.data import UNLABELLED, TensorData
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.training import fit


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3))


generator = torch.Generator().manual_seed(1)
inputs = torch.randn(120, 4, generator=generator)
targets = (inputs[:, :3] + inputs[:, 1:]).argmax(1)
targets[torch.rand(120, generator=generator) < 0.4] = UNLABELLED
data = TensorData(inputs, targets)
ends = {}
with torch.random.fork_rng([]):
    teacher = net()
    teacher[0].weight.data.mul_(-2)
for name, objective, strategy, more in (
    ("supervised", Supervised(), FullFineTuning(1e-2), {}),
    ("soft", SoftTargets(teacher), FullFineTuning(1e-2), {"transfer_data": data[:70].without_labels()}),
    ("hard", HardTargets(teacher), FullFineTuning(1e-2), {"accumulate": 3, "clip_norm": 0.1}),
    ("head", Supervised(), HeadOnly("4", 1e-2), {}),
):
    model = net()
    history = fit(
        model,
        data,
        objective=objective,
        strategy=strategy,
        steps=30,
        batch_size=31,
        val_data=data,
        keep_best=True,
        **more,
    )
    ends[name] = {"model": model.state_dict(), "losses": torch.tensor([step["loss"] for step in history.steps])}
if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
    torch.save(ends, sys.argv[1])
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
