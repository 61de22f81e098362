"""Keep what a model knew while it learns something new: in its answers, or in its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdft_lib import losses
from kdft_lib.data import Batch
from kdft_lib.features import Outputs
from kdft_lib.losses.checks import positive, readable
from kdft_lib.objectives.base import Objective
from kdft_lib.objectives.checks import Weight
from kdft_lib.objectives.logits import LogitObjective
from kdft_lib.teachers import Teacher


class LwF(LogitObjective):
    """Learn new classes, and keep the answers to the old ones: learning without forgetting, LwF (Li and Hoiem,
    2016), parts ``lwf/kd`` and ``lwf/ce``.

    The teacher is the model as it was before; on the new images, the student must still say of the old
    classes what the teacher says of them.

    Args:
        teacher: The model to keep the answers of, a copy of the old one; it is never trained.
        classes: The places of the teacher's classes among the student's, in the teacher's order; by default
            the first ones. Where both have all classes, name those that the teacher knows.
        temperature: The temperature of both distributions, positive; 2 as in the paper.
        kd_weight: How much keeping counts; 1 as in the paper (there called λ). With T², which the paper leaves
            out.
        ce_weight: How much learning counts, on the samples with labels.
        joint: Whether the cross-entropy sees all classes, so that one decision is made among old and new, as in
            class-incremental learning. ``False`` is the paper's: the new ones alone, for tasks that are told
            apart when the model is used. ``True`` has the purpose of LwF.MC, with which Rebuffi et al. (2017)
            compare iCaRL, and not its loss: there each class has a sigmoid and a binary cross-entropy, whose
            target is the label for a new class and the old network's output for an old one; here one softmax
            over all classes learns the label, and one over the old ones keeps the teacher's answer at the
            temperature.
        class_dim: The dimension of the classes in the logits: ``-1``, or ``1`` for ``(N, C, H, W)``.

    Raises:
        ValueError: If an argument is out of range; in use, if the classes do not go together.

    Example:
        >>> objective = LwF(torch.nn.Linear(3, 2))
        >>> batch = {"inputs": torch.zeros(4, 3), "targets": torch.tensor([2, 3, 2, 3])}
        >>> sorted(objective(torch.nn.Linear(3, 4), batch))
        ['loss', 'lwf/ce', 'lwf/kd']
    """

    name = "lwf"
    _of_classes = True

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        *,
        classes: Sequence[int] | None = None,
        temperature: float = 2.0,
        kd_weight: Weight = 1.0,
        ce_weight: Weight = 1.0,
        joint: bool = True,
        class_dim: int = -1,
    ):
        super().__init__(teacher, kd_weight=kd_weight, ce_weight=ce_weight, class_dim=class_dim)
        kept = None if classes is None else [int(place) for place in classes]
        if kept is not None and (not kept or len(set(kept)) != len(kept) or min(kept) < 0):
            raise ValueError(f"classes is {kept}; it must name one or more classes, each once, from 0")
        self.classes, self.temperature, self.joint = kept, positive("temperature", temperature), joint

    def divergence(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        places = self._places(student_logits, teacher_logits)
        if teacher_logits.shape[-1] == student_logits.shape[-1]:
            teacher_logits = teacher_logits[..., places]
        return losses.soft_target_loss(student_logits[..., places], teacher_logits, self.temperature, reduction="none")

    def _ce(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        if not self.joint:
            old = self._places(student_logits, teacher_logits)
            targets = self._targets(batch)
            targets = targets[batch["mask"]] if "mask" in batch else targets
            if readable(targets) and torch.isin(targets, targets.new_tensor(old)).any():
                raise ValueError(f"targets holds an old class ({old}); with joint=False only new ones may be labelled")
            places = torch.tensor(old, device=student_logits.device)
            student_logits = student_logits.index_fill(-1, places, -torch.inf)
        return super()._ce(student_logits, teacher_logits, batch)

    def _places(self, student_logits: Tensor, teacher_logits: Tensor) -> list[int]:
        known, all_ = teacher_logits.shape[-1], student_logits.shape[-1]
        places = list(range(known)) if self.classes is None else list(self.classes)
        if max(places) >= all_ or (known not in (len(places), all_)):
            raise ValueError(
                f"classes is {self.classes}, the teacher has {known} classes and the student {all_};"
                " name for each of the teacher's classes its place among the student's"
            )
        if len(places) == 1:
            raise ValueError(
                f"the teacher knows one old class, {places[0]}, whose probability is always 1, so LwF would keep"
                " nothing; give it a teacher of two or more classes, or keep the weights with L2SP(model)"
            )
        return places


class L2SP(Objective):
    r"""Pull the parameters back to where they started: L2-SP, starting-point regularisation (Li, Grandvalet and
    Davoine, 2018, eq. 2 and 3), parts ``l2sp/distance`` and, where ``head_weight`` is not 0, ``l2sp/head``.

    .. math:: \tfrac 1 2 \| w - w^0 \|_2^2 + h \, \tfrac 1 2 \| w_\mathrm{head} \|_2^2

    A penalty, to be added: ``Supervised() + 0.01 * L2SP(model)``. A new head has no start to go back to: name it,
    and it is left free, or with ``head_weight``, the :math:`h` of the formula, pulled toward 0. The paper's α is
    the penalty's factor, and its β that factor times ``head_weight``: ``0.1 * L2SP(model, head="head",
    head_weight=0.1)`` has α = 0.1 and β = 0.01.

    A strategy's ``weight_decay`` would pull the body toward 0 at the same time, so that it comes to rest between 0
    and its start; the paper has none: ``FullFineTuning(lr=1e-3, weight_decay=0.0)``.

    Args:
        model: The model at its start, which is copied now: build this before :func:`~kdft_lib.training.fit`.
        head: The name of a new head, which is not pulled back, as in ``model.named_modules()``; none by default.
        head_weight: How much the decay of the head counts, against the distance: a number or a schedule. By
            default the head is left free.

    Raises:
        ValueError: If nothing is left to pull, or ``head_weight`` comes without a head; in use, if the model's
            parameters are others.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> penalty = L2SP(model)
        >>> with torch.no_grad():
        ...     _ = model.bias.add_(3.0)
        >>> penalty(model, {"inputs": torch.zeros(4, 2)})["loss"]
        tensor(4.5000, grad_fn=<SumBackward0>)
    """

    name = "l2sp"

    def __init__(self, model: nn.Module, *, head: str | None = None, head_weight: Weight = 0.0):
        super().__init__({"distance": 1.0, "head": head_weight})
        if head is None and (callable(head_weight) or head_weight):
            raise ValueError(f"head_weight is {head_weight}, but head names no module to decay; name it")
        self.reads_logits = False
        self.head = head
        self._sizes = {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.is_floating_point() and not self._in_head(name)
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
        found = {"distance": gaps}
        if self.weights["head"]:
            found["head"] = [parameter.square().sum() for name, parameter in parameters.items() if self._in_head(name)]
            if not found["head"]:
                raise ValueError(f"head is {self.head!r}, which {type(student.model).__name__} does not have any more")
        return {name: self.whole_batch(torch.stack(squares).sum() / 2, batch) for name, squares in found.items()}

    def extra_repr(self) -> str:
        return f"{len(self._sizes)} parameters, {super().extra_repr()}"

    def _in_head(self, name: str) -> bool:
        return self.head is not None and f"{name}.".startswith(f"{self.head}.")
