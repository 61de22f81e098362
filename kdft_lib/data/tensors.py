"""Data held in memory as tensors, so that a shuffled batch is one indexing operation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdft_lib.data import batches, values
from kdft_lib.data.batches import UNLABELED, Batch
from kdft_lib.data.columns import flat, in_memory

_ROWS = 4096
"""How many rows are hashed at once."""


class TensorData(Dataset[Batch]):
    """Inputs and, where there are any, targets, a teacher's logits and a mask, row by row.

    It cannot be changed: what adds or selects rows returns a new one, so cached teacher logits stay
    with their samples.

    Args:
        inputs: A tensor ``(N, ...)``, or a mapping of such tensors for models that take keywords.
        targets: A tensor ``(N, ...)``; ``-100`` means no label. By default there are none.
        teacher_logits: A tensor ``(N, ..., C)``, or the columns of the highest alone, as
            :func:`kdft_lib.teachers.cache` computes them; any of them may be a :class:`MappedColumn`.
        mask: A boolean tensor ``(N, ...)``, true where a position counts.
        columns: Further tensors ``(N, ...)`` by name, such as weights or an index, which a batch then has too.
        teacher: The fingerprint of the teacher whose logits these are.

    Raises:
        ValueError: If the lengths differ, or logits come without the teacher's fingerprint.

    Example:
        >>> data = TensorData(torch.arange(6.0).view(3, 2), torch.tensor([0, 1, 0]))
        >>> data[torch.tensor([2, 0])].targets
        tensor([0, 0])
        >>> [len(batch["inputs"]) for batch in data.batches(2)]
        [2, 1]
    """

    def __init__(
        self,
        inputs: Tensor | Mapping[str, Tensor],
        targets: Tensor | None = None,
        *,
        teacher_logits: Tensor | Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
        columns: Mapping[str, Tensor] | None = None,
        teacher: str | None = None,
    ):
        if (teacher_logits is None) != (teacher is None):
            raise ValueError(
                "teacher_logits and teacher go together: the fingerprint says whose logits they are;"
                " kdft_lib.teachers.cache(teacher, data) gives both"
            )
        given = {"inputs": inputs, "targets": targets, "teacher_logits": teacher_logits, "mask": mask}
        for name in columns or {}:
            if name in given:
                raise ValueError(f"columns holds {name!r}, which is an argument of its own")
        held: Batch = {
            name: dict(column) if isinstance(column, Mapping) else column
            for name, column in (given | dict(columns or {})).items()
            if column is not None
        }
        lengths = {name: len(column) for name, column in flat(held)}
        if len(set(lengths.values())) != 1:
            counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"{counts} rows; all columns must have the same number")
        self._columns = held
        self._counts: values.PerRow | None = None
        self.teacher = teacher

    @property
    def inputs(self) -> Any:
        return self._columns["inputs"]

    @property
    def targets(self) -> Tensor | None:
        return self._columns.get("targets")

    @property
    def teacher_logits(self) -> Tensor | dict[str, Tensor] | None:
        return self._columns.get("teacher_logits")

    @property
    def mask(self) -> Tensor | None:
        return self._columns.get("mask")

    @property
    def device(self) -> torch.device:
        return next(column.device for _, column in flat(self._columns))

    @property
    def resident(self) -> bool:
        """Whether all of it is in memory, so that it may be moved to a device."""
        return all(isinstance(column, Tensor) for _, column in flat(self._columns))

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for _, column in flat(self._columns))

    def __len__(self) -> int:
        return batches.size(self._columns)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {tuple(column.shape)}" for name, column in flat(self._columns))
        return f"TensorData({shapes})"

    def __getitem__(self, rows: Any) -> Any:
        """One row as a dict for an integer; a :class:`TensorData` for a slice, list or tensor."""
        if isinstance(rows, int | np.integer):
            return batches.apply(self._columns, lambda column: column[int(rows)])
        return self._with(batches.apply(self._columns, lambda column: column[rows]))

    def to(self, device: torch.device | str) -> TensorData:
        """The same rows on another device."""
        moved = self._with(batches.apply(self._columns, lambda column: column.to(device)))
        moved._counts = self._counts
        return moved

    def without_labels(self) -> TensorData:
        """The same inputs as transfer data: no targets."""
        return self._with({key: column for key, column in self._columns.items() if key != "targets"})

    def with_inputs(self, inputs: Tensor) -> TensorData:
        """The same rows with other inputs; a teacher's logits, which belong to the old ones, stay."""
        return self._with(self._columns | {"inputs": inputs})

    def with_targets(self, targets: Tensor) -> TensorData:
        """The same rows with other targets.

        Example:
            >>> TensorData(torch.zeros(2, 3)).with_targets(torch.tensor([0, 1])).targets
            tensor([0, 1])
        """
        return self._with(self._columns | {"targets": targets})

    def with_rows(self, more: TensorData) -> TensorData:
        """These rows and more of them, in memory; where one of the two has no targets, its rows have no label.

        Example:
            >>> data = TensorData(torch.zeros(2, 3), torch.tensor([0, 1]))
            >>> data.with_rows(data.without_labels()).targets
            tensor([   0,    1, -100, -100])
            >>> data.with_rows(data).targets
            tensor([0, 1, 0, 1])
        """
        if type(more).with_rows is not TensorData.with_rows:
            more.with_rows(self)  # It says why not.
        if self.teacher_logits is not None and more.teacher_logits is not None and self.teacher != more.teacher:
            raise ValueError(
                "the rows have answers of two teachers, which training could not tell apart; ask one about all of them"
            )
        first, second = (batches.apply(part.without_labels()._columns, in_memory) for part in (self, more))
        joined = batches.join(first, second)
        known = next((part.targets for part in (self, more) if part.targets is not None), None)
        if known is not None:
            numbers = known.is_floating_point() and (known.dim() == 1 or known.shape[-1] == 1)
            if numbers and (self.targets is None or more.targets is None):
                raise ValueError(
                    "some of the rows have numbers to learn and the others none, which no number can say; give those"
                    " without as transfer_data"
                )
            joined["targets"] = torch.cat([
                known.new_full((len(part), *known.shape[1:]), UNLABELED) if part.targets is None else part.targets
                for part in (self, more)
            ])  # fmt: skip
        return self._with(joined)

    def with_teacher_logits(self, teacher_logits: Tensor | Mapping[str, Tensor], teacher: str) -> TensorData:
        """The same rows with a teacher's logits and its fingerprint."""
        return of_columns(self._columns | {"teacher_logits": teacher_logits}, teacher=teacher)

    def rows(self, indices: Tensor | slice) -> Batch:
        """The batch made of these rows, in memory. A tensor of indices is on the data's device; consecutive rows, a
        slice, are not copied where they are in memory.
        """
        if isinstance(indices, slice):
            start, stop, _ = indices.indices(len(self))
            return batches.apply(self._columns, lambda column: column.narrow(0, start, stop - start))
        return {
            name: {key: part.index_select(0, indices) for key, part in column.items()}
            if isinstance(column, dict)
            else column.index_select(0, indices)
            for name, column in self._columns.items()
        }

    def batches(
        self, batch_size: int, *, shuffle: bool = False, generator: torch.Generator | None = None
    ) -> Iterator[Batch]:
        """Every row once, in batches of ``batch_size`` (the last may be smaller).

        Args:
            batch_size: How many rows a batch has, 1 or more.
            shuffle: Whether the rows come in a random order.
            generator: What orders the shuffle, on the CPU; by default torch's own.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        if not shuffle:
            for start in range(0, len(self), batch_size):
                yield self.rows(slice(start, start + batch_size))
            return
        order = torch.randperm(len(self), generator=generator).to(self.device)
        for indices in order.split(batch_size):
            yield self.rows(indices)

    def training(self, passes: Iterable[Tensor], name: str = "data") -> Iterator[tuple[Batch, values.Totals]]:
        """Batches, each with what counts in it.

        Args:
            passes: Of each pass the rows of its batches, ``(batches, rows)``.
            name: What the data is called in messages.

        Raises:
            TypeError, ValueError: As :meth:`counts`.
        """
        counts = self.counts(name)
        for of_pass in passes:
            there = of_pass.to(self.device, non_blocking=True)
            for rows, totals in zip(there, counts.of_batches(of_pass), strict=True):
                yield self.rows(rows), totals

    def counts(self, name: str = "data") -> values.PerRow:
        """What counts in each row, of values that were looked at once.

        Args:
            name: What the data is called in messages.

        Raises:
            TypeError: If the mask is not boolean.
            ValueError: If inputs are not finite.
        """
        if self._counts is None:
            values.check(self._columns, name)
            self._counts = values.PerRow(self._columns)
        return self._counts

    def fingerprint(self) -> str:
        """SHA-256 of the columns that a teacher or a loss would see: inputs, targets and mask."""
        digest = hashlib.sha256()
        for name, column in flat(self._columns):
            if not name.startswith("teacher_logits"):
                digest.update(f"{name} {column.dtype} {tuple(column.shape)}".encode())
                for start in range(0, len(column), _ROWS):
                    rows = column.narrow(0, start, min(_ROWS, len(column) - start))
                    digest.update(rows.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _with(self, columns: Batch) -> TensorData:
        return of_columns(columns, teacher=self.teacher)


def of_columns(columns: Batch, teacher: str | None = None) -> TensorData:
    """Data made of a batch's columns, whatever they are called."""
    own = {name: columns[name] for name in ("inputs", "targets", "teacher_logits", "mask") if name in columns}
    return TensorData(
        **own, columns={name: column for name, column in columns.items() if name not in own}, teacher=teacher
    )
