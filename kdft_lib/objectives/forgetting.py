"""Keep what a model knew while it learns something new: in its answers, or in its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdft_lib import losses
from kdft_lib.data import Batch
from kdft_lib.features import Outputs
from kdft_lib.losses.checks import positive
from kdft_lib.objectives.base import Objective, Weight
from kdft_lib.objectives.logits import LogitObjective
from kdft_lib.teachers import Teacher


class LwF(LogitObjective):
    """Learn new classes, and keep the answers to the old ones (Li and Hoiem, 2016): parts
    ``lwf/kd`` and ``lwf/ce``.

    The teacher is the model as it was before; on the new images, the student must still say of the old
    classes what the teacher says of them.

    Args:
        teacher: The old model, a copy; it is never trained.
        classes: The places of the teacher's classes among the student's, in the teacher's order; by default
            the first ones. Where both have all classes, name those that the teacher knows.
        temperature: Positive; 2 as in the paper.
        kd_weight: Of keeping; 1 as in the paper (there called λ). With T², which the paper leaves out.
        ce_weight: Of learning, on the samples with labels.
        joint: The cross-entropy sees all classes, so that one decision is made among old and new (the
            variant LwF.MC of Rebuffi et al., 2017). ``False`` is the paper's: the new ones alone, for tasks
            that are told apart when the model is used.
        class_dim: The dimension of the classes in the logits.

    Raises:
        ValueError: If an argument is out of range; in use, if the classes do not go together.

    Example:
        >>> objective = LwF(torch.nn.Linear(3, 2))
        >>> batch = {"inputs": torch.zeros(4, 3), "targets": torch.tensor([2, 3, 2, 3])}
        >>> sorted(objective(torch.nn.Linear(3, 4), batch))
        ['lwf/ce', 'lwf/kd', 'loss']
    """

    name = "lwf"
    classes: Sequence[int] | None
    temperature: float
    joint: bool

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        classes: Sequence[int] | None = None,
        temperature: float = 2.0,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 1.0,
        *,
        joint: bool = True,
        class_dim: int = -1,
    ):
        positive("temperature", temperature)
        kept = None if classes is None else [int(place) for place in classes]
        if kept is not None and (not kept or len(set(kept)) != len(kept) or min(kept) < 0):
            raise ValueError(f"classes is {kept}; it must name one or more classes, each once, from 0")
        super().__init__(teacher, kd_weight, ce_weight, class_dim, classes=kept, temperature=temperature, joint=joint)

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        places = self._places(student_logits, teacher_logits)
        if teacher_logits.shape[-1] == student_logits.shape[-1]:
            teacher_logits = teacher_logits[..., places]
        return losses.soft_target_loss(student_logits[..., places], teacher_logits, self.temperature, reduction="none")

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        assert teacher is not None
        parts = {}
        if self.weights["kd"]:
            parts["kd"] = self._kd(student.logits, teacher.logits, batch)
        if self.weights["ce"]:
            logits = student.logits
            if not self.joint:
                old = self._places(logits, teacher.logits)
                targets = self._targets(batch)
                if torch.isin(targets, targets.new_tensor(old)).any():
                    raise ValueError(
                        f"targets holds an old class ({old}); with joint=False only new ones may be labelled"
                    )
                logits = logits.index_fill(-1, torch.tensor(old, device=logits.device), -torch.inf)
            parts["ce"] = self._cross_entropy(logits, batch)
        return parts

    def _places(self, student_logits: Tensor, teacher_logits: Tensor) -> list[int]:
        known, all_ = teacher_logits.shape[-1], student_logits.shape[-1]
        places = list(range(known)) if self.classes is None else list(self.classes)
        if max(places) >= all_ or (known not in (len(places), all_)):
            raise ValueError(
                f"classes is {self.classes}, the teacher has {known} classes and the student {all_};"
                " name for each of the teacher's classes its place among the student's"
            )
        return places


class L2SP(Objective):
    r"""Pull the parameters back to where they started: L2-SP (Li, Grandvalet and Davoine, 2018, eq. 2), part
    ``l2sp/distance``.

    .. math:: \tfrac 1 2 \| w - w^0 \|_2^2

    A penalty, to be added: ``Supervised() + 0.01 * L2SP(model)``. The paper's α is its factor;
    its second term, plain decay of the new head, is the strategy's ``weight_decay``.

    Args:
        model: The start, copied now: build this before :func:`~kdft_lib.training.fit`.
        head: The name of a new head, which is left free, as in ``model.named_modules()``.

    Raises:
        ValueError: If nothing is left to pull; in use, if the model's parameters are others.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> penalty = L2SP(model)
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(3.0)
        >>> penalty(model, {"inputs": torch.zeros(4, 2)})["loss"]
        tensor(4.5000, grad_fn=<SumBackward0>)
    """

    name = "l2sp"

    def __init__(self, model: nn.Module, head: str | None = None):
        super().__init__({"distance": 1.0})
        self.reads_logits = False
        self._sizes = {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.is_floating_point() and (head is None or not f"{name}.".startswith(f"{head}."))
        }
        if not self._sizes:
            raise ValueError(f"head is {head!r}, which leaves no parameter of {type(model).__name__} to pull back")
        if head is not None and len(self._sizes) == sum(1 for _ in model.parameters()):
            raise ValueError(f"head is {head!r}, which {type(model).__name__} does not have or which has no parameters")
        parameters = dict(model.named_parameters())
        start = torch.cat([parameters[name].detach().flatten() for name in self._sizes])
        self.start: Tensor
        self.register_buffer("start", start.clone())

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        assert student.model is not None
        parameters = dict(student.model.named_parameters())
        gaps = []
        for (name, size), start in zip(self._sizes.items(), self.start.split([*self._sizes.values()]), strict=True):
            if name not in parameters or parameters[name].numel() != size:
                raise ValueError(
                    f"L2SP was made of a model with a parameter {name!r} of {size} numbers, which this"
                    f" {type(student.model).__name__} does not have; make it of the model that is trained"
                )
            gaps.append((parameters[name].flatten() - start).square().sum())
        return {"distance": self._once(torch.stack(gaps).sum() / 2, batch)}

    def extra_repr(self) -> str:
        return f"{len(self._sizes)} parameters"
