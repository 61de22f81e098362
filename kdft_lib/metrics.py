"""How good, how sure, how alike, how big and how fast."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdft_lib import models
from kdft_lib.data import UNLABELED, batches
from kdft_lib.data.sources import Data, source
from kdft_lib.losses.checks import wider
from kdft_lib.retrieval import ndcg, places, recall
from kdft_lib.unbalanced import average_precision, best_threshold, f1

__all__ = [
    "Latency",
    "accuracy",
    "agreement",
    "average_precision",
    "best_threshold",
    "bits_per_byte",
    "calibration_error",
    "confidence_threshold",
    "cross_entropy",
    "f1",
    "latency",
    "ndcg",
    "parameters",
    "places",
    "recall",
]

_BLOCK = 2**16
"""How many numbers are held in float64 at once: few enough for a cache near the core."""


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of labelled samples whose highest logit is the target's: top-1 accuracy.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If the shapes do not match or nothing is labelled.

    Example:
        >>> accuracy(torch.eye(2), torch.tensor([0, 0]))
        0.5
    """
    logits, targets = _labeled(logits, targets)
    return (logits.argmax(dim=-1) == targets).sum().item() / len(targets)


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    """The mean negative log-likelihood (NLL) of the labelled samples, in nats; its exponential is the perplexity.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.

    Raises:
        ValueError: If the shapes do not match or nothing is labelled.

    Example:
        >>> round(cross_entropy(torch.zeros(1, 2), torch.tensor([1])), 4)
        0.6931
    """
    logits, targets = _labeled(logits, targets)
    return nats(logits, targets).mean().item()


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """The expected calibration error, ECE: how far confidence and accuracy are apart, averaged over bins
    of confidence (Guo et al., 2017, eq. 3, whose 15 bins are the default).

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.
        bins: The number of bins, of equal width.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If the shapes do not match or nothing is labelled.

    Example:
        >>> round(calibration_error(torch.tensor([[100.0, 0.0]]), torch.tensor([1])), 4)
        1.0
    """
    logits, targets = _labeled(logits, targets)
    confidence, decided = wider(logits).softmax(dim=-1).max(dim=-1)
    # The surest answers belong to the last bin, though their confidence is rounded to 1.
    place = (confidence * bins).long().clamp(max=bins - 1)
    gaps = confidence.new_zeros(bins).index_add(0, place, confidence - (decided == targets).to(confidence.dtype))
    return gaps.abs().sum().item() / len(targets)


def confidence_threshold(logits: Tensor, targets: Tensor, accuracy: float = 0.95) -> float:
    """The confidence above which answers are right that often; below it a person is asked (selective classification,
    classification with a reject option).

    Choose it on validation data: of the rows that it was chosen on, it says too much.

    Args:
        logits: The logits, ``(N, C)``.
        targets: The target classes, ``(N,)``, int64; −100 is no label.
        accuracy: The share of the answers that shall be right, from 0 to 1.

    Returns:
        The lowest such confidence, from 0, where all are answered, to 1, where no threshold is enough. An input is
        answered where the probability of its best class is above it.

    Raises:
        ValueError: If the shapes do not match, nothing is labelled, or ``accuracy`` is no share.

    Example:
        >>> logits = torch.tensor([[0.0, 4.0], [0.0, 2.0], [0.0, 1.0]])
        >>> round(confidence_threshold(logits, torch.tensor([1, 1, 0]), accuracy=0.9), 3)
        0.806
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is {accuracy}; it is the share of answers that shall be right, from 0 to 1")
    logits, targets = _labeled(logits, targets)
    confidence, decided = wider(logits).softmax(-1).max(-1)
    order = confidence.argsort(descending=True)
    sure, right = confidence[order], (decided == targets)[order].to(confidence.dtype)
    shares = right.cumsum(0) / torch.arange(1, len(right) + 1, device=right.device)
    # A threshold cannot part answers of the same confidence.
    parted = torch.cat([sure[:-1] > sure[1:], torch.tensor([True], device=sure.device)])
    enough = ((shares >= accuracy) & parted).nonzero().flatten()
    if not len(enough):
        return 1.0
    last = int(enough[-1])
    return 0.0 if last == len(sure) - 1 else float((sure[last] + sure[last + 1]) / 2)


def agreement(student_logits: Tensor, teacher_logits: Tensor) -> float:
    """The share of samples on which student and teacher decide alike, right or wrong: top-1 agreement, or fidelity.

    Args:
        student_logits: The student's logits, ``(N, C)``.
        teacher_logits: The teacher's logits, ``(N, C)``.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: If the shapes differ or are empty.

    Example:
        >>> agreement(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        0.5
    """
    if student_logits.shape != teacher_logits.shape or student_logits.numel() == 0:
        raise ValueError(
            f"student_logits has shape {tuple(student_logits.shape)} and teacher_logits"
            f" {tuple(teacher_logits.shape)}; both must be the same (N, C), with N of 1 or more"
        )
    same = student_logits.argmax(dim=-1) == teacher_logits.argmax(dim=-1)
    return same.sum().item() / same.numel()


def bits_per_byte(model: nn.Module, data: Data, *, batch_size: int = 4) -> float:
    r"""How well a language model predicts texts, in bits for each byte of them: the measure that models with different
    tokenizers share. Perplexities are not comparable then, since a token is longer for one than for the other.

    .. math:: \frac{-\sum_i \log_2 p(t_i \mid t_{<i})}{\sum_i \text{bytes}(t_i)}

    It is one quotient of two sums, over all targets, and so the same whatever the rows and batches. It says how long
    the texts would be, compressed by this model, as a part of their length in UTF-8, times 8. Where documents have an
    end, to predict it costs bits too. A tokenizer that loses something, such as capitals or rare characters, has an
    unfair advantage; so has a model that has read the texts in training.

    Args:
        model: A causal language model, which gives logits ``(N, T, C)`` of the token after each; of Transformers or
            not. It is asked in evaluation mode.
        data: Rows of tokens with targets and a column ``bytes``, how many each target stands for, as
            :func:`kdft_lib.data.packed` and :func:`kdft_lib.data.padded` make them.
        batch_size: How many rows are read at once. Their logits are held: 4 rows of 512 tokens of 49,152 take 384 MiB.

    Raises:
        ValueError: If there is no column ``bytes``, nothing counts, or a target is none of the model's tokens.

    Example:
        >>> from kdft_lib.data import TensorData
        >>> tokens = torch.zeros(1, 6, dtype=torch.int64)
        >>> rows = TensorData(tokens, tokens, columns={"bytes": torch.full((1, 6), 2)})
        >>> bits_per_byte(nn.Embedding.from_pretrained(torch.zeros(16, 16)), rows)  # 4 bits for 2 bytes
        2.0
    """
    spent, covered = 0.0, 0
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with models.evaluation_mode(model):
        for batch in source(data).in_order(batch_size):
            if batch.get("targets") is None or batch.get("bytes") is None:
                raise ValueError(
                    "data has no targets with a column bytes, which says how many bytes of the text each stands for;"
                    " kdft_lib.data.packed(texts, tokenizer) makes both"
                )
            logits = models.logits(model, batches.apply(batch, lambda column: column.to(device))["inputs"])
            targets, sizes = batch["targets"].to(logits.device).flatten(), batch["bytes"].flatten()
            counted = targets != UNLABELED
            if batch.get("mask") is not None:
                counted &= batch["mask"].to(logits.device).flatten()
            highest = int(targets.max())
            if highest >= logits.shape[-1]:
                raise ValueError(
                    f"targets hold the token {highest}, and the model gives logits of {logits.shape[-1]}; take the"
                    " tokenizer that belongs to it"
                )
            spent += nats(logits.flatten(0, -2), targets.clamp(min=0))[counted].sum().item()
            covered += int(sizes[counted.cpu()].sum())
    if covered == 0:
        raise ValueError("data holds no target that stands for a byte; there is nothing to measure")
    return spent / math.log(2) / covered


def parameters(model: nn.Module) -> int:
    """The number of parameters, each counted once.

    Example:
        >>> parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in model.parameters())


class Latency(NamedTuple):
    """Milliseconds for one call.

    Example:
        >>> latency(nn.Linear(3, 2), torch.zeros(1, 3), repeats=3).median > 0
        True
    """

    median: float
    percentile95: float


def latency(model: nn.Module, inputs: models.Inputs, *, repeats: int = 50) -> Latency:
    """How long one call takes, after five calls to warm up, in evaluation mode.

    Args:
        model: The model, which computes where it is.
        inputs: The model's inputs, on its device; with one sample, the latency a user meets.
        repeats: The number of calls to time, 2 or more.

    Returns:
        Median and 95th percentile in milliseconds.

    Raises:
        ValueError: If ``repeats`` is less than 2.

    Example:
        >>> latency(nn.Linear(3, 2), torch.zeros(1, 3)).median > 0
        True
    """
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}; it must be 2 or more")
    times = []
    with models.evaluation_mode(model):
        for _ in range(5 + repeats):
            _wait()
            start = time.perf_counter()
            models.logits(model, inputs)
            _wait()
            times.append(1000 * (time.perf_counter() - start))
    times = times[5:]
    return Latency(statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1])


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Each target's negative log-likelihood, ``(N,)``, in float64."""
    return in_blocks(lambda block, at: -block.log_softmax(-1).gather(-1, at.unsqueeze(-1)).squeeze(-1), logits, targets)


def in_blocks(values: Callable[..., Tensor], *columns: Tensor) -> Tensor:
    """Values of rows, in float64, of some rows at a time: whole, the copy would be twice as large as what it is of.

    Args:
        values: From some rows of each column to a value, or values, for each row.
        columns: Tensors ``(N, ...)``.
    """

    def wide(part: Tensor) -> Tensor:
        return wider(part) if part.is_floating_point() else part

    size = max(1, _BLOCK * len(columns[0]) // max(1, columns[0].numel()))
    return torch.cat([values(*map(wide, parts)) for parts in zip(*(each.split(size) for each in columns), strict=True)])


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _labeled(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if logits.dim() != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and targets {tuple(targets.shape)}; wanted (N, C) and (N,)"
        )
    counted = targets != UNLABELED
    if not counted.any():
        raise ValueError("targets holds no label; there is nothing to score")
    return logits[counted], targets[counted]
