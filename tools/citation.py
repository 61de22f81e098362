"""A Sphinx extension: how to cite the book, from CITATION.cff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from pybtex.database import BibliographyData, Entry, Person
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PATH = Path(__file__).parents[1] / "CITATION.cff"


def read() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text(encoding="utf-8"))


def names(citation: dict[str, Any]) -> list[str]:
    """As they are written in a sentence."""
    return [
        author["name"] if "name" in author else f"{author['given-names']} {author['family-names']}"
        for author in citation["authors"]
    ]


def sentence(citation: dict[str, Any]) -> str:
    year = str(citation["date-released"])[:4]
    return (
        f"{', '.join(names(citation))} ({year}). {citation['title']}. Version {citation['version']}. {citation['url']}"
    )


def bibtex(citation: dict[str, Any]) -> str:
    authors = [
        f"{{{author['name']}}}" if "name" in author else f"{author['family-names']}, {author['given-names']}"
        for author in citation["authors"]
    ]
    date = str(citation["date-released"])
    entry = Entry(
        "misc",
        {
            "title": f"{{{citation['title']}}}",
            "year": date[:4],
            "version": str(citation["version"]),
            "url": citation["url"],
            "note": f"Code: {citation['repository-code']}",
        },
        {"author": [Person(name) for name in authors]},
    )
    return BibliographyData({f"kdft{date[:4]}": entry}).to_string("bibtex").strip()


class Citation(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(PATH))
        citation = read()
        code = bibtex(citation)
        before, address = sentence(citation).rsplit(" ", 1)
        link = nodes.reference("", address, refuri=address)
        return [
            nodes.paragraph("", "", nodes.Text(f"{before} "), link),
            nodes.literal_block(code, code, language="bibtex"),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
