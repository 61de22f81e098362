"""Check the built site: every page of the table of contents is there, and links inside it lead somewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).parents[1]


def pages(toc: Path = ROOT / "_toc.yml") -> list[str]:
    """The names in the table of contents, without endings, in reading order."""

    def names(node: object) -> Iterator[str]:
        if isinstance(node, list):
            for entry in node:
                yield from names(entry)
        elif isinstance(node, dict):
            for key, value in node.items():
                if key in ("root", "file"):
                    yield value
                else:
                    yield from names(value)

    return list(names(yaml.safe_load(toc.read_text(encoding="utf-8"))))


class Links(HTMLParser):
    """The targets of a page's links and images, and the places that can be linked to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.places |= {given[name] or "" for name in ("id", "name") if name in given}
        wanted = {"a": "href", "img": "src", "link": "href", "script": "src"}.get(tag)
        if wanted and given.get(wanted):
            self.targets.append(str(given[wanted]))


def broken_links(site: Path, home: str = "/") -> Iterator[str]:
    """Links inside the site that lead nowhere, a sentence each; ``home`` is the path at which the site is published."""
    built = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]
    read = {path: Links(path.read_text(encoding="utf-8")) for path in built}
    for page, links in read.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            start = site if parts.path.startswith(home) else page.parent
            file = page if not parts.path else (start / unquote(parts.path.removeprefix(home))).resolve()
            if file.is_dir():
                file = file / "index.html"
            if not file.exists():
                yield f"{page.relative_to(site)} links to {target}, which does not exist"
            elif parts.fragment and file in read and unquote(parts.fragment) not in read[file].places:
                yield f"{page.relative_to(site)} links to {target}, and there is no such place on that page"


def missing_launch_buttons(site: Path) -> Iterator[str]:
    """Notebooks whose page has no button that opens this very file on Colab."""
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    colab = address.replace("https://github.com", "https://colab.research.google.com/github")
    for path in sorted((ROOT / "book").glob("*.ipynb")):
        page = Links((site / f"{path.stem}.html").read_text(encoding="utf-8"))
        if page.targets.count(f"{colab}/blob/main/book/{path.name}") < 2:  # the button, and the line under the title
            yield f"{path.stem}.html has no launch button to {colab}/blob/main/book/{path.name}"


def main() -> int:
    site = (ROOT / "_build" / "html").resolve()
    home = urlsplit(yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]).path
    found = [f"{name}.html was not built" for name in pages() if not (site / f"{name}.html").exists()]
    found = found or [*broken_links(site, home), *missing_launch_buttons(site)]
    if found:
        print("\n".join(found), file=sys.stderr)
        return 1
    print(f"The book is built: open {(site / 'index.html').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
