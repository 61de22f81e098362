"""Checkpoints that are whole or absent: plain tensors and numbers in one file, written atomically."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from kdft_lib.files import written_whole

_NAME = "checkpoint.pt"


def check(folder: Path) -> None:
    """Find out before the training, not after its first epoch, that nothing can be written.

    Raises:
        OSError: If so; the message says where and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for left in folder.glob(f".{_NAME}.*"):  # by a process that was killed as it wrote
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise OSError(f"{_named(folder)}, and nothing can be written there ({error})") from error


def write(folder: Path, state: dict[str, Any]) -> None:
    """Replace the folder's checkpoint by this one, or leave the old one as it was.

    Raises:
        OSError: If it cannot be written; the message says where and why.
    """
    with written_whole(folder / _NAME, _named(folder)) as temporary:
        torch.save(state, temporary)


def _named(folder: Path) -> str:
    return f"checkpoint_dir is {folder}"


def read(folder: Path, arguments: dict[str, str]) -> dict[str, Any] | None:
    """The folder's checkpoint, if it has one, provided that it belongs to a run with these arguments.

    Raises:
        ValueError: If it was made with other arguments, or is damaged.
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = state["arguments"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it is damaged, or holds more than tensors and plain values"
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({reason}); delete it to start anew, or use another checkpoint_dir"
        ) from None
    changed = [
        f"{name} was {before.get(name, 'not given')}, now {arguments.get(name, 'not given')}"
        for name in sorted(before.keys() | arguments.keys())
        if before.get(name) != arguments.get(name)
    ]
    if changed:
        raise ValueError(
            f"{path} belongs to another run: {'; '.join(changed)}."
            " Use the arguments of that run, on as many processes (only the budget may grow), or another checkpoint_dir"
        )
    return state
