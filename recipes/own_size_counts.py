"""The n-gram of tokens that stands beside the students of the recipe of a language model of one's own size."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from own_size_parts import cut
from torch import Tensor, nn

from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import Trained
from kdft_lib.training import Ledger


class TokenNGram(nn.Module):
    """:class:`kdft_lib.models.NGram` of many tokens: the same formula, with the counts that are not 0 alone."""

    def __init__(self, order: int, discount: float, words: int):
        super().__init__()
        self.order, self.discount, self.words = order, discount, words

    def count(self, data: TensorData) -> TokenNGram:
        assert data.targets is not None
        assert data.mask is not None
        for length in range(self.order):
            contexts = self._contexts(data.inputs["input_ids"], length)
            keys = (contexts * self.words + data.targets)[data.mask & (contexts >= 0)]
            found, counts = keys.unique(return_counts=True)
            self.register_buffer(f"keys{length}", found)
            self.register_buffer(f"counts{length}", counts.float())
        return self

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        count = input_ids.numel()
        found = torch.full((count, self.words), 1 / self.words)
        for length in range(self.order):
            keys, counts = getattr(self, f"keys{length}"), getattr(self, f"counts{length}")
            contexts = self._contexts(input_ids, length).flatten()
            first, last = (torch.searchsorted(keys, (contexts + more) * self.words) for more in (0, 1))
            kinds = torch.where(contexts >= 0, last - first, 0)
            place = torch.arange(count).repeat_interleave(kinds)
            at = torch.arange(len(place)) + (first - kinds.cumsum(0) + kinds).repeat_interleave(kinds)
            total = torch.zeros(count).index_add(0, place, counts[at])
            longer = found * (self.discount * kinds / total.clamp(min=1)).unsqueeze(-1)
            longer[place, keys[at] % self.words] += (counts[at] - self.discount) / total[place]
            found = torch.where((kinds > 0).unsqueeze(-1), longer, found)
        return found.log().view(*input_ids.shape, -1)

    def _contexts(self, tokens: Tensor, length: int) -> Tensor:
        padded, number = F.pad(tokens, (length, 0), value=-1), torch.zeros_like(tokens)
        missing = torch.zeros_like(tokens, dtype=torch.bool)
        for back in range(length):
            token = padded[:, length - back : length - back + tokens.shape[1]]
            missing |= token < 0
            number = number * self.words + token
        return number.masked_fill(missing, -1)


@dataclass(frozen=True)
class Counted:
    """An n-gram model of the text."""

    order: int
    discount: float = 0.75

    def train(self, splits: Splits, seed: int) -> Trained:
        started = time.perf_counter()
        model = TokenNGram(self.order, self.discount, len(cut().tokenizer)).count(splits.train)
        return Trained(model, Ledger(labels=len(splits.train), seconds=time.perf_counter() - started))
