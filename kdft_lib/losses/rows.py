"""A divergence of each row with its gradient, computed in one pass over blocks of rows.

Distributions over classes are large where there are many classes, and a loss written in single
tensor operations keeps half a dozen of them. Here each block of rows is small enough to stay in the
processor's cache, and what is kept is the gradient alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel: TypeAlias = Callable[..., tuple[Tensor, Tensor]]
"""From blocks of the student's and the teacher's rows, and of what else belongs to a row, to a value and a
factor for each row. The gradient of a row is its factor times the slope, which is written into the third
argument."""

_LARGEST = 1 << 17
_SMALLEST = 1 << 14
"""Elements of a block on a CPU: half a MiB of float32 stays in the cache, and below 64 KiB the calls cost
more than the memory that a smaller block would save."""


def divergence(
    kernel: Kernel, student: Tensor, teacher: Tensor, *columns: Tensor, mask: Tensor | None = None, reduce: bool = True
) -> Tensor:
    """The kernel's values, ``(...)``, or their mean over the positions that the mask counts.

    Args:
        kernel: See :data:`Kernel`.
        student: ``(..., C)``.
        teacher: ``(..., C)``; receives no gradient.
        columns: ``(...)``, what else the kernel needs of each row.
        mask: ``(...)``, true where a position counts; the others may hold anything.
        reduce: To the mean.
    """
    shape = student.shape
    if len(shape) != 2:
        student, teacher = student.reshape(-1, shape[-1]), teacher.reshape(-1, shape[-1])
    beside = [column.reshape(-1) for column in (columns if mask is None else (*columns, mask))]
    values = _Rows.apply(student, teacher, kernel, mask is not None, reduce, *beside)
    return values if reduce or len(shape) == 2 else values.reshape(shape[:-1])


class _Rows(torch.autograd.Function):
    """Keeps the gradient that the forward pass found, and hands it out once, scaled in place; a second
    backward pass through the same graph computes it anew."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, kernel: Kernel, masked: bool, reduce: bool, *columns: Tensor
    ) -> Tensor:
        ctx.save_for_backward(student, teacher, *columns)
        ctx.how = kernel, masked
        values, *ctx.found = _in_blocks(student, teacher, kernel, masked, columns)
        ctx.count = 1
        if reduce:
            ctx.count = int(columns[-1].sum()) if masked else len(values)
            values = values.sum().div_(ctx.count)
        return values

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative; leave create_graph=True out")
        found, ctx.found = ctx.found, None
        student, teacher, *columns = ctx.saved_tensors
        kernel, masked = ctx.how
        slope, factor = found or _in_blocks(student, teacher, kernel, masked, columns)[1:]
        factor = (factor * upstream[0]).div_(ctx.count)
        return slope.mul_(factor.unsqueeze(-1)), *[None] * (4 + len(columns))


def _in_blocks(
    student: Tensor, teacher: Tensor, kernel: Kernel, masked: bool, columns: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all rows the values, the slopes and the slopes' factors; a block's two buffers stay below
    a quarter of the logits."""
    rows, classes = student.shape
    elements = max(student.numel() // 9, _SMALLEST)
    if student.device.type == "cpu":
        elements = min(elements, _LARGEST)
    height = max(1, elements // classes)
    slopes = student.new_empty(rows, classes)
    if height >= rows:
        values, factors = _block(student, teacher, slopes, kernel, masked, columns)
        return values, slopes, factors
    parts = zip(*(column.split(height) for column in (student, teacher, slopes, *columns)), strict=True)
    found = [_block(ours, theirs, slope, kernel, masked, beside) for ours, theirs, slope, *beside in parts]
    values, factors = (torch.cat(column) for column in zip(*found, strict=True))
    return values, slopes, factors


def _block(
    student: Tensor, teacher: Tensor, slope: Tensor, kernel: Kernel, masked: bool, columns: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """One block of rows, in float32 or wider, with zeros where nothing counts."""
    if masked:
        *columns, counts = columns
        blank = ~counts
        student, teacher = (rows.masked_fill(blank.unsqueeze(-1), 0.0) for rows in (student, teacher))
        values, factor = _block(student, teacher, slope, kernel, False, columns)
        return values.masked_fill(blank, 0.0), factor.masked_fill(blank, 0.0)
    if student.dtype == teacher.dtype and student.dtype in (torch.float32, torch.float64):
        return kernel(student, teacher, slope, *columns)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    out = torch.empty_like(slope, dtype=dtype)
    found = kernel(student.to(dtype), teacher.to(dtype), out, *columns)
    slope.copy_(out)
    return found


def forward_kl(student: Tensor, teacher: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T² · KL(p ‖ q), and its gradient T · (q − p); p is the teacher's distribution, q the student's."""
    shifted = _shift(student, teacher, slope, temperature)
    if shifted is None:
        return _forward_kl_wide(student, teacher, slope, temperature)
    weights, total, growth, _ = shifted
    slope.sub_(growth).mul_(weights)
    values = growth.log1p().mul_(temperature**2)
    return values.squeeze(-1), total.addcmul_(total, growth).reciprocal_().mul_(temperature).squeeze(-1)


def decoupled(
    student: Tensor,
    teacher: Tensor,
    slope: Tensor,
    targets: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """T² · (α · TCKD + β · NCKD), and its gradient T · (α (q_y − p_y)(1_y − q̂) + β (q̂ − p̂)); the hats
    mark the distributions over the other classes."""
    place = targets.unsqueeze(-1)
    others = teacher.scatter(-1, place, -torch.inf)
    # The target's own difference is taken to be 0: −∞ − −∞ would be NaN.
    ours = student.scatter(-1, place, teacher.gather(-1, place))
    shifted = _shift(ours, teacher, slope, temperature, others)
    if shifted is None:
        return _decoupled_wide(student, teacher, slope, place, alpha, beta, temperature)
    weights, total, growth, mean = shifted
    normaliser = wider(others.amax(-1, True)) / temperature + wider(total).log()
    own_student, own_teacher = (wider(logits.gather(-1, place)) / temperature for logits in (student, teacher))
    target_kl, gap = _binary_kl(
        own_student - normaliser + wider(mean) - wider(growth).log1p(), own_teacher - normaliser
    )
    pull = (alpha * gap).to(growth.dtype)
    slope.mul_(beta - pull).sub_(beta * growth + pull).mul_(weights)
    slope.scatter_(-1, place, pull * (1 + growth) * total)
    values = temperature**2 * (alpha * target_kl.to(growth.dtype) + beta * growth.log1p())
    return values.squeeze(-1), (temperature / (total * (1 + growth))).squeeze(-1)


def reverse_kl(student: Tensor, teacher: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T² · KL(q ‖ p), and its gradient T · q (log q/p − KL)."""
    q, log_q = _distribution(student, temperature)
    _, log_p = _distribution(teacher, temperature)
    ratio = (log_q - log_p).masked_fill_(q == 0, 0.0)
    values = torch.linalg.vecdot(q, ratio)
    slope.copy_(q * (ratio - values.unsqueeze(-1)))
    return _narrow(temperature**2 * values, temperature, student)


def jensen_shannon(
    student: Tensor, teacher: Tensor, slope: Tensor, temperature: float, beta: float
) -> tuple[Tensor, Tensor]:
    """T² · (β KL(p ‖ m) + (1 − β) KL(q ‖ m)) with m = β p + (1 − β) q, and its gradient
    T (1 − β) q (log q/m − KL(q ‖ m))."""
    q, log_q = _distribution(student, temperature)
    p, log_p = _distribution(teacher, temperature)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    from_teacher = (log_p - log_m).masked_fill_(p == 0, 0.0)
    from_student = (log_q - log_m).masked_fill_(q == 0, 0.0)
    student_part = torch.linalg.vecdot(q, from_student)
    slope.copy_(q * (from_student - student_part.unsqueeze(-1)))
    values = beta * torch.linalg.vecdot(p, from_teacher) + (1 - beta) * student_part
    return _narrow(temperature**2 * values, temperature * (1 - beta), student)


def _shift(
    student: Tensor, teacher: Tensor, out: Tensor, temperature: float, masked: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """What both forward divergences are made of, in the precision at hand; ``None`` where that is not enough.

    With d = (z_s − z_t) / T, its mean μ under p, and e = exp(d − μ) − 1, the student's distribution is
    q = p (1 + e) / (1 + E_p[e]), and KL(p ‖ q) = log(1 + E_p[e]): one exponential besides p, and no
    difference of two large numbers, however close p and q are. e is written to ``out``; returned are
    p up to a factor, the sum of that, E_p[e], and −μ, the last three as columns.
    """
    weights = torch.mul(teacher if masked is None else masked, 1 / temperature)
    weights.sub_(weights.amax(-1, True)).exp_()
    total = weights.sum(-1, True)
    torch.sub(teacher, student, out=out)
    scratch = torch.mul(weights, out)
    mean = scratch.sum(-1, True).div_(total * temperature)
    torch.add(mean, out, alpha=-1 / temperature, out=out)
    # Past e^60 a product with an underflowed p would be lost; NaN, from −∞ − −∞, fails the comparison too.
    if not out.amax().item() < 60:
        return None
    # T² magnifies what is rounded off beside 1.
    out = out.expm1_() if temperature > 8 else out.exp_().sub_(1)
    growth = torch.mul(weights, out, out=scratch).sum(-1, True).div_(total).clamp_(min=0)
    return weights, total, growth, mean


def _forward_kl_wide(student: Tensor, teacher: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    q, log_q = _distribution(student, temperature)
    p, log_p = _distribution(teacher, temperature)
    slope.copy_(q - p)
    values = torch.linalg.vecdot(p, (log_p - log_q).masked_fill_(p == 0, 0.0))
    return _narrow(temperature**2 * values, temperature, student)


def _decoupled_wide(
    student: Tensor, teacher: Tensor, slope: Tensor, place: Tensor, alpha: float, beta: float, temperature: float
) -> tuple[Tensor, Tensor]:
    margins, distributions = [], []
    for logits in (student, teacher):
        wide = wider(logits) / temperature
        rest = wide.scatter(-1, place, -torch.inf)
        normaliser = rest.logsumexp(-1, keepdim=True)
        margins.append((wide.gather(-1, place) - normaliser).squeeze(-1))
        # Without another class there is no distribution over the others.
        log_rest = torch.where(normaliser == -torch.inf, normaliser, rest - normaliser)
        distributions.append((log_rest.exp(), log_rest))
    (q, log_q), (p, log_p) = distributions
    target_kl, gap = _binary_kl(*margins)
    other_kl = torch.linalg.vecdot(p, (log_p - log_q).masked_fill_(p == 0, 0.0))
    pull = (alpha * gap).unsqueeze(-1)
    slope.copy_((beta * (q - p) - pull * q).scatter(-1, place, pull))
    return _narrow(temperature**2 * (alpha * target_kl + beta * other_kl), temperature, student)


def _binary_kl(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """KL between (σ(t), σ(−t)) and (σ(s), σ(−s)), and σ(s) − σ(t)."""
    value = torch.zeros_like(student)
    for sign in (1, -1):
        log_p, log_q = F.logsigmoid(sign * teacher), F.logsigmoid(sign * student)
        value = value + log_p.exp() * (log_p - log_q).masked_fill(log_p == -torch.inf, 0.0)
    return value, student.sigmoid() - teacher.sigmoid()


def _distribution(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    log_probability = F.log_softmax(wider(logits) / temperature, dim=-1)
    return log_probability.exp(), log_probability


def _narrow(values: Tensor, factor: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Values in the precision of the logits, and one factor for all of their rows."""
    return values.to(like.dtype), torch.full_like(values, factor, dtype=like.dtype)


def wider(tensor: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()
