"""A run that may be killed at any moment."""

from __future__ import annotations

import hashlib
import signal
import sys

import torch

from kdft_lib.data import RandomShiftFlip, TensorData
from kdft_lib.models import ConvNet
from kdft_lib.objectives import DIST, DKD, L2SP, RKD, Hint, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, GradualUnfreezing, HeadOnly, LayerwiseLRDecay, LoRA, Phases
from kdft_lib.training import fit


def report(folder, case, connection):
    """Say when training begins, and what it ended with."""
    connection.send("training")
    connection.send(train(folder, case))


def train(folder, case):
    """A digest of all that a run ends with; strategies, precisions and objectives differ, and some have parameters."""
    torch.manual_seed(len(case))
    images, targets = torch.randn(256, 1, 16, 16), torch.randint(0, 10, (256,))
    data = TensorData(images, targets)
    model, teacher = ConvNet(8), ConvNet(4)
    cases = {
        "soft": (SoftTargets(teacher), FullFineTuning(lr=1e-2), {"keep_best": True, "augment": RandomShiftFlip()}),
        "hint": (
            SoftTargets(teacher) + 10 * Hint(teacher, "body.2", "body.2"),
            GradualUnfreezing(lr=1e-2, epochs_per_block=5),
            {},
        ),
        "dist": (DIST(teacher) + 0.1 * L2SP(model), LayerwiseLRDecay(lr=1e-2), {"precision": "bfloat16"}),
        "decoupled": (DKD(teacher, warmup=0.5), LoRA(lr=1e-2, r=2, head="head", dropout=0.1), {"ema_decay": 0.9}),
        "rkd": (
            Supervised() + RKD(teacher, "body.4", "body.4"),
            Phases(HeadOnly(head="head", lr=1e-2), FullFineTuning(lr=1e-3), first_epochs=8),
            {"precision": "bfloat16", "ema_decay": 0.9, "keep_best": True, "clip_norm": 1.0, "accumulate": 2},
        ),
    }
    objective, strategy, more = cases[case]
    history = fit(
        model,
        data[:128],
        transfer_data=data[128:].without_labels(),
        val_data=data[:64],
        objective=objective,
        strategy=strategy,
        steps=100,
        batch_size=32,
        checkpoint_dir=folder,
        checkpoint_every=3,
        **more,
    )
    digest = hashlib.sha256()
    for tensor in [*model.state_dict().values(), *objective.state_dict().values()]:
        digest.update(tensor.detach().numpy().tobytes())
    digest.update(repr([history.steps, history.epochs, history.best_epoch]).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    # What a shell starts in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("training", flush=True)
    print(train(*sys.argv[1:]))
