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
"""From blocks of the student's and the teacher's rows, room for twice as many, and what else belongs to a row, to
two columns: a value and a divisor for each row. The gradient of a row is its slope, which is written into the
third argument, over its divisor. Both are still without the temperature: times T² and T."""

_LARGEST = 1 << 17
_SMALLEST = 1 << 14
"""Elements of a block on a CPU: half a MiB of float32 stays in the cache, and below 64 KiB the calls cost
more than the memory that a smaller block would save."""


def divergence(
    kernel: Kernel,
    student: Tensor,
    teacher: Tensor,
    *columns: Tensor,
    temperature: float,
    mask: Tensor | None = None,
    reduce: bool = True,
    whole: int = _SMALLEST,
) -> Tensor:
    """The kernel's values times T², ``(...)``, or their mean over the positions that the mask counts.

    Args:
        kernel: The divergence of a block, see :data:`Kernel`; it is called with the temperature as a keyword.
        student: The student's logits, ``(..., C)``.
        teacher: The teacher's logits, ``(..., C)``; they receive no gradient.
        columns: Whatever else the kernel needs of each row, ``(...)``.
        temperature: The temperature T.
        mask: The positions that count, ``(...)``; the others may hold anything.
        reduce: Whether to reduce to the mean.
        whole: The number of logits up to which one block holds all rows.
    """
    shape = student.shape
    if len(shape) != 2:
        student, teacher = student.reshape(-1, shape[-1]), teacher.reshape(-1, shape[-1])
    beside = [column.reshape(-1, 1) for column in (columns if mask is None else (*columns, mask))]
    values = _Rows.apply(student, teacher, kernel, temperature, mask is not None, reduce, whole, *beside)
    return values if reduce or len(shape) == 2 else values.reshape(shape[:-1])


class _Rows(torch.autograd.Function):
    """Keeps the gradient that the forward pass found, and hands it out once, scaled in place; a second
    backward pass through the same graph computes it anew."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        kernel: Kernel,
        temperature: float,
        masked: bool,
        reduce: bool,
        whole: int,
        *columns: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(student, teacher, *columns)
        ctx.how = kernel, temperature, masked, whole
        values, *ctx.found = _in_blocks(student, teacher, columns, *ctx.how)
        if not reduce:
            ctx.scale = temperature
            return values.squeeze(1).mul_(temperature**2)
        count = int(columns[-1].sum()) if masked else len(values)
        ctx.scale = temperature / count
        return values.sum().mul_(temperature**2 / count)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("this loss has no second derivative; leave create_graph=True out")
        found, ctx.found = ctx.found, None
        student, teacher, *columns = ctx.saved_tensors
        if found is None:
            _, *found = _in_blocks(student, teacher, columns, *ctx.how)
        slope, divisor = found
        scale = upstream[0] * ctx.scale
        return slope.mul_((scale.unsqueeze(1) if scale.dim() else scale) / divisor), *[None] * (6 + len(columns))


def _in_blocks(
    student: Tensor,
    teacher: Tensor,
    columns: Sequence[Tensor],
    kernel: Kernel,
    temperature: float,
    masked: bool,
    whole: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all rows the values, the slopes and the slopes' divisors.

    The kernel's two buffers are rows of the slopes that are still to come, or stay below a quarter of the
    logits: blocks shrink toward the end. Where a block fits into the cache, one pair of buffers stays there.
    """
    rows, classes = student.shape
    slopes = student.new_empty(rows, classes)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    last = largest = rows
    if student.numel() > whole:
        last = max(1, max(student.numel() // 9, _SMALLEST) // classes)
        largest = max(1, _LARGEST // classes) if student.device.type == "cpu" else last
    room = slopes.new_empty(2 * largest, classes, dtype=dtype) if largest <= last else None
    found, start = [], 0
    while start < rows:
        height = min(largest, max((rows - start) // 3, last))
        end, after = start + height, start + 3 * height
        if largest > last and after <= rows and slopes.dtype == dtype:
            space = slopes[end:after]
        else:
            room = slopes.new_empty(2 * min(height, rows - start), classes, dtype=dtype) if room is None else room
            space = room
        block = slice(start, end)
        ours, theirs, slope = (tensor if height >= rows else tensor[block] for tensor in (student, teacher, slopes))
        beside = [column[block] for column in columns]
        found.append(_block(ours, theirs, slope, space, kernel, temperature, masked, beside))
        start = end
    values, divisors = found[0] if len(found) == 1 else (torch.cat(column) for column in zip(*found, strict=True))
    return values, slopes, divisors


def _block(
    student: Tensor,
    teacher: Tensor,
    slope: Tensor,
    space: Tensor,
    kernel: Kernel,
    temperature: float,
    masked: bool,
    columns: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """One block of rows, in float32 or wider, with zeros where nothing counts."""
    if masked:
        *columns, counts = columns
        blank = ~counts
        student, teacher = student.masked_fill(blank, 0.0), teacher.masked_fill(blank, 0.0)
        values, divisor = _block(student, teacher, slope, space, kernel, temperature, False, columns)
        slope.masked_fill_(blank, 0.0)
        return values.masked_fill(blank, 0.0), divisor
    out = slope if slope.dtype == space.dtype else torch.empty_like(slope, dtype=space.dtype)
    found = kernel(student.to(space.dtype), teacher.to(space.dtype), out, space, *columns, temperature=temperature)
    if out is not slope:
        slope.copy_(out)
    return found


def forward_kl(
    student: Tensor, teacher: Tensor, slope: Tensor, space: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """KL(p ‖ q), and its slope q − p; p is the teacher's distribution, q the student's."""
    shifted = _shift(student, teacher, slope, space, temperature)
    if shifted is None:
        return _forward_kl_wide(student, teacher, slope, temperature)
    weights, products, total, mean, one, _ = shifted
    torch.addcmul(products, weights, mean, value=-1, out=slope)
    growth = mean.add_(one) if one else mean
    return growth.log(), total.mul_(growth)


def decoupled(
    student: Tensor,
    teacher: Tensor,
    slope: Tensor,
    space: Tensor,
    targets: Tensor,
    alpha: float,
    beta: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """α · TCKD + β · NCKD, and its slope α (q_y − p_y)(1_y − q̂) + β (q̂ − p̂); the hats mark the
    distributions over the other classes."""
    shifted = _shift(student, teacher, slope, space, temperature, targets)
    if shifted is None:
        return _decoupled_wide(student, teacher, slope, targets, alpha, beta, temperature)
    weights, products, total, mean, one, (highest, offset) = shifted
    growth = wider(mean).add_(one)
    normalizer = wider(total).log().add_(wider(highest), alpha=1 / temperature)
    own_student, own_teacher = (wider(logits.gather(1, targets)) / temperature for logits in (student, teacher))
    margin = own_teacher - normalizer
    change = own_student - own_teacher + wider(offset) - growth.log()
    if not change.abs().amax().item() < 60:
        return _decoupled_wide(student, teacher, slope, targets, alpha, beta, temperature)
    # Seen from the less probable of the pair, nothing cancels: log(1 + r (eᶜ − 1)) − r c with r ≤ ½.
    rare = margin.abs().neg_().sigmoid_()
    toward = torch.where(margin > 0, -change, change)
    target_kl = torch.log1p(rare * toward.expm1()) - rare * toward
    pull = alpha * ((margin + change).sigmoid() - margin.sigmoid())
    # In units of p̂'s weights: q̂ is the products over E_p̂[e], with the weights themselves where they hold e − 1.
    of_student = ((beta - pull) / growth).to(student.dtype)
    torch.mul(products, of_student, out=slope)
    slope.addcmul_(weights, of_student * one - beta)
    slope.scatter_(1, targets, pull.to(student.dtype) * total)
    return (alpha * target_kl + beta * growth.log()).to(student.dtype), total


def reverse_kl(
    student: Tensor, teacher: Tensor, slope: Tensor, space: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """KL(q ‖ p), and its slope q (log q/p − KL): with d = (z_t − z_s) / T, its mean μ under q and x = d − μ,
    they are log E_q[eˣ] and −q x."""
    centered = _centered(teacher, student, slope, space, temperature)
    if centered is None:
        return _reverse_kl_wide(student, teacher, slope, temperature)
    weights, total, *_ = centered
    one, height = _beside_one(temperature), len(slope)
    grown = (torch.expm1 if one else torch.exp)(slope, out=space[height : 2 * height])
    slope.mul_(weights).neg_()
    mean = weights.mul_(grown).sum(1, True).div_(total).clamp_(min=1 - one)
    return (mean.log1p() if one else mean.log()), total


def jensen_shannon(
    student: Tensor, teacher: Tensor, slope: Tensor, space: Tensor, temperature: float, beta: float
) -> tuple[Tensor, Tensor]:
    """β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q, and its slope
    (1 − β) q (log q/m − KL(q ‖ m)). With x = log q/p and v = eˣ − 1, log m/p is log(1 + (1 − β) v)."""
    centered = _centered(student, teacher, slope, space, temperature)
    if centered is None:
        return _jensen_shannon_wide(student, teacher, slope, temperature, beta)
    weights, total, _, offset = centered
    rest = torch.expm1(slope, out=space[len(slope) : 2 * len(slope)])
    growth = torch.mul(weights, rest, out=slope).sum(1, True).div_(total).clamp_(min=0)
    rest.sub_(growth).div_(growth + 1)
    of_student = torch.addcmul(weights, weights, rest, out=slope)
    log_m = rest.mul_(1 - beta).log1p_()
    from_teacher = weights.mul_(log_m).sum(1, True).div_(-total)
    x = torch.sub(student, teacher, out=weights).mul_(1 / temperature).add_(offset - growth.log1p())
    log_ratio = x.sub_(log_m)
    from_student = torch.mul(of_student, log_ratio, out=rest).sum(1, True).div_(total)
    of_student.mul_(log_ratio.sub_(from_student))
    return from_teacher.mul_(beta).add_(from_student, alpha=1 - beta), total / (1 - beta)


def _shift(
    student: Tensor,
    teacher: Tensor,
    out: Tensor,
    space: Tensor,
    temperature: float,
    without: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, tuple[Tensor, Tensor]] | None:
    """What both forward divergences are made of, in the precision at hand; ``None`` where that is not enough.

    With x and p as in :func:`_centered`, and e = exp(x), the student's distribution is q = p e / E_p[e], and
    KL(p ‖ q) = log E_p[e]: one exponential besides p, and no difference of two large numbers, however close
    p and q are. At high temperatures, where T² magnifies what is rounded off beside 1, e − 1 takes the
    place of e.

    Returns:
        p up to a factor, and that times e or e − 1, both in ``space``; then as columns the sum of the first
        and E_p of e or e − 1; 1 if it was e − 1, else 0; and the highest logit and −μ. ``without`` is a
        class for each row to leave out.
    """
    centered = _centered(student, teacher, out, space, temperature, without)
    if centered is None:
        return None
    weights, total, highest, offset = centered
    one = _beside_one(temperature)
    height = len(student)
    products = torch.mul(weights, out.expm1_() if one else out.exp_(), out=space[height : 2 * height])
    mean = products.sum(1, True).div_(total).clamp_(min=1 - one)
    return weights, products, total, mean, one, (highest, offset)


def _centered(
    student: Tensor,
    teacher: Tensor,
    out: Tensor,
    space: Tensor,
    temperature: float,
    without: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """x = d − μ, written into ``out``, where d = (z_s − z_t) / T and μ is its mean under the teacher's p.

    Returns:
        p up to a factor, in the first half of ``space``; then as columns its sum, the highest logit and −μ.
        The second half holds nothing. ``None`` where the precision at hand is not enough, and on a GPU, which would
        have to be waited for to tell.
    """
    if student.device.type != "cpu":
        return None
    height = len(student)
    highest = teacher.amax(1, True)
    weights = torch.add(highest * (-1 / temperature), teacher, alpha=1 / temperature, out=space[:height]).exp_()
    if without is not None:
        weights.scatter_(1, without, 0.0)
    total = weights.sum(1, True)
    torch.sub(teacher, student, out=out)
    products = torch.mul(weights, out, out=space[height : 2 * height])
    offset = products.sum(1, True).div_(total * temperature)
    torch.add(offset, out, alpha=-1 / temperature, out=out)
    # Past e^60 a product with an underflowed p would be lost; NaN, from −∞ − −∞, fails the comparison too.
    if not out.amax().item() < 60 or (without is not None and not total.amin().item() > 1e-20):
        return None
    return weights, total, highest, offset


def _beside_one(temperature: float) -> int:
    """1 where T² is so large that what is rounded off beside 1 shows, else 0."""
    return int(temperature > 8)


def _forward_kl_wide(student: Tensor, teacher: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    q, log_q = _distribution(student, temperature)
    p, log_p = _distribution(teacher, temperature)
    slope.copy_(q - p)
    return _narrow(torch.linalg.vecdot(p, (log_p - log_q).masked_fill_(p == 0, 0.0)).unsqueeze(1), student)


def _reverse_kl_wide(student: Tensor, teacher: Tensor, slope: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    q, log_q = _distribution(student, temperature)
    _, log_p = _distribution(teacher, temperature)
    ratio = (log_q - log_p).masked_fill_(q == 0, 0.0)
    values = torch.linalg.vecdot(q, ratio).unsqueeze(1)
    slope.copy_(q * (ratio - values))
    return _narrow(values, student)


def _jensen_shannon_wide(
    student: Tensor, teacher: Tensor, slope: Tensor, temperature: float, beta: float
) -> tuple[Tensor, Tensor]:
    q, log_q = _distribution(student, temperature)
    p, log_p = _distribution(teacher, temperature)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    from_teacher = (log_p - log_m).masked_fill_(p == 0, 0.0)
    from_student = (log_q - log_m).masked_fill_(q == 0, 0.0)
    student_part = torch.linalg.vecdot(q, from_student).unsqueeze(1)
    slope.copy_((1 - beta) * q * (from_student - student_part))
    return _narrow(beta * torch.linalg.vecdot(p, from_teacher).unsqueeze(1) + (1 - beta) * student_part, student)


def _decoupled_wide(
    student: Tensor, teacher: Tensor, slope: Tensor, targets: Tensor, alpha: float, beta: float, temperature: float
) -> tuple[Tensor, Tensor]:
    margins, distributions = [], []
    for logits in (student, teacher):
        wide = wider(logits) / temperature
        rest = wide.scatter(1, targets, -torch.inf)
        normalizer = rest.logsumexp(1, keepdim=True)
        margins.append(wide.gather(1, targets) - normalizer)
        # Without another class there is no distribution over the others.
        log_rest = torch.where(normalizer == -torch.inf, normalizer, rest - normalizer)
        distributions.append((log_rest.exp(), log_rest))
    (q, log_q), (p, log_p) = distributions
    target_kl, gap = _binary_kl(*margins)
    other_kl = torch.linalg.vecdot(p, (log_p - log_q).masked_fill_(p == 0, 0.0)).unsqueeze(1)
    pull = alpha * gap
    slope.copy_((beta * (q - p) - pull * q).scatter(1, targets, pull))
    return _narrow(alpha * target_kl + beta * other_kl, student)


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


def _narrow(values: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Values in the precision of the logits, and 1 as the divisor of every row."""
    return values.to(like.dtype), torch.ones_like(values, dtype=like.dtype)


def wider(tensor: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()
