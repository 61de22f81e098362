"""Finished runs as files, so that hours of them go on where they were interrupted."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import operator
import pickle
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments.grid import Candidate, described
from kdft_lib.experiments.trained import Trained
from kdft_lib.files import written_whole


@dataclass
class _Experiment:
    """One that is being recorded.

    Attributes:
        folder: Where its runs are kept.
        compared: What it has compared so far, by the names of the methods.
        before: The seconds that each run took which an earlier start made, by its file; of this one's runs 0.
    """

    folder: Path
    compared: dict[str, list[Any]] = field(default_factory=dict)
    before: dict[Path, float] = field(default_factory=dict)


_experiment: ContextVar[_Experiment | None] = ContextVar("experiment", default=None)


@contextlib.contextmanager
def kept_below(folder: Path) -> Iterator[Callable[[], float]]:
    """Comparisons keep their runs in a folder, which is deleted in the end, unless that is an error.

    Yields:
        What says how many seconds the runs took that an earlier start made.
    """
    experiment = _Experiment(folder)
    token = _experiment.set(experiment)
    try:
        yield lambda: sum(experiment.before.values())
    finally:
        _experiment.reset(token)
    shutil.rmtree(folder, ignore_errors=True)


def by_default(
    candidates: Mapping[str, Sequence[Candidate]], splits: Callable[[int], Splits]
) -> tuple[Path | None, bool | None]:
    """Where the next comparison keeps its runs, and whether it shows a bar: the same methods on the same splits share
    their runs.
    """
    if (experiment := _experiment.get()) is None:
        return None, None
    folder = experiment.folder
    digest = hashlib.sha256("\n".join(candidates).encode()).hexdigest()[:12]
    same_names = experiment.compared.setdefault(digest, [])
    # Two functions may look alike and differ, so the same is who is the same.
    now = [splits, *(entry.method for entries in candidates.values() for entry in entries)]
    for number, before in enumerate(same_names, start=1):
        if len(now) == len(before) and all(map(operator.is_, now, before)):
            return folder / f"{digest}-{number}", True
    same_names.append(now)
    return folder / f"{digest}-{len(same_names)}", True


class Kept:
    """Trains what is not in a folder yet.

    A run is told by its method, setting, seed, data and program. Of a method that learns from another comparison, what
    it learns from is told by the settings that all seeds chose there, together: where one seed's choice changes these,
    the runs of all seeds are others, and which seed chose which is not told.

    Args:
        folder: The folder with the finished runs; ``None`` or ``False`` keeps none.
    """

    def __init__(self, folder: str | Path | Literal[False] | None):
        self.folder = Path(folder) if folder else None
        self._hashed: tuple[Any, str] = (None, "")

    def run(self, candidate: Candidate, name: str, place: int, splits: Splits, seed: int) -> Trained:
        """A run, trained now or read from the folder.

        Raises:
            ValueError: If the folder has a run of that name, place and seed which was another one.
        """
        if self.folder is None:
            return candidate.method.train(splits, seed)
        what = f"{name}, setting {place + 1} ({described(candidate.setting)}), seed {seed}"
        setting = json.dumps(dict(candidate.setting), default=repr)
        made_of = f"{setting} of {_shown(candidate.method)} on {self._data(splits)} by {_code()}"
        path = self.folder / f"{hashlib.sha256(f'{name} {place} {seed}'.encode()).hexdigest()[:20]}.pt"
        if path.exists():
            content = torch.load(path, weights_only=False)
            if content["made_of"] != made_of:
                raise ValueError(
                    f"keep is {self.folder}, where {path.name} is another run of {what}: the method, the data or the"
                    " program has changed since; use another folder, or delete this one"
                )
            _count(path, content.get("seconds", 0.0))
            return content["trained"]
        started = time.perf_counter()
        trained = candidate.method.train(splits, seed)
        _count(path, 0.0)
        seconds = time.perf_counter() - started
        content, held = {"what": what, "made_of": made_of, "seconds": seconds, "trained": trained}, io.BytesIO()
        try:
            torch.save(content, held)
        except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
            warnings.warn(f"{what} cannot be kept, and would be trained again: {error}", stacklevel=3)
            return trained
        with written_whole(path) as temporary:
            temporary.write_bytes(held.getbuffer())
        return trained

    def _data(self, splits: Splits) -> str:
        """A digest of what is learned from and chosen by, computed once for each seed's splits."""
        if self._hashed[0] is not splits:
            parts = (splits.train, splits.transfer, splits.val)
            self._hashed = splits, " ".join(_told(part) if len(part) else "none" for part in parts)
        return self._hashed[1]


def _told(part: TensorData) -> str:
    """A digest of rows and of what a teacher said of 256 of them, which a fingerprint leaves out."""
    said = part.teacher_logits
    columns = said if isinstance(said, Mapping) else {} if said is None else {"": said}
    answers = []
    for column in columns.values():
        some = torch.linspace(0, len(column) - 1, min(256, len(column))).round().long().to(column.device)
        answers.append(TensorData(column.index_select(0, some)).fingerprint()[:12])
    return " ".join([part.fingerprint()[:12], *answers])


def _count(path: Path, before: float) -> None:
    """What a run took before this start, counted once however often it is read."""
    if (experiment := _experiment.get()) is not None:
        experiment.before.setdefault(path, before)


@functools.cache
def _code() -> str:
    """A digest of the program that runs and of what it has loaded from beside itself, since functions look alike
    whatever they do; in a notebook, of none.
    """
    program = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if not program.is_file():
        return "a notebook"
    loaded = {Path(file).resolve() for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))}
    beside = sorted(path for path in loaded if path.parent == program.resolve().parent and path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in beside)).hexdigest()[:12]


def _shown(method: Any) -> str:
    """A method in full, but for what differs from one process to the next."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(method))
