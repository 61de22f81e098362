"""How tokens spell a text: the bytes that each stands for, and the ways in which tokens can spell the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from kdft_lib.data.documents import _encoder, _special

_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = {chr(byte): byte for byte in _PRINTED}
_BYTES |= {chr(256 + at): byte for at, byte in enumerate(byte for byte in range(256) if byte not in _PRINTED)}
"""Byte-level tokenizers, since GPT-2's, write tokens in these characters: bytes that print stand for themselves."""


def token_bytes(tokenizer: Any) -> tuple[bytes, ...]:
    """The bytes that each token stands for, of a byte-level tokenizer such as those of GPT-2 and SmolLM2.

    Args:
        tokenizer: A fast tokenizer of Transformers, or one of the library ``tokenizers``.

    Returns:
        Of each token, by its number, its bytes; none of a special token, and of a number that is no token's.

    Raises:
        TypeError: If it is another kind of tokenizer.
        ValueError: If its tokens are no bytes: a tokenizer of words, or one that marks spaces or leaves something out.

    Example:
        >>> from tokenizers import Tokenizer, decoders, models
        >>> tokenizer = Tokenizer(models.WordLevel({"a": 0, "Ġrose": 1, "Ã©": 2}))
        >>> tokenizer.decoder = decoders.ByteLevel()
        >>> [spelled.decode() for spelled in token_bytes(tokenizer)]
        ['a', ' rose', 'é']
    """
    own = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(own, "get_added_tokens_decoder"):
        raise TypeError(
            f"tokenizer is a {type(tokenizer).__name__}, whose tokens are not told apart from their bytes; give a fast"
            " tokenizer of Transformers, or one of the library tokenizers"
        )
    decoder = json.loads(own.to_str())["decoder"] or {}
    if "ByteLevel" not in [step["type"] for step in (decoder, *decoder.get("decoders", ())) if step]:
        raise ValueError(
            f"tokenizer decodes by {decoder.get('type')}, and only the tokens of a byte-level tokenizer are bytes; take"
            " a model that has one"
        )
    added, known = own.get_added_tokens_decoder(), own.get_vocab(with_added_tokens=True)
    found = [b""] * (max(known.values(), default=-1) + 1)
    for token, number in known.items():
        if number in added or not set(token) <= _BYTES.keys():
            found[number] = b"" if number in added and added[number].special else token.encode()
        else:
            found[number] = bytes(map(_BYTES.__getitem__, token))
    return tuple(found)


def tokenizations(
    text: str,
    tokenizer: Any,
    *,
    of: Literal["text", "beginnings", "all"] = "beginnings",
    start: str | int = "bos",
    most: int = 1024,
) -> dict[str, Tensor]:
    """Ways in which tokens spell a text, for :func:`kdft_lib.losses.next_bytes`.

    Args:
        text: The text.
        tokenizer: As for :func:`token_bytes`.
        of: Which ways. ``"text"`` is the tokenizer's own, one row. ``"beginnings"`` are its own of each beginning of
            the text, cut behind any character: one meets them who does not know how the text goes on. ``"all"`` are
            those that any tokens make, though the tokenizer never does: of n bytes, up to 2 to the power of n − 1.
        start: The token before the text: a number or a token; ``"bos"`` is the tokenizer's own.
        most: The most rows.

    Returns:
        The inputs of a model, ``input_ids`` and ``attention_mask``, 1 at tokens and 0 behind them, both ``(R, T)``,
        int64.

    Raises:
        TypeError: If it is another kind of tokenizer.
        ValueError: If an argument is out of range, there is no such token, or there are too many rows.

    Example:
        >>> from tokenizers import Tokenizer, decoders, models
        >>> tokenizer = Tokenizer(models.BPE({"<s>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
        >>> tokenizer.decoder = decoders.ByteLevel()
        >>> tokenizations("ab", tokenizer, start="<s>")["input_ids"]
        tensor([[0, 1],
                [0, 3]])
        >>> tokenizations("ab", tokenizer, start="<s>", of="all")["input_ids"]
        tensor([[0, 1, 2],
                [0, 3, 0]])
    """
    if of not in ("text", "beginnings", "all"):
        raise ValueError(f"of is {of!r}; choose text, beginnings, all")
    first = _special(tokenizer, "start", start)
    if first is None:
        raise ValueError("the tokenizer has no token of its own to begin from; name one, start=")
    if of == "all":
        rows = [*islice(_spellings(text.encode(), token_bytes(tokenizer)), most + 1)]
    else:
        cuts = range(1, len(text) + 1) if text and of == "beginnings" else [len(text)]
        rows = [tuple(numbers) for numbers, _ in _encoder(tokenizer)([text[:cut] for cut in cuts])]
        begun = {row[:size] for row in rows for size in range(len(row))}
        rows = [row for row in dict.fromkeys(rows) if row not in begun] or [()]
    if len(rows) > most:
        raise ValueError(
            f"the text has more than {most:,} tokenizations of this kind; take a shorter one, or raise most if memory"
            " holds the logits of so many"
        )
    longest = max(map(len, rows))
    filled = [[first, *row, *[0] * (longest - len(row))] for row in rows]
    there = [[1] * (1 + len(row)) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(filled), "attention_mask": torch.tensor(there)}


def _spellings(text: bytes, vocabulary: tuple[bytes, ...]) -> Iterator[tuple[int, ...]]:
    """All runs of tokens whose bytes are the text's, or a beginning of it after which no token fits."""
    numbers: dict[bytes, list[int]] = {}
    for number, spelled in enumerate(vocabulary):
        numbers.setdefault(spelled, []).append(number)
    longest = max(map(len, numbers), default=0)
    stack: list[tuple[tuple[int, ...], int]] = [((), 0)]
    while stack:
        row, at = stack.pop()
        sizes = range(min(longest, len(text) - at), 0, -1)
        further = [((*row, token), at + size) for size in sizes for token in numbers.get(text[at : at + size], ())]
        if not further:
            yield row
        stack += further
