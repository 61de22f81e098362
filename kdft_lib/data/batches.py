"""What a batch is: a dict with ``inputs``, ``targets`` and, where there are any, ``teacher_logits``, ``mask`` and
whatever else it came with. Everything else is turned into one at the door.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from kdft_lib.data import order
from kdft_lib.data.columns import MappedColumn, flat

Batch: TypeAlias = dict[str, Any]

UNLABELED = -100
"""The target of a sample without a label, as in :class:`torch.nn.CrossEntropyLoss`."""

_NOT_INPUTS = ("targets", "teacher_logits", "mask")
_LABELS = ("labels", "label")
"""What Transformers and its data collators call the targets."""


def as_batch(raw: Any) -> Batch:
    """Turn what a loader yields into a batch.

    Args:
        raw: A tensor of inputs, a pair ``(inputs, targets)``, a batch, or a Hugging Face dict, whose
            ``labels`` or ``label`` become ``targets`` and whose other tensors become the dict of ``inputs``. NumPy
            arrays become tensors, those of 64 bits in torch's default precision.

    Returns:
        A dict with ``inputs`` and every other column that came along.

    Raises:
        TypeError: If ``raw`` is none of these.

    Example:
        >>> sorted(as_batch({"input_ids": torch.ones(2, 3), "labels": torch.zeros(2)}))
        ['inputs', 'targets']
        >>> sorted(as_batch({"inputs": torch.ones(2, 3), "weights": torch.ones(2)}))
        ['inputs', 'weights']
    """
    if isinstance(raw, Mapping):
        batch = _named(raw)
    elif isinstance(raw, Tensor | np.ndarray):
        batch = {"inputs": raw}
    elif isinstance(raw, Sequence) and not isinstance(raw, str) and len(raw) in (1, 2):
        batch = dict(zip(("inputs", "targets"), raw, strict=False))
    elif isinstance(raw, Sequence) and not isinstance(raw, str):
        raise TypeError(
            f"a batch came as {len(raw)} columns without names; give it as a dict, such as"
            ' {"inputs": …, "targets": …, "weights": …}, which a collate_fn can make'
        )
    else:
        raise TypeError(
            f"a batch came as a {type(raw).__name__}; it must be a tensor of inputs, a pair (inputs, targets),"
            " a dict with inputs, or a Hugging Face dict"
        )
    batch = {name: _tensors(column) for name, column in batch.items()}
    inputs = batch["inputs"]
    if not isinstance(inputs, Tensor) and not (isinstance(inputs, dict) and inputs):
        raise TypeError(
            f"a batch's inputs came as a {type(inputs).__name__}; they must be a tensor, or a dict of tensors for a"
            " model that takes keywords: give the data a transform or a collate_fn that makes them so"
        )
    targets = batch.get("targets")
    if isinstance(targets, Tensor) and not targets.is_floating_point():
        batch["targets"] = targets.long()
    return batch


def has_label(targets: Tensor) -> Tensor:
    """Where a label is: for each position of class indices, for each row of multi-label targets."""
    present = targets != UNLABELED
    return present.all(-1) if targets.is_floating_point() and targets.dim() > 1 else present


def size(batch: Batch) -> int:
    """Number of samples."""
    inputs = batch["inputs"]
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def apply(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """Change each column of a batch, those in a dict of inputs too; what is no tensor stays."""

    def changed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: changed(item) for key, item in value.items()}
        return change(value) if isinstance(value, Tensor | MappedColumn) else value

    return {key: changed(value) for key, value in batch.items()}


def rows(batch: Batch, chosen: slice | int) -> Batch:
    """Consecutive samples of a batch, or one."""
    take = operator.itemgetter(chosen)

    def taken(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: taken(item) for key, item in value.items()}
        return take(value) if isinstance(value, Tensor | Sequence) else value

    return {key: taken(value) for key, value in batch.items()}


def cut(batch: Batch, parts: int) -> list[Batch]:
    """Consecutive pieces of a batch, as equal as can be.

    Raises:
        ValueError: If it has fewer samples.
    """
    if parts == 1:
        return [batch]
    return [rows(batch, order.part(size(batch), (index, parts))) for index in range(parts)]


def parts(drawn: Sequence[Batch], count: int) -> list[Batch]:
    """Consecutive pieces of one batch, or of a labelled and an unlabelled one, each with its part of both."""
    pieces = zip(*(cut(batch, count) for batch in drawn), strict=True)
    return [join(*both) if len(both) == 2 else both[0] for both in pieces]


def device(batch: Batch) -> torch.device:
    """Where its inputs are."""
    inputs = batch["inputs"]
    found: torch.device = (next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs).device
    return found


def concatenated(parts: Sequence[Batch]) -> Batch:
    """The tensors of several batches, behind one another."""

    def joined(columns: list[Any]) -> Any:
        if isinstance(columns[0], Mapping):
            return {key: joined([column[key] for column in columns]) for key in columns[0]}
        return torch.cat(columns)

    return {
        key: joined([part[key] for part in parts])
        for key, column in parts[0].items()
        if isinstance(column, Tensor | Mapping)
    }


def join(labeled: Batch, unlabeled: Batch) -> Batch:
    """Put two batches behind one another; the second has no labels."""
    first, second = dict(labeled), dict(unlabeled)
    if "targets" in first:
        shape = (size(second), *first["targets"].shape[1:])
        second["targets"] = first["targets"].new_full(shape, UNLABELED)
        # A number of −100 may be meant; these are not.
        first["labeled"] = first["targets"].new_ones(size(first), dtype=torch.bool)
        second["labeled"] = second["targets"].new_zeros(size(second), dtype=torch.bool)
    for key in sorted(_names(first) ^ _names(second)):
        missing = "transfer_data" if key in _names(first) else "train_data"
        raise ValueError(f"{missing} has no {key} and the other data has; give {key} to both, or to neither")

    def joined(a: Any, b: Any) -> Any:
        if isinstance(a, Mapping):
            return {key: joined(a[key], b[key]) for key in a}
        return torch.cat([a, b]) if isinstance(a, Tensor) else [*a, *b]

    return {key: joined(first[key], second[key]) for key in first}


def _names(batch: Batch) -> set[str]:
    """The columns of a batch, those in a mapping of answers or of inputs too."""
    return {name for name, _ in flat(batch)}


def _named(raw: Mapping[Any, Any]) -> Batch:
    """A dict of columns: ours, or a Hugging Face one, where what a model is given stands beside the rest."""
    tokens, said = raw.get("input_ids"), raw.get("labels")
    if isinstance(tokens, Tensor) and isinstance(said, Tensor) and tokens.shape == said.shape:
        counted = said != UNLABELED
        # Of masked words, some are left as they were; of nine, hardly all.
        if counted.sum() > 8 and (tokens == said)[counted].all():
            raise ValueError(
                "labels are the tokens themselves, which a causal model of Transformers shifts inside; here a target is"
                " the token after: labels = F.pad(labels[:, 1:], (0, 1), value=-100), or kdft_lib.data.packed"
            )
    label = next((name for name in ("targets", *_LABELS) if name in raw), None)
    batch = {("targets" if name == label else name): raw[name] for name in raw}
    if "inputs" in batch:
        return batch
    inputs = {
        name: column
        for name, column in batch.items()
        if name not in _NOT_INPUTS and isinstance(column, Tensor | np.ndarray)
    }
    if not inputs:
        raise TypeError(
            f"a batch came as a dict with {', '.join(map(str, raw)) or 'nothing'}, and none of it is a tensor that a"
            " model could be given; give the data a transform or a collate_fn that makes tensors"
        )
    return {"inputs": inputs} | {name: column for name, column in batch.items() if name not in inputs}


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tensors(item) for key, item in value.items()}
    return narrowed(torch.as_tensor(value)) if isinstance(value, np.ndarray) else value


def narrowed(value: Any) -> Any:
    """Floating-point numbers of 64 bits in torch's default precision, since Python's and NumPy's have them unasked."""
    if isinstance(value, Mapping):
        return {key: narrowed(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [narrowed(item) for item in value]
    return value.to(torch.get_default_dtype()) if isinstance(value, Tensor) and value.dtype == torch.float64 else value
