"""The n-grams that stand beside the students of the recipe of a language model of one's own size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from own_size_parts import LENGTH, cut, spelled
from torch import Tensor, nn

from kdft_lib import metrics, models
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Trained
from kdft_lib.training import Ledger


class TokenNGram(models.NGram):
    """Of many tokens: of its counts those that are not 0 alone, each at the number of a context with its next token."""

    def count(self, data: TensorData) -> TokenNGram:
        assert data.targets is not None
        assert data.mask is not None
        for length in range(self.order):
            contexts = self._contexts(data.inputs["input_ids"], length)
            keys = (contexts * self.num_classes + data.targets)[data.mask & (contexts >= 0)]
            found, counts = keys.unique(return_counts=True)
            setattr(self, f"contexts{length}", found)
            setattr(self, f"counts{length}", counts.float())
        return self

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:  # type: ignore[override]  # As language models have it.
        count = input_ids.numel()
        found = torch.full((count, self.num_classes), 1 / self.num_classes)
        for length in range(self.order):
            keys, counts = getattr(self, f"contexts{length}"), getattr(self, f"counts{length}")
            contexts = self._contexts(input_ids, length).flatten()
            first, last = (torch.searchsorted(keys, (contexts + more) * self.num_classes) for more in (0, 1))
            kinds = torch.where(contexts >= 0, last - first, 0)
            place = torch.arange(count).repeat_interleave(kinds)
            at = torch.arange(len(place)) + (first - kinds.cumsum(0) + kinds).repeat_interleave(kinds)
            total = torch.zeros(count).index_add(0, place, counts[at])
            longer = found * (self.discount * kinds / total.clamp(min=1)).unsqueeze(-1)
            longer[place, keys[at] % self.num_classes] += (counts[at] - self.discount) / total[place]
            found = torch.where((kinds > 0).unsqueeze(-1), longer, found)
        return found.log().view(*input_ids.shape, -1)


class AsWriter(nn.Module):
    """An n-gram that is asked as models of Transformers are. The keys that it keeps of a text are its tokens."""

    config = SimpleNamespace(is_encoder_decoder=False)

    def __init__(self, counts: TokenNGram):
        super().__init__()
        self.counts = counts

    def can_generate(self) -> bool:
        return True

    def get_input_embeddings(self) -> Any:
        return SimpleNamespace(num_embeddings=self.counts.num_classes)

    def forward(self, input_ids: Tensor, past_key_values: Any, **_: Any) -> Any:
        new, keys = input_ids.shape[1], input_ids[:, None, :, None].float()
        text, _ = past_key_values.update(keys, keys, 0)
        read = text[:, 0, -(new + self.counts.order - 1) :, 0].long()
        return SimpleNamespace(logits=self.counts(read)[:, -new:])


@dataclass(frozen=True)
class Counted:
    """An n-gram model of the text."""

    order: int
    discount: float = 0.75

    def train(self, splits: Splits, seed: int) -> Trained:
        started = time.perf_counter()
        model = TokenNGram(self.order, self.discount, len(cut().tokenizer)).count(splits.train)
        return Trained(model, Ledger(labels=len(splits.train), seconds=time.perf_counter() - started))


def in_bytes(data: TensorData) -> TensorData:
    """The text of all rows, as rows of bytes: they are its tokens."""
    content = torch.frombuffer(bytearray("".join(spelled(data)).encode()), dtype=torch.uint8).long()
    width = min(4 * LENGTH, len(content) - 1)
    behind = -(len(content) - 1) % width
    inputs, targets = F.pad(content[:-1], (0, behind)), F.pad(content[1:], (0, behind), value=-100)
    targets = targets.view(-1, width)
    counted = targets != -100
    return TensorData({"input_ids": inputs.view(-1, width)}, targets, mask=counted, columns={"bytes": counted.int()})


@dataclass(frozen=True)
class OfBytes:
    """What an n-gram of bytes predicts, of any text."""

    counts: TokenNGram

    def bits(self, data: TensorData) -> float:
        return metrics.bits_per_byte(self.counts, in_bytes(data), batch_size=16)

    def read(self, data: TensorData) -> None:
        self.counts(**in_bytes(data).inputs)

    @property
    def megabytes(self) -> float:
        return sum(part.nbytes for part in self.counts.buffers()) / 1e6


@dataclass(frozen=True)
class CountedBytes:
    """An n-gram model of the text's bytes, which needs no tokenizer."""

    order: int
    discount: float = 0.75

    def train(self, splits: Splits, seed: int) -> Trained:
        started = time.perf_counter()
        model = TokenNGram(self.order, self.discount, 256).count(in_bytes(splits.train))
        return Trained(OfBytes(model), Ledger(labels=len(splits.train), seconds=time.perf_counter() - started))
