"""Kernels of Jupyter made from a process that has loaded what takes long: as new as any, and quick to start."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

#: What training and notebooks load, early or late. Neither pandas nor what brings it is here: at its import it asks
#: whether it is in a notebook.
LOADED = (
    "kdft_lib.experiments", "kdft_lib.plots", "accelerate", "ipykernel.kernelapp", "matplotlib.pyplot",
    "safetensors.torch", "scipy.stats", "torch._dynamo", "torch.distributed.fsdp", "torchvision",
)  # fmt: skip


class Kernel:
    """Of a process what Jupyter's manager asks of one that it started itself."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess):
        assert process.pid is not None
        self.process, self.pid = process, process.pid
        while os.getpgid(self.pid) != self.pid:  # Before, a signal to its group would reach us.
            time.sleep(0.001)

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def become_kernel(folder: str, arguments: Sequence[str], variables: dict[str, str]) -> None:
    from ipykernel import kernelapp

    asyncio.set_event_loop(asyncio.new_event_loop())  # who made it may be in one
    os.setsid()
    os.chdir(folder)
    os.environ.update(variables)
    sys.path[0] = ""  # of who made it, the folder of a program
    sys.argv = ["kernel", *arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]
    kernelapp.launch_new_instance()


def launcher(context: BaseContext) -> Callable[..., Kernel]:
    """What stands in for ``jupyter_client.provisioning.local_provisioner.launch_kernel``."""

    def launch(command: Sequence[str], *, env: dict[str, str], cwd: str | None = None, **_: Any) -> Kernel:
        process = context.Process(target=become_kernel, args=(cwd or os.getcwd(), command[3:], env))  # type: ignore[attr-defined]
        process.start()
        return Kernel(process)

    return launch
