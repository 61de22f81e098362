"""Ask a model without changing it: predictions and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from kdft_lib import models
from kdft_lib.data import Batch, batches
from kdft_lib.data.sources import Data, source
from kdft_lib.objectives.numbers import Loss
from kdft_lib.training.scores import Metric, Scores

Collate: TypeAlias = Callable[[list[Any]], Any]


def predict(
    model: nn.Module, data: Data, *, batch_size: int = 512, num_workers: int = 0, collate_fn: Collate | None = None
) -> Tensor:
    """The logits for each sample, in evaluation mode. Of the data, no more than a batch is held.

    Args:
        model: The model to ask; where it is, there it computes. Its modes, gradients and the random state stay.
        data: Data of any kind that :func:`~kdft_lib.training.fit` takes.
        batch_size: The size of the model's calls; a loader has its own.
        num_workers: The number of processes that read a dataset; 0 reads it in this one.
        collate_fn: What makes a batch of a dataset's samples; torch's ``default_collate`` by default.

    Returns:
        ``(N, ..., C)`` on the CPU, in the data's order.

    Raises:
        TypeError: If it is no data; the message lists what is.
        ValueError: If it is empty.

    Example:
        >>> predict(nn.Linear(3, 2), torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """
    answers = []
    with _asked(model) as device:
        for batch in source(data, num_workers=num_workers, collate_fn=collate_fn).in_order(batch_size):
            answers.append(_answer(model, batch, device).cpu())
            del batch
    if not answers:
        raise ValueError("data is empty; there is nothing to ask the model")
    return torch.cat(answers)


def evaluate(
    model: nn.Module,
    data: Data,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 512,
    num_workers: int = 0,
    collate_fn: Collate | None = None,
    class_dim: int = -1,
) -> dict[str, float]:
    """Accuracy and cross-entropy on the labelled samples, or how far numbers are from those that were predicted.

    Scores are added up batch by batch, in float64, so memory does not grow with the data.

    Args:
        model: The model to ask; where it is, there it computes. Its modes, gradients and the random state stay.
        data: Data with targets, of any kind that :func:`~kdft_lib.training.fit` takes; −100 is no label. Where it
            has a mask, positions that this leaves out are not scored.
        loss: What compares outputs with targets that are numbers, ``f(outputs, targets, reduction="none")``, as in
            :class:`~kdft_lib.objectives.Supervised`; there is no accuracy then. By default targets are classes, or
            several labels at once where they are floating-point.
        metrics: Further scores by name: a metric of torchmetrics, which is copied and updated batch by batch, or a
            function ``f(outputs, targets)`` that returns a number, such as
            :func:`kdft_lib.metrics.calibration_error`, for which all outputs are kept until the end. They see what is
            labelled alone, ``(N, C)`` and ``(N,)``, or for several labels and numbers both alike.
        batch_size: The size of the model's calls; a loader has its own.
        num_workers: The number of processes that read a dataset; 0 reads it in this one.
        collate_fn: What makes a batch of a dataset's samples; torch's ``default_collate`` by default.
        class_dim: The dimension of the classes in the logits.

    Returns:
        ``accuracy``, from 0 to 1, and ``loss``, the mean cross-entropy in nats. Of multi-label targets
        (floating-point, of the logits' shape), the share of right answers over all classes, and the mean
        binary cross-entropy. With ``loss``, its mean over the numbers of a sample, then over samples, as ``loss``.
        And the ``metrics``.

    Raises:
        TypeError: If ``loss`` or a metric is none, or it is no data; the message lists what is.
        ValueError: If the data is empty or has no targets, shapes do not match, a target is no class, or a metric has
            more than one value.

    Example:
        >>> evaluate(nn.Identity(), (torch.eye(2), torch.tensor([0, 1])))["accuracy"]
        1.0
        >>> data = torch.zeros(4, 1), torch.tensor([1.0, 1.0, 1.0, 3.0])
        >>> evaluate(nn.Identity(), data, loss=torch.nn.functional.mse_loss)
        {'loss': 3.0}
    """
    scores = Scores(loss, metrics, class_dim)
    with _asked(model) as device:
        for batch in source(data, num_workers=num_workers, collate_fn=collate_fn).in_order(batch_size):
            answer = _answer(model, batch, device)
            with torch.autocast(device.type, enabled=False):
                scores.add(answer, batch)
            del answer, batch
        with torch.autocast(device.type, enabled=False):
            return scores.result()


@contextmanager
def _asked(model: nn.Module) -> Iterator[torch.device]:
    """The device of a model that stays as it is, and so does the random state."""
    first = next(iter([*model.parameters(), *model.buffers()]), None)
    device = first.device if first is not None else torch.device("cpu")
    with torch.random.fork_rng([device] if device.type == "cuda" else []), models.evaluation_mode(model):
        yield device


def _answer(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """What the model gives, in float32."""
    inputs = batches.apply({"inputs": batch["inputs"]}, lambda column: column.to(device, non_blocking=True))["inputs"]
    return models.logits(model, inputs).float()
