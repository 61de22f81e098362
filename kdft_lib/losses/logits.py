"""Losses between the logits of a student and those of its teacher."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def soft_target_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 4.0,
    *,
    mask: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Match the teacher's softened distribution (Hinton, Vinyals and Dean, 2015, section 2).

    .. math:: T^2 \cdot \mathrm{KL}\big(\sigma(z_t / T) \,\|\, \sigma(z_s / T)\big)

    The factor :math:`T^2` keeps the gradient's order of magnitude when the temperature changes, so
    that its weight against the cross-entropy keeps its meaning. A class that both sides mask with
    ``-inf`` takes no part; one that only the student masks costs an infinite loss.

    Args:
        student_logits: ``(..., C)``, unnormalised.
        teacher_logits: ``(..., C)``; receives no gradient.
        temperature: Positive. 1 keeps the distribution; larger values soften it. The default, 4, is
            the usual setting on CIFAR-100 (Tian et al., 2020).
        mask: ``(...)``, boolean, true where a position counts. The others may hold anything, and
            the mean is over those that count. By default all do.
        reduction: ``"mean"`` over samples (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats times :math:`T^2`, or ``(...)`` where ``reduction="none"`` (0 where masked).
        Computed and returned in float32, in float64 if either input is.

    Raises:
        ValueError: If the shapes differ, nothing is left to average, ``temperature`` is not
            positive and finite, or ``reduction`` is unknown.

    Example:
        >>> soft_target_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), temperature=1.0)
        tensor(1.5232)
    """
    student, teacher = _logit_pair(student_logits, teacher_logits)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature is {temperature}; it must be positive and finite")
    if mask is not None:
        student, teacher = _blank(student, teacher, mask)
    return _reduce(_SoftTargets.apply(student, teacher, temperature), mask, reduction)


def hard_target_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Cross-entropy with the teacher's decision, :math:`-\log \sigma(z_s)_{\arg\max z_t}`.

    The decision alone is kept; how sure the teacher was, and what else it considered, is lost.

    Args:
        student_logits: ``(..., C)``, unnormalised.
        teacher_logits: ``(..., C)``; receives no gradient. Where several classes share the highest
            logit, the first of them is the decision.
        reduction: ``"mean"`` over samples (never over classes), ``"sum"``, or ``"none"``.

    Returns:
        A scalar in nats, or ``(...)`` where ``reduction="none"``. Computed and returned in float32,
        in float64 if either input is.

    Raises:
        ValueError: If the shapes differ, the batch is empty, or ``reduction`` is unknown.

    Example:
        >>> hard_target_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.1, 0.3]]))
        tensor(2.1269)
    """
    student, teacher = _logit_pair(student_logits, teacher_logits)
    log_student = F.log_softmax(student, dim=-1)
    decision = teacher.argmax(dim=-1, keepdim=True)
    return _reduce(-log_student.gather(-1, decision).squeeze(-1), None, reduction)


class _SoftTargets(torch.autograd.Function):
    """T² · KL(p ‖ q) of each row, with its gradient T · (q − p).

    The sum of p · (−u) over classes, u = log(q / p), loses its digits where both distributions are
    close, and T² magnifies what is lost. Since the sum of q − p is 0, each term may have it added:
    p · (eᵘ − 1 − u) is never negative and, through ``expm1``, exact for small u.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        log_q = F.log_softmax(student / temperature, dim=-1)
        log_p = F.log_softmax(teacher / temperature, dim=-1)
        p, q = log_p.exp(), log_q.exp()
        gap = q - p
        ctx.save_for_backward(temperature * gap)
        u = (log_q - log_p).masked_fill(p == 0, 0.0)
        terms = torch.where(u.abs() < 1, p * (torch.expm1(u) - u), gap - p * u)
        return temperature**2 * torch.where(p == 0, q, terms).sum(dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0].unsqueeze(-1) * gradient, None, None


def _logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Check a pair of logits and bring both to one precision, the teacher's without gradient."""
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        if not logits.is_floating_point():
            raise ValueError(f"{name} has dtype {logits.dtype}; logits are floating-point numbers")
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)};"
            " both must be (..., classes) with the same classes in the same order"
        )
    if student.dim() == 0 or student.numel() == 0:
        raise ValueError(f"student_logits has shape {tuple(student.shape)}; it needs at least one sample and one class")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)


def _blank(student: Tensor, teacher: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Put zeros where nothing counts, so that neither value nor gradient can come from there."""
    if mask.shape != student.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype};"
            f" it must be boolean, {tuple(student.shape[:-1])}, one entry for each position"
        )
    if not mask.any():
        raise ValueError("mask counts no position; leave a batch without any out")
    blank = ~mask.unsqueeze(-1)
    return student.masked_fill(blank, 0.0), teacher.masked_fill(blank, 0.0)


def _reduce(values: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    if mask is not None:
        values = values.masked_fill(~mask, 0.0)
    match reduction:
        case "none":
            return values
        case "sum":
            return values.sum()
        case "mean":
            return values.mean() if mask is None else values.sum() / mask.sum()
    raise ValueError(f'reduction is {reduction!r}; choose "mean", "sum" or "none"')
