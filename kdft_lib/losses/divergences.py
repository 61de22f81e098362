"""Divergences between a teacher's and a student's distribution over classes, of each row.

Each is a formula, which autograd differentiates, and for many logits a kernel, which agrees with it within rounding: a
formula keeps half a dozen tensors of the logits' size, a kernel works in blocks that stay in the processor's cache, and
keeps the gradient alone. Below, p is the teacher's distribution and q the student's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.losses.checks import logit_pair, transformed

Pair: TypeAlias = tuple[Tensor, Tensor]
_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
LARGE = 1 << 16
"""The number of logits up to which a formula is taken: ``benchmarks/results/crossover.svg`` shows both."""
_ROOM = 1 << 18
"""Numbers of the blocks that a kernel works in, on a CPU: a MiB of float32 stays in the cache. Of smaller blocks the
calls, some 50 µs each, cost more than the numbers, some 2 ns each; from 2¹⁵ numbers on, threads share them."""


class Divergence(NamedTuple):
    """A divergence, computed in two ways."""

    formula: Callable[..., Tensor]
    """From logits at temperature 1, the dimension of the classes, and what else it needs, the value of each row."""
    kernel: Callable[..., Pair]
    """From rows of logits, log₂e / T and 1 + ``room`` tensors like them two columns, the values in bits and what the
    slopes, which the first of the tensors gets, are to be divided by."""
    room: int = 2


def rowwise(
    divergence: Divergence, student: Tensor, teacher: Tensor, temperature: float, *more: Any,
    mask: Tensor | None = None, large: int = LARGE, overwrite: bool = False,
) -> Tensor:  # fmt: skip
    """A divergence of each row of logits times T², from ``(..., C)`` to ``(...)``; the teacher is a constant. Where the
    ``mask`` is false, the logits may hold anything, and the value is 0. With ``overwrite`` the slopes may take the
    place of the student's logits, which are of float32 or wider then, and there is one derivative."""
    pair = isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.shape == teacher.shape
    if not (pair and student.is_floating_point() and teacher.is_floating_point() and student.numel() and student.dim()):
        logit_pair(student, teacher)  # Says what is wrong.
    teacher = teacher.detach() if teacher.requires_grad else teacher
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    if student.numel() > large and not (transformed(student) or transformed(teacher)):
        return _Blocks.apply(student, teacher, divergence, temperature, dtype, mask, overwrite, *more)
    # In float32 a row's normaliser is rounded by some 1e-7, and its value by T² times that: beyond T = 8 by 1e-5.
    wide = torch.float64 if temperature > 8 and student.device.type != "mps" else dtype
    if mask is not None:
        student, teacher = (logits.masked_fill(~mask.unsqueeze(-1), 0.0) for logits in (student, teacher))
    student, teacher = student.to(wide), teacher.to(wide)
    dim = -1
    if student.shape[-1] < 16 and student.dim() > 1:
        # A vector of the processor holds 16 numbers, and fewer classes leave it in part empty: rows fill it.
        student, teacher, dim = student.movedim(-1, 0), teacher.movedim(-1, 0), 0
    if temperature != 1:
        student, teacher = student * (1 / temperature), teacher * (1 / temperature)
    values = divergence.formula(student, teacher, dim, *more)
    values = values if temperature == 1 else values * temperature**2
    values = values if mask is None else values.masked_fill(~mask, 0.0)
    return values if wide is dtype else values.to(dtype)


class _Blocks(torch.autograd.Function):
    """Keeps the gradient that the forward pass found, and hands it out once, scaled in place. A second pass, and a
    second derivative, go through the formula."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, *how: Any) -> Tensor:
        divergence, temperature, dtype, mask, overwrite, *more = ctx.how = how
        ctx.save_for_backward(student, teacher)
        held = dtype if student.dtype == torch.float16 else student.dtype  # Not divided yet, they may be beyond 65,504.
        ctx.slopes = student.detach() if overwrite else student.new_empty(student.shape, dtype=held)
        ctx.dtype, classes = student.dtype, student.shape[-1]
        rows = [each.reshape(-1, classes) for each in (student, teacher, ctx.slopes)]
        height = max((_ROOM // classes if student.is_cpu else len(rows[0]) // 8) // divergence.room, 1)
        room, scale = student.new_empty(divergence.room, height, classes, dtype=dtype), math.log2(math.e) / temperature
        found = []
        for block in (slice(start, start + height) for start in range(0, len(rows[0]), height)):
            ours, theirs, slope = (each[block].to(dtype) for each in rows)
            columns = (each.reshape(-1)[block] if isinstance(each, Tensor) else each for each in more)
            found.append(divergence.kernel(ours, theirs, scale, [slope, *room[:, : len(ours)]], *columns))
            rows[2][block] = slope  # Where the precision is the same, it stands there already.
        values, ctx.divisors = (torch.cat(column).reshape(student.shape[:-1]) for column in zip(*found, strict=True))
        if mask is not None:
            values, ctx.divisors = values.masked_fill(~mask, 0.0), ctx.divisors.masked_fill(~mask, 1.0)
            ctx.slopes.masked_fill_(~mask.unsqueeze(-1), 0.0)
        return values.mul_(math.log(2) * temperature**2)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        divergence, temperature, _, mask, _, *more = ctx.how
        twice, slopes, ctx.slopes = torch.is_grad_enabled(), ctx.slopes, None
        if twice or slopes is None:
            student, teacher = ctx.saved_tensors
            with torch.enable_grad():
                values = rowwise(divergence, student, teacher, temperature, *more, mask=mask, large=student.numel())
            slopes = torch.autograd.grad(values, student, upstream[0], create_graph=twice)[0]
        else:
            slopes = slopes.mul_(upstream[0].mul(temperature).div_(ctx.divisors).unsqueeze(-1)).to(ctx.dtype)
        return slopes, None, *[None] * len(ctx.how)


def _hide(first: Tensor, second: Tensor) -> Pair:
    """Classes that the first masks with −∞ get a logit so low that their probability is 0 and 0 · log 0 is 0; in the
    second those that both mask. Where the values can be looked at, the sum tells whether there are any."""
    if first.is_cpu and not (torch.compiler.is_compiling() or _wrapped(first)) and math.isfinite(first.sum().item()):
        return first, second
    masked = first == -torch.inf
    return first.masked_fill(masked, -1e30), second.masked_fill(masked & (second == -torch.inf), -1e30)


def _ratios(student: Tensor, teacher: Tensor, scale: float, room: list[Tensor]) -> tuple[Tensor, ...]:
    """With q = e / Σe and p = f / Σf of each row log₂ f/e, and log₂ Σe/Σf, which makes it log₂ p/q; e, Σe, f and Σf."""
    for logits, out in zip((student, teacher), room[:2], strict=True):
        torch.sub(logits, logits.amax(1, True), out=out).mul_(scale)  # In bits, for exp2 costs a third of exp.
    f = torch.exp2(room[1], out=room[2])
    total_p, ratios = f.sum(1, True), room[1].sub_(room[0])
    e = room[0].exp2_()
    total_q = e.sum(1, True)
    return ratios, (total_q / total_p).log2_(), e, total_q, f, total_p


def _forward_kl(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """KL(p ‖ q) = Σ p log p/q."""
    log_p, log_q = (logits.log_softmax(dim) for logits in _hide(teacher, student))
    return ((log_p - log_q) * log_p.exp()).sum(dim)


def _forward_kl_block(student: Tensor, teacher: Tensor, scale: float, room: list[Tensor]) -> Pair:
    """Its slope is q − p."""
    ratios, shift, e, total_q, f, total_p = _ratios(*_hide(teacher, student)[::-1], scale, room)
    torch.addcmul(e, f, total_q / total_p, value=-1, out=room[0])
    return ratios.mul_(f).sum(1, True).div_(total_p).add_(shift), total_q


def _reverse_kl_block(student: Tensor, teacher: Tensor, scale: float, room: list[Tensor]) -> Pair:
    """KL(q ‖ p), of which the formula is the same with exchanged roles; its slope is q (log q/p − KL)."""
    ratios, shift, e, total_q, *_ = _ratios(*_hide(student, teacher), scale, room)
    mean = ratios.mul_(e).sum(1, True).div_(total_q)
    torch.addcmul(ratios, e, mean, value=-1, out=room[0])
    return mean.add_(shift).neg_(), total_q / -math.log(2)


def _jensen_shannon(student: Tensor, teacher: Tensor, dim: int, beta: float) -> Tensor:
    """β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q."""
    log_q, log_p = (logits.log_softmax(dim) for logits in _hide(*reversed(_hide(teacher, student))))
    p, q = beta * log_p.exp(), (1 - beta) * log_q.exp()
    log_m = (p + q + torch.finfo(q.dtype).tiny).log()  # Where both underflow, 0 · log 0 is 0.
    return (p * (log_p - log_m) + q * (log_q - log_m)).sum(dim)


def _jensen_shannon_block(student: Tensor, teacher: Tensor, scale: float, room: list[Tensor], beta: float) -> Pair:
    """Its slope is (1 − β) q (log q/m − KL(q ‖ m)); Σe m is (1 − β) e + β f Σe/Σf."""
    hidden = _hide(*reversed(_hide(teacher, student)))
    x, y = (torch.sub(z, z.amax(1, True), out=out).mul_(scale) for z, out in zip(hidden, room[:2], strict=True))
    e, f = torch.exp2(x, out=room[2]), torch.exp2(y, out=room[3])
    total = e.sum(1, True)
    ratio = total / f.sum(1, True)
    log_m = torch.lerp(e, f.mul_(ratio), beta, out=room[4]).add_(torch.finfo(e.dtype).tiny).log2_()
    from_teacher = y.sub_(log_m).mul_(f).sum(1, True) / total + ratio.log2()
    terms = x.sub_(log_m).mul_(e)
    from_student = terms.sum(1, True) / total
    torch.addcmul(terms, e, from_student, value=-1, out=room[0])
    return from_student.mul_(1 - beta).add_(from_teacher, alpha=beta), total / ((1 - beta) * math.log(2))


def _decoupled(student: Tensor, teacher: Tensor, dim: int, targets: Tensor, alpha: float, beta: float) -> Tensor:
    """α KL(b_t ‖ b_s) + β KL(p̂ ‖ q̂): b are the pairs (target, all others), the hats distributions over the others."""
    at, sides = targets.unsqueeze(dim), []
    for logits in reversed(_hide(teacher, student)):
        others = logits.scatter(dim, at, -1e30)
        highest = others.detach().amax(dim, keepdim=True)
        sides.append((others - highest, (logits.gather(dim, at) - highest).squeeze(dim)))
    (x, lead_s), (y, lead_t) = sides
    e, f = x.exp(), y.exp()
    total_q, total_p = e.sum(dim), f.sum(dim)
    margin_s, margin_t = lead_s - total_q.log(), lead_t - total_p.log()
    b = margin_t.sigmoid()
    cross, own = (F.binary_cross_entropy_with_logits(margin, b, reduction="none") for margin in (margin_s, margin_t))
    return alpha * (cross - own) + beta * (((y - x) * f).sum(dim) / total_p + (total_q / total_p).log())


def _decoupled_block(
    student: Tensor, teacher: Tensor, scale: float, room: list[Tensor], targets: Tensor, alpha: float, beta: float
) -> Pair:
    """Its slope is α (b_s − b_t) (1_y − q̂) + β (q̂ − p̂)."""
    at, leads = targets.unsqueeze(1), []
    for logits, others in zip(reversed(_hide(teacher, student)), room[:2], strict=True):
        others.copy_(logits).scatter_(1, at, -1e30)
        leads.append((logits.gather(1, at) - others.amax(1, True)) * (scale * math.log(2)))
    ratios, shift, e, total_q, f, total_p = _ratios(room[0], room[1], scale, room)
    others_kl = ratios.mul_(f).sum(1, True).div_(total_p).add_(shift)
    margin_s, margin_t = leads[0] - total_q.log(), leads[1] - total_p.log()
    b = margin_t.sigmoid()
    pull = (margin_s.sigmoid() - b).mul_(alpha)
    torch.mul(e, beta - pull, out=room[0]).addcmul_(f, total_q / total_p, value=-beta).scatter_(1, at, pull * total_q)
    cross, own = (F.binary_cross_entropy_with_logits(margin, b, reduction="none") for margin in (margin_s, margin_t))
    return others_kl.mul_(beta).add_(cross - own, alpha=alpha / math.log(2)), total_q


FORWARD_KL = Divergence(_forward_kl, _forward_kl_block)
REVERSE_KL = Divergence(lambda student, teacher, dim: _forward_kl(teacher, student, dim), _reverse_kl_block)
JENSEN_SHANNON = Divergence(_jensen_shannon, _jensen_shannon_block, room=4)
DECOUPLED = Divergence(_decoupled, _decoupled_block)
