"""Asks a slow teacher into a folder, and is killed at random moments, each a few shards on, again and again.

``caching.py folder kills`` kills so many lives before it lets one finish, and writes into ``folder.txt`` how many were
killed, how many files were half written, and how many were whole when the last life began; with no kills it is the
uninterrupted call, under whatever ``RANK`` and ``WORLD_SIZE`` say.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from kdft_lib.data import RandomShiftFlip, TensorData
from kdft_lib.teachers import cache


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, 200)

    def forward(self, pictures):
        time.sleep(0.01)
        if "ASKED" in os.environ:
            with open(os.environ["ASKED"], "a") as file:
                file.write(f"{os.environ.get('RANK')} {len(pictures)}\n")
        return self.head(pictures.flatten(1))


def ask(folder):
    torch.manual_seed(1)
    data = TensorData(torch.rand(1000, 1, 4, 4))
    return cache(Slow(), data, to=folder, views=2, augment=RandomShiftFlip(1), top_k=50, batch_size=16)


def shards(folder):
    return len([*folder.glob("shard-*")])


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    moments, halves, killed = random.Random(0), 0, 0
    while killed < kills:
        child = os.fork()
        if child == 0:
            ask(folder)
            os._exit(0)
        goal = shards(folder) + moments.choice((0, 1, 3, 5))
        while shards(folder) < goal:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        halves += any(folder.glob(".*"))
    folder.with_suffix(".txt").write_text(f"{killed} {halves} {shards(folder)}")
    ask(folder)
