"""A Sphinx extension: `make links` also checks the addresses in files that are no pages, and a DOI at its registry."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.builders.linkcheck import CheckExternalLinksBuilder, Hyperlink

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml", "Makefile")


def addresses(text: str) -> set[str]:
    return {found.rstrip(".,;:") for found in re.findall(r"https?://[^\s<>\"'`\\)\]}]+", text)}


def add_files(app: Sphinx) -> None:
    if isinstance(app.builder, CheckExternalLinksBuilder):
        for name in FILES:
            for address in addresses((ROOT / name).read_text(encoding="utf-8")):
                app.builder.hyperlinks[address] = Hyperlink(address, name, str(ROOT / name), 1)


def ask_the_registry(app: Sphinx, address: str) -> str | None:
    """Publishers turn programs away; the registry of DOIs answers whether there is such a DOI."""
    doi = re.fullmatch(r"https://doi\.org/(10\..+)", address)
    return f"https://doi.org/api/handles/{doi[1]}" if doi else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", add_files)
    app.connect("linkcheck-process-uri", ask_the_registry)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
