"""What the recipes of the chapters share: run the experiments named on the command line, and record them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kdft_lib.data import RandomShiftFlip
from kdft_lib.data.fashion import BACKGROUND
from kdft_lib.experiments import Comparison, record
from kdft_lib.models import ConvNet


def student() -> ConvNet:
    """6,274 parameters."""
    return ConvNet(width=8)


def views(padding: float) -> RandomShiftFlip:
    """Shifted by up to so many pixels, half of them mirrored."""
    return RandomShiftFlip(int(padding), fill=BACKGROUND)


def main(experiments: Mapping[str, Callable[[], dict[str, Comparison]]]) -> None:
    """Run those that the command line names, or all, and write each to its file."""
    for name in sys.argv[1:] or experiments:
        started = time.perf_counter()
        comparisons = experiments[name]()
        command = f"python recipes/{Path(sys.argv[0]).name} {name}"
        print(record(name, comparisons, command=command, seconds=time.perf_counter() - started))
        for title, comparison in comparisons.items():
            print(f"\n{title}\n{comparison}\nchosen: {comparison.chosen}\n", flush=True)
