"""What every loss asks of its arguments, and how it reduces."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def positive(name: str, number: float) -> float:
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} is {number}; it must be positive and finite")
    return number


def logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Check a pair of logits; the teacher's come back without gradient."""
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
    return student, teacher.detach()


def wide_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """A checked pair in one precision, float32 or wider."""
    student, teacher = logit_pair(student, teacher)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


def check_mask(mask: Tensor, logits: Tensor) -> None:
    if mask.shape != logits.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype};"
            f" it must be boolean, {tuple(logits.shape[:-1])}, one entry for each position"
        )
    if not mask.any():
        raise ValueError("mask counts no position; leave a batch without any out")


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """Values for each sample, reduced."""
    match reduction:
        case "none":
            return values
        case "sum":
            return values.sum()
        case "mean":
            return values.mean()
    raise ValueError(f'reduction is {reduction!r}; choose "mean", "sum" or "none"')


def check_targets(targets: Tensor, logits: Tensor, labeled: Tensor | None = None) -> None:
    """Refuse targets that are no class index for each position, where it is labelled."""
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)};"
            f" it must be int64, {tuple(logits.shape[:-1])}, a class index for each position"
        )
    outside = (targets < 0) | (targets >= logits.shape[-1])
    outside = outside if labeled is None else outside & labeled
    if outside.any():
        raise ValueError(
            f"targets holds {int(targets[outside][0])}; it must be from 0 to {logits.shape[-1] - 1}"
            + (", or -100 for no label" if labeled is not None else "")
        )
