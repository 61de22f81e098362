"""Memory that does not grow with the data: ``make bench``, or ``python benchmarks/flat.py``.

Writes ``benchmarks/results/memory.json``. Each row is a fresh process: the peak of its private memory (``RssAnon``, in
which mapped pages do not count; Linux alone has it), beyond the model and one batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from memory import highest, private
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kdft_lib.training import evaluate, predict

PATH = Path(__file__).parent / "results" / "memory.json"
ROWS = {
    "predict, pictures of 3×224×224": ("pictures", "predict", 20_000, 50),
    "evaluate, pictures of 3×224×224": ("pictures", "evaluate", 20_000, 50),
    "evaluate, places over 32,000 classes, 16×100 in a batch": ("places", "evaluate", 200_000, 200),
}
"""By what is done: the kind of data, the function, the number of samples, and the most MiB that it may take."""


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Pictures that exist while somebody looks at them."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 224, 224), place / self.count), place % 10


class Texts(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Texts of 100 places, whose next token is to be told."""

    def __init__(self, places: int):
        self.count = places // 100

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (torch.arange(101) * 7919 + place) % 32_000
        return tokens[:-1], tokens[1:]


def pictures(count: int) -> tuple[nn.Module, DataLoader[Any]]:
    pooled = nn.Sequential(nn.Conv2d(3, 8, 7, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(8, 10)), DataLoader(Pictures(count), batch_size=32)


def places(count: int) -> tuple[nn.Module, DataLoader[Any]]:
    model = nn.Sequential(nn.Embedding(32_000, 8), nn.Linear(8, 32_000))
    return model, DataLoader(Texts(count), batch_size=16)


def beyond(kind: str, function: str, count: int) -> int:
    """Bytes beyond the model and one batch; the model has run once, so that torch's own buffers are there."""
    model, loader = {"pictures": pictures, "places": places}[kind](count)
    batch = next(iter(loader))
    with torch.no_grad():
        model(batch[0])
    before = private()
    del batch
    return highest(lambda: {"predict": predict, "evaluate": evaluate}[function](model, loader)) - before


def measured(kind: str, function: str, count: int) -> int:
    """The same in a fresh process."""
    command = [sys.executable, __file__, kind, function, str(count)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    from kdft_lib.experiments.records import hardware

    rows = []
    for work, (kind, function, count, goal) in ROWS.items():
        started = time.perf_counter()
        peak = measured(kind, function, count) / 2**20
        rows.append({"work": work, "samples": count, "peak_mib": peak, "goal_mib": goal})
        kept = "met" if peak <= goal else "missed"
        print(f"{work}: {count:,}, {peak:.1f} MiB, goal {goal} {kept} ({time.perf_counter() - started:.0f} s)")
    about = {"hardware": hardware(), "versions": {"torch": torch.__version__}}
    PATH.write_text(json.dumps({"about": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(beyond(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    else:
        main()
