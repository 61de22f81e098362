"""Data with a teacher's answers: what is kept of each sample, and how it comes back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdft_lib.data import Batch, TensorData, as_batch, batches
from kdft_lib.data.columns import flat
from kdft_lib.data.reading import collated
from kdft_lib.data.tensors import of_columns

_OWN = ("inputs", "targets", "mask", "teacher_logits")
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")


class Kept:
    """A teacher's answers to one or more views of each sample, and what makes these views again.

    Args:
        columns: ``teacher_logits``, a tensor or the columns of a mapping, and either ``drawn``, what an augmentation
            drew, or ``inputs``, the views themselves, or neither. Each has ``views`` rows a sample, behind one another.
        teacher: The teacher's fingerprint.
        views: How many views of each sample there are.
        augment: What makes a view of a sample's inputs and what was drawn for it.
    """

    def __init__(self, columns: Mapping[str, Any], teacher: str, views: int = 1, augment: Any = None):
        self.columns, self.teacher, self.views, self.augment = dict(columns), teacher, views, augment

    def read(self, samples: Tensor) -> Batch:
        """The rows of one view of each of these samples, drawn from torch's generator."""
        return self.rows(samples, torch.randint(self.views, samples.shape) if self.views > 1 else 0)

    def rows(self, samples: Tensor, view: Tensor | int) -> Batch:
        """The rows of this view of each of these samples."""
        places = samples * self.views + view
        return batches.apply(self.columns, lambda column: column.index_select(0, places))

    def onto(self, batch: Batch, rows: Batch) -> Batch:
        """The batch with the inputs and the answers of these rows."""
        found = dict(rows)
        if "drawn" in found:
            found["inputs"] = self.augment.apply(batch["inputs"], found.pop("drawn"))
        return batch | found

    def fingerprint(self) -> str:
        """SHA-256 of the teacher's fingerprint and of the first and last rows."""
        digest = hashlib.sha256(f"{self.teacher} {self.views} {in_words(self.augment)}".encode())
        for name, column in flat(self.columns):
            few = min(len(column), 32)
            ends = [column.narrow(0, 0, few), column.narrow(0, len(column) - few, few)]
            digest.update(f"{name} {TensorData(torch.cat(ends)).fingerprint()}".encode())
        return digest.hexdigest()


def in_words(augment: Any) -> str:
    """An augmentation as it shows itself; where that is no more than an address, with its code and its settings. What a
    function takes from around itself is not told.
    """
    text = repr(augment)
    if _ADDRESS.search(text):
        code = getattr(augment, "__code__", None)
        text += f" {getattr(augment, '__dict__', {})} {(code.co_code, code.co_consts, code.co_names) if code else ''}"
    return _ADDRESS.sub("", text)


class Samples:
    """What a dataset's samples are, by their indices."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def raw(self, places: Sequence[int]) -> list[Any]:
        """These samples as the dataset has them."""
        several = getattr(self.dataset, "__getitems__", None)
        return [self.dataset[place] for place in places] if several is None else list(several(list(places)))

    def rows(self, indices: Tensor | slice) -> Batch:
        """The batch made of these samples."""
        places = range(len(self))[indices] if isinstance(indices, slice) else indices.tolist()
        return as_batch(collated(self.raw(places)))

    def fingerprint(self) -> str:
        """SHA-256 of the inputs of 256 samples at even distances, the first and the last among them."""
        places = torch.linspace(0, len(self) - 1, min(256, len(self))).round().long()
        parts = [TensorData(self.rows(some)["inputs"]).fingerprint() for some in places.split(32)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


class Answered(Dataset[Batch]):
    """A dataset whose samples come with a teacher's answers, as :func:`cache` returns it.

    A sample is a dict: ``inputs``, ``targets`` and what else it came with, and ``teacher_logits``. The answers belong
    to the samples' indices, so that ``Subset``, shuffling, and the workers of a ``DataLoader`` leave them together.

    Args:
        dataset: A map-style dataset, with a length and indices: ``ImageFolder``, ``Subset``, one of Hugging Face's.
        kept: The answers.

    Raises:
        IndexError: If a sample is asked for that is not there.

    Example:
        >>> pictures = [(torch.randn(3), label) for label in range(5)]
        >>> pictures = torch.utils.data.Subset(pictures, range(5))
        >>> from kdft_lib.teachers import cache
        >>> answered = cache(torch.nn.Linear(3, 2), pictures)
        >>> sorted(answered[4]), answered[4]["teacher_logits"].shape
        (['inputs', 'targets', 'teacher_logits'], torch.Size([2]))
    """

    def __init__(self, dataset: Any, kept: Kept):
        self.dataset, self._kept = dataset, kept
        self._samples = Samples(dataset)

    @property
    def teacher(self) -> str:
        """The teacher's fingerprint."""
        return self._kept.teacher

    @property
    def teacher_logits(self) -> Any:
        """The answers, a column or a mapping of them, with a row for each sample, or for each view of it."""
        return self._kept.columns["teacher_logits"]

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        return f"Answered({len(self)} samples of {type(self.dataset).__name__})"

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """Several samples, whose answers are read at once."""
        places = [range(len(self))[index] for index in indices]
        read = self._kept.read(torch.tensor(places))
        found = []
        for number, sample in enumerate(self._samples.raw(places)):
            row = batches.rows(read, slice(number, number + 1))
            found.append(batches.rows(self._kept.onto(as_batch(collated([sample])), row), 0))
        return found

    def rows(self, indices: Tensor | slice) -> Batch:
        """The batch made of these samples."""
        return self._kept.onto(self._samples.rows(indices), self._kept.read(torch.arange(len(self))[indices]))


class ViewData(TensorData):
    """Data in memory with several views of each row and a teacher's answer to each, as :func:`cache` returns it.

    Whenever a row is read, torch's generator draws which of its views comes: its inputs and its ``teacher_logits``
    are of the same view. The length stays, so an epoch shows each row once.

    Args:
        data: The rows. Their inputs are those that an augmentation made the views of.
        kept: The views and the answers.
        places: Which row of the views each row has, ``(N,)``; by default its own.

    Raises:
        ValueError: If rows are put behind others, which have other views.

    Example:
        >>> from kdft_lib.teachers import cache
        >>> data = cache(torch.nn.Linear(3, 2), TensorData(torch.ones(5, 3)), views=4, augment=torch.rand_like)
        >>> len(data), data.rows(torch.tensor([0, 0, 0]))["teacher_logits"].shape
        (5, torch.Size([3, 2]))
    """

    def __init__(self, data: TensorData, kept: Kept, places: Tensor | None = None):
        others = {name: column for name, column in data._columns.items() if name not in _OWN}
        super().__init__(data.inputs, data.targets, mask=data.mask, columns=others)
        self.teacher = kept.teacher
        self._kept, self._places = kept, torch.arange(len(data)) if places is None else places

    @property
    def teacher_logits(self) -> Any:
        """The answers, a column or a mapping of them, with a row for each view of each sample."""
        return self._kept.columns["teacher_logits"]

    @property
    def resident(self) -> bool:
        """False: what a batch is made of stays where it is, and the batch moves."""
        return False

    def __repr__(self) -> str:
        return f"{super().__repr__().replace('TensorData', 'ViewData')[:-1]}, {self._kept.views} views)"

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int | np.integer):
            return batches.rows(self.rows(torch.tensor([range(len(self))[int(rows)]])), 0)
        return ViewData(self._plain()[rows], self._kept, self._places[rows])

    def rows(self, indices: Tensor | slice) -> Batch:
        """The batch made of these rows, a view of each."""
        places = self._places[indices if isinstance(indices, slice) else indices.cpu()]
        return self._kept.onto(super().rows(indices), self._kept.read(places))

    def with_inputs(self, inputs: Tensor) -> TensorData:
        """The same rows with other inputs, of which the kept views are made."""
        if "inputs" in self._kept.columns:
            raise ValueError(
                "the views of these rows are kept as they are, and other inputs would not be seen; change the inputs"
                " first, and cache the data then"
            )
        return super().with_inputs(inputs)

    def with_rows(self, more: TensorData) -> TensorData:
        raise ValueError(
            "data with kept views cannot be put together with other rows, which have other views; put the rows together"
            " first, and cache all of them"
        )

    def fingerprint(self) -> str:
        """SHA-256 of the rows, and of which views they have."""
        parts = [super().fingerprint(), self._kept.fingerprint(), TensorData(self._places).fingerprint()]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def _plain(self) -> TensorData:
        return of_columns(self._columns)

    def _with(self, columns: Batch) -> TensorData:
        return ViewData(of_columns(columns), self._kept, self._places)
