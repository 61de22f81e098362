"""A teacher's answers, computed once and kept with their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from kdft_lib import sharding
from kdft_lib.answers import Rest
from kdft_lib.data import TensorData
from kdft_lib.data.columns import nested
from kdft_lib.data.sources import Indexed, InMemory, source
from kdft_lib.teachers.asking import Asking, packing, replays
from kdft_lib.teachers.kept import Answered, Kept, Samples, ViewData, in_words
from kdft_lib.teachers.shards import on_disk
from kdft_lib.teachers.teacher import Teacher


def cache(
    teacher: nn.Module | Teacher,
    data: Any,
    *,
    to: str | Path | None = None,
    views: int | Literal["all"] | None = None,
    augment: Any = None,
    seed: int = 0,
    top_k: int | None = None,
    rest: Rest = "even",
    dtype: torch.dtype | None = None,
    batch_size: int = 512,
) -> Any:
    """Compute the teacher's logits once, and return the data with them: precomputed, stored, or offline, soft labels.

    The answers belong to the samples' indices, so shuffling, selecting and a loader's workers cannot part them, and the
    teacher's fingerprint goes with them: :func:`kdft_lib.training.fit` refuses logits of another teacher than its
    objective's. How many calls it takes, and how many bytes, stands before the progress bar.

    With ``to``, they are kept in a folder, in shards that are written as the teacher goes and are read when they are
    needed, so that neither this nor training holds more of them than a shard or a batch. A call that was interrupted,
    even killed, goes on where it was when it is made again. Under ``torchrun`` and ``accelerate launch``, where each
    process makes the call, each asks its share and waits for the others; they share the folder.

    With ``views``, the teacher is asked about several augmented views of each sample, and exactly these are seen in
    training: one of them, drawn anew, whenever a row is read. So student and teacher see the same view, and no teacher
    is in the loop, as Shen and Xing do with regions of pictures (2022, *A fast knowledge distillation framework for
    visual recognition*). ``fit`` takes no ``augment`` then.

    Args:
        teacher: The teacher to ask; where it is, there it computes.
        data: Data in memory, or a map-style dataset, with a length and indices, whose samples do not change from
            one look to the next; of what :func:`~kdft_lib.training.fit` takes, all but loaders and streams.
        to: A folder to keep the answers in. One that has them already is read, provided that it has those of this
            teacher to this data, in this way; of an ``augment`` that is a function, what it takes from around itself is
            not compared. By default they are kept in memory.
        views: How many augmented views of each sample to keep, from 1 on, or ``"all"`` that ``augment.every()`` lists:
            of shifts by one pixel and mirror images 18. By default samples are as they are.
        augment: What makes views of a batch of inputs. Of one that has ``draw(count, generator)`` and
            ``apply(inputs, drawn)``, such as :class:`~kdft_lib.data.RandomShiftFlip`, what it drew is kept, which is
            small; of any other callable, the views themselves.
        seed: What the views, and classes that are sampled, are drawn with.
        top_k: How many classes of each distribution to keep; see :func:`compress`. For a vocabulary of 32,000 words,
            64 take a 160th of the memory in float16.
        rest: What to say of the other classes: ``"even"``, ``"bucket"`` or, of classes that are drawn, ``"sampled"``;
            see :func:`compress`.
        dtype: The precision to keep the logits in, by default the teacher's; ``torch.float16`` takes half of the
            memory and rounds to eleven bits.
        batch_size: The size of the teacher's calls.

    Returns:
        Of a :class:`~kdft_lib.data.TensorData` the same rows with ``teacher_logits`` ``(N, ..., C)``, or what
        :func:`compress` makes of them, on the data's device or in the folder; with views, a :class:`ViewData`. Of
        another dataset an :class:`Answered`.

    Raises:
        TypeError: If the data has no indices, or ``augment`` does not list all of its views.
        ValueError: If the data is empty or transformed at random, ``dtype`` cannot hold a logit, or
            the folder has answers of another teacher, to other data or in another way.
        OSError: If the folder cannot be written.

    Example:
        >>> data = TensorData(torch.randn(5, 3))
        >>> cache(torch.nn.Linear(3, 2), data).teacher_logits.shape
        torch.Size([5, 2])
    """
    _check(views, augment, batch_size)
    teacher, samples = Teacher(teacher), _with_indices(data)
    if sharding.kept_fingerprint(teacher.model) is not None:
        raise ValueError(
            "the teacher's weights are shared among processes, which would have to make the same calls, and here each"
            " makes its own; cache the answers of the whole teacher, or let the sharded one answer in the loop"
        )
    device = torch.device("cpu")
    if isinstance(samples, TensorData) and to is None and views is None:
        device = samples.device
    every = augment.every() if views == "all" else None
    count: Any = len(next(iter(every.values()))) if every is not None else views or 1
    asking = Asking(teacher, samples, packing(dtype, top_k, rest, device), count, augment, seed, batch_size, every)
    fingerprint = teacher.fingerprint()
    if to is None:
        everything = range(len(samples))
        with asking.watched([everything], asking.nbytes) as bar:
            columns = nested(asking.kept(everything, bar))
    else:
        drawn = top_k is not None and rest == "sampled"
        made_of = {
            "teacher": fingerprint, "samples": len(samples), "data": samples.fingerprint(),
            "dtype": None if dtype is None else str(dtype), "top_k": top_k, "rest": None if top_k is None else rest,
            "views": views, "augment": None if augment is None else in_words(augment),
            "seed": seed if views not in (None, "all") or drawn else None, "batch_size": batch_size if drawn else None,
        }  # fmt: skip
        columns = on_disk(Path(to), asking, made_of)
    if views is None and isinstance(samples, TensorData):
        return samples.with_teacher_logits(columns["teacher_logits"], fingerprint)
    kept = Kept(columns, fingerprint, count, augment if replays(augment) else None)
    return ViewData(samples, kept) if isinstance(samples, TensorData) else Answered(samples.dataset, kept)


def _check(views: Any, augment: Any, batch_size: int) -> None:
    if (views is None) != (augment is None):
        raise ValueError(
            f"views is {views} and augment is {augment}; give both, how many views of each sample to keep and what"
            " makes them, or neither"
        )
    if views not in (None, "all") and (isinstance(views, str) or views < 1):
        raise ValueError(f'views is {views!r}; it must be 1 or more, or "all"')
    if views == "all" and not (replays(augment) and callable(getattr(augment, "every", None))):
        raise TypeError(
            f"augment is a {type(augment).__name__}, which does not list all of its views (it has no every(), draw()"
            " and apply()); say how many to keep: views=8"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")


def _with_indices(data: Any) -> TensorData | Samples:
    """Data whose samples can be asked for by their indices, if they are the same at a second look."""
    if isinstance(data, ViewData):
        raise ValueError("data has views kept, with a teacher's answers to them; cache the data that they were made of")
    found = source(data)
    if not isinstance(found, InMemory | Indexed):
        raise TypeError(
            f"data is a {type(data).__name__}, whose samples have no indices that answers could belong to; give data in"
            " memory or a map-style dataset, of a DataLoader its dataset"
        )
    samples = found.data if isinstance(found, InMemory) else Samples(found.data)
    for index in range(min(len(samples), 32)):
        first, second = (TensorData(samples.rows(slice(index, index + 1))["inputs"]) for _ in range(2))
        if first.fingerprint() != second.fingerprint():
            raise ValueError(
                f"data changes from one look to the next (sample {index}), so cached logits would belong to"
                " other inputs; cache the data without its random transform, or let the teacher answer in the loop"
            )
    return samples
