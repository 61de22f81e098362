"""Divergences between a teacher's and a student's distribution over classes, of each row.

Each is a formula, which autograd differentiates, and for many logits a kernel, which agrees with it within rounding: a
formula keeps half a dozen tensors of the logits' size, a kernel works in blocks that stay in the processor's cache, and
keeps the gradient alone. Below, p is the teacher's distribution and q the student's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.losses.checks import logit_pair, transformed

LARGE = 1 << 16
"""The number of logits up to which a formula is taken: ``benchmarks/results/crossover.svg`` shows both."""
_ROOM = 1 << 18
"""Numbers of the blocks that a kernel works in, on a CPU: a MiB of float32 stays in the cache. Of smaller blocks the
calls, some 50 µs each, cost more than the numbers, some 2 ns each; from 2¹⁵ numbers on, threads share them."""


class Divergence(NamedTuple):
    """A divergence, computed in two ways."""

    formula: Callable[..., Tensor]
    """From logits at temperature 1, the dimension of the classes, and what else it needs, the value of each row."""
    kernel: Callable[..., tuple[Tensor, Tensor]]
    """From rows of the student's and the teacher's logits, as many to write slopes into, ``room`` times as many to work
    in, and log₂e / T, two columns: of each row the value in bits, and what its slope is to be divided by."""
    room: int = 2


def rowwise(
    divergence: Divergence, student: Tensor, teacher: Tensor, temperature: float, *more: Any,
    mask: Tensor | None = None, large: int = LARGE,
) -> Tensor:  # fmt: skip
    """A divergence of each row of logits times T², from ``(..., C)`` to ``(...)``; the teacher is a constant. Where the
    ``mask`` is false, the logits may hold anything, and the value is 0."""
    pair = isinstance(student, Tensor) and isinstance(teacher, Tensor) and student.shape == teacher.shape
    if not (pair and student.is_floating_point() and teacher.is_floating_point() and student.numel() and student.dim()):
        logit_pair(student, teacher)  # Says what is wrong.
    shape = student.shape
    if teacher.requires_grad:
        teacher = teacher.detach()
    if student.numel() > large and not (transformed(student) or transformed(teacher)):
        columns = (each.reshape(-1, 1) if isinstance(each, Tensor) else each for each in (mask, *more))
        rows = student.reshape(-1, shape[-1]), teacher.reshape(-1, shape[-1])
        return _Blocks.apply(divergence, temperature, *rows, *columns).reshape(shape[:-1])
    dtype = wide = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    if temperature > 8 and student.device.type != "mps":
        # In float32 a row's normaliser is rounded by some 1e-7, and its value by T² times that: from here on by 1e-5.
        wide = torch.float64
    if mask is not None:
        student, teacher = (logits.masked_fill(~mask.unsqueeze(-1), 0.0) for logits in (student, teacher))
    if student.dtype is not wide or teacher.dtype is not wide:
        student, teacher = student.to(wide), teacher.to(wide)
    dim = -1
    if shape[-1] < 16 and len(shape) > 1:
        # A vector of the processor holds 16 numbers, and fewer classes leave it in part empty: rows fill it.
        student, teacher, dim = student.movedim(-1, 0), teacher.movedim(-1, 0), 0
    if temperature == 1:
        values = divergence.formula(student, teacher, dim, *more)
    else:
        student, teacher = student * (1 / temperature), teacher * (1 / temperature)
        values = divergence.formula(student, teacher, dim, *more) * temperature**2
    if mask is not None:
        values = values.masked_fill(~mask, 0.0)
    return values if wide is dtype else values.to(dtype)


class _Blocks(torch.autograd.Function):
    """Keeps the gradient that the forward pass found, and hands it out once, scaled in place. A second pass, and a
    second derivative, go through the formula."""

    @staticmethod
    def forward(
        ctx: Any, divergence: Divergence, temperature: float, student: Tensor, teacher: Tensor, mask: Tensor | None,
        *more: Any,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(student, teacher, mask)
        ctx.how = divergence, temperature, more
        values, *ctx.found = _in_blocks(divergence, math.log2(math.e) / temperature, student, teacher, mask, *more)
        return values.mul_(math.log(2) * temperature**2).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        divergence, temperature, more = ctx.how
        twice, found, ctx.found = torch.is_grad_enabled(), ctx.found, None
        if twice or found is None:
            student, teacher, *columns = ctx.saved_tensors
            mask, *more = (each.squeeze(1) if isinstance(each, Tensor) else each for each in (*columns, *more))
            with torch.enable_grad():
                values = rowwise(divergence, student, teacher, temperature, *more, mask=mask, large=student.numel())
            slopes = torch.autograd.grad(values, student, upstream[0], create_graph=twice)[0]
        else:
            slopes = found[0].mul_(upstream[0].unsqueeze(1).mul(temperature).div_(found[1]))
        return None, None, slopes, None, None, *[None] * len(more)


def _in_blocks(
    divergence: Divergence, scale: float, student: Tensor, teacher: Tensor, mask: Tensor | None, *more: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all rows the values, the slopes and the slopes' divisors."""
    rows, classes = student.shape
    height = _ROOM // (divergence.room * classes) if student.is_cpu else rows // (8 * divergence.room)
    height = min(max(height, 1), rows)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    slopes, room = torch.empty_like(student), student.new_empty(divergence.room, height, classes, dtype=dtype)
    found = []
    for start in range(0, rows, height):
        block = slice(start, start + height)
        ours, theirs, slope = student[block].to(dtype), teacher[block].to(dtype), slopes[block]
        if mask is not None:
            ours, theirs = (logits.masked_fill(~mask[block], 0.0) for logits in (ours, theirs))
        out = slope if slope.dtype == dtype else torch.empty_like(ours)
        columns = (each[block] if isinstance(each, Tensor) else each for each in more)
        found.append(divergence.kernel(ours, theirs, out, room[:, : len(ours)], scale, *columns))
        if out is not slope:
            slope.copy_(out)
    values, divisors = (torch.cat(column) for column in zip(*found, strict=True))
    if mask is not None:
        values.masked_fill_(~mask, 0.0)
        slopes.masked_fill_(~mask, 0.0)
    return values, slopes, divisors


def _hide(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Classes that the first masks with −∞ get a logit so low that their probability is 0 and 0 · log 0 is 0; in the
    second those that both mask. Where the values can be looked at, the sum tells whether there are any."""
    if (
        first.is_cpu
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_functorch_wrapped_tensor(first)
        and math.isfinite(first.sum().item())
    ):
        return first, second
    masked = first == -torch.inf
    return first.masked_fill(masked, -1e30), second.masked_fill(masked & (second == -torch.inf), -1e30)


def _bits(logits: Tensor, scale: float, out: Tensor) -> Tensor:
    """Logits in bits, the highest of each row 0: exp2 costs a third of exp."""
    return torch.sub(logits, logits.amax(1, True), out=out).mul_(scale)


def _kl_bits(x: Tensor, y: Tensor, room: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """KL(p ‖ q) = Σ p (y − x) + log Σe/Σf with q = e / Σe and p = f / Σf; then Σe, Σe/Σf, e and f."""
    f = torch.exp2(y, out=room)
    total_p = f.sum(1, True)
    mean = y.sub_(x).mul_(f).sum(1, True).div_(total_p)
    e = x.exp2_()
    total_q = e.sum(1, True)
    ratio = total_q / total_p
    return mean.add_(ratio.log2()), total_q, ratio, e, f


def _forward_kl(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """KL(p ‖ q) = Σ p log p/q."""
    teacher, student = _hide(teacher, student)
    log_q, log_p = student.log_softmax(dim), teacher.log_softmax(dim)
    return ((log_p - log_q) * log_p.exp()).sum(dim)


def _forward_kl_block(
    student: Tensor, teacher: Tensor, slope: Tensor, room: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Its slope is q − p."""
    teacher, student = _hide(teacher, student)
    values, total_q, ratio, e, f = _kl_bits(_bits(student, scale, slope), _bits(teacher, scale, room[0]), room[1])
    torch.addcmul(e, f, ratio, value=-1, out=slope)
    return values, total_q


def _reverse_kl(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """KL(q ‖ p): the same, each in the other's place."""
    return _forward_kl(teacher, student, dim)


def _reverse_kl_block(
    student: Tensor, teacher: Tensor, slope: Tensor, room: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Its slope is q (log q/p − KL)."""
    student, teacher = _hide(student, teacher)
    x, y = _bits(student, scale, slope), _bits(teacher, scale, room[0])
    total_p = torch.exp2(y, out=room[1]).sum(1, True)
    products = torch.sub(x, y, out=y)
    e = x.exp2_()
    total_q = e.sum(1, True)
    mean = products.mul_(e).sum(1, True).div_(total_q)
    torch.addcmul(products, e, mean, value=-1, out=slope)
    return mean + (total_p / total_q).log2_(), total_q / math.log(2)


def _jensen_shannon(student: Tensor, teacher: Tensor, dim: int, beta: float) -> Tensor:
    """β KL(p ‖ m) + (1 − β) KL(q ‖ m) with m = β p + (1 − β) q."""
    student, teacher = _hide(*reversed(_hide(teacher, student)))
    log_q, log_p = student.log_softmax(dim), teacher.log_softmax(dim)
    p, q = beta * log_p.exp(), (1 - beta) * log_q.exp()
    log_m = (p + q + torch.finfo(q.dtype).tiny).log()  # Where both underflow, 0 · log 0 is 0.
    return (p * (log_p - log_m) + q * (log_q - log_m)).sum(dim)


def _jensen_shannon_block(
    student: Tensor, teacher: Tensor, slope: Tensor, room: Tensor, scale: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Its slope is (1 − β) q (log q/m − KL(q ‖ m)); Σe m is (1 − β) e + β f Σe/Σf."""
    student, teacher = _hide(*reversed(_hide(teacher, student)))
    x, y = _bits(student, scale, slope), _bits(teacher, scale, room[0])
    e, f = torch.exp2(x, out=room[1]), torch.exp2(y, out=room[2])
    total_q, total_p = e.sum(1, True), f.sum(1, True)
    ratio = total_q / total_p
    m = torch.mul(e, 1 - beta, out=room[3]).addcmul_(f, ratio, value=beta).add_(torch.finfo(e.dtype).tiny)
    log_m = m.log2_()
    from_teacher = y.sub_(log_m).mul_(f).sum(1, True).div_(total_p).add_(ratio.log2())
    products = torch.mul(e, x.sub_(log_m), out=y)
    from_student = products.sum(1, True).div_(total_q)
    torch.addcmul(products, e, from_student, value=-1, out=slope)
    return from_teacher.mul_(beta).add_(from_student, alpha=1 - beta), total_q / ((1 - beta) * math.log(2))


def _decoupled(student: Tensor, teacher: Tensor, dim: int, targets: Tensor, alpha: float, beta: float) -> Tensor:
    """α KL(b_t ‖ b_s) + β KL(p̂ ‖ q̂): b are the pairs (target, all others), the hats distributions over the others."""
    sides = []
    for logits in reversed(_hide(teacher, student)):
        others = logits.scatter(dim, targets.unsqueeze(dim), -1e30)
        highest = others.detach().amax(dim, keepdim=True)
        x = others - highest
        e = x.exp()
        margin = (logits.gather(dim, targets.unsqueeze(dim)) - highest).squeeze(dim)
        sides.append((x, e, e.sum(dim), margin))
    (x, _, total_q, margin_s), (y, f, total_p, margin_t) = sides
    others_kl = ((y - x) * f).sum(dim) / total_p + (total_q / total_p).log()
    return alpha * _binary_kl(margin_s - total_q.log(), margin_t - total_p.log()) + beta * others_kl


def _decoupled_block(
    student: Tensor, teacher: Tensor, slope: Tensor, room: Tensor, scale: float, at: Tensor, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Its slope is α (b_s − b_t) (1_y − q̂) + β (q̂ − p̂)."""
    sides = []
    for logits, out in zip(reversed(_hide(teacher, student)), (slope, room[0]), strict=True):
        others = out.copy_(logits).scatter_(1, at, -1e30)
        sides.append(logits.gather(1, at).sub_(others.amax(1, True)).mul_(scale))
        _bits(others, scale, out)
    values, total_q, ratio, e, f = _kl_bits(slope, room[0], room[1])
    margin_s, margin_t = ((sides[i] - total.log2()) * math.log(2) for i, total in enumerate((total_q, total_q / ratio)))
    pull = (margin_s.sigmoid() - margin_t.sigmoid()).mul_(alpha)
    torch.mul(e, beta - pull, out=slope).addcmul_(f, ratio, value=-beta).scatter_(1, at, pull * total_q)
    return values.mul_(beta).add_(_binary_kl(margin_s, margin_t), alpha=alpha / math.log(2)), total_q


def _binary_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL between (σ(t), σ(−t)) and (σ(s), σ(−s))."""
    p = teacher.sigmoid()
    cross, own = (F.binary_cross_entropy_with_logits(logits, p, reduction="none") for logits in (student, teacher))
    return cross - own


FORWARD_KL = Divergence(_forward_kl, _forward_kl_block)
REVERSE_KL = Divergence(_reverse_kl, _reverse_kl_block)
JENSEN_SHANNON = Divergence(_jensen_shannon, _jensen_shannon_block, room=4)
DECOUPLED = Divergence(_decoupled, _decoupled_block)
