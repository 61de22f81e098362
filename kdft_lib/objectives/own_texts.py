"""Texts of a batch that the student writes itself: where its prompts end, what it writes, and what of that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.data import UNLABELED, Batch, batches
from kdft_lib.models import writing

_READ = {"input_ids", "attention_mask", "position_ids"}


def rewritten(
    model: nn.Module, batch: Batch, rows: int, *, prompt: int, most: int | None, ends: Sequence[int]
) -> Batch:
    """A batch whose first texts the student continues from their prompts.

    A row's prompt reaches up to its first place that counts, that place included, since it is there that the first
    token of the answer is said; where none counts, the whole row is the prompt. Padding, in front or behind, is no part
    of it. Of what is written, each place counts where a token was to be written: from the prompt's last token on, up to
    the token before the end.

    Args:
        model: The student.
        batch: The batch, whose ``inputs`` are tokens ``(N, T)``, or a dict with ``input_ids``.
        rows: How many texts it writes.
        prompt: The fewest tokens of a prompt, of a row that has as many.
        most: The most tokens to write in each row, which may make rows longer; by default up to T.
        ends: The tokens after which a text is over.

    Returns:
        A batch with other ``inputs``, a ``mask`` of what counts, and ``rows`` as ``written``; the labels and the
        answers of what was there before do not count.

    Raises:
        ValueError: If the inputs are no texts of tokens.
    """
    texts = _tokens(batch["inputs"])
    there = _there(batch["inputs"], texts)
    mask = batch["mask"] & there if "mask" in batch else there
    places = torch.arange(texts.shape[1], device=texts.device)
    first = torch.where(mask.any(1), mask.int().argmax(1), len(places) - 1)
    sizes = there.sum(1)
    starts = (there & (places <= first.unsqueeze(1))).sum(1).maximum(sizes.clamp(max=prompt)).clamp(min=1)[:rows]
    prompts = texts.gather(1, (~there).int().argsort(dim=1, stable=True))[:rows]
    # What the last place says is compared there; nobody reads the token drawn from it.
    limits = starts + most - 1 if most is not None else torch.full_like(starts, len(places))
    named = isinstance(batch["inputs"], Mapping)
    own, sizes = writing.continued(model, prompts, starts, limits, ends=ends, named=named)
    width = max(len(places), own.shape[1])
    places = torch.arange(width, device=texts.device)
    last = own.gather(1, sizes.unsqueeze(1) - 1)
    ended = torch.isin(last, torch.tensor([*ends], dtype=last.dtype, device=last.device)).squeeze(1) & (sizes > starts)
    counted = (places >= starts.unsqueeze(1) - 1) & (places < (sizes - ended.long()).unsqueeze(1))

    def behind(written: Tensor, column: Tensor) -> Tensor:
        return torch.cat([_wide(written.to(column.dtype), width), _wide(column, width)[rows:]])

    new = {"input_ids": own, "attention_mask": places < sizes.unsqueeze(1), "position_ids": places.expand(rows, -1)}
    inputs: Any = behind(own, texts)
    if named:
        inputs = {name: behind(new[name], column) for name, column in batch["inputs"].items()}
    changed = batch | {"inputs": inputs, "mask": behind(counted, mask), "written": rows}
    if batch.get("targets") is not None:
        targets = _wide(batch["targets"], width, UNLABELED)
        changed["targets"] = torch.cat([torch.full_like(targets[:rows], UNLABELED), targets[rows:]])
    if batch.get("teacher_logits") is not None and width > texts.shape[1]:
        answers = {"teacher_logits": batch["teacher_logits"]}
        changed |= batches.apply(answers, lambda column: _wide(column, width) if column.dim() > 1 else column)
    return changed


def as_given(batch: Batch, *, masked: bool) -> Batch:
    """A batch of which the student writes nothing, without padding among what counts.

    Args:
        batch: The batch.
        masked: Whether it gets a mask though all of it counts, as others of the step have one.
    """
    inputs = batch["inputs"]
    padded = isinstance(inputs, Mapping) and {"input_ids", "attention_mask"} <= inputs.keys()
    if not masked and not padded:
        return batch | {"written": 0}
    there = _there(inputs, _tokens(inputs) if masked else inputs["input_ids"])
    return batch | {"mask": batch["mask"] & there if "mask" in batch else there, "written": 0}


def _tokens(inputs: Any) -> Tensor:
    """The texts, if they are some that the student can continue."""
    texts = inputs.get("input_ids") if isinstance(inputs, Mapping) else inputs
    more = sorted(inputs.keys() - _READ) if isinstance(inputs, Mapping) else []
    if not isinstance(texts, Tensor) or texts.dim() != 2 or texts.dtype != torch.int64 or more:
        if isinstance(texts, Tensor):
            found = f"{texts.dtype}, {tuple(texts.shape)}" + (f", beside {', '.join(more)}" if more else "")
        else:
            found = f"a {type(inputs).__name__}" + (f" with {', '.join(inputs)}" if isinstance(inputs, Mapping) else "")
        raise ValueError(
            f"inputs is {found}; to write, GKD needs texts of tokens, int64, (N, T), alone or as input_ids beside"
            " attention_mask or position_ids, as kdft_lib.data.padded and packed give them"
        )
    return texts


def _there(inputs: Any, texts: Tensor) -> Tensor:
    """Where tokens are, and no padding."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if mask is None or mask.shape != texts.shape:
        return torch.ones_like(texts, dtype=torch.bool)
    return mask.bool()


def _wide(column: Tensor, width: int, filler: int = 0) -> Tensor:
    """A column ``(N, T, ...)`` with more places behind."""
    if column.shape[1] >= width:
        return column
    return F.pad(column, (0, 0) * (column.dim() - 2) + (0, width - column.shape[1]), value=filler)
