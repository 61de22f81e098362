"""A run under torchrun or alone: the first process writes what it ends with."""

from __future__ import annotations

import copy
import os
import sys

import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from kdft_lib.data import UNLABELED, TensorData
from kdft_lib.objectives import (
    DIST,
    DKD,
    L2SP,
    RKD,
    AttentionTransfer,
    Contrastive,
    HardTargets,
    Hint,
    LogitMatching,
    SimilarityPreserving,
    SoftTargets,
    Supervised,
)
from kdft_lib.strategies import (
    BitFit,
    FullFineTuning,
    GradualUnfreezing,
    HeadOnly,
    LayerwiseLRDecay,
    LoRA,
    Phases,
)
from kdft_lib.teachers import Teacher
from kdft_lib.training import RunState, evaluate, fit


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3))


def maps() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(36, 3)
    )


class Stop:
    """Stops a run after some steps, if this process is asked."""

    def __init__(self, after: int, process: int):
        self.after, self.process = after, process

    def on_step_end(self, state: RunState) -> bool:
        here = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return state.step < self.after or here != self.process


generator = torch.Generator().manual_seed(1)
inputs = torch.randn(120, 4, generator=generator)
targets = (inputs[:, :3] + inputs[:, 1:]).argmax(1)
targets[torch.rand(120, generator=generator) < 0.4] = UNLABELED
data = TensorData(inputs, targets)
transfer = {"transfer_data": data[:70].without_labels()}
ends = {}


class Rows(Dataset):
    """Samples one by one."""

    def __len__(self):
        return len(inputs)

    def __getitem__(self, row):
        return inputs[row], targets[row]


class Noisy(Rows):
    """With a random transform, of which each process must draw what one alone would."""

    def __getitem__(self, row):
        return inputs[row] + torch.randn(4) / 10, targets[row]


with torch.random.fork_rng([]):
    teacher, wide = net(), maps()
    teacher[0].weight.data.mul_(-2)
    wide[1].weight.data.mul_(-2)
    shared = Teacher(copy.deepcopy(teacher), shard=True)
full = FullFineTuning(lr=1e-2)
runs = {
    "supervised": (net, Supervised(), full, {}),
    "soft": (net, SoftTargets(teacher), full, transfer),
    "hard": (net, HardTargets(teacher), full, {"accumulate": 3, "clip_norm": 0.1}),
    "matching": (net, LogitMatching(teacher, kd_weight=0.1, ce_weight=1.0), full, transfer),
    "decoupled": (net, DKD(teacher, warmup=0.5), full, transfer),
    "DIST": (net, DIST(teacher), full, transfer),
    "similarity": (net, Supervised() + 10 * SimilarityPreserving(teacher, "2", "2"), full, transfer),
    "rkd": (net, Supervised() + RKD(teacher, "2", "2"), full, transfer),
    "contrastive": (net, Supervised() + Contrastive(teacher, "2", "2"), full, transfer),
    # After the activation: a bias before it moves all points alike, and AdamW would magnify the rounding of
    # a gradient that is 0.
    "relational alone": (net, RKD(teacher, "1", "1"), full, {"clip_norm": 0.5}),
    "hint": (net, SoftTargets(teacher) + 10 * Hint(teacher, "2", "2"), full, transfer),
    "hint alone": (net, Hint(teacher, "0", "2"), full, {"accumulate": 2}),
    "attention": (maps, Supervised() + 100 * AttentionTransfer(wide, "1", "1"), full, {}),
    "toward start": (net, Supervised() + 0.1 * L2SP(net(), head="4", head_weight=0.5), full, {"accumulate": 2}),
    "data set": (net, Supervised(), full, {"train_data": Noisy()}),
    "loader": (net, Supervised(), full, {"train_data": DataLoader(Rows(), batch_size=31, shuffle=True)}),
    "average": (net, Supervised(), full, {"ema_decay": 0.9, "clip_norm": 0.1}),
    "clipped with an adapter": (net, Hint(teacher, "0", "2"), full, {"clip_norm": 0.1, "accumulate": 2}),
    "shared teacher": (net, SoftTargets(shared) + 10 * Hint(shared, "2", "2"), full, {}),
    "weights of classes": (net, Supervised(weight=[0.1, 5.0, 1.0]), full, {"accumulate": 2}),
    "numbers": (
        net,
        Supervised(loss=mse_loss) + LogitMatching(teacher, kd_weight=0.1),
        full,
        transfer | {"train_data": TensorData(inputs, inputs[:, :3] * 2), "accumulate": 2},
    ),
    "stopped": (net, Supervised(), full, {"callbacks": [Stop(5, process=0), Stop(3, process=1)]}),
    "head": (net, Supervised(), HeadOnly(head="4", lr=1e-2), {}),
    "layerwise": (net, Supervised(), LayerwiseLRDecay(lr=1e-2), {}),
    "gradual": (net, SoftTargets(teacher), GradualUnfreezing(lr=1e-2), {}),
    "biases": (net, Supervised(), BitFit(lr=1e-2), {}),
    "low rank": (net, Supervised(), LoRA(lr=1e-2, r=2, head="4"), {}),
    "phases": (
        net,
        Hint(teacher, "2", "2") + Supervised(),
        Phases(HeadOnly(head="4", lr=1e-2), full, first_epochs=2),
        {},
    ),
}
for name, (make, objective, strategy, more) in runs.items():
    model = make()
    given = more.pop("train_data", data)
    history = fit(
        model,
        given,
        objective=objective,
        strategy=strategy,
        steps=16,
        batch_size=31,
        val_data=given,
        keep_best=name == "soft",
        **more,
    )
    ends[name] = {"model": model.state_dict(), "losses": torch.tensor([step["loss"] for step in history.steps])}
connected = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
assert connected == int(os.environ.get("WORLD_SIZE", "1")), "processes that know nothing of each other end alike too"
if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
    from torchmetrics.classification import MulticlassF1Score  # which takes longer to load than a run to end

    torch.save(ends, sys.argv[1])
    # By itself: a metric that asked the other processes for theirs would wait for ever.
    assert 0 <= evaluate(net(), data, metrics={"f1": MulticlassF1Score(3)})["f1"] <= 1
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
