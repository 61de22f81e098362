"""Labels to learn: the cross-entropy of each, and what targets must be for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.data import UNLABELED, batches
from kdft_lib.losses.checks import check_targets, readable


def cross_entropies(
    objective: object,
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float,
    multi_label: bool,
    weight: Tensor | None,
    totals: Mapping[str, int] | None,
) -> Tensor:
    """The cross-entropy at each position, 0 where there is no label; the arguments are those of
    :meth:`kdft_lib.objectives.Objective.cross_entropy`.
    """
    labeled = batches.has_label(targets)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if multi_label:
        _check_multi_label(targets, labeled, logits)
        values = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(-1)
        return values.masked_fill(~labeled, 0.0)
    if targets.is_floating_point():
        refuse_numbers(objective, targets)
    check_targets(targets, logits, labeled, totals)
    if weight is not None and len(weight) != logits.shape[-1]:
        raise ValueError(
            f"weight has {len(weight)} entries and the logits {logits.shape[-1]} classes; give one for each class"
        )
    return F.cross_entropy(
        logits.movedim(-1, 1) if logits.dim() > 1 else logits,
        targets,
        weight=None if weight is None else weight.to(logits, non_blocking=True),
        ignore_index=UNLABELED,
        label_smoothing=label_smoothing,
        reduction="none",
    )


def refuse_numbers(objective: object, targets: Tensor) -> NoReturn:
    """Say what learns from targets that are no classes."""
    raise ValueError(
        f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}, as numbers or multi-label targets have,"
        f" but {type(objective).__name__} takes classes that exclude one another; use int64 for those,"
        " Supervised(loss=torch.nn.functional.mse_loss) for numbers, and Supervised(multi_label=True) or"
        " LogitMatching(teacher, multi_label=True) for several labels at once"
    )


def _check_multi_label(targets: Tensor, labeled: Tensor, logits: Tensor) -> None:
    """Refuse targets that are no probability for each class, where they are labelled."""
    if not targets.is_floating_point() or targets.shape != logits.shape:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}; with multi_label=True it"
            f" must be floating-point, {tuple(logits.shape)}, from 0 to 1 for each class"
        )
    if not readable(targets):
        return
    outside = labeled.unsqueeze(-1) & ((targets < 0) | (targets > 1))
    if outside.any():
        raise ValueError(
            f"targets holds {targets[outside][0]:g}; with multi_label=True it must be from 0 to 1,"
            " or −100 in a whole row for no label"
        )
