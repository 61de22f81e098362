from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from torch import nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import fashion_mnist

WORKERS = Path(__file__).parent / "workers"
sys.path[:0] = [str(WORKERS), str(Path(__file__).parents[1] / "tools")]

import forked  # noqa: E402
from forked_kernels import LOADED, launcher  # noqa: E402


class NormalizedNet(nn.Module):
    """Has all that can leak: batch normalisation, dropout, and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs):
        return self.head(self.body(inputs))


@pytest.fixture
def net():
    return NormalizedNet


@pytest.fixture
def blobs():
    """120 samples in four dimensions, of three classes that a linear model can tell apart."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(120) % 3
    inputs = torch.randn(120, 4, generator=generator)
    inputs[torch.arange(120), targets] += 3.0
    return TensorData(inputs, targets)


@pytest.fixture
def blob_splits(blobs):
    return lambda seed: Splits(blobs[:60], blobs[60:90].without_labels(), blobs[60:90], blobs[90:])


@pytest.fixture(scope="session")
def fashion():
    return fashion_mnist(labeled=1000)


MARKS = {"chromium": "site", "pack": "slow"}
"""What opens a browser is the site's, so that `make test` needs none; to write the course pack takes long."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])


@pytest.fixture(scope="module")
def chromium():
    from browsers import launched

    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def forks():
    """Processes made from one that has loaded what training loads, early or late: as new as any, and quick to start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kdft_lib.training", *LOADED, "peft", "sklearn.svm"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


@pytest.fixture(scope="session")
def fork(forks):
    """Starts one of tests/workers in such a process."""

    def start(worker, *arguments, **variables):
        process = forks.Process(target=forked.run, args=(WORKERS / worker, arguments, variables))
        process.start()
        return process

    return start


@pytest.fixture
def printed(fork, tmp_path_factory):
    """What a program prints in such a process."""

    def run(program):
        place = tmp_path_factory.mktemp("printed")
        (place / "program.py").write_text(program, encoding="utf-8")
        process = fork("printing.py", place / "program.py", place / "said.txt")
        process.join(timeout=300)
        assert process.exitcode == 0
        return (place / "said.txt").read_text(encoding="utf-8")

    return run


@pytest.fixture(scope="module")
def kernels(forks):
    """Kernels of Jupyter are such processes too."""
    from jupyter_client.provisioning import local_provisioner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_provisioner, "launch_kernel", launcher(forks))
        yield


def state_bytes(module):
    """A copy of all that a module holds, to compare bit for bit."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_bits(before, after):
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), f"{name} changed"


@pytest.fixture(name="state_bytes")
def _state_bytes():
    return state_bytes


@pytest.fixture(name="assert_same_bits")
def _assert_same_bits():
    return assert_same_bits
