"""How much memory a call takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that torch held at once on the CPU during a call, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = highest = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def private() -> int:
    """Bytes of this process that are mapped from no file."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon here")


def highest(call: Callable[[], Any]) -> int:
    """The most private bytes during a call, looked at a thousand times a second."""
    seen, over = [private()], threading.Event()

    def look() -> None:
        while not over.wait(0.001):
            seen.append(private())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        call()
    finally:
        over.set()
        watcher.join()
    return max(seen)
