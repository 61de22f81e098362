"""nbval on notebooks, two at a time, each in an empty folder, and in processes made from this one: ``run_nbval.py``
starts it where it finds the wheel.

One thread each: where two threads share two cores with anything else, each step of a small network waits for both, and
takes five times as long.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import forked_kernels
import pytest
from jupyter_client.provisioning import local_provisioner

AT_ONCE = 2
NBVAL = (
    "-q", "-x", "-p", "nbval.plugin", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-cell-timeout=600",
)  # fmt: skip
CONTEXT = multiprocessing.get_context("fork")


def check(notebook: Path, log: Path) -> None:
    """End as nbval does on a copy of the notebook; outputs are compared in cells tagged nbval-check-output."""
    with log.open("w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    forking = patch.object(local_provisioner, "launch_kernel", forked_kernels.launcher(CONTEXT))
    with tempfile.TemporaryDirectory() as folder, forking:
        shutil.copy(notebook, folder)
        os.chdir(folder)
        sys.exit(int(pytest.main([*NBVAL, notebook.name])))


def main(notebooks: Sequence[Path]) -> int:
    for module in (*forked_kernels.LOADED, "nbformat.v4", "nbval.kernel"):
        importlib.import_module(module)
    waiting, failed = list(notebooks), False
    running: dict[Any, tuple[ForkProcess, Path, float]] = {}
    with tempfile.TemporaryDirectory() as logs:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                notebook = waiting.pop(0)
                process = CONTEXT.Process(target=check, args=(notebook, Path(logs, notebook.name)))
                process.start()
                running[process.sentinel] = process, notebook, time.perf_counter()
            for ended in wait(list(running)):
                process, notebook, started = running.pop(ended)
                process.join()
                passed, took = process.exitcode == 0, time.perf_counter() - started
                failed |= not passed
                print("" if passed else Path(logs, notebook.name).read_text(), end="")
                print(f"nbval {'passed' if passed else 'FAILED'}: {notebook.name}, {took:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main([Path(notebook).resolve() for notebook in sys.argv[1:]]))
