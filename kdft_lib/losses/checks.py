"""What every loss asks of its arguments, and how it reduces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Reduction: TypeAlias = Literal["mean", "sum", "none"]


def positive(name: str, number: float) -> float:
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} is {number}; it must be positive and finite")
    return number


def check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"{name} is {weight}; it must be 0 or more and finite")


def logit_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Check a pair of logits; the teacher's come back without gradient."""
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"{name} is a {type(logits).__name__}, as answers of which a few classes are kept; this loss compares"
                " all of them, so give a tensor of logits"
            )
        if not logits.is_floating_point():
            raise ValueError(f"{name} has dtype {logits.dtype}; logits are floating-point numbers")
    if student.shape != teacher.shape:
        raise ValueError(
            f"student_logits has shape {tuple(student.shape)} and teacher_logits {tuple(teacher.shape)};"
            " both must be (..., classes) with the same classes in the same order"
        )
    if student.dim() == 0 or student.numel() == 0:
        raise ValueError(f"student_logits has shape {tuple(student.shape)}; it needs at least one sample and one class")
    return student, teacher.detach() if teacher.requires_grad else teacher


def wide_pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """A checked pair in one precision, float32 or wider."""
    student, teacher = logit_pair(student, teacher)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


def wider(tensor: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def transformed(tensor: Tensor) -> bool:
    """Whether a tensor is traced by a compiler, or mapped or differentiated by :mod:`torch.func`."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def readable(tensor: Tensor) -> bool:
    """Whether a tensor's values may be looked at: not on a GPU, which would have to be waited for, and not while they
    are traced or transformed."""
    return tensor.is_cpu and not transformed(tensor)


def check_mask(mask: Tensor, logits: Tensor) -> None:
    if mask.shape != logits.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype};"
            f" it must be boolean, {tuple(logits.shape[:-1])}, one entry for each position"
        )
    if readable(mask) and not mask.any():
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


def check_targets(
    targets: Tensor, logits: Tensor, labeled: Tensor | None = None, totals: Mapping[str, int] | None = None
) -> None:
    """Refuse targets that are no class index for each position, where it is labelled. Their range is read from
    ``totals``, which were counted on the CPU, where there are any."""
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)};"
            f" it must be int64, {tuple(logits.shape[:-1])}, a class index for each position"
        )
    wrong = _out_of_range(targets, logits.shape[-1], labeled, totals)
    if wrong is not None:
        raise ValueError(
            f"targets holds {wrong}; it must be from 0 to {logits.shape[-1] - 1}"
            + (", or -100 for no label" if labeled is not None else "")
        )


def _out_of_range(
    targets: Tensor, classes: int, labeled: Tensor | None, totals: Mapping[str, int] | None
) -> int | None:
    if totals is not None and "lowest" in totals:
        return next((found for found in (totals["lowest"], totals["highest"]) if not 0 <= found < classes), None)
    if not readable(targets):
        return None
    outside = (targets < 0) | (targets >= classes)
    outside = outside if labeled is None else outside & labeled
    return int(targets[outside][0]) if outside.any() else None
