"""Sharded runs of which one may be killed: each process looks at what it holds, and writes a digest of each end.

Its arguments are, for each run, a folder and the step at which the process dies, 0 for never.
"""

from __future__ import annotations

import copy
import hashlib
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from kdft_lib.data import TensorData
from kdft_lib.objectives import Hint, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly
from kdft_lib.teachers import Teacher
from kdft_lib.training import evaluate, fit


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, inputs):
        return inputs + self.outer(torch.relu(self.inner(inputs)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(8, 3)

    def forward(self, inputs):
        hidden = self.norm(self.stem(inputs))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


def local(tensor):
    """How many numbers of a tensor this process holds."""
    return getattr(tensor, "_local_tensor", tensor).numel()


def digest(model):
    found = hashlib.sha256()
    for tensor in model.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


torch.manual_seed(0)
whole, start = Net(), Net()
inputs, targets = torch.randn(64, 4), torch.randint(0, 3, (64,))
data = TensorData(inputs, targets)
size = sum(parameter.numel() for parameter in whole.parameters())

teacher = Teacher(copy.deepcopy(whole), shard=True)
again = Teacher(teacher.model, shard=True)
assert teacher.fingerprint() == again.fingerprint() == Teacher(whole).fingerprint()
alone = not torch.distributed.is_initialized()
rank, shares = (0, 1) if alone else (torch.distributed.get_rank(), torch.distributed.get_world_size())
if rank == 0:
    assert repr(SoftTargets(teacher)) == repr(SoftTargets(whole)), "one process alone may ask for it"
together = []
last = teacher.model.blocks[1].register_forward_hook(
    lambda *_: together.extend(hasattr(parameter, "full_tensor") for parameter in teacher.model.blocks[0].parameters())
)
answers = teacher.outputs(inputs, ["blocks.0.inner"])
last.remove()
assert together == 4 * [shares > 1], "a block that has run is given up before the next one is done"
expected = Teacher(whole).outputs(inputs, ["blocks.0.inner"])
torch.testing.assert_close(answers.logits, expected.logits)
torch.testing.assert_close(answers.features, expected.features)
assert not answers.logits.requires_grad


def run(folder, dies_at):
    optimizers, steps = [], 0

    def kept(groups):
        optimizers.append(torch.optim.AdamW(groups))
        return optimizers[-1]

    def counted(view):
        nonlocal steps
        steps += 1
        if steps == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return view

    torch.manual_seed(1)
    model = copy.deepcopy(start)
    model.head.bias.requires_grad_(False)
    model.blocks[1].eval()
    history = fit(
        model,
        data,
        objective=SoftTargets(teacher) + Hint(teacher, "blocks.0.inner", "blocks.1.inner"),
        strategy=FullFineTuning(lr=1e-2),
        steps=20,
        batch_size=16,
        val_data=data,
        clip_norm=0.5,
        ema_decay=0.9,
        keep_best=True,
        augment=counted,
        optimizer=kept,
        checkpoint_dir=folder,
        checkpoint_every=3,
    )
    assert type(model) is Net
    assert {type(parameter) for parameter in model.parameters()} == {nn.Parameter}
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["head.bias"]
    assert [name for name, module in model.named_modules() if not module.training] == [
        "blocks.1", "blocks.1.inner", "blocks.1.outer",
    ]  # fmt: skip
    best = history.epochs[history.best_epoch]
    assert evaluate(model, data)["loss"] == best["val_loss"], "what comes back is what was scored"
    held = sum(local(state["exp_avg"]) for state in optimizers[0].state.values())
    assert sum(local(parameter) for parameter in teacher.model.parameters()) <= size / shares + 8
    assert held <= size / shares + 8 + 8 * 9, "half of the student, and the whole regressor"

    before = digest(model)
    try:
        fit(
            model, TensorData(inputs.sign() * 3e38, targets), steps=3, objective=Supervised(),
            strategy=HeadOnly(lr=0.1, head="head"),
        )  # fmt: skip
    except FloatingPointError:
        assert digest(model) == before
        assert type(model) is Net
    else:
        raise AssertionError("a loss that is not finite went by")
    (folder / f"end-{rank}").write_text(before + repr([history.steps, history.epochs, history.best_epoch]))


for place, step in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    run(Path(place), int(step))
torch.distributed.destroy_process_group()
