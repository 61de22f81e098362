"""The order in which data reaches the loop: a function of the seed and the step alone.

A stream without a state of its own continues, after an interruption, where it would have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from kdft_lib.data import Batch, TensorData, as_batch


def stream(data: TensorData | Iterable[Any], batch_size: int, seed: int, name: str) -> TensorStream | LoaderStream:
    """The stream that suits the data."""
    if isinstance(data, TensorData):
        return TensorStream(data, batch_size, seed, name)
    return LoaderStream(data, seed, name)


class TensorStream:
    """Full batches from a new permutation for each pass; what a pass leaves over, it leaves out."""

    def __init__(self, data: TensorData, batch_size: int, seed: int, name: str):
        if len(data) == 0:
            raise ValueError(f"{name} is empty; give it at least one sample")
        self.data, self.seed = data, seed
        self.batch_size = min(batch_size, len(data))
        self.length = len(data) // self.batch_size

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Batches without end, from the given step on."""
        number, position = divmod(first_step, self.length)
        while True:
            order = torch.randperm(len(self.data), generator=_generator(self.seed, number)).to(self.data.device)
            for place in range(position, self.length):
                yield self.data.rows(order[place * self.batch_size : (place + 1) * self.batch_size])
            number, position = number + 1, 0


class LoaderStream:
    """The batches of a loader, which draws its order and its transforms from torch's generator.

    Each pass starts from a state of that generator that the seed and the number of the pass decide,
    and the loop's own random numbers are not disturbed by it.
    """

    def __init__(self, loader: Iterable[Any], seed: int, name: str):
        try:
            self.length = len(loader)  # type: ignore[arg-type]
        except TypeError:
            raise ValueError(
                f"{name} is a {type(loader).__name__} without a length; give a TensorData or a DataLoader"
                " over a dataset with a length"
            ) from None
        if self.length == 0:
            raise ValueError(f"{name} is empty; a loader must yield at least one batch")
        self.loader, self.seed = loader, seed

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Batches without end, from the given step on."""
        number, position = divmod(first_step, self.length)
        while True:
            state = _generator(self.seed, number).get_state()
            own = self.loader.generator if isinstance(self.loader, DataLoader) else None
            if own is not None:
                own.set_state(state)
            iterator: Iterator[Any] | None = None
            for place in range(self.length):
                outside = torch.get_rng_state()
                torch.set_rng_state(state)
                iterator = iterator or iter(self.loader)
                raw = next(iterator)
                state = torch.get_rng_state()
                torch.set_rng_state(outside)
                if place >= position:
                    yield as_batch(raw)
            number, position = number + 1, 0


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
