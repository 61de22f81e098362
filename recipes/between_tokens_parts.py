"""What the recipe of losses between tokenizers is made of: places of a text, what the teacher may say there, and
students that say exactly the same in other tokens.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdft_lib import models
from kdft_lib.data import token_bytes, tokenizations
from kdft_lib.datasets import novels
from kdft_lib.losses import next_bytes, soft_target_loss

Tokens = tuple[int, ...]

WORDS = 8_192
"""Tokens of the student whose tokenizer is nearest to the teacher's."""
PLACES = {"bytes": 24, "some of its tokens": 10}
"""Of the text, by the student's tokens."""
WINDOWS = 40
"""Of it as its author wrote it."""
LIKELIEST, LONGEST = 16, 9
"""What the teacher may say at a place: so many of its tokens, of up to so many bytes. No window has more bytes."""
BEFORE, READ = 150, 5_000
"""Characters before a place, and of each novel those in which a student has counted its tokens."""
NEVER = 1e-9
"""What is left for a token that the teacher does not say, so that it has a logarithm."""


class Student(NamedTuple):
    """A tokenizer that knows the bytes and some of the teacher's tokens."""

    vocabulary: tuple[bytes, ...]
    spelled: Tensor
    """Of each of the teacher's tokens those of the student that it is, and −1 behind them, ``(C, ...)``."""
    often: Tensor
    """The logarithm of how often each of its tokens comes, ``(V,)``."""

    def spelling(self, token: int) -> Tokens:
        return tuple(number for number in self.spelled[token].tolist() if number >= 0)

    def reordered(self, in_bytes: Tensor) -> Tensor:
        """Next bytes, ``(…, 257)``, as tokens that are bytes, ``(…, V)``."""
        return in_bytes[..., [spelled[0] if spelled else 256 for spelled in self.vocabulary]]


class Text(NamedTuple):
    """T tokens of the teacher, which are S of the student's; here T is 1."""

    tokens: Tensor
    """``(T,)``"""
    spelled: Tensor
    """``(S,)``"""
    ends: tuple[list[int], list[int]]
    """Of each of the teacher's tokens and of the student's, the byte where it ends."""
    teacher: Tensor
    """Log-probabilities, before each of the teacher's tokens and behind the last, ``(T + 1, C)``."""
    right: Tensor
    """What a student says that is right: log-probabilities before each of its tokens and behind the last,
    ``(S + 1, V)``, float64."""
    in_bytes: dict[str, Tensor]
    """The teacher's answers along these tokens, or those of each beginning, as next bytes, ``(n + 1, 257)``."""


class Place(NamedTuple):
    """A place of a text, and how it may go on."""

    texts: list[Text]
    chances: list[float]
    rows: list[Tensor]
    """Of each text, where a student's answers to it are in a table of its answers, ``(S + 1,)``."""
    right: Tensor
    """That table, of a student that is right, ``(R, V)``."""


@functools.cache
def whole() -> Any:
    """The teacher and its tokenizer."""
    return models.language_model()


@functools.cache
def student(kind: str) -> Student:
    """One of bytes has the teacher's tokenizer cut to the smallest."""
    tokenizer = whole()[1]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    texts, size = ([], len(tokenizer) - len(merges)) if kind == "bytes" else (novels().train.texts, WORDS)
    smaller, _ = models.cut_tokenizer(tokenizer, texts, size)
    spelled = models.spellings(tokenizer, smaller)
    longest = 1 + max(map(len, spelled))
    read = [number for text in novels().train.texts for number in smaller(text[:READ])["input_ids"]]
    counts = torch.tensor(read).bincount(minlength=len(smaller)).double() + 1
    filled = torch.tensor([[*row, *[-1] * (longest - len(row))] for row in spelled])
    return Student(token_bytes(smaller), filled, (counts / counts.sum()).log())


def begins(number: int, count: int) -> Iterator[tuple[list[int], str]]:
    """The teacher's tokens of the text before a place, one of so many from all over the novels to test by, and the text
    that follows; then of the next place. There a word has ended and another begins."""
    text, tokenizer = "".join(novels().test.texts), whole()[1]
    words = re.compile(r"(?<=\w) (?=[A-Za-z])")
    for found in words.finditer(text, BEFORE + (len(text) - BEFORE) * number // count):
        at = found.start()
        prompt = tokenizer(text[at - BEFORE : at], add_special_tokens=False)["input_ids"]
        yield [tokenizer.bos_token_id, *prompt], text[at : at + 2 * LONGEST]


def answers(prompt: list[int], nodes: Sequence[Tokens]) -> Tensor:
    """What the teacher says behind a prompt and each of some beginnings, the first of them empty and all behind what
    they go on from: log-probabilities, ``(nodes, C)``.

    All are read in one pass. Each sees the prompt and what it goes on from alone.
    """
    numbers = {node: len(prompt) - 1 + place for place, node in enumerate(nodes)}
    read = torch.tensor([*prompt, *(node[-1] for node in nodes[1:])])
    sees, places = torch.ones(len(read), len(read)).tril().bool(), torch.arange(len(read))
    for node in nodes[1:]:
        at = numbers[node]
        sees[at] = sees[numbers[node[:-1]]]
        sees[at, at] = True
        places[at] = len(prompt) - 1 + len(node)
    mask = torch.where(sees, 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        given = whole()[0](
            input_ids=read[None], attention_mask=mask[None, None], position_ids=places[None], use_cache=False
        )
    return given.logits[0, len(prompt) - 1 :].float().log_softmax(-1)


# In other tokens -------------------------------------------------------------------------------------


class Tree:
    """The beginnings of some texts in a student's tokens, and what the teacher's tokens are among them."""

    def __init__(self, texts: list[Tokens], by: Student):
        self.rows = {begun: row for row, begun in enumerate(_beginnings(texts))}
        self.by, self.all = by, (by.spelled[:, 0] >= 0).nonzero().squeeze(1)
        self.next: dict[Tokens, list[int]] = {begun: [] for begun in self.rows}
        for begun in [*self.rows][1:]:
            self.next[begun[:-1]].append(begun[-1])

    def of_teacher(self, begun: Tokens, some: Tensor | None = None, at: int = 0) -> list[tuple[int, Tokens]]:
        """Tokens that go on from a beginning within the tree, and where they end."""
        some, found = self.all if some is None else some, []
        for token in self.next[begun]:
            same, further = some[self.by.spelled[some, at] == token], (*begun, token)
            found += [(number, further) for number in same[self.by.spelled[same, at + 1] < 0].tolist()]
            found += self.of_teacher(further, same, at + 1)
        return found

    def covers(self, first: set[int]) -> dict[Tokens, Tokens]:
        """All runs of the teacher's tokens within the tree that begin with one of some, and where they end."""
        fitting = {begun: self.of_teacher(begun) for begun in self.rows}
        found: dict[Tokens, Tokens] = {(): ()}
        new: list[tuple[Tokens, Tokens]] = [((token,), end) for token, end in fitting[()] if token in first]
        while new:
            found.update(new)
            new = [((*node, token), further) for node, end in new for token, further in fitting[end]]
        return found

    def spread(self, masses: Tensor, chances: Tensor, begun: Tokens, some: Tensor | None = None, at: int = 0) -> None:
        """Add the chances of the teacher's next tokens to those of the student's, the first and those behind it."""
        some = self.all if some is None else some
        following = self.by.spelled[some, at]
        going = following >= 0
        masses[self.rows[begun]].index_add_(0, following[going], chances[some[going]])
        for token in self.next[begun]:
            self.spread(masses, chances, (*begun, token), some[following == token], at + 1)


def exactly(tree: Tree, covers: dict[Tokens, Tokens], known: dict[Tokens, Tensor]) -> Tensor:
    """What a student says that says of every text what the teacher says, and spells each of the teacher's tokens in its
    own: log-probabilities of its next token, ``(R, V)``.

    They are sums over all that the teacher may have said so far, and will say next.
    """
    masses = torch.zeros(len(tree.rows), len(tree.by.vocabulary), dtype=torch.float64)
    for node, end in covers.items():
        reached = sum(float(known[node[:size]][token]) for size, token in enumerate(node))
        tree.spread(masses, (known[node].double() + reached).exp(), end)
    return (masses / masses.sum(1, keepdim=True) + NEVER).log().log_softmax(-1)


@functools.cache
def place(kind: str, number: int) -> Place:
    """What is said there."""
    by, vocabulary, (prompt, _) = student(kind), token_bytes(whole()[1]), next(begins(number, PLACES[kind]))
    fits = torch.tensor([0 < len(spelled) <= LONGEST for spelled in vocabulary])
    root = answers(prompt, [()])[0].masked_fill(~fits, -torch.inf)
    likeliest = root.topk(LIKELIEST).indices
    root = torch.full_like(root, -torch.inf).index_copy_(0, likeliest, root[likeliest].log_softmax(0))
    tokens = likeliest.tolist()
    tree = Tree([by.spelling(token) for token in tokens], by)
    covers = tree.covers({*tokens})
    ways = [_ways((token,), vocabulary) for token in tokens]
    nodes = [*dict.fromkeys([*covers, *_beginnings([row for way in ways for rows in way.values() for row in rows])])]
    known = dict(zip(nodes, answers(prompt, nodes), strict=True)) | {(): root}
    right, texts, rows = exactly(tree, covers, known), [], []
    for token, way in zip(tokens, ways, strict=True):
        spelled = by.spelling(token)
        rows.append(torch.tensor([tree.rows[spelled[:size]] for size in range(len(spelled) + 1)]))
        sizes = torch.tensor([len(by.vocabulary[number]) for number in spelled])
        ends = [len(vocabulary[token])], sizes.cumsum(0).tolist()
        in_bytes = {name: _in_bytes(read, known, vocabulary) for name, read in way.items()}
        teacher = torch.stack([root, known[token,]])
        texts.append(Text(torch.tensor([token]), torch.tensor(spelled), ends, teacher, right[rows[-1]], in_bytes))
    return Place(texts, root[likeliest].exp().tolist(), rows, right)


def window(number: int) -> tuple[list[int], Tokens]:
    """A few words of the text, and what is before them: as many tokens as fit. Where a longer word begins, there are
    too many ways to spell it, so it is passed over."""
    vocabulary = token_bytes(whole()[1])
    for prompt, text in begins(number, WINDOWS):
        tokens = whole()[1](text, add_special_tokens=False)["input_ids"]
        sizes = torch.tensor([len(vocabulary[token]) for token in tokens]).cumsum(0)
        fitting = int((sizes <= LONGEST).sum())
        if fitting and text[:LONGEST].isascii():
            return prompt, tuple(tokens[:fitting])
    raise ValueError(f"behind place {number} the text has no word of less than {LONGEST} letters")


@functools.cache
def along(number: int) -> dict[str, dict[str, float]]:
    """Of a window, bits a byte by each way to know the next byte, KL from the exact one to it, and bits by tokens."""
    by, vocabulary = student("bytes"), token_bytes(whole()[1])
    prompt, read = window(number)
    tree = Tree([tuple(number for token in read for number in by.spelling(token))], by)
    covers, ways = tree.covers({*range(len(vocabulary))}), _ways(read, vocabulary)
    nodes = [*dict.fromkeys([*covers, *_beginnings([row for rows in ways.values() for row in rows])])]
    known = dict(zip(nodes, answers(prompt, nodes), strict=True))
    right, spelled = exactly(tree, covers, known)[:-1], torch.tensor([*tree.rows][-1]).unsqueeze(1)
    said = {"exactly": right} | {
        f"of {'the text' if way == 'text' else 'each beginning'}": by.reordered(_in_bytes(rows, known, vocabulary)[:-1])
        for way, rows in ways.items()
    }
    own = sum(float(known[read[:size]][token]) for size, token in enumerate(read)) / len(spelled)
    return {
        way: {
            "bits": -bits(each.gather(1, spelled).mean()),
            "apart": bits(soft_target_loss(each, right, 1.0)),
            "in tokens": -bits(own),
        }
        for way, each in said.items()
    }


def bits(nats: Any) -> float:
    return float(nats) / math.log(2)


def _beginnings(rows: Sequence[Tokens]) -> list[Tokens]:
    """Each once, behind what it goes on from; the first is empty."""
    return [*dict.fromkeys(row[:size] for row in rows for size in range(len(row) + 1))]


def _ways(read: Tokens, vocabulary: tuple[bytes, ...]) -> dict[str, list[Tokens]]:
    """Some tokens themselves, and how the tokenizer spells what they begin with; of a part of a character nothing."""
    content = b"".join(vocabulary[token] for token in read)
    text, others = content.decode(errors="ignore"), []
    if text.encode() == content:
        made = tokenizations(text, whole()[1])
        both = zip(made["input_ids"], made["attention_mask"], strict=True)
        others = [tuple(row[1 : int(there.sum())].tolist()) for row, there in both]
    return {"text": [read], "beginnings": [read, *others]}


def _in_bytes(rows: list[Tokens], known: dict[Tokens, Tensor], vocabulary: tuple[bytes, ...]) -> Tensor:
    longest = 1 + max(map(len, rows))
    along = torch.tensor([[0, *row, *[0] * (longest - 1 - len(row))] for row in rows])
    there = torch.arange(longest) <= torch.tensor([[len(row)] for row in rows])
    logits = torch.stack([torch.stack([known[row[:size]] for size in range(longest)]) for row in rows])
    return next_bytes(logits, along, vocabulary, mask=there).logits.double()
