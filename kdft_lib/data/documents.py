"""Texts for causal language models: rows of tokens, each with the token after it as its target."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdft_lib.data import reading
from kdft_lib.data.batches import UNLABELED
from kdft_lib.data.tensors import TensorData
from kdft_lib.data.texts import TextData

_TOGETHER = 256
"""How many documents are given to the tokenizer at once."""


class _Pairs(NamedTuple):
    """Of a document, each token that has a next one: the token, the next one, and how many bytes that stands for."""

    tokens: np.ndarray
    targets: np.ndarray
    sizes: np.ndarray


def packed(
    documents: Any,
    tokenizer: Any,
    *,
    length: int = 512,
    column: str = "text",
    start: str | int | None = "bos",
    end: str | int | None = "eos",
) -> TensorData:
    """Documents behind one another in rows of one length, so that nothing is computed for padding (sequence packing).

    What of a document does not fit in a row goes on in the next, without what came before. Documents of a row do not
    see one another: at each, ``position_ids`` begin again from 0, and :func:`kdft_lib.models.logits`, through which
    students and teachers are asked here, then lets attention reach no further back. Of a model that does not attend
    but keeps a state (Mamba, a recurrent network), use :func:`padded`.

    Args:
        documents: A list of texts; a :class:`TextData`; a path, or a list of them, of files in UTF-8, each a
            document; a Hugging Face data set, or another iterable of dicts.
        tokenizer: A fast tokenizer of Transformers, or one of the library ``tokenizers``. What it leaves out or
            replaces of a text is not told apart from what it keeps: see :func:`kdft_lib.metrics.bits_per_byte`.
        length: The tokens of a row.
        column: The name of the texts in dicts.
        start: The token before each document, from which its first is predicted: a number or a token; ``"bos"`` is
            the tokenizer's own, if it has one; ``None`` puts none, and then the first token is nobody's target.
        end: The token after each document: a number or a token; ``"eos"`` is the tokenizer's own, if it has one;
            ``None`` puts none.

    Returns:
        A :class:`TensorData` of N rows with the inputs ``input_ids`` and ``position_ids``, the targets (at each place
        the token **after** it, so no model shifts them; −100 where the last row is not full), the mask of places
        that have one, and the column ``bytes``, how many bytes of the text each target stands for (those of a
        character in several tokens go to the first; the end stands for 0); each ``(N, length)``.

    Raises:
        TypeError: If the documents or the tokenizer are of another kind.
        ValueError: If nothing is left to predict, a token is unknown, or a file is no UTF-8.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "rose": 2, "is": 3}, unk_token="<s>"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> data = packed(["a rose", "is a rose"], tokenizer, length=5, start="<s>")
        >>> data.inputs["input_ids"], data.inputs["position_ids"]
        (tensor([[0, 1, 0, 3, 1]]), tensor([[0, 1, 0, 1, 2]]))
        >>> data.targets
        tensor([[1, 2, 3, 1, 2]])
    """
    pairs = [*_pairs(documents, tokenizer, length, column, start, end)]
    total = sum(len(pair.tokens) for pair in pairs)
    shape = (-(-total // length), length)
    places = np.arange(total)
    first = np.zeros(total, np.int64)
    first[np.cumsum([0, *(len(pair.tokens) for pair in pairs[:-1])])] = 1
    first[::length] = 1
    positions = places - np.maximum.accumulate(places * first)
    columns = [*(np.concatenate(parts) for parts in zip(*pairs, strict=True)), positions]
    tokens, targets, sizes, counted = (
        _filled(column, shape, filler) for column, filler in zip(columns, (0, UNLABELED, 0, 0), strict=True)
    )
    return TensorData(
        {"input_ids": tokens, "position_ids": counted},
        targets,
        mask=targets != UNLABELED,
        columns={"bytes": sizes.int()},
    )


def padded(
    documents: Any,
    tokenizer: Any,
    *,
    length: int = 512,
    column: str = "text",
    start: str | int | None = "bos",
    end: str | int | None = "eos",
) -> TensorData:
    """Documents in rows of their own, filled up behind: what any causal model reads, at the price of padding.

    A document that is longer than a row goes on in the next, without what came before.

    Args:
        documents: What :func:`packed` takes.
        tokenizer: As for :func:`packed`.
        length: The most tokens of a row; rows are as long as the longest.
        column: The name of the texts in dicts.
        start: The token before each document; see :func:`packed`.
        end: The token after each document; see :func:`packed`.

    Returns:
        As :func:`packed`, with ``attention_mask`` in place of ``position_ids``, 1 at tokens and 0 at what fills up, of
        which nothing is learned, whichever number stands there.

    Raises:
        TypeError: If the documents or the tokenizer are of another kind.
        ValueError: If nothing is left to predict, a token is unknown, or a file is no UTF-8.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "rose": 2, "is": 3}, unk_token="<s>"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> data = padded(["a rose", "is a rose"], tokenizer, start="<s>")
        >>> data.targets, data.inputs["attention_mask"]
        (tensor([[   1,    2, -100],
                [   3,    1,    2]]), tensor([[1, 1, 0],
                [1, 1, 1]]))
    """
    rows = [
        _Pairs(*(part[begin : begin + length] for part in pair))
        for pair in _pairs(documents, tokenizer, length, column, start, end)
        for begin in range(0, len(pair.tokens), length)
    ]
    longest = max(len(row.tokens) for row in rows)
    tokens, targets, sizes = (
        torch.stack([_filled(part, (longest,), filler) for part in parts])
        for parts, filler in zip(zip(*rows, strict=True), (0, UNLABELED, 0), strict=True)
    )
    there = targets != UNLABELED
    return TensorData(
        {"input_ids": tokens, "attention_mask": there.long()}, targets, mask=there, columns={"bytes": sizes.int()}
    )


def _pairs(
    documents: Any, tokenizer: Any, length: int, column: str, start: str | int | None, end: str | int | None
) -> Iterator[_Pairs]:
    if length < 1:
        raise ValueError(f"length is {length}; it must be 1 or more")
    before = [number for number in [_special(tokenizer, "start", start)] if number is not None]
    after = [number for number in [_special(tokenizer, "end", end)] if number is not None]
    encode = _encoder(tokenizer)
    texts, found = _texts(documents, column), False
    while some := [*islice(texts, _TOGETHER)]:
        for text, (numbers, ends) in zip(some, encode(some), strict=True):
            tokens = np.array([*before, *numbers, *after], np.int64)
            if len(numbers) == 0 or len(tokens) < 2:
                continue
            found = True
            sizes = [np.zeros(len(before), np.int64), _sizes(text, ends), np.zeros(len(after), np.int64)]
            yield _Pairs(tokens[:-1], tokens[1:], np.concatenate(sizes)[1:])
    if not found:
        raise ValueError("documents holds no text of which a token could be predicted; give texts that are not empty")


def _texts(documents: Any, column: str) -> Iterator[str]:
    """The texts, one after the other."""
    if isinstance(documents, str):
        raise TypeError("documents is one text; give a list of texts, [text], or a file, pathlib.Path(name)")
    if isinstance(documents, Mapping):
        raise TypeError(
            f"documents is a {type(documents).__name__} with {', '.join(map(repr, documents)) or 'nothing'}; choose one"
            " split of it, or give a list of its texts"
        )
    if isinstance(documents, TextData):
        documents = documents.texts
    if isinstance(documents, Path):
        documents = [documents]
    if not isinstance(documents, Iterable) or (hasattr(documents, "iloc") and hasattr(documents, "columns")):
        raise TypeError(
            f"documents is of type {type(documents).__name__}; give a list of texts or of paths, a TextData, or a"
            " Hugging Face data set"
        )
    if reading.is_hugging_face(documents) and hasattr(documents, "select_columns"):
        names = getattr(documents, "column_names", None)
        if names is not None and column in names:
            documents = documents.select_columns([column])
    return map(_text, documents, _always(column))


def _always(value: str) -> Iterator[str]:
    while True:
        yield value


def _text(document: Any, column: str) -> str:
    if isinstance(document, Mapping):
        if column not in document:
            raise ValueError(f"column is {column!r}, which a document does not have; choose {', '.join(document)}")
        document = document[column]
    if isinstance(document, Path):
        try:
            return document.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{document} is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    if not isinstance(document, str):
        raise TypeError(
            f"documents holds something of type {type(document).__name__}; each must be a text, a path, or a dict with"
            " one"
        )
    return document


def _special(tokenizer: Any, name: str, token: str | int | None) -> int | None:
    """The number of a token that is put before or after a document, if one is."""
    if token in ("bos", "eos"):
        token = getattr(tokenizer, f"{token}_token_id", None)
    if token is None or isinstance(token, int):
        return token
    number = tokenizer.get_vocab().get(token)
    if number is None:
        raise ValueError(f"{name} is {token!r}, which is no token of the tokenizer; give one of its tokens, or None")
    return int(number)


def _encoder(tokenizer: Any) -> Any:
    """A function of texts that gives of each its tokens and where in the text, in characters, each ends."""
    if getattr(tokenizer, "is_fast", False):

        def by_transformers(texts: list[str]) -> Iterator[tuple[list[int], list[int]]]:
            given = tokenizer(
                texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
                truncation=False, padding=False, verbose=False,
            )  # fmt: skip
            for numbers, spans in zip(given["input_ids"], given["offset_mapping"], strict=True):
                yield numbers, [last for _, last in spans]

        return by_transformers
    if not hasattr(tokenizer, "encode_batch"):
        raise TypeError(
            f"tokenizer is a {type(tokenizer).__name__}, which does not say where in a text its tokens are; give a"
            " fast tokenizer of Transformers, or one of the library tokenizers"
        )
    own = copy.deepcopy(tokenizer)
    own.no_truncation()
    own.no_padding()

    def by_tokenizers(texts: list[str]) -> Iterator[tuple[list[int], list[int]]]:
        for encoded in own.encode_batch(texts, add_special_tokens=False):
            yield encoded.ids, [last for _, last in encoded.offsets]

    return by_tokenizers


def _sizes(text: str, ends: list[int]) -> np.ndarray:
    """How many bytes of a text each token stands for: those after the end of the one before it, up to its own; the
    last has what is left. They add up to all."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points > 0x7F).astype(np.int64) + (points > 0x7FF) + (points > 0xFFFF)
    bytes_to = np.concatenate([[0], np.cumsum(widths)])
    reached = bytes_to[np.maximum.accumulate(np.array(ends, np.int64))]
    reached[-1] = bytes_to[-1]
    return np.diff(reached, prepend=0)


def _filled(numbers: np.ndarray, shape: tuple[int, ...], filler: int) -> Tensor:
    """Numbers in a shape, with another behind them where they are too few."""
    full = np.full(int(np.prod(shape)), filler, np.int64)
    full[: len(numbers)] = numbers
    return torch.from_numpy(full).view(shape)
