"""A page's figures alone: its raw HTML in a small page of its own, with the files that it loads."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

BOOK = Path(__file__).parents[1] / "book"
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
)


def write(name: str, assets: str, folder: Path) -> Path:
    """Write ``page.html`` from the page ``name`` of the book, beside the folder ``assets`` of ``book/_extra``."""
    shutil.copytree(BOOK / "_extra" / assets, folder / assets)
    blocks = re.findall(r"```\{raw\} html\n(.*?)```", (BOOK / f"{name}.md").read_text(encoding="utf-8"), flags=re.S)
    page = folder / "page.html"
    page.write_text(f"{HEAD}<title>{name}</title>{''.join(blocks)}", encoding="utf-8")
    return page
