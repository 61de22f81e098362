"""A teacher is asked about samples, or about views of them, and its answers are packed to be kept."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kdft_lib.answers import Rest, compress
from kdft_lib.data import Batch, TensorData, batches, order
from kdft_lib.data.columns import flat, nested
from kdft_lib.progress import progress_bar
from kdft_lib.teachers.kept import Samples
from kdft_lib.teachers.teacher import Teacher

_BLOCK = 128
"""For how many samples views are drawn together, so that neither calls nor shards decide which they are."""


class Asking:
    """Asks a teacher about all samples, in calls of ``batch_size``.

    Args:
        teacher: The teacher to ask; where it is, there it computes.
        data: What the samples are.
        pack: What is kept of a batch of logits, by name, and of a seed, where it is drawn.
        views: How many views of each sample it is asked about.
        augment: What makes the views; ``None`` leaves the samples as they are.
        seed: What the views are drawn with.
        batch_size: The size of a call.
        every: What makes all the views that there are, the same for each sample; by default they are drawn.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: TensorData | Samples,
        pack: Callable[[Tensor, int], Any],
        views: int,
        augment: Any,
        seed: int,
        batch_size: int,
        every: Batch | None = None,
    ):
        self.teacher, self.data, self.pack = teacher, data, pack
        self.views, self.augment, self.seed, self.batch_size = views, augment, seed, batch_size
        self.every = every

    @functools.cached_property
    def first(self) -> dict[str, Tensor]:
        """What is kept of the first samples, which says how much will be kept of all."""
        return self._kept(self._first_call.start, self._first_call.stop)

    @property
    def _first_call(self) -> range:
        return range(min(self.batch_size, len(self.data)))

    def calls(self, samples: range) -> int:
        """How many calls these samples take."""
        return math.ceil(len(samples) / self.batch_size) * self.views

    @property
    def nbytes(self) -> int:
        """How many bytes will be kept of all samples."""
        return sum(column.nbytes for column in self.first.values()) * len(self.data) // len(self._first_call)

    def watched(self, parts: Iterable[range], nbytes: int) -> Any:
        """A bar over the calls that these samples take, where a person watches, with how many calls they are, and of
        all these bytes how many.
        """
        parts = list(parts)
        calls, size = sum(map(self.calls, parts)), nbytes * sum(map(len, parts)) / len(self.data)
        return progress_bar(calls, "call", described=f"asking the teacher, {calls:,} calls, {size / 1e6:,.1f} MB")

    def kept(self, samples: range, bar: Any) -> dict[str, Tensor]:
        """What is kept of these samples, ``views`` rows of each behind one another."""
        pieces = []
        for start in samples[:: self.batch_size]:
            call = range(start, min(start + self.batch_size, samples.stop))
            pieces.append(self.first if call == self._first_call else self._kept(call.start, call.stop))
            bar.update(self.views)
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _kept(self, start: int, stop: int) -> dict[str, Tensor]:
        inputs = self.data.rows(slice(start, stop))["inputs"]
        seen = [self._asked(inputs, start)] if self.augment is None else self._views(inputs, start, stop)
        return {name: torch.stack([view[name] for view in seen], 1).flatten(0, 1) for name in seen[0]}

    def _views(self, inputs: Any, start: int, stop: int) -> list[dict[str, Tensor]]:
        """What is kept of each view: what made it, or the view itself; and the answer to it."""
        found = []
        drawn = self._drawn(start, stop) if replays(self.augment) else None
        for view in range(self.views):
            if drawn is not None:
                made = batches.apply(drawn, operator.itemgetter(slice(view, None, self.views)))
                seen = self.augment.apply(inputs, made["drawn"])
            else:
                with order.random_state_kept():
                    order.draw_from(order.seed_of(self.seed, start * self.views + view, 1))
                    seen = self.augment(batches.apply({"inputs": inputs}, Tensor.clone)["inputs"])
                made = {"inputs": seen}
            found.append(
                {name: column.cpu() for name, column in flat(made)} | self._asked(seen, start * self.views + view)
            )
        return found

    def _drawn(self, start: int, stop: int) -> Batch:
        """What makes the views of these samples, ``views`` rows of each behind one another."""
        if self.every is not None:
            return {"drawn": batches.apply(self.every, lambda column: torch.cat([column] * (stop - start)))}
        blocks = range(start // _BLOCK, math.ceil(stop / _BLOCK))
        drawn = [
            dict(flat({"drawn": self.augment.draw(_BLOCK * self.views, torch.Generator().manual_seed(mixed))}))
            for mixed in (order.seed_of(self.seed, block) for block in blocks)
        ]
        first, last = ((edge - blocks.start * _BLOCK) * self.views for edge in (start, stop))
        return nested({name: torch.cat([part[name] for part in drawn])[first:last] for name in drawn[0]})

    def _asked(self, inputs: Any, number: int) -> dict[str, Tensor]:
        device = next((tensor.device for tensor in self.teacher.tensors()), None)
        there = batches.apply({"inputs": inputs}, lambda column: column.to(device or column.device))
        answer = self.pack(self.teacher(there["inputs"]), order.seed_of(self.seed, number))
        return dict(flat({"teacher_logits": answer}))


def replays(augment: Any) -> bool:
    """Whether an augmentation makes the same views again of what it drew."""
    return all(callable(getattr(augment, step, None)) for step in ("draw", "apply"))


def packing(
    dtype: torch.dtype | None, top_k: int | None, rest: Rest, device: torch.device
) -> Callable[[Tensor, int], Any]:
    """What makes, of a batch of logits, what is kept of it."""

    def pack(logits: Tensor, seed: int) -> Any:
        drawn_by = torch.Generator(logits.device).manual_seed(seed)
        kept = {"": logits} if top_k is None else compress(logits, top_k, rest=rest, generator=drawn_by)
        kept = {name: _narrowed(column, dtype).to(device) for name, column in kept.items()}
        return kept.get("", kept)

    return pack


def _narrowed(column: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not column.is_floating_point():
        return column
    narrow = column.to(dtype)
    if (narrow.isinf() & ~column.isinf()).any():
        raise ValueError(f"dtype is {dtype}, which cannot hold a logit of {column.abs().max():g}; keep torch.float32")
    return narrow
