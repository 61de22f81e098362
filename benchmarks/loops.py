"""The work of whole runs: an epoch of distillation beside a supervised one, ten beside the usual loop, and ``fit``
beside a bare loop. Each function returns what is to be timed and what it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kdft_lib.data import RandomShiftFlip, TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import fit

BATCH, RATE = 128, 1e-2
Runs = dict[str, Callable[[], nn.Module]]


def student() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(width=8)


def cached_epoch() -> Runs:
    """One epoch on 20,000 images: soft targets from cached logits, and labels."""
    data, teacher = fashion_mnist(labeled=20_000).train, fashion_teacher()
    return _beside_labels(cache(teacher, data), data, SoftTargets(teacher))


def viewed_epoch() -> Runs:
    """One epoch on 20,000 images: soft targets from the kept answers to views that are replayed, and labels."""
    data, teacher = fashion_mnist(labeled=20_000).train, fashion_teacher()
    return _beside_labels(cache(teacher, data, views=4, augment=RandomShiftFlip()), data, SoftTargets(teacher))


def _beside_labels(taught: TensorData, data: TensorData, objective: SoftTargets) -> Runs:
    def trained(rows: TensorData, objective: Any) -> nn.Module:
        model = student()
        fit(
            model,
            rows,
            objective=objective,
            strategy=FullFineTuning(lr=RATE),
            epochs=1,
            batch_size=BATCH,
            progress=False,
        )
        return model

    return {"ours": lambda: trained(taught, objective), "supervised": lambda: trained(data, Supervised())}


def ten_epochs() -> Runs:
    """Ten epochs on 6,000 images, the same batches in the same order: cached once and fitted, and the usual loop,
    with a loader that transforms each image and a teacher that answers each batch."""
    data, teacher = fashion_mnist(labeled=6_000).train, fashion_teacher()
    images = _Pictures(data)

    def ours() -> nn.Module:
        model = student()
        fit(
            model, cache(teacher, data), objective=SoftTargets(teacher, ce_weight=0.1), schedule="constant",
            strategy=FullFineTuning(lr=RATE, weight_decay=0.0), epochs=10, batch_size=BATCH, progress=False,
        )  # fmt: skip
        return model

    def usual() -> nn.Module:
        model = student().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
        for epoch in range(10):
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch)).tolist()
            for pictures, targets in DataLoader(images, BATCH, sampler=order, drop_last=True):
                logits = model(pictures)
                with torch.no_grad():
                    answers = teacher(pictures)
                soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(answers / 4, 1), reduction="batchmean")
                loss = 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return model

    return {"ours": ours, "usual loop": usual}


def bare_steps() -> Runs:
    """300 steps on all images: ``fit``, and the loop that one would write by hand."""
    data = fashion_mnist(labeled=None).train
    steps = 300

    def ours() -> nn.Module:
        model = student()
        fit(
            model, data, objective=Supervised(), strategy=FullFineTuning(lr=RATE), steps=steps, batch_size=BATCH,
            schedule="constant", progress=False,
        )  # fmt: skip
        return model

    def bare() -> nn.Module:
        model = student().train()
        targets = data.targets
        assert targets is not None
        groups = [
            {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.01},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=RATE)
        for step in range(steps):
            number, place = divmod(step, len(data) // BATCH)
            if place == 0:
                order = torch.randperm(len(data), generator=torch.Generator().manual_seed(number))
            rows = order[place * BATCH : (place + 1) * BATCH]
            loss = F.cross_entropy(model(data.inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model

    return {"ours": ours, "bare loop": bare}


def gap(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of a weight."""
    pairs = zip(copy.deepcopy(first).parameters(), second.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


class _Pictures(Dataset[tuple[Tensor, int]]):
    """What torchvision's data sets do for each sample: an array becomes a picture, and a transform a tensor."""

    def __init__(self, data: TensorData):
        from torchvision import transforms

        from kdft_lib.datasets import FASHION_NORMALIZATION

        mean, deviation = FASHION_NORMALIZATION
        self._arrays = ((data.inputs * deviation + mean) * 255).round().to(torch.uint8).squeeze(1).numpy()
        self._targets = data.targets
        self._change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, deviation)])

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        from PIL import Image

        assert self._targets is not None
        return self._change(Image.fromarray(self._arrays[place])), int(self._targets[place])
