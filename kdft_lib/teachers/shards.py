"""Answers in a folder: an index that says whose they are, and shards, each of which is whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from kdft_lib.data import MappedColumn, TensorData
from kdft_lib.data.columns import nested
from kdft_lib.files import written_whole
from kdft_lib.teachers.asking import Asking
from kdft_lib.teachers.kept import Kept

_INDEX = "index.json"
_BYTES, _SHARDS = 64 * 2**20, 64
"""A shard holds so many bytes at most, but for those of one call, and there are so many shards where there are so many
calls: it is what a process that is killed loses, and what processes share."""


def on_disk(folder: Path, asking: Asking, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The answers in a folder, once all are there: those that are missing are asked for.

    Of several processes each asks for its share of the shards, and waits for the others.

    Args:
        folder: The folder, which is made.
        asking: What asks the teacher.
        made_of: All that decides the answers, as plain values by name.

    Returns:
        The columns, memory-mapped.

    Raises:
        ValueError: If the folder holds other answers, or something in it is damaged.
        OSError: If it cannot be written.
    """
    process, processes = _processes()
    index, named = folder / _INDEX, f"to is {folder}"
    _clear(folder, process, processes)
    if process == 0 and not index.exists():
        sizes = {"samples in a shard": _shard_size(asking), "bytes": asking.nbytes}
        content = {**made_of, **sizes, "versions": {"torch": torch.__version__}}
        with written_whole(index, named) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _wait([index])
    known = _read(index, made_of)
    size = known["samples in a shard"]
    mark = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    count = len(asking.data)
    shards = {_path(folder, start // size): range(start, min(start + size, count)) for start in range(0, count, size)}
    missing = {path: rows for path, rows in [*shards.items()][process::processes] if not path.exists()}
    if missing:
        with asking.watched(missing.values(), known["bytes"]) as bar:
            for path, rows in missing.items():
                _write(path, rows, asking, mark, named, bar)
    _wait(shards)
    return _opened(shards, asking, mark)


def _processes() -> tuple[int, int]:
    """Which process this is, of how many, as torch.distributed or torchrun's environment says."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.safetensors"


def _clear(folder: Path, process: int, processes: int) -> None:
    """Remove what a process that was killed left half written, where this one will write."""
    for left in (*folder.glob(".index.json.*"), *folder.glob(".shard-*.safetensors.*")):
        number = re.match(r"\.shard-(\d+)\.", left.name)
        if (int(number[1]) if number else 0) % processes == process:
            shutil.rmtree(left, ignore_errors=True)


def _wait(paths: Iterable[Path]) -> None:
    """Until all are there. A barrier would not do: collective calls give up after minutes."""
    for path in paths:
        while not path.exists():
            time.sleep(0.05)


def _shard_size(asking: Asking) -> int:
    """How many samples a shard has: those of a whole number of calls."""
    count, call = len(asking.data), asking.batch_size
    fitting = _BYTES * count // asking.nbytes // call
    return max(min(fitting, count // call // _SHARDS), 1) * call


def _read(index: Path, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """What the index says, if it is the one that is wanted."""
    try:
        found: dict[str, Any] = json.loads(index.read_text(encoding="utf-8"))
        differing = [name for name, wanted in made_of.items() if found[name] != wanted]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} cannot be read ({error}); delete its folder to ask anew") from None
    if differing:
        told = [f"{name} was {_short(found[name])} and is now {_short(made_of[name])}" for name in differing]
        raise ValueError(
            f"{index.parent} holds other answers: {', '.join(told)}; give what was given then, or another folder, or"
            " delete this one to ask anew"
        )
    return found


def _short(value: Any) -> str:
    """A value, of a fingerprint the first twelve digits."""
    return re.sub(r"^([0-9a-f]{12})[0-9a-f]{52}$", r"\1", str(value))


def _write(path: Path, samples: range, asking: Asking, mark: str, named: str, bar: Any) -> None:
    from safetensors.torch import save_file

    columns = {name: column.contiguous().cpu() for name, column in asking.kept(samples, bar).items()}
    metadata = {"answers": mark}
    if samples.start == 0 and asking.augment is not None:
        metadata["views"] = _seen(nested(columns), asking, len(samples))
    with written_whole(path, named) as temporary:
        save_file(columns, str(temporary), metadata)


def _opened(shards: Mapping[Path, range], asking: Asking, mark: str) -> dict[str, Any]:
    """The columns of all shards, if they are of these answers and show the views that the teacher saw."""
    from safetensors import SafetensorError, safe_open

    views = None
    for path in shards:
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata, names = file.metadata() or {}, list(file.keys())
            if metadata.get("answers") != mark:
                raise ValueError("it is of other answers")
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read ({error}); delete it, and it is asked for again") from None
        views = metadata.get("views", views)
    columns = nested({name: MappedColumn(list(shards), name) for name in names})
    if views is not None and views != _seen(columns, asking, len(next(iter(shards.values())))):
        raise ValueError(
            f"{path.parent} holds answers to other views than {asking.augment} makes now of what it drew; use the"
            " versions that made them, or another folder, or delete this one to ask anew"
        )
    return columns


def _seen(columns: Mapping[str, Any], asking: Asking, count: int) -> str:
    """SHA-256 of the views of the first samples, of at most so many."""
    samples = torch.arange(min(count, 32))
    batch = asking.data.rows(slice(0, len(samples)))
    kept = Kept(columns, "", asking.views, asking.augment)
    views = [kept.onto(batch, kept.rows(samples, view))["inputs"] for view in range(asking.views)]
    return hashlib.sha256(" ".join(TensorData(view).fingerprint() for view in views).encode()).hexdigest()
