"""A Sphinx extension: how to cite the book, from CITATION.cff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from pybtex.database import BibliographyData, Entry, Person
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
PATH = ROOT / "CITATION.cff"


def read() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def names(citation: dict[str, Any]) -> list[str]:
    """As they are written in a sentence."""
    return [
        author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"
        for author in citation["authors"]
    ]


def title(chapter: str) -> str:
    """The heading of a chapter."""
    cells = json.loads((ROOT / f"book/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).partition("\n")[0].removeprefix("# ")


def sentence(citation: dict[str, Any]) -> str:
    year = str(citation["date-released"])[:4]
    return (
        f"{', '.join(names(citation))} ({year}). {citation['title']}. Version {citation['version']}. {citation['url']}"
    )


def bibtex(citation: dict[str, Any], chapter: str | None = None) -> str:
    """The book, or a chapter by its file's name."""
    authors = [
        f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
        for author in citation["authors"]
    ]
    year, book = str(citation["date-released"])[:4], f"{{{citation['title']}}}"
    if chapter is None:
        key, kind, fields = f"kdft{year}", "misc", {"title": book}
        address, note = citation["url"], {"note": f"Code: {citation['repository-code']}"}
    else:
        number, _, subject = chapter.partition("-")
        key, kind, note = f"kdft{year}{subject.partition('-')[0]}", "incollection", {}
        fields = {"title": f"{{{title(chapter)}}}", "booktitle": book, "chapter": str(int(number))}
        address = f"{citation['url']}{chapter}.html"
    fields |= {"year": year, "version": str(citation["version"]), "url": address, **note}
    entry = Entry(kind, fields, {"author": [Person(name) for name in authors]})
    return BibliographyData({key: entry}).to_string("bibtex").strip()


class Citation(SphinxDirective):
    """How to cite the book, or the chapter that is named."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(PATH))
        citation = read()
        code = bibtex(citation, *self.arguments)
        if self.arguments:
            return [nodes.literal_block(code, code, language="bibtex")]
        before, address = sentence(citation).rsplit(" ", 1)
        link = nodes.reference("", address, refuri=address)
        return [
            nodes.paragraph("", "", nodes.Text(f"{before} "), link),
            nodes.literal_block(code, code, language="bibtex"),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
