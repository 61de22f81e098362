"""A million answers over a thousand classes, 2 GB in float16, on disk: how fast a shuffled epoch is read, against
memory, and how much memory of its own a process takes that trains from them or asks for them.

Peaks are of ``RssAnon``, what is a process's own: pages of mapped files do not count. They are measured in processes of
their own, ``python benchmarks/kept_answers.py asking|training FOLDER SAMPLES``, which print theirs, in MiB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from memory import highest
from torch import Tensor, nn

from kdft_lib.data import TensorData
from kdft_lib.objectives import SoftTargets
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import fit

SAMPLES, CLASSES, BATCH = 1_000_000, 1000, 256


def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher(nn.Linear(4, CLASSES))


def data(samples: int) -> TensorData:
    return TensorData(torch.randn(samples, 4, generator=torch.Generator().manual_seed(1)))


def ask(folder: Path, samples: int) -> TensorData:
    return cache(teacher(), data(samples), to=folder, dtype=torch.float16, batch_size=4096)


def train(folder: Path, samples: int) -> None:
    student = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    fit(
        student, ask(folder, samples), objective=SoftTargets(teacher(), ce_weight=0.0), epochs=1, batch_size=BATCH,
        strategy=FullFineTuning(lr=1e-3), progress=False,
    )  # fmt: skip


def epoch(column: Any, order: Tensor) -> int:
    """Reads every row once."""
    return sum(len(column.index_select(0, rows)) for rows in order.split(BATCH))


@contextmanager
def reads() -> Iterator[dict[str, Callable[[], int]]]:
    """An epoch of shuffled reads from disk, whose pages the system has in its cache, and from memory."""
    with tempfile.TemporaryDirectory() as folder:
        column: Any = ask(Path(folder), SAMPLES).teacher_logits
        memory, order = column.read(), torch.randperm(SAMPLES)
        yield {"ours": lambda: epoch(column, order), "memory": lambda: epoch(memory, order)}


def peak(work: str, folder: Path, samples: int) -> float:
    """The most MiB of its own that a process held which asked the teacher, or trained."""
    command = [sys.executable, __file__, work, str(folder), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def peaks() -> dict[str, float]:
    """Of asking for a million answers into a folder, and of an epoch of training from them."""
    with tempfile.TemporaryDirectory() as folder:
        return {work: peak(work, Path(folder), SAMPLES) for work in ("asking", "training")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    work, folder, samples = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print(highest(lambda: {"asking": ask, "training": train}[work](folder, samples)) / 2**20)
