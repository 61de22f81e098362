"""What ``evaluate`` adds up, batch by batch, where the model computes; nothing is read before the end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib import metrics
from kdft_lib.data import UNLABELED, Batch, batches
from kdft_lib.objectives.numbers import Loss, check_loss, given, paired, positionwise

Metric: TypeAlias = Any
"""A metric of torchmetrics, or a function ``f(outputs, targets)`` that returns a number."""

OWN = ("accuracy", "loss")


class Scores:
    """Sums over batches, and the scores that they come to.

    Args:
        loss: What numbers are compared by; ``None`` where targets are classes.
        metrics: Further scores by name.
        class_dim: The dimension of the classes in the outputs.
    """

    def __init__(self, loss: Loss | None, metrics: Mapping[str, Metric] | None, class_dim: int):
        if loss is not None:
            check_loss(loss)
        self.loss, self.class_dim = loss, class_dim
        check_metrics(metrics)
        self.metrics = {
            name: _Updated(metric) if _is_updated(metric) else _AtOnce(metric)
            for name, metric in (metrics or {}).items()
        }
        self._sums: dict[str, Tensor] = {}
        self._range: tuple[Tensor, Tensor] | None = None
        self._classes = 0

    def add(self, outputs: Tensor, batch: Batch) -> None:
        """Count a batch in.

        Args:
            outputs: The model's outputs, float32, where it computes.
            batch: What it was asked, with ``targets``, wherever that is.
        """
        if "targets" not in batch:
            raise ValueError("data has no targets; evaluate needs labels, predict does not")
        if outputs.device.type == "mps":  # It has no float64.
            outputs = outputs.cpu()
        outputs = outputs.movedim(self.class_dim, -1)
        if self.loss is not None:
            rows = self._add_numbers(self.loss, outputs, batch)
        elif batch["targets"].is_floating_point():
            rows = self._add_labels(outputs, batch)
        else:
            rows = self._add_classes(outputs, batch)
        if self.metrics:
            outputs, targets = _labeled_alone(*rows)
            for metric in self.metrics.values():
                if len(targets):
                    metric.add(outputs, targets)

    def result(self) -> dict[str, float]:
        """The scores by name."""
        if not self._sums:
            raise ValueError("data is empty; there is nothing to ask the model")
        sums = dict(zip(self._sums, torch.stack([*self._sums.values()]).tolist(), strict=True))
        count = sums.pop("count")
        if not count:
            raise ValueError("targets holds no label; there is nothing to score")
        if self._range is not None:
            lowest, highest = (int(end) for end in self._range)
            if lowest < 0 or highest >= self._classes:
                raise ValueError(
                    f"targets holds {lowest if lowest < 0 else highest}; it must be from 0 to {self._classes - 1}, or"
                    f" {UNLABELED} for no label"
                )
        own = {name: total / count for name, total in sums.items()}
        return own | {name: _number(name, metric.result()) for name, metric in self.metrics.items()}

    def _add_classes(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        targets = batch["targets"]
        if logits.dim() < 2 or targets.shape not in (logits.shape[:-1], (*logits.shape[:-1], 1)):
            raise ValueError(
                f"logits has shape {tuple(logits.shape)} and targets {tuple(targets.shape)}; wanted (N, ..., C) and"
                " (N, ...)"
            )
        labeled = _counted(targets != UNLABELED, batch).flatten()
        rows, targets, known = logits.flatten(0, -2), _beside(targets.flatten(), logits), _beside(labeled, logits)
        self._classes = rows.shape[-1]
        ends = targets.masked_fill(~known, 0).aminmax()
        self._range = (
            (ends.min, ends.max)
            if self._range is None
            else (torch.minimum(self._range[0], ends.min), torch.maximum(self._range[1], ends.max))
        )
        nats = metrics.nats(rows, targets.clamp(0, self._classes - 1)).masked_fill(~known, 0.0)
        self._count(accuracy=(rows.argmax(-1) == targets) & known, loss=nats, count=known)
        return rows, targets, labeled

    def _add_labels(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        targets = batch["targets"]
        if targets.dim() < 2 or targets.flatten(0, -2).shape != logits.flatten(0, -2).shape:
            raise ValueError(
                f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}; class indices are int64,"
                f" multi-label targets have the logits' shape, {tuple(logits.shape)}, and numbers need a loss, such as"
                " loss=torch.nn.functional.mse_loss"
            )
        labeled = _counted(batches.has_label(targets), batch).flatten()
        rows, targets = logits.flatten(0, -2), _beside(targets.flatten(0, -2), logits)
        known = _beside(labeled, logits).unsqueeze(-1)
        if (known & ((targets < 0) | (targets > 1))).any():
            raise ValueError(
                "targets holds numbers that are no labels from 0 to 1; numbers need a loss, such as"
                " loss=torch.nn.functional.mse_loss"
            )
        nats = metrics.in_blocks(
            lambda block, labels: F.binary_cross_entropy_with_logits(block, labels, reduction="none").sum(-1),
            rows, targets.masked_fill(~known, 0.0),
        )  # fmt: skip
        self._count(
            accuracy=((rows > 0) == (targets > 0.5)) & known,
            loss=nats.masked_fill(~known.squeeze(-1), 0.0),
            count=known.expand_as(rows),
        )
        return rows, targets, labeled

    def _add_numbers(self, loss: Loss, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        outputs, targets = paired(outputs, _beside(batch["targets"], outputs))
        labeled = given(batch)
        known, dims = _beside(labeled, outputs), labeled.dim()
        values = metrics.in_blocks(lambda ours, theirs: positionwise(loss, ours, theirs, dims), outputs, targets)
        self._count(loss=values.masked_fill(~known, 0.0), count=known)
        return outputs.flatten(0, dims - 1), targets.flatten(0, dims - 1), labeled.flatten()

    def _count(self, **values: Tensor) -> None:
        for name, each in values.items():
            found = each.sum(dtype=torch.float64)
            self._sums[name] = self._sums[name] + found if name in self._sums else found


class _Updated:
    """A metric of torchmetrics, which sees batches as they come; the caller's own stays as it was."""

    def __init__(self, metric: Metric):
        self.metric = copy.deepcopy(metric)
        self.metric.reset()
        for part in self.metric.modules():
            part.distributed_available_fn = _alone

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.metric.to(outputs.device).update(outputs, targets)

    def result(self) -> Any:
        return self.metric.compute()


def _alone() -> bool:
    """What a metric is told of other processes: each has seen all of the data, and one may be asked by itself."""
    return False


class _AtOnce:
    """A function of all outputs and targets, which are kept for it."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]):
        self.function = function
        self.kept: list[tuple[Tensor, Tensor]] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.kept.append((outputs.cpu(), targets.cpu()))

    def result(self) -> Any:
        return self.function(*(torch.cat(column) for column in zip(*self.kept, strict=True)))


def check_metrics(metrics: Mapping[str, Metric] | None) -> None:
    """Refuse what is no metric, before anything is asked.

    Raises:
        TypeError: If there is one.
        ValueError: If one has the name of a score of our own.
    """
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        raise TypeError(f'metrics is {metrics!r}; give them by name, as metrics={{"f1": …}}')
    for name, metric in metrics.items():
        if name in OWN:
            raise ValueError(f"metrics names one {name!r}, which is scored anyway; choose another name")
        if isinstance(metric, type) or not (_is_updated(metric) or callable(metric)):
            raise TypeError(
                f"metrics[{name!r}] is {metric!r}; give a metric of torchmetrics, made with its arguments, or a"
                " function f(outputs, targets) that returns a number"
            )


def _is_updated(metric: Metric) -> bool:
    methods = (getattr(metric, name, None) for name in ("reset", "update", "compute"))
    return isinstance(metric, nn.Module) and all(callable(method) for method in methods)


def _beside(column: Tensor, outputs: Tensor) -> Tensor:
    """A column where the outputs are; a GPU need not be waited for."""
    return column.to(outputs.device, non_blocking=True)


def _counted(labeled: Tensor, batch: Batch) -> Tensor:
    """Where a label is, and the mask counts it."""
    mask = batch.get("mask")
    if mask is None:
        return labeled
    if mask.shape != labeled.shape:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}; it must be {tuple(labeled.shape)}, one entry for each position of the"
            " logits"
        )
    return mask & labeled


def _labeled_alone(outputs: Tensor, targets: Tensor, labeled: Tensor) -> tuple[Tensor, Tensor]:
    """Those rows; they are found where the labels are, so that a GPU need not be waited for."""
    if labeled.all():
        return outputs, targets
    rows = _beside(labeled.nonzero().squeeze(1), outputs)
    return outputs.index_select(0, rows), targets.index_select(0, rows)


def _number(name: str, value: Any) -> float:
    if isinstance(value, Mapping) or torch.as_tensor(value).numel() != 1:
        found = f"scores named {', '.join(value)}" if isinstance(value, Mapping) else f"{len(value)} values"
        raise ValueError(
            f'metrics[{name!r}] gave {found}; a score is one number, so give average="macro" to one that has a value'
            " for each class, and each metric of a collection by its own name"
        )
    return float(value)
