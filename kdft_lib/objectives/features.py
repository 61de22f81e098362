"""Learn from what a teacher computes on the way."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from kdft_lib import features, losses, models
from kdft_lib.data import Batch, batches
from kdft_lib.features import Outputs
from kdft_lib.losses.checks import positive
from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.processes import everywhere
from kdft_lib.teachers import Teacher


class FeatureObjective(Objective):
    """Compare one layer of the student with one of the teacher: feature-based distillation, also called
    intermediate-layer distillation. Labels take no part: add :class:`Supervised`.

    A new method of this kind is a subclass with a ``name`` and :meth:`compare`.

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by its name in ``model.named_modules()``.
        teacher_layer: The layer of the teacher, by its name there.
        weights: How much each part that :meth:`compare` returns counts, by name: a number or a schedule.

    Raises:
        ValueError: If the teacher has no such layer; in use, if the student has none, or if the
            features do not go together.

    Example:
        >>> class SameSize(FeatureObjective):
        ...     name = "same_size"
        ...
        ...     def compare(self, student, teacher, batch):
        ...         return {"norm": self.mean((student.norm(dim=1) - teacher.norm(dim=1)).square(), batch)}
        >>> student, teacher = (nn.Sequential(nn.Linear(3, size)) for size in (4, 6))
        >>> objective = SameSize(teacher, "0", "0", weights={"norm": 1.0})
        >>> sorted(objective(student, {"inputs": torch.zeros(5, 3)}))
        ['loss', 'same_size/norm']
    """

    teacher: Teacher

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        student_layer: str,
        teacher_layer: str,
        *,
        weights: dict[str, Weight],
    ):
        super().__init__(weights, teacher=teacher, student_layers=[student_layer], teacher_layers=[teacher_layer])
        features.find(self.teacher.model, teacher_layer, "teacher_layer")

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss by name, unweighted, each a mean over the whole step.

        Args:
            student: The student layer's output, in float32.
            teacher: The teacher layer's output, without gradient.
            batch: The batch, with whatever columns it came with.
        """

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        assert teacher is not None
        ours, theirs = student.features[self.student_layers[0]], teacher.features[self.teacher_layers[0]]
        if ours.dtype in (torch.float16, torch.bfloat16):
            ours = ours.float()
        return self.compare(ours, theirs, batch)

    def extra_repr(self) -> str:
        return f"{self.student_layers[0]!r}, {self.teacher_layers[0]!r}, {super().extra_repr()}"


class _Projected(FeatureObjective):
    """Compare through a layer that is trained along, from the student's channels to the teacher's."""

    def __init__(
        self, teacher: nn.Module | Teacher, student_layer: str, teacher_layer: str, *, weights: dict[str, Weight]
    ):
        super().__init__(teacher, student_layer, teacher_layer, weights=weights)
        self.regressor: nn.Module | None
        self.register_module("regressor", None)

    def __repr__(self) -> str:
        """Without the regressor, which each run makes anew, so that a run is told again by the same words."""
        return f"{type(self).__name__}({self.extra_repr()})"

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        few = batches.apply({"inputs": first_batch["inputs"]}, lambda column: column[:2])["inputs"]
        device = next(iter(few.values()) if isinstance(few, dict) else iter([few])).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with models.evaluation_mode(model):
                ours = features.outputs(model, few, self.student_layers).features[self.student_layers[0]]
            theirs = self.teacher.outputs(few, self.teacher_layers).features[self.teacher_layers[0]]
            self._check_positions(ours, theirs)
            self.regressor = (
                nn.Conv2d(ours.shape[1], theirs.shape[1], 1)
                if ours.dim() == 4
                else nn.Linear(ours.shape[-1], theirs.shape[-1])
            ).to(device, torch.promote_types(ours.dtype, torch.float32))

    def projected(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The student's features, of the teacher's shape."""
        if self.regressor is None:
            name = type(self).__name__
            raise ValueError(f"{name} has no regressor yet; fit makes it, or objective.prepare(model, batch)")
        self._check_positions(student, teacher)
        projected: Tensor = self.regressor(student)
        return projected

    def _check_positions(self, student: Tensor, teacher: Tensor) -> None:
        channels = 1 if student.dim() == 4 else -1
        places = [list(shape) for shape in (student.shape, teacher.shape)]
        for place in places:
            place[channels] = 0
        if places[0] != places[1] or student.dim() < 2:
            raise ValueError(
                f"student_layer {self.student_layers[0]!r} gives {tuple(student.shape)} and teacher_layer"
                f" {self.teacher_layers[0]!r} {tuple(teacher.shape)}; but for the channels both must be alike:"
                " name layers of the same resolution"
            )


class Hint(_Projected):
    """Match a layer of the teacher through a trained regressor: FitNets (Romero et al., 2015), also known as hint
    learning or feature matching, part ``hint/feature``.

    The regressor goes from the student's channels to the teacher's, a 1×1 convolution on maps
    ``(N, C, H, W)``, a linear layer on vectors ``(N, D)`` and tokens ``(N, L, D)``. Its sizes are found
    by running both once, it starts anew with each :func:`~kdft_lib.training.fit`, is trained at the
    strategy's highest rate, and is no part of the student.

    Romero et al. train the hint alone first, and labels and soft targets after it. Added to another objective it is
    trained along with it, as benchmarks do, at the usual factor of 100 (Tian et al., 2020):
    ``Supervised() + 100 * Hint(teacher, "body.3", "block2")``.

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by its name in ``model.named_modules()``: the guided layer.
        teacher_layer: The layer of the teacher, by its name there: the hint.

    Raises:
        ValueError: If a layer does not exist; in use, if the two have different positions.

    Example:
        >>> student, teacher = (nn.Sequential(nn.Linear(3, size), nn.Linear(size, 2)) for size in (4, 6))
        >>> objective = Hint(teacher, "0", "0")
        >>> batch = {"inputs": torch.zeros(5, 3)}
        >>> objective.prepare(student, batch)
        >>> objective.regressor, sorted(objective(student, batch))
        (Linear(in_features=4, out_features=6, bias=True), ['hint/feature', 'loss'])
    """

    name = "hint"

    def __init__(self, teacher: nn.Module | Teacher, student_layer: str, teacher_layer: str):
        super().__init__(teacher, student_layer, teacher_layer, weights={"feature": 1.0})

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        student, mask = self.projected(student, teacher), batch.get("mask")
        if mask is not None and student.dim() == 3 and mask.shape == student.shape[:2]:
            values = losses.hint_loss(student.flatten(0, 1), teacher.flatten(0, 1), reduction="none").view(mask.shape)
        else:
            values = losses.hint_loss(student, teacher, reduction="none")
        return {"feature": self.mean(values, batch)}


class Contrastive(_Projected):
    """Tell which of a batch's samples the teacher's features are of: in-batch contrast, InfoNCE between student and
    teacher, part ``contrastive/contrast``; contrastive representation distillation, CRD (Tian et al., 2020), without
    its memory bank and its second projection.

    The student's features go through a trained layer to the teacher's size, as in :class:`Hint`. A loss of the whole
    batch: of all processes together, and of each part where ``accumulate`` cuts the batch. The larger the batch, the
    harder the question.

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by its name in ``model.named_modules()``.
        teacher_layer: The layer of the teacher, by its name there, alike but for its channels.
        temperature: What the cosines are divided by, positive; see :func:`kdft_lib.losses.contrastive_loss`.

    Raises:
        ValueError: If a layer does not exist or ``temperature`` is not positive; in use, if the two have different
            positions, and for a batch of one.

    Example:
        >>> student, teacher = (nn.Sequential(nn.Linear(3, size)) for size in (4, 6))
        >>> objective = Contrastive(teacher, "0", "0")
        >>> batch = {"inputs": torch.randn(5, 3)}
        >>> objective.prepare(student, batch)
        >>> sorted(objective(student, batch))
        ['contrastive/contrast', 'loss']
    """

    name = "contrastive"

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        student_layer: str,
        teacher_layer: str,
        *,
        temperature: float = 0.07,
    ):
        super().__init__(teacher, student_layer, teacher_layer, weights={"contrast": 1.0})
        self.temperature = positive("temperature", temperature)

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        kept = _counted(self.projected(student, teacher), teacher, batch, rows=True)
        ours, theirs = map(everywhere, kept)
        return {"contrast": self.whole_batch(losses.contrastive_loss(ours, theirs, self.temperature), batch)}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, temperature={self.temperature}"


class AttentionTransfer(FeatureObjective):
    """Match where a layer looks: attention transfer, AT (Zagoruyko and Komodakis, 2017; here its activation-based
    kind), part ``attention_transfer/attention``.

    The usual factor is 1000, for a sum over layers: ``Supervised() + 1000 * (AttentionTransfer(teacher,
    "body.1", "block1") + AttentionTransfer(teacher, "body.3", "block2"))``.

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by name, which gives maps ``(N, C, H, W)`` or tokens
            ``(N, L, D)``.
        teacher_layer: The layer of the teacher, by name, of the same kind.

    Raises:
        ValueError: If a layer does not exist; in use, if there are no positions.

    Example:
        >>> student, teacher = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 5, 3)
        >>> objective = AttentionTransfer(nn.Sequential(teacher), "0", "0")
        >>> sorted(objective(nn.Sequential(student), {"inputs": torch.randn(4, 1, 5, 5)}))
        ['attention_transfer/attention', 'loss']
    """

    name = "attention_transfer"

    def __init__(self, teacher: nn.Module | Teacher, student_layer: str, teacher_layer: str):
        super().__init__(teacher, student_layer, teacher_layer, weights={"attention": 1.0})

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        values = losses.attention_transfer_loss(*_counted(student, teacher, batch), reduction="none")
        return {"attention": self.mean(values, batch)}


class SimilarityPreserving(FeatureObjective):
    """Match which samples of a batch excite a layer alike: similarity-preserving distillation, SP (Tung and Mori,
    2019), part ``similarity_preserving/similarity``.

    A loss of the whole batch: of all processes together, and of each part where ``accumulate`` cuts the
    batch. The usual factor is 3000 (Tian et al., 2020).

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by name; it may give any shape.
        teacher_layer: The layer of the teacher, by name; it may give any shape.

    Raises:
        ValueError: If a layer does not exist; in use, for a batch of one.

    Example:
        >>> student, teacher = (nn.Sequential(nn.Linear(3, size)) for size in (4, 6))
        >>> objective = SimilarityPreserving(teacher, "0", "0")
        >>> sorted(objective(student, {"inputs": torch.randn(5, 3)}))
        ['loss', 'similarity_preserving/similarity']
    """

    name = "similarity_preserving"

    def __init__(self, teacher: nn.Module | Teacher, student_layer: str, teacher_layer: str):
        super().__init__(teacher, student_layer, teacher_layer, weights={"similarity": 1.0})

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = map(everywhere, _counted(student, teacher, batch, rows=True))
        value = losses.similarity_preserving_loss(ours, theirs)
        return {"similarity": self.whole_batch(value, batch)}


class RKD(FeatureObjective):
    """Match distances and angles between the samples of a batch: relational knowledge distillation, RKD (Park et
    al., 2019), its parts RKD-D and RKD-A, here ``rkd/distance`` and ``rkd/angle``.

    A loss of the whole batch: of all processes together, and of each part where ``accumulate`` cuts the
    batch.

    Args:
        teacher: The model to learn from, any module; it is never trained.
        student_layer: The layer of the student, by name; it may give any shape, a sample's elements form one
            vector.
        teacher_layer: The layer of the teacher, by name; it may give any shape.
        distance_weight: How much the distances count: a number or a schedule. The defaults, 25 and 50, are the
            usual ones (Park et al., 2019, section 4.3; Tian et al., 2020).
        angle_weight: How much the angles count: a number or a schedule.

    Raises:
        ValueError: If a layer does not exist or a weight is out of range; in use, for a batch of one.

    Example:
        >>> student, teacher = (nn.Sequential(nn.Linear(3, size)) for size in (4, 6))
        >>> objective = RKD(teacher, "0", "0")
        >>> sorted(objective(student, {"inputs": torch.randn(5, 3)}))
        ['loss', 'rkd/angle', 'rkd/distance']
    """

    name = "rkd"

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        student_layer: str,
        teacher_layer: str,
        *,
        distance_weight: Weight = 25.0,
        angle_weight: Weight = 50.0,
    ):
        weights = {"distance": distance_weight, "angle": angle_weight}
        super().__init__(teacher, student_layer, teacher_layer, weights=weights)

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = map(everywhere, _counted(student, teacher, batch, rows=True))
        wanted = {"distance": losses.rkd_distance_loss, "angle": losses.rkd_angle_loss}
        return {
            name: self.whole_batch(loss(ours, theirs), batch) for name, loss in wanted.items() if self.weights[name]
        }


def _counted(student: Tensor, teacher: Tensor, batch: Batch, rows: bool = False) -> list[Tensor]:
    """Features of tokens, 0 where a mask leaves them out, so that nothing hangs on what padding holds; with ``rows``
    features of samples, without those that a mask leaves out."""
    mask = batch.get("mask")
    if rows and mask is not None and mask.shape == student.shape[:1]:
        return [side[mask] for side in (student, teacher)]
    if mask is None or not student.dim() == teacher.dim() == 3 or mask.shape != student.shape[:2]:
        return [student, teacher]
    return [side.masked_fill(~mask.unsqueeze(-1), 0.0) for side in (student, teacher)]
