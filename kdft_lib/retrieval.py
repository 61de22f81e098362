"""How well what is looked for is found among all that there is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdft_lib.losses.checks import wider


def places(scores: Tensor, targets: Tensor) -> Tensor:
    """At which place of each query's list the one document stands that it asks for: its rank, from 1 on.

    Args:
        scores: How alike query and document are, ``(Q, D)``, the higher the better, such as
            ``queries @ documents.T`` of vectors of length 1.
        targets: The row of ``documents`` that each query asks for, ``(Q,)``, int64.

    Returns:
        ``(Q,)``, float64. Documents with the same score share the mean of their places, so that a model that tells
        nothing is no better than chance.

    Raises:
        ValueError: If the shapes do not match, there is no query, a score is not a number, or a target is no document.

    Example:
        >>> places(torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.2, 0.2]]), torch.tensor([2, 0])).tolist()
        [2.0, 2.0]
    """
    above, level = _tied(scores, targets)
    return above + wider(level + 1) / 2


def _tied(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """How many documents are above the one that each query asks for, and how many level with it, itself included."""
    if scores.dim() != 2 or targets.shape != scores.shape[:1] or targets.dtype != torch.int64 or not scores.numel():
        raise ValueError(
            f"scores has shape {tuple(scores.shape)} and targets {tuple(targets.shape)} of dtype {targets.dtype}; they"
            " must be (queries, documents) and, of dtype int64, (queries,), with at least one of each"
        )
    if scores.isnan().any():
        raise ValueError("scores holds a value that is not a number; no order has a place for it")
    wrong = targets[(targets < 0) | (targets >= scores.shape[1])]
    if len(wrong):
        raise ValueError(
            f"targets holds {wrong[0].item()}; it must be from 0 to {scores.shape[1] - 1}, the row of a document"
        )
    own = scores.gather(1, targets.unsqueeze(1))
    return (scores > own).sum(1), (scores == own).sum(1)


def recall(scores: Tensor, targets: Tensor, k: int = 10) -> float:
    """The share of queries whose document is among the first k: recall@k, also hit rate or success@k, where each query
    asks for one document.

    Args:
        scores: How alike query and document are, ``(Q, D)``; see :func:`places`.
        targets: The row of the document that each query asks for, ``(Q,)``, int64.
        k: How many documents somebody looks at, 1 or more.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: As :func:`places`; if ``k`` is less than 1.

    Example:
        >>> recall(torch.tensor([[0.9, 0.1, 0.5], [0.7, 0.2, 0.1]]), torch.tensor([2, 0]), k=1)
        0.5
    """
    above, level = _tied(scores, targets)
    return ((_positive(k) - above) / level).clamp(0, 1).mean().item()


def ndcg(scores: Tensor, targets: Tensor, k: int = 10) -> float:
    """Normalised discounted cumulative gain at k, nDCG@k (Järvelin and Kekäläinen, 2002), where each query asks for one
    document: the mean of 1 / log₂(1 + place), and 0 beyond the first k.

    Args:
        scores: How alike query and document are, ``(Q, D)``; see :func:`places`.
        targets: The row of the document that each query asks for, ``(Q,)``, int64.
        k: How many documents somebody looks at, 1 or more.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: As :func:`places`; if ``k`` is less than 1.

    Example:
        >>> round(ndcg(torch.tensor([[0.9, 0.1, 0.5], [0.7, 0.2, 0.1]]), torch.tensor([2, 0])), 4)
        0.8155
    """
    above, level = (counts.cpu() for counts in _tied(scores, targets))
    gains = 1 / torch.arange(2, scores.shape[1] + 2, dtype=torch.float64).log2()
    gains[_positive(k) :] = 0.0
    sums = F.pad(gains.cumsum(0), (1, 0))
    return ((sums[above + level] - sums[above]) / level).mean().item()


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    return k
