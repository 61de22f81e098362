"""What a model learns from: an objective runs the student on a batch and returns what to minimise."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib import losses, models
from kdft_lib.data import UNLABELLED, Batch
from kdft_lib.teachers import Teacher

Weight: TypeAlias = float | Callable[[int, int], float]
"""A number, or a schedule: a function of the epoch (from 0) and the number of epochs."""


class Objective(nn.Module):
    """Runs the student once, its teacher at most once, and adds up weighted parts.

    A new objective is a subclass with :meth:`parts`; the rest is done here.

    Args:
        weights: For each part that :meth:`parts` may return, how much it counts.
        teacher: Whom it learns from, if anyone. A batch that carries ``teacher_logits`` spares the call.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If a weight is negative or not finite, or all are 0.
    """

    name: str

    def __init__(self, weights: dict[str, Weight], teacher: nn.Module | Teacher | None = None, class_dim: int = -1):
        super().__init__()
        self.teacher = None if teacher is None else Teacher(teacher)
        self.class_dim = class_dim
        self._schedules = weights
        self.weights: dict[str, float] = {}
        self.before_epoch(0, 1)

    @abstractmethod
    def parts(self, student_logits: Tensor, teacher_logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss by name, unweighted, each a mean.

        Args:
            student_logits: ``(..., C)``, classes last.
            teacher_logits: The same shape, or ``None`` without a teacher.
            batch: The rest of the batch.
        """

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss and its parts on one batch.

        Args:
            model: The student, called once.
            batch: With ``inputs``; ``targets`` where labels count (−100 is no label).

        Returns:
            ``"loss"``, to be minimised, and each part unweighted, as ``"soft_targets/kd"``.
        """
        student_logits = models.logits(model, batch["inputs"]).movedim(self.class_dim, -1)
        teacher_logits = batch.get("teacher_logits")
        if self.teacher is not None and teacher_logits is None:
            teacher_logits = self.teacher(batch["inputs"])
        if teacher_logits is not None:
            teacher_logits = teacher_logits.movedim(self.class_dim, -1)
        mask = batch.get("mask")
        if mask is not None:
            student_logits = student_logits.masked_fill(~mask.unsqueeze(-1), 0.0)
        parts = self.parts(student_logits, teacher_logits, batch)
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return {"loss": loss} | {f"{self.name}/{name}": part for name, part in parts.items()}

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        """Called once, before the optimiser is made; model, random state and data stay as they are."""

    def before_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, counted from 0; schedules of weights move here."""
        for name, schedule in self._schedules.items():
            weight = float(schedule(epoch, epochs) if callable(schedule) else schedule)
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(f"{name}_weight is {weight} at epoch {epoch}; it must be 0 or more and finite")
            self.weights[name] = weight
        if not any(self.weights.values()):
            names = " and ".join(f"{name}_weight" for name in self.weights)
            raise ValueError(f"{names} are 0 at epoch {epoch}; nothing would be learned")

    def extra_repr(self) -> str:
        described = [f"teacher={self.teacher!r}"] if self.teacher is not None else []
        described += [f"{name}_weight={schedule}" for name, schedule in self._schedules.items()]
        return ", ".join([*described, f"class_dim={self.class_dim}"])

    def _cross_entropy(self, logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy over the labelled positions; 0 where a batch has none."""
        targets = batch.get("targets")
        if targets is None:
            raise ValueError(
                f"{type(self).__name__} counts labels (ce_weight), but the batch has no targets;"
                " give labelled data, or set ce_weight=0 to learn from a teacher alone"
            )
        if "mask" in batch:
            targets = targets.masked_fill(~batch["mask"], UNLABELLED)
        labelled = targets != UNLABELLED
        _check_targets(targets, labelled, logits)
        values = F.cross_entropy(
            logits.movedim(-1, 1) if logits.dim() > 1 else logits,
            targets,
            ignore_index=UNLABELLED,
            label_smoothing=label_smoothing,
            reduction="none",
        )
        count = batch["totals"]["labelled"] if "totals" in batch else int(labelled.sum())
        return values.sum() / max(count, 1)

    def _mean(self, values: Tensor, batch: Batch) -> Tensor:
        """Mean over samples, or over the positions that the batch's mask counts."""
        totals, mask = batch.get("totals"), batch.get("mask")
        if mask is not None:
            count = totals["counted"] if totals else int(mask.sum())
            return values.masked_fill(~mask, 0.0).sum() / max(count, 1)
        samples = totals["samples"] if totals else len(values)
        return values.sum() / (values.numel() / len(values) * samples)


class Supervised(Objective):
    """Learn from the labels: cross-entropy, part ``supervised/ce``.

    Args:
        label_smoothing: How much of each label is spread evenly over all classes (Szegedy et al.,
            2016, section 7), from 0 to below 1.
        class_dim: The dimension of the classes in the logits.

    Raises:
        ValueError: If ``label_smoothing`` is out of range; in use, if a batch has no targets, or a
            target is no class.

    Example:
        >>> batch = {"inputs": torch.zeros(2, 3), "targets": torch.tensor([0, 1])}
        >>> sorted(Supervised()(torch.nn.Linear(3, 2), batch))
        ['loss', 'supervised/ce']
    """

    name = "supervised"

    def __init__(self, label_smoothing: float = 0.0, *, class_dim: int = -1):
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be from 0 to below 1")
        super().__init__({"ce": 1.0}, class_dim=class_dim)
        self.label_smoothing = label_smoothing

    def parts(self, student_logits: Tensor, teacher_logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self._cross_entropy(student_logits, batch, self.label_smoothing)}

    def extra_repr(self) -> str:
        return f"label_smoothing={self.label_smoothing}, {super().extra_repr()}"


class LogitObjective(Objective):
    """Learn from a teacher's logits, and from labels where there are any.

    The parts are ``kd``, the mean of :meth:`divergence` over all samples, and ``ce``, the
    cross-entropy over those with a label; a part whose weight is 0 is left out. A new method of this
    kind is a subclass with :meth:`divergence`.

    Args:
        teacher: Any classifier with the student's classes; it is never trained.
        kd_weight: Of the divergence: a number or a schedule.
        ce_weight: Of the cross-entropy: a number or a schedule.
        class_dim: The dimension of the classes in the logits.
    """

    def __init__(self, teacher: nn.Module | Teacher, kd_weight: Weight, ce_weight: Weight, class_dim: int):
        super().__init__({"kd": kd_weight, "ce": ce_weight}, teacher, class_dim)

    @abstractmethod
    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None) -> Tensor:
        """How far the student is from the teacher, for each position: ``(...)``."""

    def parts(self, student_logits: Tensor, teacher_logits: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        parts = {}
        if self.weights["kd"]:
            assert teacher_logits is not None
            values = self.divergence(student_logits, teacher_logits, batch.get("mask"))
            parts["kd"] = self._mean(values, batch)
        if self.weights["ce"]:
            parts["ce"] = self._cross_entropy(student_logits, batch)
        return parts


class SoftTargets(LogitObjective):
    """Learn from the teacher's distribution (Hinton, Vinyals and Dean, 2015), and from labels where
    there are any: parts ``soft_targets/kd`` and ``soft_targets/ce``.

    Args:
        teacher: Any classifier with the student's classes; it is never trained.
        temperature: Positive; see :func:`kdft_lib.losses.soft_target_loss`.
        kd_weight: Of the distillation loss, on all samples: a number or a schedule. The defaults,
            0.9 and 0.1, are the usual setting on CIFAR-100 (Tian et al., 2020).
        ce_weight: Of the cross-entropy, on the samples with labels; 0 needs none.
        class_dim: The dimension of the classes in the logits.

    Raises:
        ValueError: If the temperature or a weight is out of range; in use, if shapes do not match.

    Example:
        >>> objective = SoftTargets(torch.nn.Linear(3, 2), temperature=2.0, kd_weight=1.0, ce_weight=0.0)
        >>> sorted(objective(torch.nn.Linear(3, 2), {"inputs": torch.zeros(4, 3)}))
        ['loss', 'soft_targets/kd']
    """

    name = "soft_targets"

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        temperature: float = 4.0,
        kd_weight: Weight = 0.9,
        ce_weight: Weight = 0.1,
        *,
        class_dim: int = -1,
    ):
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}; it must be positive and finite")
        super().__init__(teacher, kd_weight, ce_weight, class_dim)
        self.temperature = temperature

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None) -> Tensor:
        return losses.soft_target_loss(student_logits, teacher_logits, self.temperature, mask=mask, reduction="none")

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, {super().extra_repr()}"


class HardTargets(LogitObjective):
    """Learn from the teacher's decisions, and from labels where there are any: parts
    ``hard_targets/kd`` and ``hard_targets/ce``.

    Args:
        teacher: Any classifier with the student's classes; it is never trained.
        kd_weight: Of the cross-entropy with the teacher's decision, on all samples: a number or a
            schedule. The defaults are those of :class:`SoftTargets`, so that the two compare.
        ce_weight: Of the cross-entropy with the labels, on the samples that have one; 0 needs none.
        class_dim: The dimension of the classes in the logits.

    Raises:
        ValueError: If a weight is out of range; in use, if shapes do not match.

    Example:
        >>> objective = HardTargets(torch.nn.Linear(3, 2), kd_weight=1.0, ce_weight=0.0)
        >>> sorted(objective(torch.nn.Linear(3, 2), {"inputs": torch.zeros(4, 3)}))
        ['hard_targets/kd', 'loss']
    """

    name = "hard_targets"

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        kd_weight: Weight = 0.9,
        ce_weight: Weight = 0.1,
        *,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight, ce_weight, class_dim)

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None) -> Tensor:
        return losses.hard_target_loss(student_logits, teacher_logits, reduction="none")


def _check_targets(targets: Tensor, labelled: Tensor, logits: Tensor) -> None:
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)};"
            f" it must be int64, {tuple(logits.shape[:-1])}, a class index for each position"
        )
    outside = labelled & ((targets < 0) | (targets >= logits.shape[-1]))
    if outside.any():
        raise ValueError(
            f"targets holds {int(targets[outside][0])}; it must be from 0 to {logits.shape[-1] - 1},"
            f" or {UNLABELLED} for no label"
        )
