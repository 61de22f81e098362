"""Files: where others keep theirs, how they are read, no larger than expected, and how ours are written, whole."""

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
def written_whole(path: Path, named: str | None = None) -> Iterator[Path]:
    """Another name to write to, which becomes the path once all is written and on the disk.

    An error, or Ctrl-C, leaves the path as it was and nothing beside it. Whoever reads the path finds what
    was there before or what is there now, and never a part.

    Args:
        path: The file's path; its folder is made.
        named: How an error's message begins; by default ``path is`` and the path.

    Yields:
        A path in the same folder, for whatever writes files.

    Raises:
        OSError: If it cannot be written; the message says where and why.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "results" / "numbers.txt"
        >>> with written_whole(path) as temporary:
        ...     _ = temporary.write_text("1 2 3")
        >>> path.read_text()
        '1 2 3'
    """
    from safetensors import SafetensorError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder, path.name)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is each of them, by who writes
        raise OSError(f"{named or f'path is {path}'}, and nothing can be written there ({error})") from error
