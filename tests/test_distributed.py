"""Several processes end where one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).parent / "workers" / "distributed.py"


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path):
    """No batch normalisation here; labels are missing unevenly, so means must use global counts."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-addr", "127.0.0.1", "--master-port", str(port),
    ]  # fmt: skip
    for name, launcher in (("one", [sys.executable]), ("two", torchrun)):
        done = subprocess.run(
            [*launcher, str(WORKER), str(tmp_path / name)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    for method in one:
        gaps = [
            (one[method]["model"][key] - two[method]["model"][key]).abs().max().item() for key in one[method]["model"]
        ]
        losses = (one[method]["losses"] - two[method]["losses"]).abs().max().item()
        print(f"\n{method}: largest difference of a weight {max(gaps):.1e}, of a loss {losses:.1e}")
        assert max(gaps) < 1e-5
        assert losses < 1e-5
