"""Learn from labels, or from numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kdft_lib.data import Batch
from kdft_lib.features import Outputs
from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.labels import refuse_numbers
from kdft_lib.objectives.numbers import Loss, check_loss, given, paired, positionwise

_NUMBERS = itertools.count()
"""What tells the totals of two terms apart, whose weights may differ."""


class Supervised(Objective):
    """Learn from the labels: cross-entropy, as ordinary training and supervised fine-tuning (SFT) have it, part
    ``supervised/ce``; or, with ``loss``, from numbers: regression, part ``supervised/loss``.

    To distil regression, add it to what matches outputs: ``Supervised(loss=F.mse_loss) + LogitMatching(teacher)``.

    Args:
        label_smoothing: How much of each label is spread evenly over all classes (Szegedy et al.,
            2016, section 7), from 0 to below 1.
        multi_label: Whether targets are floating-point, of the logits' shape, 0 or 1 for each class; the loss is
            then binary cross-entropy, a mean over classes as in :class:`torch.nn.BCEWithLogitsLoss`.
        weight: How much each class counts, ``(C,)``, as in :class:`torch.nn.CrossEntropyLoss`: the mean divides by the
            sum of the weights of a step's labels. By default all count alike. Validation is not weighted.
        loss: What is learned in place of cross-entropy, where targets are numbers: any function
            ``f(outputs, targets, reduction="none")``, such as :func:`torch.nn.functional.mse_loss` or
            ``functools.partial(F.huber_loss, delta=2.0)``. It is averaged over the outputs of a sample, then over
            samples. Targets ``(N,)`` go with outputs ``(N, 1)`` or ``(N,)``, others have the outputs' shape. No number
            means "no label", −100 neither; the batch's mask says where nothing counts, and transfer data has none.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        TypeError: If ``loss`` is no such function.
        ValueError: If an argument is out of range, or two do not fit together; in use, if a batch has no targets, a
            target is no class, or outputs and targets differ in shape.

    Example:
        >>> batch = {"inputs": torch.zeros(2, 3), "targets": torch.tensor([0, 1])}
        >>> sorted(Supervised()(torch.nn.Linear(3, 2), batch))
        ['loss', 'supervised/ce']
        >>> batch = {"inputs": torch.zeros(2, 3), "targets": torch.tensor([0.5, 1.5])}
        >>> sorted(Supervised(loss=torch.nn.functional.mse_loss)(torch.nn.Linear(3, 1), batch))
        ['loss', 'supervised/loss']
    """

    name = "supervised"

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        multi_label: bool = False,
        weight: Tensor | Sequence[float] | None = None,
        loss: Loss | None = None,
        class_dim: int = -1,
    ):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be from 0 to below 1")
        if label_smoothing and multi_label:
            raise ValueError("label_smoothing spreads one label over all classes; with multi_label=True it must be 0")
        if weight is not None and multi_label:
            raise ValueError("weight weighs classes that exclude one another; with multi_label=True it must be None")
        if loss is not None:
            check_loss(loss)
            if label_smoothing or multi_label or weight is not None:
                raise ValueError(
                    "loss takes the place of the cross-entropy, to which label_smoothing, multi_label and weight"
                    " belong; give the one or the others"
                )
        super().__init__({"ce" if loss is None else "loss": 1.0}, class_dim=class_dim)
        self.label_smoothing, self.multi_label, self.loss = label_smoothing, multi_label, loss
        self.weight = None if weight is None else _weights(weight)
        self._weight = None if self.weight is None else torch.tensor(self.weight)
        if loss is not None:
            self._labels = "given"
        elif weight is not None:
            self._labels, self._weighs = f"labels {next(_NUMBERS)}", True

    @property
    def scored_by(self) -> Loss | None:
        return self.loss

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        if self.loss is not None:
            return {"loss": self._distance(self.loss, student.logits, batch)}
        ce = self.cross_entropy(
            student.logits, batch, label_smoothing=self.label_smoothing, multi_label=self.multi_label,
            weight=self._weight,
        )  # fmt: skip
        return {"ce": ce}

    def _distance(self, loss: Loss, outputs: Tensor, batch: Batch) -> Tensor:
        outputs, targets = paired(outputs, self._targets(batch))
        known = given(batch)
        values = positionwise(loss, outputs, targets, known.dim())
        return self._mean_over_labels(values.masked_fill(~known, 0.0), batch)

    def _label_weights(self, batch: Batch) -> Tensor:
        if self.loss is not None:
            return given(batch)
        labeled = super()._label_weights(batch)
        if self._weight is None:
            return labeled
        targets = batch["targets"]
        if targets.is_floating_point():
            refuse_numbers(self, targets)
        weight = self._weight.to(targets.device, non_blocking=True)
        # A target that is no class is refused by the cross-entropy, with a better message than an index has.
        return weight[targets.clamp(0, len(weight) - 1)] * labeled


def _weights(weight: Tensor | Sequence[float]) -> tuple[float, ...]:
    """Weights of classes as plain numbers, so that two objectives with the same text are the same."""
    values = torch.as_tensor(weight, dtype=torch.float32)
    if values.dim() != 1 or not (values >= 0).all() or not 0 < values.sum() < math.inf:
        raise ValueError(
            f"weight is {weight}; it must hold a number for each class, 0 or more and finite, not all of them 0"
        )
    return tuple(values.tolist())
