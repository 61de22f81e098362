"""Small language models of characters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdft_lib.data import TensorData
from kdft_lib.datasets import CHARACTERS
from kdft_lib.models.small import _check_sizes


class CharacterGRU(nn.Module):
    """Says after each character what may come next, a character-level recurrent language model (char-RNN): an
    embedding, gated recurrent units (Cho et al., 2014) and a linear head.

    Args:
        width: The size of the state, which is all that it remembers of the text so far.
        embedding: The number of numbers for each character.
        num_classes: The number of characters.

    Shape:
        ``(N, T)``, int64 → ``(N, T, num_classes)``, the logits of the character after each.

    Example:
        >>> [sum(p.numel() for p in CharacterGRU(*sizes).parameters()) for sizes in ((64, 32), (256, 64))]
        [25121, 268161]
    """

    def __init__(self, width: int = 64, embedding: int = 32, num_classes: int = len(CHARACTERS)):
        super().__init__()
        _check_sizes(width=width, embedding=embedding, num_classes=num_classes)
        self.arguments = {"width": width, "embedding": embedding, "num_classes": num_classes}
        self.embed = nn.Embedding(num_classes, embedding)
        self.body = nn.GRU(embedding, width, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.advance(tokens)[0]

    def advance(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read on from a state: the logits after each token, and the state after the last."""
        states, last = self.body(self.embed(tokens), state)
        return self.head(states), last


class NGram(nn.Module):
    r"""Counts what followed each run of characters: an n-gram, or Markov, model; what a practitioner would try before
    any network.

    Long contexts are rare, so their counts are discounted, and what that frees goes to the next shorter one
    (absolute discounting, interpolated; Ney, Essen and Kneser, 1994):

    .. math:: P(c \mid h) = \frac{\max(N(h, c) - d, 0) + d \, R(h) \, P(c \mid h')}{N(h)}

    with :math:`N(h)` and :math:`R(h)` how often, and by how many characters, the context :math:`h` was followed,
    and :math:`h'` the context without its first character. Where :math:`h` never occurred, :math:`P(c \mid h')` is
    taken; below the empty context all characters are equal.

    Args:
        order: The length n of the longest context with the character after it: 6 looks five characters back.
        discount: The discount d, from 0 to below 1; 0 trusts a context that was seen once.
        num_classes: The number of characters.

    Shape:
        ``(N, T)``, int64 → ``(N, T, num_classes)``, log-probabilities, which are logits. Contexts end where rows do.

    Raises:
        ValueError: If an argument is out of range, or ``num_classes`` to the power of ``order`` does not fit 63 bits.

    Example:
        >>> tokens = torch.tensor([[0, 1, 0, 1, 0, 1]])
        >>> model = NGram(order=2, num_classes=3).count(TensorData(tokens[:, :-1], tokens[:, 1:]))
        >>> model(torch.tensor([[0, 1]])).exp()
        tensor([[[0.0875, 0.8875, 0.0250],
                 [0.7563, 0.2063, 0.0375]]])
    """

    def __init__(self, order: int = 6, discount: float = 0.75, num_classes: int = len(CHARACTERS)):
        super().__init__()
        _check_sizes(order=order, num_classes=num_classes)
        if not 0 <= discount < 1:
            raise ValueError(f"discount is {discount}; it must be from 0 to below 1")
        if num_classes**order >= 2**63:
            raise ValueError(f"order is {order}; with {num_classes} classes its contexts are too many to be numbered")
        self.order, self.discount, self.num_classes = order, discount, num_classes
        for length in range(order):
            self.register_buffer(f"contexts{length}", torch.empty(0, dtype=torch.int64))
            self.register_buffer(f"counts{length}", torch.empty(0, num_classes))

    def extra_repr(self) -> str:
        return f"order={self.order}, discount={self.discount}"

    def count(self, data: TensorData) -> NGram:
        """Forget what was counted before, and count a text."""
        targets = data.targets
        if targets is None:
            raise ValueError("data has no targets; an n-gram counts what follows")
        for length in range(self.order):
            contexts = self._contexts(data.inputs, length)
            whole = contexts >= 0
            known, places = contexts[whole].unique(return_inverse=True)
            cells = (places * self.num_classes + targets[whole]).bincount(minlength=len(known) * self.num_classes)
            setattr(self, f"contexts{length}", known)
            setattr(self, f"counts{length}", cells.view(-1, self.num_classes).float())
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        found = torch.full((*tokens.shape, self.num_classes), 1 / self.num_classes, device=tokens.device)
        for length in range(self.order):
            known, counts = getattr(self, f"contexts{length}"), getattr(self, f"counts{length}")
            if len(known) == 0:
                break
            contexts = self._contexts(tokens, length)
            places = torch.searchsorted(known, contexts).clamp(max=len(known) - 1)
            followed = counts[places]
            total, kinds = followed.sum(-1, keepdim=True), (followed > 0).sum(-1, keepdim=True)
            longer = ((followed - self.discount).clamp(min=0) + self.discount * kinds * found) / total
            found = torch.where((known[places] == contexts).unsqueeze(-1), longer, found)
        return found.log()

    def advance(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read on: the log-probabilities after each token, and the last characters, for the next call."""
        before = tokens[:, :0] if state is None else state
        seen = torch.cat([before, tokens], dim=1)
        return self(seen)[:, before.shape[1] :], seen[:, max(0, seen.shape[1] - self.order + 1) :]

    def numbers(self) -> int:
        """How many counts it keeps: contexts and characters that occurred together."""
        return sum(int((getattr(self, f"counts{length}") > 0).sum()) for length in range(self.order))

    def _contexts(self, tokens: Tensor, length: int) -> Tensor:
        """The number of the ``length`` last characters at each place, −1 where there are fewer: ``(N, T)``."""
        padded = F.pad(tokens, (length, 0), value=-1)
        number = torch.zeros_like(tokens)
        missing = torch.zeros_like(tokens, dtype=torch.bool)
        for back in range(length):
            token = padded[:, length - back : length - back + tokens.shape[1]]
            missing |= token < 0
            number = number * self.num_classes + token
        return number.masked_fill(missing, -1)
