"""DIST: correlations of probabilities instead of their values."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kdft_lib.losses import rows
from kdft_lib.losses.checks import positive, wide_pair


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    r"""Match relations instead of values: DIST, Pearson correlation of probabilities (Huang et al., 2022, eq. 7–9).

    .. math:: T^2 \Big(w_\mathrm{inter} \big(1 - \overline{\rho(p_{i\cdot}, q_{i\cdot})}\big)
        + w_\mathrm{intra} \big(1 - \overline{\rho(p_{\cdot j}, q_{\cdot j})}\big)\Big)

    ρ is Pearson's correlation of *probabilities*, over the classes of each sample (inter) and over the
    samples for each class (intra), so the loss is one of the whole batch. Where neither side varies
    there is nothing to match, and ρ counts as 1; where one does not, as 0, without a gradient.

    Args:
        student_logits: The student's logits, ``(..., C)``, unnormalised.
        teacher_logits: The teacher's logits, ``(..., C)``; they receive no gradient.
        inter_weight: How much the relations within a sample count, 0 or more.
        intra_weight: How much the relations within a class count, 0 or more.
        temperature: The temperature of both distributions, positive. The authors take 1 on ImageNet and 4 on CIFAR-100.

    Returns:
        A scalar, without unit. Computed and returned in float32, in float64 if either input is.

    Raises:
        ValueError: As :func:`soft_target_loss`; if there are fewer than two samples, which have no
            correlation; if a weight is negative.

    Example:
        >>> dist_loss(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        tensor(3.)
    """
    student, teacher = wide_pair(student_logits, teacher_logits)
    student, teacher = student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])
    for name, weight in (("inter_weight", inter_weight), ("intra_weight", intra_weight)):
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"{name} is {weight}; it must be 0 or more and finite")
    if len(student) < 2:
        raise ValueError(
            "student_logits holds one sample; DIST correlates over a batch and needs two or more: raise batch_size"
        )
    return _Correlations.apply(student, teacher, (inter_weight, intra_weight), positive("temperature", temperature))


class _Correlations(torch.autograd.Function):
    """DIST's two mean correlations with their gradient: that of ρ is (ŷ − ρ x̂) / ‖x‖, x̂ and ŷ centred and
    of norm 1, and the softmax takes it back to the logits."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, weights: tuple[float, float], temperature: float) -> Tensor:
        found = _quick(student, teacher, weights, temperature)
        value, slope = _wide(student, teacher, weights, temperature) if found is None else found
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative; leave create_graph=True out")
        return upstream[0] * ctx.saved_tensors[0], None, None, None


def _quick(
    student: Tensor, teacher: Tensor, weights: tuple[float, float], temperature: float
) -> tuple[Tensor, Tensor] | None:
    """Value and gradient from sums of products, in the precision at hand; ``None`` where a row or a column
    varies so little, or is so small, that this would lose digits, and on a GPU, which would have to be waited for
    to tell."""
    if student.device.type != "cpu":
        return None
    samples, classes = student.shape
    q, p = (logits.mul(1 / temperature).softmax(1) for logits in (student, teacher))
    squares = q * q, p * p, q * p
    columns = q.sum(0), p.sum(0)
    rows_q, rows_p, rows_both = (product.sum(1) - 1 / classes for product in squares)
    sums = [product.sum(0) for product in squares]
    columns_q, columns_p = (
        total.addcmul(column, column, value=-1 / samples) for total, column in zip(sums, columns, strict=False)
    )
    columns_both = sums[2].addcmul(*columns, value=-1 / samples)
    varied = torch.cat([rows_q * classes, rows_p * classes, columns_q / sums[0], columns_p / sums[1]])
    if not (varied.amin().item() > 0.02 and torch.cat(columns).amin().item() > 1e-15):
        return None
    inverse_q, inverse_p = rows_q.rsqrt(), rows_p.rsqrt()
    inter = rows_both * inverse_q * inverse_p
    inverse_cq, inverse_cp = columns_q.rsqrt(), columns_p.rsqrt()
    intra = columns_both * inverse_cq * inverse_cp
    value = weights[0] * (1 - inter.mean()) + weights[1] * (1 - intra.mean())
    # The gradient of −ρ is ρ x / ‖x‖² − y / (‖x‖ ‖y‖), along rows and along columns.
    along, across = weights[0] / samples, weights[1] / classes
    of_p = -across * inverse_cq * inverse_cp
    of_q = across * intra * inverse_cq.square()
    slope = ((-along * inverse_q * inverse_p).unsqueeze(1) + of_p).mul_(p)
    slope.addcmul_((along * inter * inverse_q.square()).unsqueeze(1) + of_q, q)
    slope.sub_((of_p * columns[1] + of_q * columns[0]) / samples)
    slope.sub_((slope * q).sum(1, keepdim=True)).mul_(q).mul_(temperature)
    return value * temperature**2, slope


def _wide(student: Tensor, teacher: Tensor, weights: tuple[float, float], temperature: float) -> tuple[Tensor, Tensor]:
    """The same in float64, centred first, whatever the probabilities are."""
    q, p = (rows.wider(logits).div(temperature).softmax(-1) for logits in (student, teacher))
    value, slope = torch.zeros((), dtype=q.dtype, device=q.device), torch.zeros_like(q)
    for weight, dim in zip(weights, (1, 0), strict=True):
        if weight:
            correlation, gradient = _correlation(q, p, dim)
            value += weight * (1 - correlation.mean())
            slope.sub_(gradient.mul_(weight / correlation.numel()))
    slope.sub_(torch.linalg.vecdot(slope, q).unsqueeze(-1)).mul_(q).mul_(temperature)
    return value.mul_(temperature**2).to(student.dtype), slope.to(student.dtype)


def _correlation(student: Tensor, teacher: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Pearson's ρ along a dimension, and its gradient with respect to the student."""
    x, y = (values - values.mean(dim, keepdim=True) for values in (student, teacher))
    x_norm, y_norm = (values.norm(dim=dim, keepdim=True) for values in (x, y))
    rounding = 4 * torch.finfo(x.dtype).eps
    still_x, still_y = (
        norm <= rounding * values.norm(dim=dim, keepdim=True) for norm, values in ((x_norm, student), (y_norm, teacher))
    )
    x_scale = x_norm.masked_fill(still_x, torch.inf).reciprocal_()
    x.mul_(x_scale)
    y.mul_(y_norm.masked_fill_(still_y, torch.inf).reciprocal_())
    correlation = (x * y).sum(dim, keepdim=True)
    gradient = y.sub_(x.mul_(correlation)).mul_(x_scale)
    return correlation.masked_fill_(still_x & still_y, 1.0), gradient
