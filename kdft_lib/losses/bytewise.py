"""From the next token to the next byte, of which any two language models can be compared."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_CLASSES = 257
_NONE, _BEHIND = chr(256), chr(257)
"""The character of a token that stands for no byte, behind those of the bytes; and one behind all of them."""
_TOGETHER = 64
"""How many places of a text are summed at once."""


class NextBytes(NamedTuple):
    """What a language model says of the next byte at each place of a text of n bytes: before it, and after each byte.

    Attributes:
        logits: Log-probabilities, ``(n + 1, 257)``; class 256 is no byte: an end, or another token
            that stands for none.
        kept: The part of each distribution that the model said, ``(n + 1,)``, from 0 to 1: exact at 1. The rest belongs
            to tokens that end there or before, and after which the model was not asked.
        text: The bytes themselves, ``(n,)``, int64.

    Example:
        >>> given = next_bytes(torch.zeros(2, 3), torch.tensor([2, 0]), (b"a", b"b", b""))
        >>> given.text, given.kept
        (tensor([97]), tensor([1., 1.]))
    """

    logits: Tensor
    kept: Tensor
    text: Tensor


def next_bytes(
    logits: Tensor, tokens: Tensor, vocabulary: Sequence[bytes], *, mask: Tensor | None = None
) -> NextBytes:  # fmt: skip
    r"""Turn a model's logits of the next token into those of the next byte, so that a teacher and a student with other
    tokens say comparable things at the same places; any loss of logits then compares them, at temperature 1.

    .. math:: P(x \mid b) = \frac{P(bx)}{P(b)}, \qquad
        P(b) = \sum_{s} P(s) \sum_{t \,:\, st \text{ reaches over } b} P(t \mid s)

    Bytes b can be spelled in many ways: s runs over tokens whose bytes are a beginning of b, and t over the tokens that
    go on with what is left of b, and end with it or behind it. The text's own tokenization is one of these ways, and a
    model asked along it alone was not asked what follows a token that ends elsewhere; behind such a token every byte is
    taken to be as likely as another. So several tokenizations of a text may be given, and each beginning of one counts
    once: with those that :func:`kdft_lib.data.tokenizations` finds of the beginnings of the text nearly all is known,
    with all of a short text everything. Phan et al. (2025) and Hayase et al. (2025) draw exact bytes from a model of
    tokens so; the universal logit distillation of Boizard et al. (2025) compares sorted probabilities in their place,
    whatever their tokens mean.

    Where the tokens of the text's own tokenization end depends on bytes that come later. So along it alone the answers
    know something of what comes: they are no score.

    Args:
        logits: Of the token after each, ``(T, C)``, or of several tokenizations of one text, ``(R, T, C)``. The
            gradient passes through.
        tokens: What was read, ``(T,)`` or ``(R, T)``, int64. The first is what the text begins from and stands for no
            byte, whichever it is; it is the same in each row. A row may end earlier in the text than others.
        vocabulary: Of each token the bytes that it stands for, none of an end or a beginning; see
            :func:`kdft_lib.data.token_bytes`. Classes beyond it stand for none.
        mask: Which tokens count, ``(T,)`` or ``(R, T)``, bool: false at padding. By default all do.

    Returns:
        :class:`NextBytes`, computed in float64 and given in float32, or in float64 for such logits.

    Raises:
        ValueError: If the shapes differ, a token is unknown, nothing counts, or rows are not of one text.

    Example:
        >>> vocabulary = (b"a", b"b", b"ab", b"")
        >>> logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
        >>> chances = next_bytes(logits, torch.tensor([3]), vocabulary).logits.exp()
        >>> chances[0, [ord("a"), ord("b"), 256]]
        tensor([0.4000, 0.2000, 0.4000])
    """
    _check(logits, tokens, vocabulary, mask)
    counted = (torch.ones_like(tokens) if mask is None else mask).bool()
    rows, classes, home = counted.view(-1, counted.shape[-1]).tolist(), logits.shape[-1], logits.device
    if home.type == "mps":  # It has no float64.
        logits = logits.cpu()
    device = logits.device
    spelled, numbers, alphabetical, order = _spelled(tuple(vocabulary), classes)
    tree = _Tree(tokens.view(-1, tokens.shape[-1]).tolist(), rows, spelled)

    def index(numbers: Any) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.int64, device=device)

    said = logits.reshape(-1, classes)[index(tree.where)].double().log_softmax(-1).clamp(min=-1e30)
    steps = said[index(tree.parents), index(tree.tokens)]
    steps = torch.cat([steps.new_zeros(1), steps[1:]])  # The first place is where all begin.
    reached = steps[index(tree.paths)].cumsum(1)[tuple(index(tree.seats).T)]

    places, found, cells = len(tree.text) + 1, [], []
    for first in range(0, len(said), _TOGETHER):
        some = range(first, min(first + _TOGETHER, len(said)))
        ranges, which, node, cell = _ranges(tree, some, alphabetical, order)
        sums = torch.sparse.mm(ranges.to(device), said[first : some.stop].exp().T)
        masses = sums[index(which), index(node - first)].clamp(min=torch.finfo(sums.dtype).tiny)
        found.append(masses.log() + reached[index(node)])
        cells.append(index(cell))
    known = _sums(torch.cat(found), torch.cat(cells), places * _CLASSES).view(places, _CLASSES)

    node, token, place = index(tree.lost(numbers)).view(-1, 3).T
    lost = _sums(said[node, token] + reached[node], place, places)
    rest = _spread(lost, math.log(_CLASSES)).unsqueeze(1)
    answer = torch.stack([known, (rest - math.log(_CLASSES)).expand_as(known)]).logsumexp(0).log_softmax(1)
    kept = -torch.expm1(rest - torch.cat([known, rest], 1).logsumexp(1, keepdim=True)).detach().squeeze(1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    text = index([ord(symbol) for symbol in tree.text])
    return NextBytes(answer.to(home, dtype), kept.to(home, dtype), text.to(home))


def _sums(logarithms: Tensor, cells: Tensor, count: int) -> Tensor:
    """Of each cell the logarithm of the sum of what lies in it; −10³⁰ where nothing does."""
    most = logarithms.new_full((count,), -1e30).scatter_reduce(0, cells, logarithms.detach(), "amax")
    sums = torch.zeros_like(most).index_add(0, cells, (logarithms - most[cells]).exp())
    return torch.where(sums == 0, 1.0, sums).log() + most


def _spread(lost: Tensor, rate: float) -> Tensor:
    """At each place the logarithm of what was lost up to there, each less by a rate a place since, in blocks of places,
    so that long texts take room in proportion."""
    found, before = [], lost.new_full((), -1e30)
    for block in lost.split(_TOGETHER):
        places = torch.arange(len(block), dtype=lost.dtype, device=lost.device)
        ages = places.unsqueeze(1) - places
        here = torch.where(ages < 0, -1e30, block - ages * rate)
        found.append(torch.cat([here, (before - (places + 1) * rate).unsqueeze(1)], 1).logsumexp(1))
        before = found[-1][-1]
    return torch.cat(found)


class _Tree:
    """The distinct beginnings of some tokenizations of a text, its nodes, each behind the one that it goes on from.

    Attributes:
        where: Of each node, the place among all of all rows, where the model answered to it.
        parents: Of each the node without the last token; of the first, itself.
        tokens: Of each the last token; of the first, any.
        ends: Of each, how many bytes of the text it covers.
        paths: Of each row the nodes along it, filled up with the first, which adds nothing.
        seats: Of each node the row and the place in its path where it is found.
        followed: Which nodes are followed by which tokens.
        text: The bytes, as characters.
    """

    def __init__(self, rows: list[list[int]], counted: list[list[bool]], spelled: Sequence[str]):
        known: dict[tuple[int, ...], int] = {}  # By the node before and the token behind it.
        self.where: list[int] = []
        self.parents: list[int] = []
        self.tokens: list[int] = []
        self.ends: list[int] = []
        self.paths: list[list[int]] = []
        self.seats: list[tuple[int, int]] = []
        self.text, begins, self.followed = "", set(), set[tuple[int, int]]()
        for number, (row, flags) in enumerate(zip(rows, counted, strict=True)):
            places = [place for place, flag in enumerate(flags) if flag]
            if not places:
                raise ValueError(
                    f"row {number} of tokens has none that counts; give at least what the text begins from"
                )
            read, path, end = [row[place] for place in places], [0], 0
            begins.add(read[0])
            for size in range(len(read)):
                end += len(spelled[read[size]]) if size else 0
                key = (path[-1], read[size]) if size else ()
                if key not in known:
                    known[key] = len(known)
                    self.where.append(number * len(row) + places[size])
                    self.parents.append(path[-1])
                    self.tokens.append(read[size])
                    self.ends.append(end)
                    self.seats.append((number, size))
                    if size:
                        self.followed.add((path[-1], read[size]))
                path[size:] = [known[key]]
            self.paths.append(path + [0] * (len(row) - len(path)))
            text = "".join(spelled[token] for token in read[1:])
            longer, shorter = sorted((text, self.text), key=len, reverse=True)
            if len(begins) > 1 or not longer.startswith(shorter):
                raise ValueError(
                    f"row {number} of tokens is of another text than those before it, or begins from another token;"
                    " give tokenizations of one text, or each text to a call of its own"
                )
            self.text = longer

    def lost(self, numbers: Mapping[str, list[int]]) -> list[tuple[int, int, int]]:
        """Tokens that end within the text or with it, and behind which no answer is: the node, the token and where it
        ends."""
        longest, last = max(map(len, numbers)), len(self.text)
        return [
            (node, token, end + size)
            for node, end in enumerate(self.ends)
            for size in range(1, min(longest, last - end) + 1)
            for token in numbers.get(self.text[end : end + size], ())
            if (node, token) not in self.followed
        ]


@lru_cache(maxsize=4)
def _spelled(
    vocabulary: tuple[bytes, ...], classes: int
) -> tuple[list[str], dict[str, list[int]], list[str], np.ndarray]:
    """Of each class its bytes, as characters; which classes have them; all in alphabetical order, and their classes."""
    spelled = [some.decode("latin-1") or _NONE for some in vocabulary] + [_NONE] * (classes - len(vocabulary))
    numbers: dict[str, list[int]] = {}
    for number, spelling in enumerate(spelled):
        numbers.setdefault(spelling, []).append(number)
    order = sorted(range(classes), key=spelled.__getitem__)
    return spelled, numbers, [spelled[number] for number in order], np.array(order)


def _ranges(
    tree: _Tree, nodes: range, alphabetical: list[str], order: np.ndarray
) -> tuple[Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """The tokens that say which byte comes. In alphabetical order, those that begin alike are neighbors.

    Returns:
        A sparse matrix of ones, each row the tokens that begin with some bytes and one more; then which rows the nodes
        need: the row, the node, and the cell of the answer, place × 257 + byte.
    """
    sizes: list[int] = []
    classes: list[np.ndarray] = []
    known: dict[str, tuple[int, list[int], bool]] = {}

    def branches(begun: str) -> tuple[int, list[int], bool]:
        if begun not in known:
            at, last = (bisect_left(alphabetical, bound) for bound in (begun, begun + _BEHIND))
            any_, first, symbols = at < last, len(sizes), []
            while at < last and alphabetical[at] == begun:
                at += 1
            while at < last:
                symbol = alphabetical[at][len(begun)]
                stop = bisect_left(alphabetical, begun + symbol + _BEHIND, at, last)
                symbols.append(ord(symbol))
                sizes.append(stop - at)
                classes.append(order[at:stop])
                at = stop
            known[begun] = first, symbols, any_
        return known[begun]

    which, node, cell = [], [], []
    for number in nodes:
        for place in range(tree.ends[number], len(tree.text) + 1):
            first, symbols, any_ = branches(tree.text[tree.ends[number] : place])
            if not any_:
                break
            which.append(first + np.arange(len(symbols)))
            node.append(np.full(len(symbols), number))
            cell.append(place * _CLASSES + np.array(symbols, np.int64))
    rows = np.repeat(np.arange(len(sizes)), sizes)
    indices = torch.from_numpy(np.stack([rows, np.concatenate(classes)]))
    ones = torch.ones(indices.shape[1], dtype=torch.float64)
    matrix = torch.sparse_coo_tensor(indices, ones, (len(sizes), len(order)), check_invariants=False)
    return matrix, np.concatenate(which), np.concatenate(node), np.concatenate(cell)


def _check(logits: Tensor, tokens: Tensor, vocabulary: Sequence[bytes], mask: Tensor | None) -> None:
    if logits.dim() not in (2, 3) or logits.shape[:-1] != tokens.shape or logits.numel() == 0:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and tokens {tuple(tokens.shape)}; wanted (T, C) and (T,), or, of"
            " several tokenizations of one text, (R, T, C) and (R, T)"
        )
    if mask is not None and mask.shape != tokens.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)} and tokens {tuple(tokens.shape)}; both must be alike")
    if len(vocabulary) > logits.shape[-1]:
        raise ValueError(
            f"vocabulary has {len(vocabulary):,} tokens and logits {logits.shape[-1]:,} classes; take the vocabulary of"
            " the model's own tokenizer"
        )
    if not any(vocabulary):
        raise ValueError(
            "vocabulary has no token that stands for a byte; kdft_lib.data.token_bytes(tokenizer) makes it"
        )
    counted = tokens if mask is None else tokens[mask.bool()]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < logits.shape[-1]:
        raise ValueError(
            f"tokens are from {int(counted.min())} to {int(counted.max())}, and logits have {logits.shape[-1]} classes;"
            " mask what fills up"
        )
