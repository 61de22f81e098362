"""Ask a model without changing it: predictions and scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib import metrics, models
from kdft_lib.data import Batch, TensorData, batches
from kdft_lib.data.sources import source


def predict(model: nn.Module, data: TensorData | Iterable[Any], *, batch_size: int = 512) -> Tensor:
    """The logits for each sample, in evaluation mode.

    Args:
        model: The model to ask; where it is, there it computes. Its modes, gradients and the random state stay.
        data: Data in memory, or a loader of batches.
        batch_size: The size of the model's calls, for data in memory.

    Returns:
        ``(N, ..., C)`` on the CPU, in the data's order.

    Raises:
        ValueError: If the data is empty.

    Example:
        >>> predict(nn.Linear(3, 2), TensorData(torch.zeros(5, 3))).shape
        torch.Size([5, 2])
    """
    return torch.cat([logits for logits, _ in _answers(model, data, batch_size)])


def evaluate(
    model: nn.Module, data: TensorData | Iterable[Any], *, batch_size: int = 512, class_dim: int = -1
) -> dict[str, float]:
    """Accuracy and cross-entropy on the labelled samples.

    Args:
        model: The model to ask; where it is, there it computes. Its modes, gradients and the random state stay.
        data: Data with targets, in memory or as a loader; −100 is no label.
        batch_size: The size of the model's calls, for data in memory.
        class_dim: The dimension of the classes in the logits.

    Returns:
        ``accuracy``, from 0 to 1, and ``loss``, the mean cross-entropy in nats. Of multi-label targets
        (floating-point, of the logits' shape), the share of right answers over all classes, and the mean
        binary cross-entropy.

    Raises:
        ValueError: If the data is empty or has no targets.

    Example:
        >>> data = TensorData(torch.eye(2), torch.tensor([0, 1]))
        >>> evaluate(nn.Identity(), data)["accuracy"]
        1.0
    """
    answers = _answers(model, data, batch_size)
    if any("targets" not in batch for _, batch in answers):
        raise ValueError("data has no targets; evaluate needs labels, predict does not")
    logits = torch.cat([logits.movedim(class_dim, -1).flatten(0, -2) for logits, _ in answers])
    given = [batch["targets"].cpu() for _, batch in answers]
    if given[0].is_floating_point():
        return _multi_label_scores(logits, torch.cat(given))
    targets = torch.cat([part.flatten() for part in given])
    return {
        "accuracy": metrics.accuracy(logits, targets),
        "loss": metrics.cross_entropy(logits, targets),
    }


def _multi_label_scores(logits: Tensor, targets: Tensor) -> dict[str, float]:
    if targets.dim() < 2 or targets.flatten(0, -2).shape != logits.shape:
        raise ValueError(
            f"targets has dtype {targets.dtype} and shape {tuple(targets.shape)}; class indices are int64, and"
            f" multi-label targets have the logits' shape, {tuple(logits.shape)}"
        )
    targets = targets.flatten(0, -2)
    labeled = batches.has_label(targets)
    logits, targets = logits[labeled], targets[labeled]
    return {
        "accuracy": ((logits > 0) == (targets > 0.5)).double().mean().item(),
        "loss": F.binary_cross_entropy_with_logits(logits, targets).item(),
    }


def _answers(model: nn.Module, data: TensorData | Iterable[Any], batch_size: int) -> list[tuple[Tensor, Batch]]:
    """Logits in float32 and their batch, all on the CPU."""
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    device = first.device if first is not None else torch.device("cpu")
    answers = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []), models.evaluation_mode(model):
        for batch in source(data).in_order(batch_size):
            inputs = batches.apply({"inputs": batch["inputs"]}, lambda column: column.to(device))["inputs"]
            answers.append((models.logits(model, inputs).float().cpu(), batch))
    if not answers:
        raise ValueError("data is empty; there is nothing to ask the model")
    return answers
