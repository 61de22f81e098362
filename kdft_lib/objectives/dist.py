"""Learn the relations between a teacher's probabilities, over a whole batch."""

from __future__ import annotations

from torch import Tensor, nn

from kdft_lib import losses
from kdft_lib.data import Batch
from kdft_lib.losses.checks import check_weights, positive
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.logits import LogitObjective
from kdft_lib.objectives.processes import everywhere
from kdft_lib.teachers import Teacher


class DIST(LogitObjective):
    """Learn the relations between the teacher's probabilities: DIST, knowledge distillation from a stronger teacher
    (Huang et al., 2022), and learn from labels: parts ``dist/kd`` and ``dist/ce``.

    A loss of the whole batch: of all processes together, and of each part where ``accumulate`` cuts the
    batch.

    Args:
        teacher: The model to learn from, any classifier with the student's classes; it is never trained.
        temperature: The temperature of both distributions, positive. The authors take 1 on ImageNet and 4 on
            CIFAR-100.
        inter_weight: How much the relations within a sample count; see :func:`kdft_lib.losses.dist_loss`.
        intra_weight: How much the relations within a class count.
        kd_weight: How much the distillation loss counts: a number or a schedule; 2 is the authors' weight of
            both relations.
        ce_weight: How much the cross-entropy counts, on the samples with labels; 0 needs none.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If an argument is out of range; in use, if shapes do not match, or for a batch of one.

    Example:
        >>> objective = DIST(nn.Linear(3, 2), ce_weight=0.0)
        >>> sorted(objective(nn.Linear(3, 2), {"inputs": torch.randn(4, 3)}))
        ['dist/kd', 'loss']
    """

    name = "dist"
    _of_classes = True

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        *,
        temperature: float = 1.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        kd_weight: Weight = 2.0,
        ce_weight: Weight = 1.0,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)
        self.temperature = positive("temperature", temperature)
        check_weights(inter_weight=inter_weight, intra_weight=intra_weight)
        self.inter_weight, self.intra_weight = inter_weight, intra_weight

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        mask = batch.get("mask")
        if mask is not None:
            student_logits, teacher_logits = student_logits[mask], teacher_logits[mask]
        student_logits, teacher_logits = (
            everywhere(student_logits.flatten(0, -2)),
            everywhere(teacher_logits.flatten(0, -2)),
        )
        weights = self.inter_weight, self.intra_weight
        return losses.dist_loss(student_logits, teacher_logits, *weights, self.temperature)

    def _kd(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return self.whole_batch(self.divergence(student_logits, teacher_logits, batch), batch)
