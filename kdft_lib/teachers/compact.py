"""The highest classes of each distribution, and one number for the others."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def compress(logits: Tensor, top_k: int) -> dict[str, Tensor]:
    """Keep the highest logits of each distribution, and what the others weigh together.

    Args:
        logits: The whole distributions, ``(N, ..., C)``.
        top_k: How many to keep, from 1 to below C.

    Returns:
        ``values`` ``(N, ..., top_k)`` relative to the logarithm of the sum of exponentials, that is
        log-probabilities, in the precision of the logits; ``indices``, their classes; ``rest``
        ``(N, ..., 1)``, the log-probability of each of the others, were they equal; ``classes``, C, for
        each sample.

    Raises:
        ValueError: If ``top_k`` is out of range.

    Example:
        >>> compact = compress(torch.tensor([[2.0, 0.0, 0.0, 1.0]]), top_k=2)
        >>> expand(compact).softmax(-1)
        tensor([[0.6103, 0.0826, 0.0826, 0.2245]])
    """
    classes = logits.shape[-1]
    if not 1 <= top_k < classes:
        raise ValueError(f"top_k is {top_k}; it must be from 1 to {classes - 1}, below the number of classes")
    log_probabilities = logits.double().log_softmax(-1)
    values, indices = log_probabilities.topk(top_k)
    others = log_probabilities.scatter(-1, indices, -torch.inf).logsumexp(-1, keepdim=True)
    return {
        "values": values.to(logits.dtype),
        "indices": indices.to(torch.int32),
        "rest": (others - math.log(classes - top_k)).to(logits.dtype),
        "classes": torch.full((len(logits),), classes, dtype=torch.int32, device=logits.device),
    }


def expand(compact: Mapping[str, Tensor]) -> Tensor:
    """Logits ``(N, ..., C)`` again: those kept, and one value for all others; see :func:`compress`.

    Args:
        compact: The mapping that :func:`compress` gave, or rows of it.

    Example:
        >>> expand(compress(torch.zeros(2, 5), top_k=1)).shape
        torch.Size([2, 5])
    """
    classes = int(compact["classes"][0])
    return (
        compact["rest"]
        .expand(*compact["rest"].shape[:-1], classes)
        .scatter(-1, compact["indices"].long(), compact["values"])
    )
