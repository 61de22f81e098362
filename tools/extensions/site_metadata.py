"""A Sphinx extension: what search engines and link previews read of each page, and where its text is changed.

Nothing is typed twice: titles and descriptions are a page's own title and first paragraph, diagrams its first SVG,
authors and version those of CITATION.cff, dates those of git.

sphinxext-opengraph writes such tags too; it describes a page by its first letters, alternative texts, badges and tables
included, up to the middle of a word, and its cards have no diagram.
"""

from __future__ import annotations

import json
import re
import textwrap
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import citation
from docutils import nodes
from social_card import HEIGHT, WIDTH, card
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parents[2]
LICENCE = "https://creativecommons.org/licenses/by/4.0/"
WRITTEN_ELSEWHERE = {"changelog": "CHANGELOG.md", "cite": "CITATION.cff"}
"""Pages whose text comes from another file."""


def people() -> list[dict[str, str]]:
    """The authors, for schema.org."""
    return [
        {"@type": "Organization", "name": author["name"]}
        if "name" in author
        else {"@type": "Person", "name": f"{author['given-names']} {author['family-names']}"}
        for author in citation.read()["authors"]
    ]


def plain(node: nodes.Node) -> str:
    return " ".join(node.astext().split())


def paragraphs(doctree: nodes.document) -> list[str]:
    """The running text, without captions, tables and lists."""
    return [plain(node) for node in doctree.findall(nodes.paragraph) if isinstance(node.parent, nodes.section)]


def description(doctree: nodes.document) -> str:
    """The first paragraph, cut where a search engine would cut it."""
    return textwrap.shorten(next(iter(paragraphs(doctree)), ""), 250, placeholder=" …")


def diagram(app: Sphinx, doctree: nodes.document) -> Path | None:
    """The first SVG of a page, by its name on the site."""
    sources = {name: path for path, name in app.builder.images.items()}
    names = (image["uri"].rpartition("/")[2] for image in doctree.findall(nodes.image))
    return next((Path(app.srcdir, sources[name]) for name in names if name.endswith(".svg")), None)


def dates(env: Any) -> dict[str, Any]:
    """When git last saw each page, as ``sphinx_last_updated_by_git`` notes it in the environment."""
    noted: dict[str, Any] = env.git_last_updated
    return noted


def changed(env: BuildEnvironment, page: str) -> str | None:
    """When git last saw a change of the page, or of what it includes or documents."""
    time, _ = dates(env).get(page) or (None, None)
    return datetime.fromtimestamp(int(time), UTC).isoformat() if time else None


def chapter(page: str) -> int | None:
    number = re.match(r"(\d\d)-", page)
    return int(number[1]) if number else None


def source(env: BuildEnvironment, page: str) -> str:
    """Where the text of a page is written: a page of the package's reference is written in its docstrings."""
    modules = [name for name, entry in env.domaindata["py"]["modules"].items() if entry.docname == page]
    if page in WRITTEN_ELSEWHERE:
        return WRITTEN_ELSEWHERE[page]
    if modules:
        path = modules[0].replace(".", "/")
        return path if (ROOT / path).is_dir() else f"{path}.py"
    return f"{env.config.html_theme_options['path_to_docs']}/{env.doc2path(page, base=False)}"


def structured(app: Sphinx, page: str, doctree: nodes.document, about: dict[str, str]) -> dict[str, Any]:
    """Schema.org's words for the page: the book, a chapter of it, or an article in it."""
    base, env = app.config.html_baseurl, app.env
    book = {"@type": "Book", "@id": f"{base}#book", "name": citation.read()["title"], "url": base}
    common = {
        "@context": "https://schema.org",
        "author": people(),
        "license": LICENCE,
        "inLanguage": "en",
        "isAccessibleForFree": True,
        "description": about["description"],
        "image": about["image"],
    }
    if date := changed(env, page):
        common["dateModified"] = date
    if page == app.config.root_doc:
        chapters = [
            {
                "@type": "Chapter",
                "name": plain(env.titles[name]),
                "position": chapter(name),
                "url": f"{base}{name}.html",
            }
            for name in sorted(env.titles)
            if chapter(name) is not None
        ]
        return (
            common
            | book
            | {
                "bookFormat": "https://schema.org/EBook",
                "datePublished": str(citation.read()["date-released"]),
                "version": str(citation.read()["version"]),
                "keywords": citation.read()["keywords"],
                "hasPart": chapters,
            }
        )
    entry = common | {"name": about["title"], "url": about["url"], "isPartOf": book}
    if (number := chapter(page)) is not None:
        entry |= {"@type": ["Chapter", "LearningResource"], "position": number}
        for text in paragraphs(doctree):
            if text.startswith("You will learn to "):
                entry["teaches"] = text.removeprefix("You will learn to ")
        return entry
    return entry | {"@type": "APIReference" if page.startswith("api/") else "TechArticle"}


def draw_card(app: Sphinx, page: str, doctree: nodes.document, about: dict[str, str]) -> None:
    number = chapter(page)
    over = (
        f"kdft · chapter {number:02d}"
        if number is not None
        else "kdft · the package"
        if page.startswith("api/")
        else "kdft"
    )
    if page == app.config.root_doc:
        over = citation.read()["title"]
    address = app.config.html_baseurl.removeprefix("https://").rstrip("/")
    path = Path(app.outdir, about["image"].removeprefix(app.config.html_baseurl))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(card(about["title"], about["description"], over, address, diagram(app, doctree)))


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add the page's metadata, and lead its edit button to where its text is written."""
    if doctree is None or app.builder.name != "html":
        return
    base = app.config.html_baseurl
    about = {
        "title": plain(app.env.titles[page]),
        "description": description(doctree),
        "url": f"{base}{page}.html",
        "image": f"{base}cards/{page.replace('/', '-')}.png",
    }
    draw_card(app, page, doctree, about)
    tags = {
        "og:type": "book" if page == app.config.root_doc else "article",
        "og:site_name": citation.read()["title"],
        "og:title": about["title"],
        "og:description": about["description"],
        "og:url": about["url"],
        "og:image": about["image"],
        "og:image:width": WIDTH,
        "og:image:height": HEIGHT,
        "og:image:alt": f"{about['title']}. {about['description']}",
    }
    named = {"description": about["description"], "twitter:card": "summary_large_image"}
    data = json.dumps(structured(app, page, doctree, about), ensure_ascii=False).replace("<", "\\u003c")
    context["metatags"] += "\n".join(
        [
            "",
            *(f'<meta name="{name}" content="{escape(value)}">' for name, value in named.items()),
            *(f'<meta property="{name}" content="{escape(str(value))}">' for name, value in tags.items()),
            f'<script type="application/ld+json">{data}</script>',
        ]
    )
    options = app.config.html_theme_options
    for button in (button for group in context["header_buttons"] for button in group.get("buttons", [])):
        if button.get("label") == "source-edit-button":
            path = source(app.env, page)
            kind = "tree" if (ROOT / path).is_dir() else "edit"
            button["url"] = f"{options['repository_url']}/{kind}/{options['repository_branch']}/{path}"


def without_git(app: Sphinx, env: BuildEnvironment) -> None:
    """Where there is no git at all, pages have no date and keep their source."""
    for page, found in dates(env).items():
        dates(env)[page] = found or (None, True)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("env-updated", without_git, priority=900)
    app.connect("html-page-context", describe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
