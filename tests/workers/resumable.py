"""A run that may be killed at any moment: prints a digest of all that it ends with."""

from __future__ import annotations

import hashlib
import sys

import torch

from kdft_lib.data import RandomShiftFlip, TensorData
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

folder, seed = sys.argv[1], int(sys.argv[2])
torch.manual_seed(seed)
images, targets = torch.randn(256, 1, 28, 28), torch.randint(0, 10, (256,))
data = TensorData(images, targets)
model, teacher = ConvNet(8), ConvNet(4)
print("training", flush=True)
history = fit(
    model,
    data[:128],
    transfer_data=data[128:].without_labels(),
    val_data=data[:64],
    objective=SoftTargets(teacher),
    strategy=FullFineTuning(1e-2),
    augment=RandomShiftFlip(),
    steps=200,
    batch_size=32,
    keep_best=seed == 1,
    checkpoint_dir=folder,
    checkpoint_every=3,
    seed=seed,
)
digest = hashlib.sha256()
for tensor in model.state_dict().values():
    digest.update(tensor.numpy().tobytes())
digest.update(repr([history.steps, history.epochs, history.best_epoch]).encode())
print(digest.hexdigest())
