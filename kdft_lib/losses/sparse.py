"""What a few classes of a teacher's answer teach, without the vocabulary that they are taken from.

A sparse answer is a mapping of tensors, rows first, as :func:`kdft_lib.teachers.compress` makes it: ``values``
``(N, ..., k)``, log-probabilities; ``indices``, their classes; ``classes`` ``(N,)``, how many there are, where that
is known; and what is known of the others, ``(N, ..., 1)``: ``even``, the log-probability of each of them, or
``bucket``, that of all together. Without either, the k classes were drawn, in order, and a repeat counts twice.

Of the student, its logits of the kept classes are needed, and one log-sum-exp of all others, which makes them one
class more. Divergences between these k + 1 are what ``bucket`` gives: never more than those between all. The even
share adds how far the student spreads the others from evenly; a sample needs the student's log-probabilities alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdft_lib.losses import divergences
from kdft_lib.losses.checks import readable

Answers: TypeAlias = Tensor | Mapping[str, Tensor]
"""What a teacher says: logits ``(..., C)``, or a few of them."""

_AT_ONCE = 1 << 17
"""Elements of a block on a CPU, which stays in the cache."""


def divergence(
    kind: divergences.Divergence,
    student: Tensor,
    answers: Mapping[str, Tensor],
    temperature: float,
    mask: Tensor | None,
    *more: float,
) -> Tensor:
    """The divergence's values times T² on what is known, ``(...)``, 0 where the mask does not count."""
    check(student, answers)
    answers = {name: column.detach() for name, column in answers.items()}
    if "bucket" not in answers and kind is not divergences.FORWARD_KL:
        raise ValueError(
            "teacher_logits keeps a few classes of each answer, from which forward KL alone is found; keep the"
            ' others as one, compress(logits, top_k, rest="bucket"), or all classes'
        )
    if "even" not in answers and temperature != 1:
        raise ValueError(
            f"temperature is {temperature}, and teacher_logits keeps a few classes as they are at 1, which do not say"
            ' what the others are at another; set temperature=1.0, or keep an even share, rest="even"'
        )
    kept, others, spread = _pooled(student, answers["indices"], temperature, mask)
    theirs = answers["values"]
    if "bucket" in answers:
        values = _between(kind, (kept, others), (theirs, answers["bucket"]), temperature, *more)
    elif "even" in answers:
        count = max(student.shape[-1] - theirs.shape[-1], 1)
        rest = answers["even"].to(kept.dtype) + temperature * math.log(count)
        values = _between(kind, (kept, others), (theirs, rest), temperature)
        mass = (torch.cat([theirs, rest], -1) / temperature).softmax(-1)[..., -1:]
        values = values + temperature**2 * (mass * spread.masked_fill(mass == 0, 0.0)).squeeze(-1)
    else:
        values = (theirs - _log_probabilities(kept, others, answers["indices"])).mean(-1)
    return values if mask is None else values.masked_fill(~mask, 0.0)


def decision(student: Tensor, answers: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy with the class kept as the most probable, ``(...)``."""
    check(student, answers)
    if not answers.keys() & {"even", "bucket"}:
        raise ValueError(
            "teacher_logits holds classes that were drawn, of which none need be the teacher's decision; keep the"
            ' highest, compress(logits, top_k, rest="even"), or learn the distribution with SoftTargets'
        )
    highest = answers["indices"].gather(-1, answers["values"].argmax(-1, keepdim=True))
    kept, others, _ = _pooled(student, highest, 1.0, None)
    return -_log_probabilities(kept, others, highest).squeeze(-1)


def check(student: Tensor, answers: Mapping[str, Tensor]) -> None:
    """Refuse answers to other positions, or of other classes."""
    if not student.is_floating_point():
        raise ValueError(f"student_logits has dtype {student.dtype}; logits are floating-point numbers")
    values, classes = answers["values"], student.shape[-1]
    if student.shape[:-1] != values.shape[:-1] or student.numel() == 0:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)}, and teacher_logits keeps {values.shape[-1]} classes of"
            f" {tuple(values.shape[:-1])} answers; they must be (..., classes) and (...), of one sample or more"
        )
    if readable(answers["indices"]):
        check_classes(classes, answers)


def check_classes(classes: int, answers: Mapping[str, Tensor]) -> None:
    """Refuse answers of other classes. On a GPU this waits for it."""
    if "classes" in answers:
        if (known := int(answers["classes"][0])) != classes:
            raise ValueError(
                f"student_logits has {classes} classes, and teacher_logits keeps some of {known}; both must have the"
                " same classes in the same order"
            )
    elif (highest := int(answers["indices"].max())) >= classes:
        raise ValueError(f"teacher_logits names class {highest}; the student has {classes}, from 0 to {classes - 1}")


def _between(
    kind: divergences.Divergence,
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    temperature: float,
    *more: float,
) -> Tensor:
    """A divergence between distributions over the kept classes and all others as one."""
    return divergences.rowwise(kind, torch.cat(student, -1), torch.cat(teacher, -1), temperature, *more)


def _log_probabilities(kept: Tensor, others: Tensor, indices: Tensor) -> Tensor:
    """Of the kept classes among all; one that is named again counts once."""
    again = F.pad(indices.diff(dim=-1) == 0, (1, 0))
    total = torch.cat([kept.masked_fill(again, -torch.inf), others], -1).logsumexp(-1, keepdim=True)
    return kept - total


def _pooled(student: Tensor, indices: Tensor, temperature: float, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    shape = student.shape[:-1]
    flat = student.reshape(-1, student.shape[-1])
    blank = None if mask is None else ~mask.reshape(-1, 1)
    found = _Pooled.apply(flat, indices.long().reshape(len(flat), -1), temperature, blank)
    return tuple(column.reshape(*shape, -1) for column in found)


class _Pooled(torch.autograd.Function):
    """The student's logits of some classes, ``(rows, k)``; the logit of all others as one, T log Σ exp(z / T), and
    KL(u ‖ s) between an even share u and the student's s among them, ``(rows, 1)``.

    Beside the gradient, nothing of the logits' size is made: a block of rows at a time, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, indices: Tensor, temperature: float, blank: Tensor | None
    ) -> tuple[Tensor, ...]:
        dtype = torch.promote_types(student.dtype, torch.float32)
        count = max(student.shape[1] - indices.shape[1], 1)
        found = []
        for block in _blocks(student):
            at = indices[block]
            others = (student[block].to(dtype) / temperature).scatter_(1, at, -torch.inf)
            highest = others.amax(1, True).clamp_(min=torch.finfo(dtype).min)
            total = others.sub_(highest).exp().sum(1, True).log_()
            mean = others.scatter_(1, at, 0.0).sum(1, True) / count
            found.append((total + highest, total - mean - math.log(count)))
        pooled, spread = (torch.cat(column) for column in zip(*found, strict=True))
        ctx.save_for_backward(student, indices, pooled, blank)
        ctx.temperature, ctx.count = temperature, count
        return student.gather(1, indices).to(dtype), pooled * temperature, spread

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_kept: Tensor, of_pooled: Tensor, of_spread: Tensor) -> tuple[Tensor | None, ...]:
        student, indices, pooled, blank = ctx.saved_tensors
        pooled = pooled.masked_fill(pooled == -torch.inf, 0.0)  # Where there are no others, their share is exp(−∞).
        even = of_spread / ctx.temperature
        slope = torch.empty_like(student)
        for block in _blocks(student):
            share = (student[block].to(pooled.dtype) / ctx.temperature).sub_(pooled[block]).exp_()
            share.mul_((of_pooled + even)[block]).sub_(even[block] / ctx.count)
            share.scatter_(1, indices[block], 0.0).scatter_add_(1, indices[block], of_kept[block])
            slope[block] = share if blank is None else share.masked_fill_(blank[block], 0.0)
        return slope, None, None, None


def _blocks(student: Tensor) -> Iterator[slice]:
    """Rows to be worked on at once: what the cache holds on a CPU, an eighth of them elsewhere."""
    height = _AT_ONCE // student.shape[1] if student.device.type == "cpu" else len(student) // 8
    height = max(height, 1)
    return (slice(start, start + height) for start in range(0, len(student), height))
