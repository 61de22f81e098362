"""Labels to learn: what targets must be, and several of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import torch.nn.functional as F
from torch import Tensor

from kdft_lib.data import batches
from kdft_lib.losses.checks import check_targets, readable


def binary_cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean over classes that do not exclude one another, at each position, 0 where there is no label."""
    labeled = batches.has_label(targets)
    _check_multi_label(targets, labeled, logits)
    values = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none").mean(-1)
    return values.masked_fill(~labeled, 0.0)


def check_classes(objective: object, logits: Tensor, targets: Tensor, totals: Mapping[str, int] | None) -> None:
    """Refuse targets that are no class for each position; see :meth:`kdft_lib.objectives.Objective.cross_entropy`."""
    if targets.is_floating_point():
        refuse_numbers(objective, targets)
    check_targets(targets, logits, batches.has_label(targets), totals)


def check_padding(objective: object, logits: Tensor, inputs: Mapping[str, Tensor]) -> None:
    """Refuse padding among positions that would all count."""
    there = inputs.get("attention_mask")
    if there is not None and there.shape == logits.shape[:-1] and not there.all():
        raise ValueError(
            f"inputs are padded, and {type(objective).__name__} would count that; give a mask of what counts, as"
            " kdft_lib.data.padded does, or as attention_mask.bool() says"
        )


def check_weight(weight: Tensor, logits: Tensor) -> None:
    """Refuse weights that are none for each class."""
    if len(weight) != logits.shape[-1]:
        raise ValueError(
            f"weight has {len(weight)} entries and the logits {logits.shape[-1]} classes; give one for each class"
        )


def refuse_numbers(objective: object, targets: Tensor) -> NoReturn:
    """Say what learns from targets that are no classes."""
    raise ValueError(
        f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}, as numbers or multi-label targets have,"
        f" but {type(objective).__name__} takes classes that exclude one another; use int64 for those,"
        " Supervised(loss=torch.nn.functional.mse_loss) for numbers, and Supervised(multi_label=True) or"
        " LogitMatching(teacher, multi_label=True) for several labels at once"
    )


def refuse_single(objective: object, logits: Tensor) -> NoReturn:
    """Say what learns from one output for each sample."""
    raise ValueError(
        f"the logits have shape {tuple(logits.shape)}, one output for each sample; the probability of a single class"
        f" is always 1, so {type(objective).__name__} would learn nothing: match the number with"
        " LogitMatching(teacher), or give yes and no a logit each"
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
    if (~labeled & (targets != batches.UNLABELED).any(-1)).any():
        raise ValueError(
            "targets has −100 for a part of a row; with multi_label=True a row has all of its labels or none"
        )
    outside = labeled.unsqueeze(-1) & ((targets < 0) | (targets > 1))
    if outside.any():
        raise ValueError(
            f"targets holds {targets[outside][0]:g}; with multi_label=True it must be from 0 to 1,"
            " or −100 in a whole row for no label"
        )
