"""Columns of many rows: those that stay on disk, and how nested ones are named in a file."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class MappedColumn:
    """A column whose rows stay on disk and are read when they are asked for: a memory-mapped tensor, in shards.

    It has of a tensor what :class:`TensorData` needs. Pages of the files that were read stay in the system's cache as
    long as there is room, and are no process's own memory. Copied to another process, as a ``DataLoader`` does with
    its workers, it opens the files anew.

    Args:
        paths: ``.safetensors`` files that hold the rows behind one another.
        name: The tensor's name, the same in each file; its shape is ``(rows, ...)``.
        rows: Which of all rows, and in which order, ``(N,)`` of int64; by default all as they come.

    Raises:
        FileNotFoundError: If there is no such file.
        safetensors.SafetensorError: If one has no such tensor.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> folder = tempfile.mkdtemp()
        >>> for number in range(2):
        ...     save_file({"logits": torch.full((3, 5), number)}, f"{folder}/{number}.safetensors")
        >>> column = MappedColumn([f"{folder}/0.safetensors", f"{folder}/1.safetensors"], "logits")
        >>> column.shape, column.index_select(0, torch.tensor([5, 0]))[:, 0]
        (torch.Size([6, 5]), tensor([1, 0]))
        >>> column[2:4]
        MappedColumn((2, 5), torch.int64, 2 files)
    """

    device = torch.device("cpu")

    def __init__(self, paths: Sequence[str | Path], name: str, rows: Tensor | None = None):
        self._paths, self._name, self._rows = [Path(path) for path in paths], name, rows
        self._parts = [_mapped(path, name) for path in self._paths]
        self._bytes: list[Any] = [part.flatten().view(torch.uint8).numpy().data for part in self._parts]
        lengths = np.array([len(part) for part in self._parts])
        self._row = self._parts[0].shape[1:]
        self._size = self._row.numel() * self.dtype.itemsize
        self._ends = lengths.cumsum()
        self._starts = self._ends - lengths

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self), *self._row])

    @property
    def dtype(self) -> torch.dtype:
        return self._parts[0].dtype

    @property
    def nbytes(self) -> int:
        """How many bytes the rows are, wherever they lie."""
        return self.shape.numel() * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"MappedColumn({tuple(self.shape)}, {self.dtype}, {len(self._paths)} files)"

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedColumn, (self._paths, self._name, self._rows)

    def __getitem__(self, rows: Any) -> Any:
        """One row as a tensor for an integer; for a slice, list or tensor those rows, which stay on disk."""
        if isinstance(rows, int | np.integer):
            return self.index_select(0, torch.tensor([int(rows) + len(self) if rows < 0 else int(rows)]))[0]
        here = torch.arange(len(self)) if self._rows is None else self._rows
        return MappedColumn(self._paths, self._name, here[rows])

    def index_select(self, dim: int, indices: Tensor) -> Tensor:
        """These rows as a tensor in memory, on the device of the indices; ``dim`` is 0.

        Raises:
            IndexError: If there is no such row.
        """
        if len(indices) == 0:
            return torch.empty(0, *self._row, dtype=self.dtype, device=indices.device)
        here = indices.cpu().numpy()
        if here.min() < 0 or here.max() >= len(self):
            raise IndexError(f"rows {here.min()} to {here.max()} were asked for, of {len(self)}")
        if self._rows is not None:
            here = self._rows.numpy()[here]
        # Each row is copied once, whichever file it lies in, so the number of files costs nothing; and all that is done
        # for a row is done in C, since it takes as long as the copy.
        part = self._ends.searchsorted(here, "right")
        first = (here - self._starts[part]) * self._size
        files = map(self._bytes.__getitem__, part.tolist())
        rows: Iterator[Any] = map(operator.getitem, files, map(slice, first.tolist(), (first + self._size).tolist()))
        read = torch.frombuffer(bytearray().join(rows), dtype=self.dtype).view(len(here), *self._row)
        return read.to(indices.device)

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """Consecutive rows as a tensor in memory; ``dim`` is 0."""
        return self.index_select(dim, torch.arange(start, start + length))

    def read(self) -> Tensor:
        """All rows as a tensor in memory."""
        return torch.cat(self._parts) if self._rows is None else self.narrow(0, 0, len(self))

    def to(self, device: torch.device | str) -> Any:
        """The column itself for the CPU; for another device all rows, which are read."""
        return self if torch.device(device) == self.device else self.read().to(device)


def _mapped(path: Path, name: str) -> Tensor:
    """A tensor of a file, as pages of the file."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        return file.get_tensor(name)


def in_memory(column: Any) -> Tensor:
    """A column as a tensor, read if it is on disk."""
    return column.read() if isinstance(column, MappedColumn) else column


def flat(columns: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each column and its name; those of a mapping are called ``name.key``."""
    for name, column in columns.items():
        if isinstance(column, Mapping):
            yield from ((f"{name}.{key}", value) for key, value in column.items())
        else:
            yield name, column


def nested(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`flat` made flat, as it was.

    Example:
        >>> nested({"inputs.words": 1, "inputs.places": 2, "targets": 3})
        {'inputs': {'words': 1, 'places': 2}, 'targets': 3}
    """
    found: dict[str, Any] = {}
    for name, column in columns.items():
        outer, _, inner = name.partition(".")
        if inner:
            found.setdefault(outer, {})[inner] = column
        else:
            found[outer] = column
    return found
