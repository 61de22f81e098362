"""Write the asset of `datasets.own_prose`: what this book says, in plain sentences, as it was on one day.

    python tools/own_prose.py

A language model that was released before has not read it. So the file is written once and stays: a newer one would be
another test. Of each page the paragraphs are taken that are prose alone; headings, lists, tables, code, formulas and
whatever quotes them are left out.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

BOOK = Path(__file__).parents[1] / "book"
PATH = BOOK.parent / "kdft_lib/assets/data/own_prose.json"
CHAPTERS = sorted(path.name for path in BOOK.glob("[0-9]*.ipynb") if not path.stem.endswith("-tools"))
PAGES = (*CHAPTERS, "the-fields-bugs.ipynb", "faq.md")
SHORTEST = 120
FENCED = re.compile(r"^(`{3,}|:{3,}|\${2}).*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CITED = re.compile(r"\s*\(?\{(?:cite|ref|doc|term)[^}]*\}`[^`]*`\)?")
MARKED = re.compile(r"\*{1,2}([^*\n]+)\*{1,2}|\b_([^_\n]+)_\b")


def markdown(path: Path) -> str:
    """What a page says, without what its code does."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return content
    cells = json.loads(content)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def paragraphs(text: str) -> Iterator[str]:
    """Those of prose, a line each."""
    text = CITED.sub("", FENCED.sub("", text))
    for block in re.split(r"\n[ \t]*\n", text):
        plain = re.sub(r"\s+", " ", MARKED.sub(r"\1\2", LINK.sub(r"\1", block))).strip()
        if len(plain) >= SHORTEST and plain[0].isalpha() and not re.search(r"[`$|{}<>\[\]*\\=]|https?:", plain):
            yield plain


def main() -> None:
    """Each page's paragraphs, and where they are from."""
    found, seen = {}, set()
    for pattern in PAGES:
        (path,) = BOOK.glob(pattern)
        own = [said for said in paragraphs(markdown(path)) if said not in seen]
        seen.update(own)
        if own:
            found[path.name] = "\n".join(own) + "\n"
    commit = subprocess.run(["git", "log", "-1", "--format=%h %cs"], capture_output=True, text=True, check=True)
    name, date = commit.stdout.split()
    about = {"from": "the pages of this book", "commit": name, "date": date, "licence": "CC BY 4.0 (LICENSE-TEXT)"}
    PATH.write_text(json.dumps(about | {"pages": found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{PATH}: {len(found)} pages, {sum(map(len, found.values())):,} characters")


if __name__ == "__main__":
    main()
