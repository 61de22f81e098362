"""The door: data of any kind, as the loop and whoever asks a model go through it.

Order is a function of the seed and the step alone, so a run that was interrupted continues where it would have
been. Of data with indices, so is what its transforms draw: a function of the seed, the pass and the sample, whatever
the number of workers and processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from kdft_lib.data import batches, order, reading, values
from kdft_lib.data.batches import Batch, as_batch
from kdft_lib.data.tensors import TensorData, of_columns

Counted: TypeAlias = tuple[Batch, values.Totals]

Data: TypeAlias = Any
"""What the door takes; see :func:`source`."""

KINDS = (
    "a TensorData, a Dataset, a DataLoader or another iterable of batches, a pair (inputs, targets) of tensors or"
    " NumPy arrays, inputs alone, or a Hugging Face data set"
)


def source(
    data: Data, *, name: str = "data", num_workers: int = 0, collate_fn: Callable[[list[Any]], Any] | None = None
) -> Source:
    """Data of any kind, in one shape.

    Args:
        data: A :class:`~kdft_lib.data.TensorData`; a map-style or iterable ``Dataset``; a ``DataLoader`` or another
            iterable of batches; a pair ``(inputs, targets)`` of tensors or NumPy arrays, inputs alone, or a dict of
            columns; a Hugging Face ``Dataset``, in memory or streaming. NumPy's float64 becomes torch's default.
        name: What the data is called in messages.
        num_workers: The number of processes that read a dataset, of a stream one at most; 0 reads it in this one.
        collate_fn: What makes a batch of samples of a dataset; torch's ``default_collate`` by default. Data in memory
            and batches of a loader have none.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty, or holds what nothing can be learned from.
    """
    if isinstance(data, TensorData):
        return InMemory(data, name)
    if type(data) is TensorDataset and collate_fn is None and len(data.tensors) <= 2:
        return InMemory(of_columns(as_batch(data.tensors)), name)
    if isinstance(data, Tensor | np.ndarray | Mapping) or _is_pair(data, name):
        return InMemory(of_columns(_columns(data, name)), name)
    samples: dict[str, Any] = {"num_workers": num_workers, "collate_fn": collate_fn or reading.collated}
    if reading.is_hugging_face(data):
        data = reading.with_tensors(data)
        return Indexed(data, name, **samples) if hasattr(data, "__len__") else Streamed(data, name, **samples)
    if isinstance(data, IterableDataset):
        return Streamed(data, name, **samples)
    if isinstance(data, Dataset):
        return Indexed(data, name, **samples)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        return Loaded(data, name)
    raise TypeError(f"{name} is of type {type(data).__name__}; give {KINDS}")


class Source:
    """Data as it is gone through; what the kinds of it share."""

    samples: int | None = None
    """The number of samples, where it is known."""

    def __init__(self, data: Any, name: str):
        self.data, self.name = data, name

    def length(self, batch_size: int) -> int | None:
        """The number of batches in a pass of training, where it is known."""
        raise NotImplementedError

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Every sample once, as the data has them."""
        raise NotImplementedError

    def training(self, batch_size: int, seed: int, first_step: int, share: order.Share) -> Iterator[Counted]:
        """Batches without end from a step on, of each the part of one process, with what counts in it;
        see :mod:`kdft_lib.data.values`."""
        raise NotImplementedError

    def to(self, device: torch.device) -> Source:
        """The data on a device, where it is in memory and takes less than half of what is free there."""
        return self

    @property
    def teacher(self) -> str | None:
        """Whose answers the data carries: a teacher's fingerprint."""
        return _teacher(self.data)

    def labels(self) -> tuple[int, int] | None:
        """How many samples have a label, as far as that can be seen, and how many have none."""
        return None if self.samples is None else (self.samples, 0)

    def inexact(self) -> str | None:
        """Why a run on it might not resume exactly, if so."""
        return None

    def __str__(self) -> str:
        return f"{type(self.data).__name__} of {'unknown length' if self.samples is None else self.samples}"

    def _counted(self, raw: Any) -> Counted:
        batch = as_batch(raw)
        values.check(batch, self.name)
        return batch, values.PerRow(batch).of_all()


class InMemory(Source):
    """Tensors, of which a batch is one indexing operation."""

    data: TensorData

    def __init__(self, data: TensorData, name: str):
        super().__init__(data, name)
        self.samples = _some(len(data), name)

    def length(self, batch_size: int) -> int:
        return len(self.data) // min(batch_size, len(self.data))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        return self.data.batches(batch_size)

    def training(self, batch_size: int, seed: int, first_step: int, share: order.Share) -> Iterator[Counted]:
        passes = order.passes(len(self.data), batch_size, seed, first_step, share)
        return self.data.training((rows for _, rows in passes), self.name)

    def to(self, device: torch.device) -> Source:
        if device.type != "cuda" or not self.data.resident:
            return self
        free, _ = torch.cuda.mem_get_info(device)
        self.data.counts(self.name)
        return InMemory(self.data.to(device), self.name) if self.data.nbytes < free / 2 else self

    def labels(self) -> tuple[int, int]:
        labeled = self.data.counts(self.name).rows_labeled
        return labeled, len(self.data) - labeled

    def __str__(self) -> str:
        return f"TensorData {self.data.fingerprint()[:16]}"


class Indexed(Source):
    """A map-style dataset: the order of data in memory, but read sample by sample."""

    samples: int

    def __init__(self, data: Any, name: str, *, num_workers: int, collate_fn: Callable[[list[Any]], Any]):
        super().__init__(data, name)
        self.samples = _some(_length(data, name), name)
        self._read = reading.Reader(data, num_workers=num_workers, collate_fn=collate_fn)

    def length(self, batch_size: int) -> int:
        return self.samples // min(batch_size, self.samples)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        return map(as_batch, self._read((0, rows) for rows in torch.arange(self.samples).split(batch_size)))

    def training(self, batch_size: int, seed: int, first_step: int, share: order.Share) -> Iterator[Counted]:
        passes = order.passes(self.samples, batch_size, seed, first_step, share)
        asked = ((number, rows) for number, of_pass in passes for rows in of_pass)
        return map(self._counted, self._read(asked, seed))


class Loaded(Source):
    """Batches as a loader makes them. Each pass starts from random numbers that the seed and the number of the pass
    decide, and the loop's own are not disturbed by it."""

    def __init__(self, data: Iterable[Any], name: str):
        super().__init__(data, name)
        dataset = getattr(data, "dataset", None)
        chosen = sampler if isinstance(sampler := getattr(data, "sampler", None), SubsetRandomSampler) else dataset
        self.samples = len(chosen) if isinstance(chosen, Sized) else None

    def length(self, batch_size: int) -> int | None:
        try:
            length = len(self.data)
        except TypeError:
            return None
        if not length and self.samples:
            raise ValueError(
                f"{self.name} has {self.samples} samples, fewer than a batch of its loader, which leaves them out"
                " (drop_last=True); give it a smaller batch_size"
            )
        return _some(length, self.name)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        return map(as_batch, self.data)

    def training(self, batch_size: int, seed: int, first_step: int, share: order.Share) -> Iterator[Counted]:
        length = self.length(batch_size)
        number, left_out = divmod(first_step, length) if length else (0, first_step)
        loader, cut = self._of_process(batch_size, share)
        while True:
            found = 0
            for raw in reading.drawing(loader, order.seed_of(seed, number)):
                found += 1
                if left_out:
                    left_out -= 1
                else:
                    yield self._counted(_part(as_batch(raw), share) if cut else raw)
            if not found:
                raise ValueError(f"{self.name}, of type {type(self.data).__name__}, {self._lacks(number, batch_size)}")
            number += 1

    def inexact(self) -> str | None:
        if isinstance(self.data, Iterator):
            return "it can be read only once"
        if getattr(self.data, "persistent_workers", False):
            return "persistent_workers=True carries random numbers from one pass to the next"
        sampler = getattr(self.data, "sampler", None)
        if sampler is not None and not type(sampler).__module__.startswith("torch."):
            return f"its order comes from a {type(sampler).__name__}, which need not draw it from torch's generator"
        return None

    def __str__(self) -> str:
        length = self.length(1)
        return f"{type(self.data).__name__} of {'unknown length' if length is None else f'{length} batches'}"

    def _lacks(self, number: int, batch_size: int) -> str:
        """What is wrong where a pass has no batch."""
        again = " for another pass" if number else ""
        return f"yields nothing{again}; give data that can be read again, or fewer steps"

    def _of_process(self, batch_size: int, share: order.Share) -> tuple[Iterable[Any], bool]:
        """What a process reads, and whether it must cut its part out of each batch itself."""
        if share[1] == 1:
            return self.data, False
        own = reading.sharded(self.data, share)
        return (self.data, True) if own is None else (own, False)


class Streamed(Loaded):
    """An iterable dataset, in batches. One worker reads it at most: several would each read all of it, or give parts of
    it in another order."""

    def __init__(self, data: Iterable[Any], name: str, *, num_workers: int, collate_fn: Callable[[list[Any]], Any]):
        super().__init__(data, name)
        self._reading: dict[str, Any] = {"num_workers": min(num_workers, 1), "collate_fn": collate_fn}

    def length(self, batch_size: int) -> None:
        return None

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        return map(as_batch, DataLoader(self.data, batch_size, generator=torch.Generator(), **self._reading))

    def _lacks(self, number: int, batch_size: int) -> str:
        few = f"has fewer samples than a batch of {batch_size}; lower batch_size, or give more"
        return super()._lacks(number, batch_size) if number else few

    def _of_process(self, batch_size: int, share: order.Share) -> tuple[Iterable[Any], bool]:
        part = order.part(batch_size, share)
        every = reading.EveryNth(self.data, share)
        return DataLoader(every, part.stop - part.start, drop_last=True, **self._reading), False


def _teacher(data: Any) -> str | None:
    if isinstance(data, ConcatDataset):
        found = {_teacher(part) for part in data.datasets}
        if len(found) > 1:
            raise ValueError("parts of the data have answers of different teachers, or none; ask one about all of them")
        return found.pop()
    return _teacher(data.dataset) if isinstance(data, DataLoader | Subset) else getattr(data, "teacher", None)


def _part(batch: Batch, share: order.Share) -> Batch:
    return batches.rows(batch, order.part(batches.size(batch), share))


def _is_pair(data: Any, name: str) -> bool:
    """Whether the data is ``(inputs, targets)``."""
    if not isinstance(data, tuple | list) or not any(isinstance(part, Tensor | np.ndarray) for part in data):
        return False
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor | np.ndarray):
        return True
    kinds = ", ".join(type(part).__name__ for part in data[:4])
    raise TypeError(
        f"{name} is a {type(data).__name__} of {len(data)}: {kinds}; a pair in memory is a tuple of two tensors or"
        " NumPy arrays, (inputs, targets), and further columns have names: a dict"
    )


def _columns(data: Any, name: str) -> Batch:
    """Columns in memory; numbers of 64 bits of NumPy's, where nobody asked for them, in torch's default precision."""
    if isinstance(data, Mapping) and any(reading.is_hugging_face(part) for part in data.values()):
        splits = [*map(repr, data)]
        raise TypeError(f"{name} has the splits {', '.join(splits)}; choose one: {name}[{splits[0]}]")
    columns = as_batch(data)
    for key, column in columns.items():
        if not isinstance(column, Tensor | dict):
            raise TypeError(
                f"{name}'s column {key!r} is a {type(column).__name__}; in memory, columns are tensors or NumPy arrays"
            )
    return columns


def _length(data: Any, name: str) -> int:
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        raise TypeError(
            f"{name} is of type {type(data).__name__}, without a length; give it __len__, or make it an IterableDataset"
        ) from None


def _some(count: int, name: str) -> int:
    if count == 0:
        raise ValueError(f"{name} is empty; give it at least one sample")
    return count
