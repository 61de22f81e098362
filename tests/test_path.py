"""The way of a batch: what of ours is called between one update of the weights and the next."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import kdft_lib
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

HOME = Path(kdft_lib.__file__).parent


class Watched(torch.optim.AdamW):
    """Notes which functions of ours are called from the end of the first update to the end of the second."""

    def __init__(self, groups):
        super().__init__(groups)
        self.called, self.updates = {}, 0
        made.append(self)

    def step(self, closure=None):
        super().step(closure)
        self.updates += 1
        sys.setprofile(self.note if self.updates == 1 else None)

    def note(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(HOME) and not frame.f_code.co_name.startswith("<"):
            called = path.relative_to(HOME).as_posix(), frame.f_code.co_qualname
            self.called[called] = self.called.get(called, 0) + 1


made: list[Watched] = []


def way_of_a_batch(fashion):
    """By file and name, how often each function was called; models' own are left out."""
    fit(
        ConvNet(4), fashion.train, objective=SoftTargets(ConvNet(8)), strategy=FullFineTuning(lr=1e-3), steps=3,
        optimizer=Watched,
    )  # fmt: skip
    return {called: count for called, count in made[-1].called.items() if called[0] != "models/small.py"}


def test_a_batch_passes_25_functions_in_8_files(fashion):
    called = way_of_a_batch(fashion)
    assert ("objectives/logits.py", "SoftTargets.divergence") in called
    assert ("training/loop.py", "_train_step") in called
    files = {file for file, _ in called}
    assert len(called) <= 25, sorted(called)
    assert len(files) <= 8, sorted(files)


if __name__ == "__main__":
    from kdft_lib.datasets import fashion_mnist

    found = way_of_a_batch(fashion_mnist(labeled=1000))
    for (file, function), count in found.items():
        print(f"{count} {file} {function}")
    print(f"{len(found)} functions in {len({file for file, _ in found})} files, {sum(found.values())} calls")
