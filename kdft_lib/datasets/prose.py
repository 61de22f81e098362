"""What this book says, in plain sentences of 2026: a text that older language models have not read."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import resources

from kdft_lib.data.texts import TextData
from kdft_lib.files import read_whole

_SHA256 = "45505ee6db4d23ef352738e1d45f0b2de87bf6381b8ff4912b168fc7616fd5b4"
_LARGEST = 200_000


def own_prose() -> TextData:
    """The prose of 20 pages of this book, as it was on 29 November 2026, without code, formulas, lists and tables.

    No language model that was released before can have read it, so what one predicts of it is no memory. It is of
    another field than :func:`novels`, and so is harder for a model that learned from those. The file is in the package,
    under CC BY 4.0, written once by ``tools/own_prose.py``.

    Returns:
        :class:`~kdft_lib.data.TextData` without targets, each text a page, each line a paragraph.

    Raises:
        ValueError: If the file is damaged.

    Example:
        >>> pages = own_prose()
        >>> pages, sum(len(page) for page in pages.texts)
        (TextData(20 texts), 146334)
    """
    return TextData(_pages())


@functools.lru_cache(maxsize=1)
def _pages() -> tuple[str, ...]:
    with resources.as_file(resources.files("kdft_lib") / "assets/data/own_prose.json") as path:
        content = read_whole(path, _LARGEST)
        if hashlib.sha256(content).hexdigest() != _SHA256:
            raise ValueError(f"{path} is damaged: its SHA-256 is not {_SHA256}; install kdft-lib again")
    return tuple(json.loads(content)["pages"].values())
