"""Several processes end where one does, whether each holds all weights or a share of them."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKERS = Path(__file__).parent / "workers"
ONE = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
SHARDED = [
    sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2",
    "--main_process_ip", "127.0.0.1",
]  # fmt: skip
"""As a shell would start them, but for a port."""

pytestmark = pytest.mark.slow


def started(launcher, worker, *arguments, cpu=True):
    """A worker's end, however it came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    ports = {id(TORCHRUN): ["--master-port", port], id(SHARDED): ["--main_process_port", port]}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if cpu and torch.accelerator.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
    command = [*launcher, *ports.get(id(launcher), []), str(WORKERS / worker), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def ends(path, launcher, **keywords):
    done = started(launcher, "distributed.py", path, **keywords)
    assert done.returncode == 0, done.stderr
    return torch.load(path, weights_only=True, map_location="cpu")


def assert_same(one, two):
    for method in one:
        gaps = [
            (one[method]["model"][key] - two[method]["model"][key]).abs().max().item() for key in one[method]["model"]
        ]
        losses = (one[method]["losses"] - two[method]["losses"]).abs().max().item()
        print(f"\n{method}: largest difference of a weight {max(gaps):.1e}, of a loss {losses:.1e}")
        assert max(gaps) < 1e-5
        assert losses < 1e-5


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return ends(tmp_path_factory.mktemp("one") / "end", ONE)


@pytest.mark.parametrize("launcher", [TORCHRUN, SHARDED], ids=["whole", "sharded"])
def test_two_processes_end_where_one_does(one, tmp_path, launcher):
    """No batch normalisation here; labels are missing unevenly, so means must use global counts."""
    assert_same(one, ends(tmp_path / "two", launcher))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a card for each of two processes")
@pytest.mark.parametrize("launcher", [TORCHRUN, SHARDED], ids=["whole", "sharded"])
def test_two_cards_end_where_one_does(tmp_path, launcher):
    assert_same(ends(tmp_path / "one", ONE, cpu=False), ends(tmp_path / "two", launcher, cpu=False))


def test_a_sharded_run_resumes_on_as_many_processes(tmp_path, monkeypatch):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    done = started(SHARDED, "sharded.py", straight, 0, killed, 11)
    assert done.returncode != 0
    assert (straight / "end-1").exists(), done.stderr
    assert (straight / "end-0").read_text() == (straight / "end-1").read_text()
    assert [path.name for path in killed.iterdir() if path.name[0] != "."] == ["checkpoint.pt"]
    state = torch.load(killed / "checkpoint.pt", weights_only=True)
    assert state["step"] == 9
    assert {type(tensor) for tensor in state["model"].values()} == {torch.Tensor}

    monkeypatch.setattr(sys, "argv", ["sharded.py", str(killed), "0"])
    other = r"belongs to another run: processes was 2, now 1; sharded was True, now False\. Use"
    with pytest.raises(ValueError, match=other):
        runpy.run_path(str(WORKERS / "sharded.py"))
    assert not list(killed.glob("end-*"))

    done = started(SHARDED, "sharded.py", killed, 0)
    assert done.returncode == 0, done.stderr
    assert (killed / "end-0").read_text() == (straight / "end-0").read_text()
