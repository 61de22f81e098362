"""Read intermediate layers of any module, and compute what a frozen body gives once and for all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import models
from kdft_lib.data import Batch, TensorData, batches
from kdft_lib.data.sources import Data, source
from kdft_lib.data.tensors import of_columns
from kdft_lib.models.files import digest
from kdft_lib.models.running import Outputs, find, outputs

__all__ = [
    "Outputs",
    "Remembered",
    "find",
    "outputs",
    "precompute",
]


def precompute(model: nn.Module, head: str, data: Data, *, batch_size: int = 512) -> tuple[nn.Module, TensorData]:
    """Run the frozen body once over the data, so that the head can be trained alone, in seconds: feature extraction,
    or linear probing on cached features.

    Training the head on these features is training it in the model with
    :class:`~kdft_lib.strategies.HeadOnly` and without augmentation, and the model has it afterwards: the
    head that is returned is the model's own.

    Args:
        model: The model, which computes where it is, in evaluation mode. Nothing in it changes.
        head: The head's name, as in ``model.named_modules()``: what makes logits of features, last.
        data: The data to compute features of, of any kind that :func:`kdft_lib.training.fit` takes.
        batch_size: The number of samples in each of the model's calls; a loader has its own.

    Returns:
        The head, and the data in memory, with its inputs replaced by what goes into the head and every other tensor.

    Raises:
        ValueError: If there is no such module, if it takes more than one tensor, or if the model does
            something with what it gives.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> head, features = precompute(model, "2", TensorData(torch.randn(5, 3)))
        >>> head is model[2], features.inputs.shape
        (True, torch.Size([5, 4]))
    """
    module = find(model, head, "head")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found: list[Batch] = []
    with models.evaluation_mode(model), _inputs_of(module, head) as seen:
        for batch in source(data).in_order(batch_size):
            inputs = batches.apply({"inputs": batch["inputs"]}, lambda column: column.to(device))["inputs"]
            logits = models.logits(model, inputs)
            if len(seen) != 1:
                raise ValueError(f"head is {head!r}, which the model called {len(seen)} times; it must be called once")
            features = seen.pop()
            if not found and not _same(models.logits(module, features), logits):
                raise ValueError(
                    f"head is {head!r}, but the model's logits are not what it gives: something comes after it;"
                    " name a module that holds all that follows the body"
                )
            seen.clear()
            found.append(batch | {"inputs": features.to(batches.device(batch))})
    if not found:
        raise ValueError("data is empty; there is nothing to compute features of")
    return module, of_columns(batches.concatenated(found), getattr(data, "teacher", None))


class Remembered:
    """A frozen body as a function of data, such as :class:`~kdft_lib.experiments.OnFeatures` takes; each input is
    computed once, so that seeds and settings share what was computed.

    Args:
        model: The model, as :func:`precompute` takes it.
        head: The head's name.
        batch_size: The number of samples in each of the model's calls.

    Raises:
        ValueError: If there is no such module, when it is called; see :func:`precompute`.

    Example:
        >>> features = Remembered(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "2")
        >>> features(TensorData(torch.randn(5, 3))).inputs.shape
        torch.Size([5, 4])
    """

    def __init__(self, model: nn.Module, head: str, *, batch_size: int = 64):
        self.model, self.head, self.batch_size = model, head, batch_size
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, data: TensorData) -> TensorData:
        """The data with features ``(N, ...)`` as inputs, in the place of a tensor ``(N, ...)`` on the CPU."""
        keys = [hashlib.sha256(row.numpy().tobytes()).digest() for row in data.inputs]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            _, found = precompute(self.model, self.head, data[new], batch_size=self.batch_size)
            self._known.update(zip((keys[place] for place in new), found.inputs, strict=True))
        return data.with_inputs(torch.stack([self._known[key] for key in keys]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({digest(self.model)[:12]}, {self.head!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Without what it remembers."""
        return vars(self) | {"_known": {}}


@contextmanager
def _inputs_of(module: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """What the module is called with, as long as this lasts."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = [*arguments, *keywords.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor):
            raise ValueError(f"head is {name!r}, which takes {len(given)} arguments; it must take one tensor")
        seen.append(given[0].clone())

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
