"""Total variation between a teacher's and a student's distribution over classes, of each row."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdft_lib.losses.divergences import Divergence, Pair


def _total_variation(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """½ Σ |q − p|."""
    return (student.softmax(dim) - teacher.softmax(dim)).abs().sum(dim) / 2


def _total_variation_block(student: Tensor, teacher: Tensor, scale: float, room: list[Tensor]) -> Pair:
    """Its slope is ½ q (s − Σ s q) with s the sign of q − p."""
    q, p = _softmax(student, scale, room[0]), _softmax(teacher, scale, room[1])
    gap = torch.sub(q, p, out=p)
    values = torch.abs(gap, out=room[2]).sum(1, True).div_(2 * math.log(2))
    sign = gap.sign_()
    mean = torch.mul(sign, q, out=room[2]).sum(1, True)
    torch.mul(q, sign.sub_(mean), out=room[0])
    return values, torch.full_like(values, 2.0)


def _softmax(logits: Tensor, scale: float, out: Tensor) -> Tensor:
    torch.sub(logits, logits.amax(1, True), out=out).mul_(scale).exp2_()
    return out.div_(out.sum(1, True))


TOTAL_VARIATION = Divergence(_total_variation, _total_variation_block)
