"""Texts in memory, before they are made into tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdft_lib.data.tensors import TensorData


class TextData:
    """Texts and, where there are any, targets, row by row. It cannot be changed.

    Its representation counts the texts and quotes none, so that a notebook's output does not carry
    what may not be passed on.

    Args:
        texts: A sequence of N texts.
        targets: Class indices, ``(N,)``. By default there are none.

    Raises:
        ValueError: If the lengths differ.

    Example:
        >>> data = TextData(["a goal", "a share", "a song"], torch.tensor([1, 0, 2]))
        >>> data
        TextData(3 texts, targets (3,))
        >>> data[torch.tensor([2, 0])].texts
        ('a song', 'a goal')
    """

    def __init__(self, texts: Sequence[str], targets: Tensor | None = None):
        if isinstance(texts, str):
            raise ValueError("texts is one text; it must be a sequence of them")
        if targets is not None and len(targets) != len(texts):
            raise ValueError(f"texts has {len(texts)}, targets has {len(targets)} rows; both must have the same number")
        self._texts, self._targets = tuple(texts), targets

    @property
    def texts(self) -> tuple[str, ...]:
        return self._texts

    @property
    def targets(self) -> Tensor | None:
        return self._targets

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        targets = "" if self._targets is None else f", targets {tuple(self._targets.shape)}"
        return f"TextData({len(self):,} texts{targets})"

    def __getitem__(self, rows: Any) -> TextData:
        """The rows of a slice, a list or a tensor, of indices or of booleans."""
        if isinstance(rows, int):
            raise TypeError(
                f"rows is {rows}; take a slice, a list or a tensor: data[{rows} : {rows} + 1], or data.texts[{rows}]"
            )
        chosen = torch.arange(len(self))[rows]
        targets = None if self._targets is None else self._targets[chosen]
        return TextData([self._texts[row] for row in chosen.tolist()], targets)

    def without_labels(self) -> TextData:
        """The same texts as transfer data: no targets."""
        return TextData(self._texts)

    def with_inputs(self, inputs: Tensor | Mapping[str, Tensor]) -> TensorData:
        """The same rows as tensors, in the same order."""
        return TensorData(inputs, self._targets)
