"""Files that others made: where they are kept, and how they are read: whole, no larger than expected, checked."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where what was downloaded or synthesised stays: ``kdft``, under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdft"


def package_folder(module: str, distribution: str, extra: str) -> Path:
    """Where an installed package keeps its files. None of its code runs.

    Args:
        module: The name that one would import.
        distribution: The name that pip knows.
        extra: The extra of kdft-lib that brings it.

    Raises:
        ImportError: If it is not installed.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{distribution} is not installed; pip install 'kdft-lib[{extra}]' brings it")
    return Path(found.submodule_search_locations[0])


def read_whole(path: Path, limit: int) -> bytes:
    """A file's bytes, unless there are more than ``limit``.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is larger.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} is larger than the {limit:,} bytes that such a file may have; it was not read")
    return content


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Another name to write to, which becomes the path once all is written; an error leaves the path as it was.

    Raises:
        OSError: If it cannot be written; the message says where and why.
    """
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            yield Path(folder, path.name)
            os.replace(Path(folder, path.name), path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"path is {path}, and nothing can be written there ({error})") from error
