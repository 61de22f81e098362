"""What all objectives share: one call of the student, one of each teacher, weights that may follow a
schedule, sums, and means over the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib import features
from kdft_lib.data import UNLABELED, Batch, batches
from kdft_lib.features import Outputs
from kdft_lib.objectives.checks import Weight, named, refuse_sparse, weight_at
from kdft_lib.objectives.labels import binary_cross_entropies, check_classes, check_weight
from kdft_lib.objectives.numbers import Loss
from kdft_lib.teachers import Teacher

if TYPE_CHECKING:
    from kdft_lib.objectives.sum import Sum

_NO_SETTINGS = {
    "training", "teacher", "class_dim", "student_layers", "teacher_layers", "reads_logits", "takes_sparse", "weights",
}  # fmt: skip
"""Attributes of every objective that its text shows otherwise, or not at all."""


class Objective(nn.Module):
    """Runs the student once, its teacher at most once, and adds up weighted parts.

    Elsewhere it is called a criterion, or simply the loss. A new objective is a subclass with a ``name`` and
    :meth:`parts`, which may use :meth:`mean`, :meth:`whole_batch` and :meth:`cross_entropy`; the rest is done
    here. Objectives add with ``+`` and scale with ``*``, by a number or a schedule.

    Args:
        weights: How much each part that :meth:`parts` may return counts, by name: a number or a schedule.
        teacher: The model to learn from; by default there is none. A batch that carries ``teacher_logits``
            spares the call where no features are asked for.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.
        student_layers: The student's layers whose outputs :meth:`parts` reads, by their names in
            ``model.named_modules()``.
        teacher_layers: The teacher's layers whose outputs :meth:`parts` reads, by name.

    Raises:
        ValueError: If a weight is negative or not finite, or all are 0.

    Example:
        >>> class Confidence(Objective):
        ...     name = "confidence"
        ...
        ...     def parts(self, student, teacher, batch):
        ...         return {"entropy": -(student.logits.softmax(-1) * student.logits.log_softmax(-1)).sum(-1).mean()}
        >>> Confidence({"entropy": 1.0})(nn.Identity(), {"inputs": torch.zeros(4, 2)})["loss"]
        tensor(0.6931)
    """

    name: str
    takes_sparse = False
    _labels = "labeled"  # Among the totals, what a mean over labels divides by.
    _weighs = False  # Whether it says what counts, as where labels count unequally.

    def __init__(
        self,
        weights: dict[str, Weight],
        *,
        teacher: nn.Module | Teacher | None = None,
        class_dim: int = -1,
        student_layers: Sequence[str] = (),
        teacher_layers: Sequence[str] = (),
    ):
        super().__init__()
        self.teacher = None if teacher is None else Teacher(teacher)
        self.class_dim = class_dim
        self.student_layers, self.teacher_layers = tuple(student_layers), tuple(teacher_layers)
        self.reads_logits = not self.teacher_layers
        self._schedules = dict(weights)
        self.weights: dict[str, float] = {}
        self._follow(0, 1)
        if not any(callable(weight) or weight for weight in weights.values()):
            raise ValueError(f"{named(weights)} are 0; nothing would be learned")

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss by name, unweighted, each a mean.

        Args:
            student: What the student gave: ``logits``, ``(..., C)``, classes last and 0 where the batch's mask
                is false, the ``features`` asked for, by layer, and the ``model``.
            teacher: What the teacher gave, likewise, or ``None`` without one.
            batch: The batch, with whatever columns it came with.
        """
        raise NotImplementedError(f"{type(self).__name__} has no parts(student, teacher, batch)")

    def forward(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The loss and its parts on one batch.

        The student runs in the precision of the caller's autocast, teacher and losses in float32.

        Args:
            model: The student, which is called once.
            batch: A dict with ``inputs``, and with ``targets`` where labels count (−100 is no label).

        Returns:
            ``"loss"``, to be minimised, and each part unweighted, as ``"soft_targets/kd"``; of two
            objectives with the same name, the second is ``"soft_targets_2/kd"``.
        """
        terms = list(self.terms())
        layers = dict.fromkeys(layer for _, term in terms for layer in term.student_layers)
        student = features.outputs(model, batch["inputs"], layers)
        with torch.autocast(student.logits.device.type, enabled=False):
            taught = self._ask_teachers([term for _, term in terms], batch)
            names: dict[str, int] = {}
            weighted, found = [], {}
            for factor, term in terms:
                names[term.name] = names.get(term.name, 0) + 1
                name = term.name if names[term.name] == 1 else f"{term.name}_{names[term.name]}"
                teacher = taught[id(term.teacher.model)] if term.teacher is not None else None
                theirs = None if teacher is None else term._seen(teacher, batch)
                for part, value in term.parts(term._seen(student, batch), theirs, batch).items():
                    weighted.append(factor * term.weights[part] * value)
                    found[f"{name}/{part}"] = value
            return {"loss": torch.stack(weighted).sum()} | found

    def terms(self) -> Iterator[tuple[float, Objective]]:
        """What it is the sum of, each with the factor that counts now."""
        yield 1.0, self

    @property
    def scored_by(self) -> Loss | None:
        """What validation scores it by, in place of accuracy and cross-entropy."""
        return next((loss for _, term in self.terms() if term is not self and (loss := term.scored_by)), None)

    def teachers(self) -> list[Teacher]:
        """Those it learns from, each once."""
        return list({id(term.teacher.model): term.teacher for _, term in self.terms() if term.teacher}.values())

    @property
    def taught_by_data(self) -> bool:
        """Whether answers that come with the data take a teacher's place."""
        return any(term.taught_by_data for _, term in self.terms() if term is not self)

    @property
    def weighs(self) -> bool:
        """Whether what a step counts is known only when it is made, so that it is to be added up first; see
        :meth:`weighed`."""
        return any(term._weighs for _, term in self.terms())

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        """Called once, before the optimiser is made; model, random state and data stay as they are."""

    def before_step(self, model: nn.Module, batch: Batch) -> Batch:
        """Called with each part of a step, before what counts in them is added up; the batch to learn from, by default
        the one that was drawn, whose ``begins`` says how many samples of the step come before it. Only a term that
        stands alone is asked, since a sum's all learn from one batch."""
        return batch

    def before_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch, counted from 0; schedules of weights move here."""
        self._follow(epoch, epochs)

    def __add__(self, other: Objective) -> Sum:
        from kdft_lib.objectives.sum import Sum

        return Sum([self, other]) if isinstance(other, Objective) else NotImplemented

    def __mul__(self, factor: Weight) -> Sum:
        from kdft_lib.objectives.sum import Sum

        return Sum([self], factors=[factor]) if callable(factor) or isinstance(factor, int | float) else NotImplemented

    __rmul__ = __mul__

    def mean(self, values: Tensor, batch: Batch, shape: torch.Size | None = None) -> Tensor:
        """The mean over the samples of the whole step, or over the positions that the batch's mask counts.

        It divides by what all processes hold together, and all parts where ``accumulate`` cuts a batch, so that
        their sum is the mean; ``values.mean()`` would be the mean over a share.

        Args:
            values: The values to average, ``(N,)``, one for each sample, or ``(N, ...)``, one for each position.
                Where the batch has a ``mask`` of the same shape, the others may hold anything.
            batch: The batch that they belong to.
            shape: Where ``values`` are already a sum, over those that count: the shape of what was added up.

        Returns:
            A scalar.
        """
        totals, mask = batch.get("totals"), batch.get("mask")
        if shape is None:
            shape = values.shape
            if mask is not None and mask.shape == shape:
                values = values.masked_fill(~mask, 0.0)
        if mask is not None and mask.shape == shape:
            count = totals["counted"] if totals else int(mask.sum())
            return values.sum() / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
        return values.sum() / (math.prod(shape[1:]) * (totals["samples"] if totals else shape[0]))

    def whole_batch(self, value: Tensor, batch: Batch) -> Tensor:
        """One value of the whole step, such as a penalty or a relation between samples, divided among the
        processes and the parts of a batch that each add it.

        Args:
            value: The value of the batch, a scalar.
            batch: The batch that it belongs to.

        Returns:
            A scalar, the batch's share.
        """
        totals = batch.get("totals")
        return value * (batches.size(batch) / totals["samples"]) if totals else value

    def weighed(self, batch: Batch) -> dict[str, Tensor]:
        """What weighted labels weigh together, or what else is known of a step only when it is made, by the names of
        the terms' totals: the loop adds it up over the parts and processes of a step, and hands it back among the
        batch's ``totals``."""
        found: dict[str, Tensor] = {}
        for _, term in self.terms():
            if term._weighs:
                found |= term._weighed(batch)
        return found

    def cross_entropy(
        self,
        logits: Tensor,
        batch: Batch,
        *,
        label_smoothing: float = 0.0,
        multi_label: bool = False,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The mean cross-entropy with the batch's targets over the labelled positions of the whole step.

        Args:
            logits: The student's logits, ``(..., C)``, classes last, as :meth:`parts` gets them.
            batch: The batch, whose ``targets`` are classes ``(...)``, −100 where there is no label, or, for
                several labels at once, ``(..., C)`` from 0 to 1.
            label_smoothing: How much of each label is spread evenly over all classes.
            multi_label: Whether classes do not exclude one another; the cross-entropy is then binary.
            weight: How much each class counts, ``(C,)``; all alike by default. The sum is divided by the number of
                labels, unless ``_label_weights`` says what they weigh, as that of :class:`Supervised` does.

        Returns:
            A scalar, 0 where the batch has no label.

        Raises:
            ValueError: If the batch has no targets, or some that are no class.
        """
        targets, totals = self._targets(batch), batch.get("totals")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if "mask" in batch:
            mask = batch["mask"].unsqueeze(-1) if multi_label else batch["mask"]
            targets = targets.masked_fill(~mask, UNLABELED)
        if multi_label:
            return self._mean_over_labels(binary_cross_entropies(logits, targets), batch)
        classes = targets.dtype == torch.int64 and targets.shape == logits.shape[:-1]
        if not (classes and totals and 0 <= totals.get("lowest", -1) <= totals["highest"] < logits.shape[-1]):
            check_classes(self, logits, targets, totals)
        if weight is not None:
            check_weight(weight, logits)
            weight = weight.to(logits, non_blocking=True)
        # Where the classes lie last in memory, as in language models, each position is a row of a table: nothing is
        # copied, and it takes less than half the time that classes in the middle do.
        table = logits.dim() < 3 or logits.is_contiguous()
        values = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]) if table else logits.movedim(-1, 1),
            targets.reshape(-1) if table else targets, weight=weight, ignore_index=UNLABELED,
            label_smoothing=label_smoothing, reduction="none",
        )  # fmt: skip
        return self._mean_over_labels(values, batch)

    def extra_repr(self) -> str:
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        described = [f"{name}={value!r}" for name, value in settings.items() if name not in _NO_SETTINGS]
        described += [f"teacher={self.teacher!r}"] if self.teacher is not None else []
        described += [f"{name}_weight={schedule}" for name, schedule in self._schedules.items()]
        return ", ".join([*described, f"class_dim={self.class_dim}"])

    def _follow(self, epoch: int, epochs: int) -> None:
        for name, schedule in self._schedules.items():
            self.weights[name] = weight_at(f"{name}_weight", schedule, epoch, epochs)

    def _ask_teachers(self, terms: list[Objective], batch: Batch) -> dict[int, Outputs]:
        """What each teacher gives, run once, or not at all where its logits came with the batch."""
        asking: dict[int, tuple[Teacher, list[Objective]]] = {}
        for term in terms:
            if term.teacher is not None:
                asking.setdefault(id(term.teacher.model), (term.teacher, []))[1].append(term)
        taught = {}
        cached = batch.get("teacher_logits")
        for model, (teacher, askers) in asking.items():
            layers = list(dict.fromkeys(layer for term in askers for layer in term.teacher_layers))
            answer = teacher.outputs(batch["inputs"], layers) if layers or cached is None else None
            if cached is not None and any(term.reads_logits for term in askers):
                answer = Outputs(cached, answer.features if answer is not None else {})
            if answer is not None:
                taught[model] = answer
        return taught

    def _seen(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Outputs with the classes last, and zeros where nothing counts, so that nothing comes from there."""
        if isinstance(outputs.logits, Mapping):
            if self.reads_logits and not self.takes_sparse:
                refuse_sparse(type(self).__name__, outputs.logits)
            return outputs
        logits = outputs.logits.movedim(self.class_dim, -1)
        mask = batch.get("mask")
        if mask is not None and self.reads_logits:
            if mask.shape != logits.shape[:-1]:
                raise ValueError(
                    f"mask has shape {tuple(mask.shape)}; it must be {tuple(logits.shape[:-1])}, one entry for each"
                    " position of the logits"
                )
            if not _all_count(mask, batch):
                logits = logits.masked_fill(~mask.unsqueeze(-1), 0.0)
        return replace(outputs, logits=logits)

    def _targets(self, batch: Batch) -> Tensor:
        if batch.get("targets") is None:
            raise ValueError(
                f"{type(self).__name__} counts labels, but the batch has no targets; give labelled data"
                + (", or set ce_weight=0 to learn from a teacher alone" if self.teacher is not None else "")
            )
        return batch["targets"]

    def _weighed(self, batch: Batch) -> dict[str, Tensor]:
        return {} if batch.get("targets") is None else {self._labels: self._label_weights(batch).sum()}

    def _label_weights(self, batch: Batch) -> Tensor:
        """How much each target counts, true and false alone where all labels count alike."""
        labeled = batches.has_label(batch["targets"])
        return labeled & batch["mask"] if "mask" in batch else labeled

    def _mean_over_labels(self, values: Tensor, batch: Batch) -> Tensor:
        """Values, 0 where there is no label, over what the labels of the whole step weigh together."""
        total = batch["totals"][self._labels] if "totals" in batch else self._label_weights(batch).sum()
        return values.sum() / (total.clamp(min=1e-30) if isinstance(total, Tensor) else total or 1)


def _all_count(mask: Tensor, batch: Batch) -> bool:
    """Whether the totals, which the CPU knows, say that this is the whole step and no position is left out."""
    totals = batch.get("totals", {"samples": None})
    whole = totals["samples"] == len(mask) and isinstance(totals["counted"], int)
    return whole and totals["counted"] == mask.numel()
