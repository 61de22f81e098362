"""Four parts of a data set that share no sample, and how the labelled ones are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdft_lib.data.tensors import TensorData
from kdft_lib.data.texts import TextData


class Splits(NamedTuple):
    """Four parts of a data set that share no sample.

    Example:
        >>> data = TensorData(torch.eye(2), torch.tensor([0, 1]))
        >>> len(Splits(train=data, transfer=data.without_labels(), val=data, test=data).transfer)
        2
    """

    train: TensorData
    """With labels."""
    transfer: TensorData
    """The rest of the training samples, without labels."""
    val: TensorData
    """For choosing."""
    test: TensorData
    """For one look, at the end."""

    def with_inputs(self, change: Callable[[Tensor], Tensor]) -> Splits:
        """The same rows with other inputs, such as spectra of waveforms.

        Args:
            change: A function of the inputs of one part that gives as many rows; called once for each
                part, so it must not learn anything from them.

        Example:
            >>> data = TensorData(torch.eye(2), torch.tensor([0, 1]))
            >>> Splits(data, data.without_labels(), data, data).with_inputs(lambda rows: 2 * rows).test.inputs.max()
            tensor(2.)
        """
        return Splits(*(part.with_inputs(change(part.inputs)) for part in self))


class TextSplits(NamedTuple):
    """Four parts of a collection of texts that share no text.

    Example:
        >>> data = TextData(["one", "two"], torch.tensor([0, 1]))
        >>> splits = TextSplits(train=data, transfer=data.without_labels(), val=data, test=data)
        >>> splits.with_inputs(lambda texts: torch.tensor([[len(text)] for text in texts])).train
        TensorData(inputs (2, 1), targets (2,))
    """

    train: TextData
    """With labels."""
    transfer: TextData
    """The rest of the training texts, without labels."""
    val: TextData
    """For choosing."""
    test: TextData
    """For one look, at the end."""

    def with_inputs(self, encode: Callable[[Sequence[str]], Tensor | Mapping[str, Tensor]]) -> Splits:
        """The same rows as tensors.

        Args:
            encode: A function of texts that gives as many rows: a tensor, or a mapping of tensors for models
                that take keywords, such as ``sentence_encoder().tokens``. It is called once, with the texts
                of all parts, and must not learn anything from them.

        Raises:
            ValueError: If it gives another number of rows.
        """
        encoded = encode([text for part in self for text in part.texts])
        columns = encoded if isinstance(encoded, Mapping) else {"": encoded}
        lengths = [len(part) for part in self]
        for name, column in columns.items():
            if len(column) != sum(lengths):
                raise ValueError(f"encode gave {len(column)} rows{f' of {name}' * bool(name)} for {sum(lengths)} texts")
        parts = zip(*(column.split(lengths) for column in columns.values()), strict=True)
        rows = [dict(zip(columns, part, strict=True)) for part in parts]
        return Splits(
            *(
                part.with_inputs(row if isinstance(encoded, Mapping) else row[""])
                for part, row in zip(self, rows, strict=True)
            )
        )


def draw_balanced(targets: Tensor, pool: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` of ``pool``, class by class, as evenly as it goes. Both parts come shuffled.

    Args:
        targets: The class indices of the whole data set, ``(N,)``.
        pool: The rows that may be drawn, ``(P,)``.
        count: How many are drawn, from 0 to ``P``.
        seed: The seed of the draw.

    Returns:
        What was drawn, ``(count,)``, and the rest, ``(P - count,)``, as indices into ``targets``.

    Example:
        >>> targets = torch.tensor([0, 0, 0, 0, 1, 1])
        >>> drawn, rest = draw_balanced(targets, torch.arange(6), count=4, seed=0)
        >>> targets[drawn].bincount(), targets[rest].bincount()
        (tensor([2, 2]), tensor([2]))
    """
    shuffled = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))]
    classes = targets[shuffled]
    place_in_class = torch.zeros_like(classes)
    for label in classes.unique():
        members = classes == label
        place_in_class[members] = torch.arange(int(members.sum()))
    order = torch.argsort(place_in_class, stable=True)
    chosen = torch.zeros(len(pool), dtype=torch.bool)
    chosen[order[:count]] = True
    return shuffled[chosen], shuffled[~chosen]
