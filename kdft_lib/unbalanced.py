"""How well one class is found among others that are far more frequent, where accuracy says little."""

from __future__ import annotations

import torch
from torch import Tensor

from kdft_lib.data import UNLABELED


def average_precision(logits: Tensor, targets: Tensor, positive: int = 1) -> float:
    """The area under the precision–recall curve of one class against the others, AP: the mean precision over the
    places of that class in the order of its probability.

    It asks for the order alone, so neither a threshold nor a calibration changes it. By chance it is the share of the
    class.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.
        positive: The class that is looked for.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If the shapes do not match, there is no such class, or no labelled sample is of it.

    Example:
        >>> logits = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]])
        >>> round(average_precision(logits, torch.tensor([1, 0, 1])), 4)
        0.8333
    """
    from torchmetrics.functional.classification import binary_average_precision

    odds, wanted = _of_class(logits, targets, positive)
    if not wanted.any():
        raise ValueError(f"targets holds no sample of class {positive}; there is nothing to find")
    # Ranks in place of probabilities, which meet at 1 where a network is sure.
    places = odds.unique(return_inverse=True)[1].double()
    return binary_average_precision((places + 1) / (len(places) + 1), wanted.long()).item()


def f1(logits: Tensor, targets: Tensor, positive: int = 1, *, threshold: float = 0.5) -> float:
    """The harmonic mean of precision and recall of one class, F1; 0 where none of it is found.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.
        positive: The class that is looked for.
        threshold: From which probability on a sample is said to be of it. Choose it on validation data, by
            :func:`best_threshold`.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If the shapes do not match, nothing is labelled, there is no such class, or ``threshold`` is no
            probability.

    Example:
        >>> logits = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]])
        >>> f1(logits, torch.tensor([1, 0, 1])), f1(logits, torch.tensor([1, 0, 1]), threshold=0.9)
        (0.8, 0.6666666666666666)
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; it is a probability, from 0 to 1")
    odds, wanted = _of_class(logits, targets, positive)
    said = odds.sigmoid() >= threshold
    both = int((said & wanted).sum())
    return 2 * both / max(1, int(said.sum()) + int(wanted.sum()))


def best_threshold(logits: Tensor, targets: Tensor, positive: int = 1) -> float:
    """The threshold of highest :func:`f1`; of several such, the one nearest to a half.

    Choose it on validation data: of the rows that it was chosen on, F1 says too much.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.
        positive: The class that is looked for.

    Returns:
        A probability between those of two samples; 0 where all are best said to be of the class.

    Raises:
        ValueError: If the shapes do not match, there is no such class, or no labelled sample is of it.

    Example:
        >>> logits = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0]])
        >>> round(best_threshold(logits, torch.tensor([1, 1, 0])), 3)
        0.806
    """
    odds, wanted = _of_class(logits, targets, positive)
    if not wanted.any():
        raise ValueError(f"targets holds no sample of class {positive}; there is nothing to find")
    probability, order = odds.sigmoid().sort(descending=True)
    below = torch.cat([probability[1:], probability.new_full((1,), -1.0)])
    found = wanted[order].double().cumsum(0)
    scores = 2 * found / (torch.arange(1, len(order) + 1, device=odds.device) + found[-1])
    # A threshold cannot part samples of the same probability.
    scores = scores.masked_fill(probability == below, -1.0)
    between = (probability + below) / 2
    between = torch.where(between > below, between, probability).clamp_min(0.0)
    best = between[scores >= scores.max() - 1e-12]
    return best[(best - 0.5).abs().argmin()].item()


def _of_class(logits: Tensor, targets: Tensor, positive: int) -> tuple[Tensor, Tensor]:
    """Of each labelled sample the log-odds of a class, in float64, and whether it is of that class; on the CPU, since
    not every device has float64."""
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and targets {tuple(targets.shape)}; wanted (N, C) and (N,)"
        )
    if positive not in range(logits.shape[1]):
        raise ValueError(
            f"positive is {positive}; with {logits.shape[1]} classes it must be from 0 to {logits.shape[1] - 1}"
        )
    counted = targets != UNLABELED
    if not counted.any():
        raise ValueError("targets holds no label; there is nothing to score")
    logits, targets = logits[counted].cpu().double(), targets[counted].cpu()
    others = torch.cat([logits[:, :positive], logits[:, positive + 1 :]], dim=1)
    return logits[:, positive] - others.logsumexp(1), targets == positive
