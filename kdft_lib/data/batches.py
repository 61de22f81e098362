"""What a batch is: a dict with ``inputs``, ``targets`` and, where there are any, ``teacher_logits``
and ``mask``. Everything else is turned into one at the door.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Batch: TypeAlias = dict[str, Any]

UNLABELED = -100
"""The target of a sample without a label, as in :class:`torch.nn.CrossEntropyLoss`."""

_OURS = ("inputs", "targets", "teacher_logits", "mask")


def as_batch(raw: Any) -> Batch:
    """Turn what a loader yields into a batch.

    Args:
        raw: A tensor of inputs, a pair ``(inputs, targets)``, a batch, or a Hugging Face dict, whose
            ``labels`` become ``targets`` and whose other entries become the dict of ``inputs``.

    Returns:
        A dict with ``inputs`` and, if given, ``targets``, ``teacher_logits`` and ``mask``.

    Raises:
        TypeError: If ``raw`` is none of these.

    Example:
        >>> sorted(as_batch({"input_ids": torch.ones(2, 3), "labels": torch.zeros(2)}))
        ['inputs', 'targets']
    """
    if isinstance(raw, Tensor):
        return {"inputs": raw}
    if isinstance(raw, Mapping):
        if "inputs" in raw:
            return {key: raw[key] for key in _OURS if key in raw}
        batch: Batch = {"inputs": {key: value for key, value in raw.items() if key not in ("labels", *_OURS)}}
        if "labels" in raw:
            batch["targets"] = raw["labels"]
        return batch | {key: raw[key] for key in _OURS if key in raw}
    if isinstance(raw, Sequence) and len(raw) == 2:
        return {"inputs": raw[0], "targets": raw[1]}
    raise TypeError(
        f"a batch came as a {type(raw).__name__}; it must be a tensor of inputs, a pair (inputs, targets),"
        " a dict with inputs, or a Hugging Face dict"
    )


def has_label(targets: Tensor) -> Tensor:
    """Where a label is: for each position of class indices, for each row of multi-label targets."""
    present = targets != UNLABELED
    return present.all(-1) if targets.is_floating_point() and targets.dim() > 1 else present


def size(batch: Batch) -> int:
    """Number of samples."""
    inputs = batch["inputs"]
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def apply(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Change each tensor of a batch, those in a dict of inputs too."""

    def changed(value: Any) -> Any:
        return {key: change(item) for key, item in value.items()} if isinstance(value, Mapping) else change(value)

    return {key: changed(value) for key, value in batch.items()}


def join(labeled: Batch, unlabeled: Batch) -> Batch:
    """Put two batches behind one another; the second has no labels."""
    first, second = dict(labeled), dict(unlabeled)
    if "targets" in first:
        rows = (size(second), *first["targets"].shape[1:])
        second["targets"] = first["targets"].new_full(rows, UNLABELED)
    for key in sorted(first.keys() ^ second.keys()):
        missing = "transfer_data" if key in first else "train_data"
        raise ValueError(f"{missing} has no {key} and the other data has; give {key} to both, or to neither")

    def joined(a: Any, b: Any) -> Any:
        return {key: torch.cat([a[key], b[key]]) for key in a} if isinstance(a, Mapping) else torch.cat([a, b])

    return {key: joined(first[key], second[key]) for key in first}
