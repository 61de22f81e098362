"""Slides of each chapter's figures and formulas, by Sphinx and reveal.js, with nothing from another host."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

CONFIGURATION = Path(__file__).parents[1] / "course/slides"
FORMULA = re.compile(r"\$\$(.+?)\$\$", re.S)
CAPTION = re.compile(r"\*[^*].*\*", re.S)
ENDINGS = {"image/png": "png", "image/svg+xml": "svg"}


class Chapter(Protocol):
    """What slides need to know of a chapter."""

    @property
    def name(self) -> str: ...

    @property
    def number(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def cells(self) -> list[Any]: ...


def pictures(cell: Any) -> Iterator[tuple[str, bytes]]:
    """The ending and content of each figure that a cell shows."""
    for output in cell.get("outputs", []):
        for kind, ending in ENDINGS.items():
            if content := output.get("data", {}).get(kind):
                text = content if isinstance(content, str) else "".join(content)
                yield ending, base64.b64decode(text) if ending == "png" else text.encode()


def slide(heading: str, *blocks: str, notes: str = "") -> str:
    noted = f"```{{revealjs-notes}}\n{notes}\n```" if notes else ""
    return "\n\n".join(filter(None, (f"## {heading}", *blocks, noted)))


def sentences(block: str) -> str:
    """The block where it is a paragraph, otherwise nothing."""
    return "" if re.match(r"[#|<*$-]|\d+\.|```", block) else block


def formulas(cell: Any, heading: str, plain: Callable[[str], str]) -> Iterator[str]:
    """A slide for each displayed formula, between the sentences around it, and one for a table of symbols."""
    blocks = cell.source.split("\n\n")
    for before, block, after, later in zip(
        ["", *blocks], blocks, [*blocks[1:], ""], [*blocks[2:], "", ""], strict=False
    ):
        heading = heading_of(block) or heading
        if FORMULA.search(block):
            below = "" if FORMULA.search(later) else sentences(after)
            yield slide(heading, plain(sentences(before)), block, plain(below))
        if block.startswith("| symbol"):
            yield slide(heading, plain(block))


def figures(cell: Any, after: Any, heading: str, folder: Path, name: str, plain: Callable[[str], str]) -> Iterator[str]:
    """A slide for each figure of a cell, with its caption; the text after that becomes the speaker's notes."""
    said = after.source.split("\n\n") if after and after.cell_type == "markdown" else [""]
    caption, text = (said[0], said[1:]) if CAPTION.fullmatch(said[0]) else ("", said)
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for ending, content in pictures(cell):
        file = f"{name}-{len(list(folder.glob(f'{name}-*'))) + 1}.{ending}"
        (folder / file).write_bytes(content)
        image = f"```{{image}} {file}\n:alt: {plain(alt)}\n```"
        notes = "" if not text or text[0].startswith(("#", "|", "$$", "```", "<")) else text[0]
        yield slide(heading, image, plain(caption), notes=plain(notes))


def is_folded(cell: Any) -> bool:
    """Whether a reader sees nothing of it at first."""
    return "hide-cell" in cell.metadata.get("tags", [])


def heading_of(text: str) -> str | None:
    """The last heading in it."""
    found = re.findall(r"^##+ (.+)", text, flags=re.M)
    return found[-1] if found else None


def deck(chapter: Chapter, folder: Path, plain: Callable[[str], str]) -> str:
    """The slides of one chapter, as text for Sphinx; its figures are written beside it."""
    cells = chapter.cells
    claim = cells[0].source.split("\n\n")[1]
    heading = chapter.title
    made = [f"---\norphan: true\n---\n\n# {heading}\n\n{plain(claim)}"]
    for place, cell in enumerate(cells):
        after = next((other for other in cells[place + 1 :] if not is_folded(other)), None)
        if cell.cell_type == "markdown":
            made += formulas(cell, heading, plain)
            heading = heading_of(cell.source) or heading
        else:
            made += figures(cell, after, heading, folder, chapter.name, plain)
    return "\n\n".join(made) + "\n"


def slides(chapters: Sequence[Chapter], target: Path, readable: Callable[[str], str]) -> None:
    """A page of slides for each chapter, and one that lists them."""

    def plain(text: str) -> str:
        return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", readable(text))

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for chapter in chapters:
            (folder / f"{chapter.name}.md").write_text(deck(chapter, folder, plain), encoding="utf-8")
        (folder / "index.md").write_text(listing(chapters), encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "revealjs"]
        done = subprocess.run(
            [*command, "-c", str(CONFIGURATION), "-d", str(folder / ".doctrees"), str(folder), str(target)],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the slides could not be built:\n{done.stdout}")
    prune(target)


def prune(target: Path) -> None:
    """Keep of reveal.js what the slides use: other themes and plugins ask other hosts for fonts and scripts."""
    reveal = target / "_static/revealjs"
    for path in [target / ".buildinfo", target / "objects.inv", reveal / "css", *reveal.rglob("*.map")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for plugin in reveal.glob("plugin/*"):
        if plugin.name != "notes":
            shutil.rmtree(plugin)
    for theme in reveal.glob("dist/theme/*.css"):
        if theme.stem != "white":
            theme.unlink()


def listing(chapters: Iterable[Chapter]) -> str:
    lines = [f"- [{chapter.number} {chapter.title.split(':')[0]}]({chapter.name}.md)" for chapter in chapters]
    return "# kdft: slides\n\n" + "\n".join(lines) + "\n"
