"""What ``fit`` costs beside a bare loop of the same steps: ``python benchmarks/fit_overhead.py``.

Same model, data, order, optimiser and schedule, in turns, so that the machine's moods hit both; the
medians of nine runs each, and that both end with the same weights.
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

from kdft_lib.data import fashion_mnist
from kdft_lib.models import ConvNet
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

STEPS, BATCH, RATE, RUNS = 300, 128, 1e-2, 9


def model() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(width=8)


def bare(net: ConvNet, images: torch.Tensor, targets: torch.Tensor) -> None:
    """The loop that one would write by hand."""
    decayed = [parameter for parameter in net.parameters() if parameter.dim() >= 2]
    spared = [parameter for parameter in net.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    net.train()
    for step in range(STEPS):
        number, place = divmod(step, len(images) // BATCH)
        if place == 0:
            order = torch.randperm(len(images), generator=torch.Generator().manual_seed(number))
        rows = order[place * BATCH : (place + 1) * BATCH]
        loss = F.cross_entropy(net(images[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    data = fashion_mnist(labelled=None).train
    assert data.targets is not None
    times: dict[str, list[float]] = {"bare": [], "fit": []}
    for _ in range(RUNS):
        by_hand, ours = model(), model()
        started = time.perf_counter()
        bare(by_hand, data.inputs, data.targets)
        times["bare"].append(time.perf_counter() - started)
        started = time.perf_counter()
        fit(
            ours, data, objective=Supervised(), strategy=FullFineTuning(RATE), steps=STEPS, batch_size=BATCH,
            schedule="constant", progress=False,
        )  # fmt: skip
        times["fit"].append(time.perf_counter() - started)
    gap = max((a - b).abs().max().item() for a, b in zip(by_hand.parameters(), ours.parameters(), strict=True))
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{STEPS} steps of {BATCH}: bare {medians['bare']:.3f} s, fit {medians['fit']:.3f} s")
    print(f"fit / bare = {medians['fit'] / medians['bare']:.3f}; largest difference of a weight {gap:.1e}")


if __name__ == "__main__":
    main()
