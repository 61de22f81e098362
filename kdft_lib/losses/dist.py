"""DIST: correlations of probabilities instead of their values."""

from __future__ import annotations

import torch
from torch import Tensor

from kdft_lib.losses.checks import check_weights, positive, readable, wide_pair, wider


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, inter_weight: float = 1.0, intra_weight: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:  # fmt: skip
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
    check_weights(inter_weight=inter_weight, intra_weight=intra_weight)
    student, teacher = student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])
    if len(student) < 2:
        raise ValueError(
            "student_logits holds one sample; DIST correlates over a batch and needs two or more: raise batch_size,"
            " or let more positions count"
        )
    if positive("temperature", temperature) != 1:
        student, teacher = student * (1 / temperature), teacher * (1 / temperature)
    value = _from_sums(student, teacher, inter_weight, intra_weight) if readable(student) else None
    if value is None:
        q, p = (wider(logits).softmax(1) for logits in (student, teacher))
        inter, intra = (_correlations(q, p, dim).mean() for dim in (1, 0))
        value = (inter_weight * (1 - inter) + intra_weight * (1 - intra)).to(student.dtype)
    return value if temperature == 1 else value * temperature**2


def _from_sums(student: Tensor, teacher: Tensor, inter_weight: float, intra_weight: float) -> Tensor | None:
    """The loss from sums of squares and products, ``None`` where a row or a column hardly varies."""
    q, p = student.softmax(1), teacher.softmax(1)
    samples, classes = q.shape
    squares_q, squares_p, products, sums_q, sums_p = q.square(), p.square(), q * p, q.sum(0), p.sum(0)
    across_q, across_p, down_q, down_p = squares_q.sum(1), squares_p.sum(1), squares_q.sum(0), squares_p.sum(0)
    rows_q, rows_p, rows = across_q - 1 / classes, across_p - 1 / classes, products.sum(1) - 1 / classes
    columns_q = down_q.addcmul(sums_q, sums_q, value=-1 / samples)
    columns_p = down_p.addcmul(sums_p, sums_p, value=-1 / samples)
    columns = products.sum(0).addcmul(sums_q, sums_p, value=-1 / samples)
    with torch.no_grad():
        # A variance is rounded by 6e-8 of the squares: where it is a fiftieth of them, by 3e-6 of itself. Its gradient
        # needs its power of −3/2, which float32 holds from 1e-25 on.
        total = torch.cat([across_q, across_p, down_q, down_p]).add_(1e-22)
        if not torch.cat([rows_q, rows_p, columns_q, columns_p]).div_(total).min().item() > 0.02:
            return None
    inter = torch.dot(rows * rows_q.rsqrt(), rows_p.rsqrt_().mul_(inter_weight / samples))
    intra = torch.dot(columns * columns_q.rsqrt(), columns_p.rsqrt_().mul_(intra_weight / classes))
    return (inter_weight + intra_weight) - (inter + intra)


def _correlations(q: Tensor, p: Tensor, dim: int) -> Tensor:
    """Pearson's ρ along a dimension; of what varies within rounding, 1 or 0."""
    x, y = (values - values.mean(dim, keepdim=True) for values in (q, p))
    squares_x, squares_y = x.square().sum(dim), y.square().sum(dim)
    rounding = (4 * torch.finfo(q.dtype).eps) ** 2
    still_x, still_y = squares_x <= rounding * q.square().sum(dim), squares_y <= rounding * p.square().sum(dim)
    squares = (squares_x * squares_y).masked_fill(still_x | still_y, torch.inf)
    return ((x * y).sum(dim) * squares.rsqrt()).masked_fill(still_x & still_y, 1.0)
