"""A program of experiments: each is recorded when it is done, and an interrupted one goes on where it was."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from kdft_lib.experiments.kept import kept_below
from kdft_lib.experiments.records import commit, record
from kdft_lib.experiments.result import Comparison


def record_all(
    experiments: Mapping[str, Callable[[], Mapping[str, Comparison]]],
    names: Iterable[str] | None = None,
    *,
    folder: str | Path = "_build/runs",
) -> None:
    """Run experiments one after the other, and :func:`record` each when it is done: the last line of a program.

    Meanwhile :func:`compare` shows a bar and keeps finished runs, where it is not told otherwise: who starts an
    interrupted program again waits for the rest alone, and the record counts what the runs took before. An experiment's
    runs are deleted when it is recorded.

    Args:
        experiments: By name, functions that make what :func:`record` takes, comparisons by name.
        names: Those to run; by default those that the command line names, or all where it names none.
        folder: Where finished runs are kept, in a folder for each experiment; by default below the folder that the
            program is started in.

    Raises:
        ValueError: If there is no experiment of a name.

    Example:
        >>> record_all({"sizes": dict}, ["shapes"])
        Traceback (most recent call last):
        ValueError: names has 'shapes'; choose among sizes
    """
    names = list(sys.argv[1:] if names is None else names) or list(experiments)
    if unknown := [name for name in names if name not in experiments]:
        raise ValueError(f"names has {', '.join(map(repr, unknown))}; choose among {', '.join(experiments)}")
    code = commit()
    for name in names:
        with kept_below(Path(folder) / name) as before:
            started = time.perf_counter()
            comparisons = experiments[name]()
            seconds = before() + time.perf_counter() - started
            command = f"python {Path(os.path.relpath(sys.argv[0])).as_posix()} {name}"
            print(f"{name}: {record(name, comparisons, command=command, seconds=seconds, code=code)}")
        for title, comparison in comparisons.items():
            print(f"\n{title}\n{comparison}\n", flush=True)
