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

BY_LAUNCH = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
"""What a process learns from accelerate launch, beside what any launcher says."""
ON_CPU = {"ACCELERATE_USE_CPU": "true"} if torch.accelerator.is_available() else {}

pytestmark = pytest.mark.slow


def started(launcher, worker, *arguments, **variables):
    """A worker's end, however it came."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    ports = {id(TORCHRUN): ["--master-port", port], id(SHARDED): ["--main_process_port", port]}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    command = [*launcher, *ports.get(id(launcher), []), str(WORKERS / worker), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def ends(path):
    return torch.load(path, weights_only=True, map_location="cpu")


def together(fork, worker, *arguments, **variables):
    """How two processes ended that know of each other, as if a launcher had started them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"} | ON_CPU
    processes = [fork(worker, *arguments, RANK=rank, LOCAL_RANK=rank, **variables) for rank in "01"]
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


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
def one(fork, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "end"
    process = fork("distributed.py", path, **ON_CPU)
    process.join(timeout=300)
    assert process.exitcode == 0
    return ends(path)


@pytest.mark.parametrize("variables", [{}, BY_LAUNCH], ids=["whole", "sharded"])
def test_two_processes_end_where_one_does(fork, one, tmp_path, variables):
    """No batch normalisation here; labels are missing unevenly, so means must use global counts."""
    assert together(fork, "distributed.py", tmp_path / "two", **variables) == [0, 0]
    assert_same(one, ends(tmp_path / "two"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL needs a card for each of two processes")
@pytest.mark.parametrize("launcher", [TORCHRUN, SHARDED], ids=["whole", "sharded"])
def test_two_cards_end_where_one_does(tmp_path, launcher):
    for name, starter in (("one", ONE), ("two", launcher)):
        done = started(starter, "distributed.py", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert_same(ends(tmp_path / "one"), ends(tmp_path / "two"))


def test_a_sharded_run_resumes_on_as_many_processes(fork, tmp_path, monkeypatch):
    """Killed, it was started by the launcher itself."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    done = started(SHARDED, "sharded.py", straight, 0, killed, 11, **ON_CPU)
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

    assert together(fork, "sharded.py", killed, "0", **BY_LAUNCH) == [0, 0]
    assert (killed / "end-0").read_text() == (straight / "end-0").read_text()
