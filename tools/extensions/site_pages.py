"""A Sphinx extension: a front door, a page for wrong addresses, every page in the sitemap, and all notebooks in one
archive.
"""

from __future__ import annotations

import queue
import shutil
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sphinx_sitemap
from sphinx.application import Sphinx
from sphinx.config import Config

NOTEBOOKS = "kdft-notebooks.zip"
NOT_FOUND = """<h1>There is no such page</h1>
<p>The address may be mistyped, or the page may have moved. From here you can go on:</p>
<ul>
<li><a href="{site}intro.html">the start of the book, with all its chapters</a></li>
<li><a href="{site}which-one.html">which objective, which strategy?</a></li>
<li><a href="{site}faq.html">short questions and their answers</a></li>
<li><a href="{site}api/index.html">the package's reference</a></li>
<li><a href="{site}search.html">search everything</a></li>
</ul>
<p>If a link led you here, please <a href="{repository}/issues/new?title=A+link+leads+nowhere">tell us which</a>.</p>"""


def place_not_found(app: Sphinx, config: Config) -> None:
    """The page is shown at any depth, so that its links start from the site's path."""
    site = urlsplit(config.html_baseurl).path
    config.notfound_urls_prefix = site
    config.notfound_context = {
        "title": "There is no such page",
        "body": NOT_FOUND.format(site=site, repository=config.html_theme_options["repository_url"]),
    }


def list_every_page(app: Sphinx, error: Exception | None) -> None:
    """sphinx-sitemap lists the pages that a build has written, which of a second build are those that changed."""
    if error is None and app.builder.name == "html":
        kept: Any = app.env.app
        kept.sitemap_links = queue.SimpleQueue()
        for page in sorted(app.env.found_docs):
            sphinx_sitemap.add_html_link(app, page, None, {}, None)


def open_the_front_door(app: Sphinx, error: Exception | None) -> None:
    """The bare address shows the first page, and does not only lead to it: previews of links follow no redirect."""
    if error is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir, f"{app.config.root_doc}.html"), Path(app.outdir, "index.html"))


def pack_notebooks(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        with zipfile.ZipFile(Path(app.outdir, NOTEBOOKS), "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path(app.srcdir).glob("*.ipynb")):
                entry = zipfile.ZipInfo(f"kdft-notebooks/{path.name}", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", place_not_found)
    app.connect("build-finished", list_every_page, priority=400)
    app.connect("build-finished", open_the_front_door, priority=900)
    app.connect("build-finished", pack_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
