"""Count what a chapter asks of its reader: words, numerals and intervals in its prose, cells of code, seconds.

Prose is what stands outside code, maths, tables, citations, links to issues and folds; solutions are folded. ``python
tools/count_prose.py`` prints all chapters.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

BOOK = Path(__file__).parents[1] / "book"
NUMERAL = re.compile(r"(?<![\w.])[−+-]?\d[\d,.]*(?<![,.])(?:st|nd|rd|th|s|×)?\b")
NUMBER = r"[−+-]?\d[\d.]*(?: %)?"
INTERVAL = re.compile(rf"\[{NUMBER}, {NUMBER}\]|interval (?:from|of) {NUMBER} to {NUMBER}")
FENCES, FOLDS, FORMULAS, TABLES = r"(?s)```.*?```", r"(?s)<details.*?</details>", r"(?s)\$\$.*?\$\$", r"(?m)^\|.*$"
INLINE = [
    r"\[[\w-]+ #\d+\]\([^)]*\)",
    r"\$[^$\n]+\$",
    r"\{\w+\}`[^`]*`",
    r"`[^`\n]*`",
    r"\]\([^)]*\)",
    r"(?s)<!--.*?-->",
]
NO_PROSE = [FENCES, FOLDS, FORMULAS, TABLES, *INLINE]


class Counted(NamedTuple):
    """What a chapter holds."""

    words: int
    numerals: int
    intervals: int
    cells: int


def prose(notebook: Any) -> str:
    """What is read one word after the other."""
    text = "\n\n".join(
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "markdown" and "solution" not in cell.metadata.get("tags", [])
    )
    for pattern in NO_PROSE:
        text = re.sub(pattern, " ", text)
    return text


def counted(notebook: Any) -> Counted:
    """How much there is of each."""
    text = prose(notebook)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    words = re.findall(r"[^\W\d_][\w'’-]*", text)
    return Counted(len(words), len(NUMERAL.findall(text)), len(INTERVAL.findall(text)), cells)


if __name__ == "__main__":
    print(f"{'chapter':24}" + "".join(f"{name:>11}" for name in Counted._fields))
    for path in sorted(BOOK.glob("*.ipynb")):
        counts = counted(nbformat.read(path, as_version=4))
        print(f"{path.stem:24}" + "".join(f"{count:11,}" for count in counts))
