"""The order of training, a function of the seed and the step alone, and random numbers kept apart from others'."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Share = tuple[int, int]
"""The number of a process, from 0, and how many there are."""

_FACTOR = 1_000_003


def seed_of(seed: int, *numbers: int) -> int:
    """One seed made of several numbers."""
    seed = int(seed)
    for number in numbers:
        seed = seed * _FACTOR + number
    return seed % 2**63


def part(count: int, share: Share) -> slice:
    """One of consecutive pieces of a number of samples, as equal as can be.

    Raises:
        ValueError: If there are fewer samples than pieces.
    """
    index, parts = share
    if count < parts:
        raise ValueError(f"a batch of {count} samples cannot be cut into {parts} parts; raise batch_size")
    return slice(count * index // parts, count * (index + 1) // parts)


def passes(count: int, batch_size: int, seed: int, first_step: int, share: Share) -> Iterator[tuple[int, Tensor]]:
    """Passes over rows without end, each with its number and the rows of its full batches, ``(batches, rows)``: of
    every pass a new permutation, of every batch one process's part. What a pass leaves over, it leaves out.
    """
    batch_size = min(batch_size, count)
    own = part(batch_size, share)
    length = count // batch_size
    number, position = divmod(first_step, length)
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(seed, number)))
        left = order[position * batch_size : length * batch_size]
        yield number, left.view(-1, batch_size)[:, own]
        number, position = number + 1, 0


def state() -> tuple[Any, ...]:
    """The state of torch's, Python's and NumPy's random numbers on the CPU."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 - transforms draw from it


def restore(kept: tuple[Any, ...]) -> None:
    """Put a :func:`state` back."""
    torch.set_rng_state(kept[0])
    random.setstate(kept[1])
    np.random.set_state(kept[2])  # noqa: NPY002


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Random numbers are afterwards where they were."""
    kept = state()
    try:
        yield
    finally:
        restore(kept)


@contextmanager
def others_from(seed: int) -> Iterator[None]:
    """Python's and NumPy's random numbers follow from a seed, and are afterwards where they were."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002


def draw_from(seed: int) -> None:
    """Let torch's, Python's and NumPy's random numbers on the CPU follow from a seed."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
