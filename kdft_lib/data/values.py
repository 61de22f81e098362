"""What values must be for anything to be learned from them, looked at while they are on the CPU; and how many count."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kdft_lib.data import batches
from kdft_lib.data.batches import Batch

Totals = dict[str, int]
"""Of a batch: its ``samples``, the positions ``labeled``, those ``counted`` by its mask, those ``given`` a target that
is a number (samples, or what the mask counts), and its ``lowest`` and ``highest`` class; 0 where there are none."""


def check(columns: Batch, name: str) -> None:
    """Refuse what is no mask, and inputs that are not finite.

    Raises:
        TypeError: If a column is not what it should be.
        ValueError: If its values are not.
    """
    mask, targets = columns.get("mask"), columns.get("targets")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool):
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name}'s mask has dtype {found}; it must be a boolean tensor, true where a position counts")
    if targets is not None and not isinstance(targets, Tensor):
        raise TypeError(
            f"{name}'s targets are a {type(targets).__name__}; they must be a tensor of class indices or of numbers"
        )
    inputs = columns["inputs"]
    for key, tensor in inputs.items() if isinstance(inputs, dict) else [("", inputs)]:
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            broken = ~tensor.isfinite().reshape(len(tensor), -1).all(1)
            raise ValueError(
                f"{name}'s inputs{f' {key!r}' if key else ''} are not finite in {int(broken.sum())} of {len(tensor)}"
                f" samples, the first of them number {int(broken.nonzero()[0])}; replace NaN and infinity, or leave"
                " these samples out"
            )


class PerRow:
    """What counts in each row of some columns."""

    def __init__(self, columns: Batch):
        self._samples = batches.size(columns)
        mask, targets = columns.get("mask"), columns.get("targets")
        labeled = batches.has_label(targets) if targets is not None else None
        if labeled is not None and mask is not None:
            labeled = mask & labeled.reshape(*labeled.shape, *[1] * (mask.dim() - labeled.dim()))
        self._counts = {"labeled": _by_row(labeled), "counted": _by_row(mask)}
        self._range = {"lowest": 0, "highest": 0}
        if targets is not None and labeled is not None and not targets.is_floating_point() and labeled.any():
            lowest, highest = targets[labeled].aminmax()
            self._range = {"lowest": int(lowest), "highest": int(highest)}

    @property
    def rows_labeled(self) -> int:
        """The number of rows in which anything has a label."""
        counts = self._counts["labeled"]
        return self._samples * bool(counts) if isinstance(counts, int) else int((counts > 0).sum())

    def of_all(self) -> Totals:
        """What counts in all rows."""
        return next(self.of_batches(torch.arange(self._samples).unsqueeze(0)))

    def of_batches(self, rows: Tensor) -> Iterator[Totals]:
        """What counts in each of several batches.

        Args:
            rows: Which rows each has, ``(batches, rows)``. The range of classes is always that of all rows.
        """
        number, samples = rows.shape
        each = {
            name: [samples * held] * number if isinstance(held, int) else held[rows].sum(1).tolist()
            for name, held in self._counts.items()
        }
        return (
            {"samples": samples, "labeled": labeled, "counted": counted, "given": counted or samples} | self._range
            for labeled, counted in zip(each["labeled"], each["counted"], strict=True)
        )


def _by_row(counting: Tensor | None) -> Tensor | int:
    """How many positions of each row count, as one number where it is the same for all."""
    if counting is None:
        return 0
    counts = counting.reshape(len(counting), -1).sum(1).cpu()
    return int(counts[0]) if len(counts) and bool((counts == counts[0]).all()) else counts
