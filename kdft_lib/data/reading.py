"""How samples of data sets become batches, in this process or in workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from torch.utils.data.distributed import DistributedSampler

from kdft_lib.data import order
from kdft_lib.data.batches import narrowed


class Reader:
    """Reads batches of rows, with what random transforms draw decided by the seed, the pass and the row alone."""

    def __init__(self, data: Any, *, num_workers: int, collate_fn: Callable[[list[Any]], Any]):
        self._data = _Drawn(data)
        self._options: dict[str, Any] = {"num_workers": num_workers, "collate_fn": _Collated(collate_fn)}

    def __call__(self, asked: Iterable[tuple[int, Tensor]], seed: int = 0) -> Iterator[Any]:
        """The batches of rows asked for, each with the number of its pass."""
        numbered = ([(row, order.seed_of(seed, number, row)) for row in rows.tolist()] for number, rows in asked)
        return iter(DataLoader(self._data, batch_sampler=numbered, generator=torch.Generator(), **self._options))


class _Drawn(Dataset[Any]):
    """A dataset that is asked for rows, each with a seed."""

    def __init__(self, data: Any):
        self.data = data
        self.at_once = is_hugging_face(data) and data.format["type"] != "custom"

    def __getitems__(self, rows: list[tuple[int, int]]) -> tuple[list[Any], int]:
        """The samples, and the seed of what is drawn when they become a batch."""
        together = order.seed_of(rows[0][1], 1)
        if self.at_once:
            return self.data.__getitems__([row for row, _ in rows]), together
        with order.random_state_kept():
            return [self._sample(row, seed) for row, seed in rows], together

    def _sample(self, row: int, seed: int) -> Any:
        order.draw_from(seed)
        return self.data[row]


class _Collated:
    """Makes a batch of samples, with what is drawn meanwhile, as for masked words, decided by the batch's seed."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]):
        self.collate_fn = collate_fn

    def __call__(self, read: tuple[list[Any], int]) -> Any:
        samples, seed = read
        with order.random_state_kept():
            order.draw_from(seed)
            return self.collate_fn(samples)


class EveryNth(IterableDataset[Any]):
    """Of an iterable, what one of several processes reads: sample r and every n-th after it."""

    def __init__(self, data: Iterable[Any], share: order.Share):
        self.data, self.share = data, share

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.data, self.share[0], None, self.share[1])


class _Part:
    """The rows of each batch that are one process's."""

    def __init__(self, batch_sampler: Iterable[list[Any]], share: order.Share):
        self.batch_sampler, self.share = batch_sampler, share

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in self.batch_sampler:
            yield rows[order.part(len(rows), self.share)]


def sharded(loader: Any, share: order.Share) -> DataLoader[Any] | None:
    """The loader of one process's part of each batch, where it has indices to cut."""
    if not isinstance(loader, DataLoader) or getattr(loader, "batch_sampler", None) is None:
        return None
    if isinstance(loader.dataset, IterableDataset):
        return None
    if isinstance(getattr(loader.batch_sampler, "sampler", None), DistributedSampler):
        raise ValueError(
            "the loader has a DistributedSampler, which gives each process its part already; give the loader without"
            " it, since batches are cut here, and batch_size is that of all processes together"
        )
    kept = (
        "num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "generator",
        "prefetch_factor", "persistent_workers",
    )  # fmt: skip
    return DataLoader(
        loader.dataset,
        batch_sampler=_Part(loader.batch_sampler or (), share),
        **{name: getattr(loader, name) for name in kept},
    )


def drawing(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """One pass over a loader whose order and transforms draw from random numbers of their own."""
    for own in _generators(loader):
        own.manual_seed(seed)
    inside: tuple[Any, ...] | None = None
    iterator: Iterator[Any] | None = None
    while True:
        with order.random_state_kept():
            if inside is None:
                order.draw_from(seed)
            else:
                order.restore(inside)
            try:
                iterator = iter(loader) if iterator is None else iterator
                raw = next(iterator)
            except StopIteration:
                return
            inside = order.state()
        yield raw


def _generators(loader: Any) -> Iterator[torch.Generator]:
    """Those of a loader and of its samplers, one inside another."""
    while loader is not None:
        for place in (loader, getattr(loader, "sampler", None)):
            if isinstance(own := getattr(place, "generator", None), torch.Generator):
                yield own
        loader = getattr(loader, "batch_sampler", None)


def collated(samples: list[Any]) -> Any:
    """Samples as a batch: torch's ``default_collate``, in torch's default precision and with messages that help."""
    try:
        return narrowed(default_collate(samples))
    except RuntimeError as error:
        if "equal size" not in str(error):
            raise
        raise ValueError(
            f"the samples of a batch differ in shape ({str(error).split('equal size, but ')[-1]}); give a collate_fn"
            " that pads them, such as transformers.DataCollatorWithPadding, or a transform that makes them alike"
        ) from None
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(
            f"the samples hold {str(error).split('found ')[-1]}, which no batch can be made of; give the dataset a"
            " transform that makes tensors, or fit a collate_fn"
        ) from None


def is_hugging_face(data: Any) -> bool:
    """Whether it is a data set of the package ``datasets``, which need not be imported to tell."""
    return type(data).__module__.startswith("datasets.") and hasattr(data, "with_format")


def with_tensors(data: Any) -> Any:
    """A Hugging Face data set whose numbers come as tensors, unless it has a format of its own."""
    return data if getattr(data, "format", {"type": None})["type"] else data.with_format("torch")
