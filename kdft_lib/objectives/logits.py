"""Learn from a teacher's logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdft_lib import losses, models
from kdft_lib.data import UNLABELED, Batch, batches
from kdft_lib.features import Outputs
from kdft_lib.losses.checks import check_targets, check_weights, positive, readable
from kdft_lib.losses.divergences import DECOUPLED, FORWARD_KL, rowwise
from kdft_lib.losses.sparse import Answers, check_classes
from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.labels import check_padding, refuse_numbers, refuse_single
from kdft_lib.teachers import Teacher


class LogitObjective(Objective):
    """Learn from a teacher's logits, and from labels where there are any: response-based, or logit-based,
    distillation.

    The parts are ``kd``, the mean of :meth:`divergence` over all samples, and ``ce``, the
    cross-entropy over those with a label; a part whose weight is 0 is left out. A new method of this
    kind is a subclass with a ``name`` and :meth:`divergence`; what it sets as attributes is shown in its text. One
    that can learn from a few of the classes sets ``takes_sparse``, and may get what
    :func:`kdft_lib.teachers.compress` gives in place of the teacher's logits.

    Args:
        teacher: The model to learn from, any classifier with the student's classes; it is never trained. ``None``
            where the data brings answers.
        kd_weight: How much the divergence counts, on all samples: a number or a schedule.
        ce_weight: How much the cross-entropy counts, on the samples with labels; 0 needs none.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Example:
        >>> class Cosine(LogitObjective):
        ...     name = "cosine"
        ...
        ...     def divergence(self, student_logits, teacher_logits, batch):
        ...         return 1 - torch.cosine_similarity(student_logits, teacher_logits, dim=-1)
        >>> objective = Cosine(torch.nn.Linear(3, 2))
        >>> sorted(objective(torch.nn.Linear(3, 2), {"inputs": torch.ones(4, 3)}))
        ['cosine/kd', 'loss']
    """

    multi_label = False
    _of_classes = False  # Whether it compares distributions, of which there is one alone over one class.

    def __init__(
        self,
        teacher: nn.Module | Teacher | None,
        *,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 0.0,
        class_dim: int = -1,
    ):
        super().__init__({"kd": kd_weight, "ce": ce_weight}, teacher=teacher, class_dim=class_dim)

    @property
    def taught_by_data(self) -> bool:
        return self.teacher is None

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        answers = first_batch.get("teacher_logits")
        if self.takes_sparse and isinstance(answers, Mapping) and not readable(answers["indices"]):
            # Losses look at no value on a GPU, so that no step waits; here one may.
            few = batches.apply({"inputs": first_batch["inputs"]}, lambda column: column[:2])["inputs"]
            with models.evaluation_mode(model):
                logits = models.logits(model, few)
            check_classes(logits.shape[self.class_dim], answers)

    @abstractmethod
    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        """How far the student is from the teacher, for each position.

        Args:
            student_logits: The student's logits, ``(..., C)``, classes last.
            teacher_logits: The teacher's logits, ``(..., C)``, without gradient.
            batch: The batch, with whatever columns it came with.

        Returns:
            ``(...)``; :meth:`Objective.mean` averages it.
        """

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        teacher = teacher or self._answers(batch)
        if "mask" not in batch and isinstance(batch["inputs"], Mapping):
            check_padding(self, student.logits, batch["inputs"])
        parts = {}
        if self.weights["kd"]:
            targets = batch.get("targets")
            if targets is not None and targets.is_floating_point() and targets.shape == student.logits.shape:
                self._check_numbers(targets)
            if self._of_classes and (student.logits.dim() == 1 or student.logits.shape[-1] == 1):
                refuse_single(self, student.logits)
            parts["kd"] = self._kd(student.logits, teacher.logits, batch)
        if self.weights["ce"]:
            parts["ce"] = self._ce(student.logits, teacher.logits, batch)
        return parts

    def _check_numbers(self, targets: Tensor) -> None:
        """Refuse a divergence of distributions over classes where targets are none."""
        refuse_numbers(self, targets)

    def _answers(self, batch: Batch) -> Outputs:
        """What the data says in place of a teacher."""
        if batch.get("teacher_logits") is None:
            raise ValueError(
                f"{type(self).__name__} has no teacher, and the batch no answers; give it a teacher, or the data what"
                " something else said: kdft_lib.teachers.answers(data, probabilities=…, source=…)"
            )
        return self._seen(Outputs(batch["teacher_logits"]), batch)

    def _kd(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return self.mean(self.divergence(student_logits, teacher_logits, batch), batch)

    def _ce(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return self.cross_entropy(student_logits, batch, multi_label=self.multi_label)


class SoftTargets(LogitObjective):
    """Learn from the teacher's distribution (Hinton, Vinyals and Dean, 2015), and from labels where
    there are any: parts ``soft_targets/kd`` and ``soft_targets/ce``.

    This is what most people mean by knowledge distillation: vanilla KD, classical or Hinton's KD,
    response-based distillation. With ``standardize`` it is logit standardisation.

    Args:
        teacher: The model to learn from, any classifier with the student's classes; it is never trained. Without
            one, what comes with the data teaches; see :func:`kdft_lib.teachers.answers`.
        temperature: The temperature of both distributions, positive; see
            :func:`kdft_lib.losses.soft_target_loss`.
        kd_weight: How much the distillation loss counts, on all samples: a number or a schedule. The defaults,
            0.9 and 0.1, are the usual setting on CIFAR-100 (Tian et al., 2020).
        ce_weight: How much the cross-entropy counts, on the samples with labels; 0 needs none.
        standardize: Whether standardised logits are compared (Sun et al., 2024; there with ``temperature=2``,
            ``kd_weight=9``), so that the student need not find the teacher's scale.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If the temperature or a weight is out of range; in use, if shapes do not match.

    Example:
        >>> objective = SoftTargets(torch.nn.Linear(3, 2), temperature=2.0, kd_weight=1.0, ce_weight=0.0)
        >>> sorted(objective(torch.nn.Linear(3, 2), {"inputs": torch.zeros(4, 3)}))
        ['loss', 'soft_targets/kd']
    """

    name = "soft_targets"
    _of_classes = True

    def __init__(
        self,
        teacher: nn.Module | Teacher | None = None,
        *,
        temperature: float = 4.0,
        kd_weight: Weight = 0.9,
        ce_weight: Weight = 0.1,
        standardize: bool = False,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)
        self.temperature = positive("temperature", temperature)
        self.standardize, self.takes_sparse = standardize, not standardize

    def divergence(self, student_logits: Tensor, teacher_logits: Answers, batch: Batch) -> Tensor:
        if self.standardize:
            assert isinstance(teacher_logits, Tensor)
            student_logits, teacher_logits = _standardized(student_logits, teacher_logits)
        if isinstance(teacher_logits, Tensor):
            return rowwise(FORWARD_KL, student_logits, teacher_logits, self.temperature)
        return losses.soft_target_loss(student_logits, teacher_logits, self.temperature, reduction="none")


class HardTargets(LogitObjective):
    """Learn from the teacher's decisions, and from labels where there are any: parts
    ``hard_targets/kd`` and ``hard_targets/ce``. Also known as pseudo-labels, or hard-label distillation.

    Args:
        teacher: The model to learn from, any classifier with the student's classes; it is never trained. Without
            one, what comes with the data teaches; see :func:`kdft_lib.teachers.answers`.
        kd_weight: How much the cross-entropy with the teacher's decision counts, on all samples: a number or
            a schedule. The defaults are those of :class:`SoftTargets`, so that the two compare.
        ce_weight: How much the cross-entropy with the labels counts, on the samples that have one; 0 needs none.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If a weight is out of range; in use, if shapes do not match.

    Example:
        >>> objective = HardTargets(torch.nn.Linear(3, 2), kd_weight=1.0, ce_weight=0.0)
        >>> sorted(objective(torch.nn.Linear(3, 2), {"inputs": torch.zeros(4, 3)}))
        ['hard_targets/kd', 'loss']
    """

    name = "hard_targets"
    _of_classes = True
    takes_sparse = True

    def __init__(
        self,
        teacher: nn.Module | Teacher | None = None,
        *,
        kd_weight: Weight = 0.9,
        ce_weight: Weight = 0.1,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)

    def divergence(self, student_logits: Tensor, teacher_logits: Answers, batch: Batch) -> Tensor:
        return losses.hard_target_loss(student_logits, teacher_logits, reduction="none")


class LogitMatching(LogitObjective):
    """Learn the teacher's logits themselves (Ba and Caruana, 2014), and labels where there are any:
    parts ``logit_matching/kd`` and ``logit_matching/ce``. Also known as logit regression, or MSE distillation.

    Outputs need not be logits: of numbers, it is the distillation of regression. There labels are learned beside it,
    by ``LogitMatching(teacher) + Supervised(loss=F.mse_loss)``.

    Args:
        teacher: The model to learn from, any with the student's outputs; it is never trained.
        kd_weight: How much the squared distance of the logits counts: a number or a schedule. As in the paper,
            labels take no part by default.
        ce_weight: How much the cross-entropy counts, on the samples with labels.
        multi_label: Whether the classes do not exclude one another; the cross-entropy is then that of
            ``Supervised(multi_label=True)``.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If a weight is out of range; in use, if shapes do not match.

    Example:
        >>> sorted(LogitMatching(torch.nn.Linear(3, 2))(torch.nn.Linear(3, 2), {"inputs": torch.zeros(4, 3)}))
        ['logit_matching/kd', 'loss']
    """

    name = "logit_matching"

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        *,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 0.0,
        multi_label: bool = False,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)
        self.multi_label = multi_label

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        if student_logits.dim() == 1:  # One output for each sample, without a dimension of its own.
            student_logits, teacher_logits = student_logits.unsqueeze(-1), teacher_logits.unsqueeze(-1)
        return losses.logit_mse_loss(student_logits, teacher_logits, reduction="none")

    def _check_numbers(self, targets: Tensor) -> None:
        """Outputs of any kind have a distance."""


class DKD(LogitObjective):
    """Distil the target class and the others apart: decoupled knowledge distillation, DKD (Zhao et al., 2022), and
    learn from labels: parts ``dkd/kd`` and ``dkd/ce``.

    In epoch e of E, counted from 0, the distillation counts ``kd_weight`` times min((e + 1) / (``warmup`` · E), 1).
    Where a sample has no label, the teacher's decision takes the place of the target class; the paper
    has labels everywhere.

    Args:
        teacher: The model to learn from, any classifier with the student's classes; it is never trained.
        alpha: How much the target class counts; see :func:`kdft_lib.losses.dkd_loss` for the defaults.
        beta: How much the other classes count.
        temperature: The temperature of both distributions, positive.
        kd_weight: How much the distillation loss counts: a number or a schedule.
        ce_weight: How much the cross-entropy counts, on the samples with labels; 0 needs none.
        warmup: The fraction of the run over which ``kd_weight`` grows to its value, evenly, from 0 (no warm-up)
            to 1. The default is that of the authors' code on CIFAR-100, 20 epochs of 240.
        standardize: Whether standardised logits are compared (Sun et al., 2024).
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If an argument is out of range; in use, if shapes do not match.

    Example:
        >>> objective = DKD(torch.nn.Linear(3, 2), warmup=0.4)
        >>> objective.before_epoch(1, 10)
        >>> objective.weights
        {'kd': 0.5, 'ce': 1.0}
    """

    name = "dkd"
    _of_classes = True

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 1.0,
        warmup: float = 20 / 240,
        standardize: bool = False,
        class_dim: int = -1,
    ):
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup is {warmup}; it must be from 0 to 1, a fraction of the run")
        self.warmup = warmup  # Read as soon as there are weights.
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)
        check_weights(alpha=alpha, beta=beta)
        self.alpha, self.beta, self.temperature = alpha, beta, positive("temperature", temperature)
        self.standardize = standardize

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        targets = teacher_logits.argmax(dim=-1)
        if "targets" in batch:
            labeled = batch["targets"] != UNLABELED
            if "mask" in batch:
                labeled = labeled & batch["mask"]
            check_targets(batch["targets"], student_logits, labeled, batch.get("totals"))
            targets = torch.where(labeled, batch["targets"], targets)
        if self.standardize:
            student_logits, teacher_logits = _standardized(student_logits, teacher_logits)
        return rowwise(DECOUPLED, student_logits, teacher_logits, self.temperature, targets, self.alpha, self.beta)

    def _follow(self, epoch: int, epochs: int) -> None:
        super()._follow(epoch, epochs)
        if self.warmup:
            self.weights["kd"] *= min((epoch + 1) / (self.warmup * epochs), 1.0)


def _standardized(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    return losses.standardize_logits(student), losses.standardize_logits(teacher)
