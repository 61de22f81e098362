"""Print the built site as one PDF, with a cover, contents, bookmarks, and links that stay inside."""

from __future__ import annotations

import html
import io
import json
import mimetypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import citation
import yaml
from find_browser import ABSENT, find
from playwright.sync_api import Error, Page, Route, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build/html"
BOOK = SITE / "kdft.pdf"
TOP = 842.0
"""The upper edge of a page, in points."""
PRINTED = """
@page {
  size: A4;
  margin: 22mm 20mm 20mm;
  @bottom-center { content: counter(page); font: 9pt sans-serif; color: #555; }
  @top-right { content: TITLE; font: 9pt sans-serif; color: #555; }
}
html { counter-reset: page START; font-size: 13px; }
* { animation: none !important; transition: none !important; }
.bd-main .bd-content .bd-article-container { max-width: none; padding: 0; }
.bd-article { padding: 0 !important; line-height: 1.5; }
.prev-next-footer, .bd-footer-content, .bd-footer, .headerlink, .copybtn, #print-main-content, details.hide > summary {
  display: none !important;
}
h1, h2, h3, h4 { break-after: avoid; }
#jb-print-docs-body h1 { margin-bottom: 1.5rem !important; }
details.sd-dropdown pre { break-inside: auto; }
figure, img, .cell_input, .cell_output pre, .cell_output table, div.math { break-inside: avoid; }
.cell_output { overflow: visible !important; }
table.dataframe { font-size: 7.5pt !important; }
"""
COVER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cover</title><style>
@page {{ size: A4; margin: 22mm 20mm; }}
body {{ font: 11pt/1.5 sans-serif; color: #1a1a1a; margin: 0; }}
header {{ height: 250mm; box-sizing: border-box; padding-top: 55mm; break-after: page; position: relative; }}
header h1 {{ font-size: 30pt; line-height: 1.2; margin: 0 0 8mm; }}
header footer {{ position: absolute; bottom: 0; color: #444; }}
svg {{ display: block; margin-bottom: 18mm; }}
h2 {{ font-size: 11pt; margin: 5mm 0 1mm; color: #0072b2; break-after: avoid; }}
p {{ margin: 0; }}
.line {{ display: flex; gap: 3mm; break-inside: avoid; }}
.line a {{ color: inherit; text-decoration: none; flex: 1; }}
</style>
<header>
<svg width="150" height="110" viewBox="0 0 150 110"><rect y="70" width="30" height="40" rx="4" fill="#0072b2"/>
<rect x="40" y="48" width="30" height="62" rx="4" fill="#009e73"/>
<rect x="80" width="30" height="110" rx="4" fill="#d55e00"/>
<rect x="120" y="26" width="30" height="84" rx="4" fill="#cc79a7"/></svg>
<h1>{title}</h1><p>{authors}</p>
<footer><p>Version {version}</p><p>{url}</p><p>Text: CC BY 4.0. Code: BSD-3-Clause.</p></footer>
</header>
<h1>Contents</h1>{contents}</html>"""


Parts = list[tuple[str, list[str]]]


def parts() -> Iterator[tuple[str, list[str]]]:
    """The table of contents: a caption and its pages, nested ones included."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    yield "", [toc["root"]]
    for part in toc["parts"]:
        yield (
            part["caption"],
            [
                name
                for entry in part["chapters"]
                for name in (entry["file"], *(section["file"] for section in entry.get("sections", [])))
            ],
        )


class Printer:
    """A browser that finds the site at its published address, so that links say where they lead, and nothing else."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        page.route("**/*", self.answer)

    def answer(self, route: Route) -> None:
        address = route.request.url.partition("#")[0].partition("?")[0]
        file = SITE / unquote(address.removeprefix(self.base))
        if address.startswith(self.base) and file.is_file():
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            route.fulfill(body=file.read_bytes(), content_type=kind)
        else:
            route.abort()

    def chapter(self, name: str, title: str, before: int) -> tuple[PdfReader, dict[str, str]]:
        """A page's print, and the places in it: the text of each heading by its id."""
        self.page.goto(f"{self.base}{name}.html")
        style = PRINTED.replace("TITLE", json.dumps(title)).replace("START", str(before))
        self.page.add_style_tag(content=style)
        self.page.evaluate(
            """async () => {
                document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
                document.querySelectorAll("img").forEach((image) => { image.loading = "eager"; });
                await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
                await globalThis.MathJax?.startup?.promise;
            }"""
        )
        places = self.page.evaluate(
            """() => Object.fromEntries([...document.querySelectorAll("section[id]")].map(
                (section) => [section.id, section.querySelector("h1, h2, h3, h4")?.firstChild?.textContent ?? ""]))"""
        )
        if any("\\(" in text or "\\[" in text for text in self.page.locator(".math").all_inner_texts()):
            raise RuntimeError(f"The formulas of {name}.html were not drawn; is MathJax served with the site?")
        return self.pdf(), places

    def pdf(self) -> PdfReader:
        printed = self.page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        return PdfReader(io.BytesIO(printed))

    def front(self, parts: Parts, titles: dict[str, str], numbers: dict[str, int]) -> PdfReader:
        """Cover and contents; without numbers as long as with them."""
        about = citation.read()
        contents = "".join(
            f"<h2>{html.escape(caption)}</h2>"
            + "".join(
                f'<p class="line"><a href="{self.base}{name}.html">{html.escape(titles[name])}</a>'
                f"<span>{numbers.get(name, 0)}</span></p>"
                for name in names
            )
            for caption, names in parts
        )
        self.page.set_content(
            COVER.format(
                title=html.escape(about["title"]), authors=html.escape(", ".join(citation.names(about))),
                version=about["version"], url=about["url"], contents=contents,
            )
        )  # fmt: skip
        return self.pdf()


def lead_inside(
    writer: PdfWriter, base: str, starts: dict[str, int], places: dict[str, dict[str, tuple[int, float]]]
) -> None:
    """Links to the book's own pages become links in the PDF, to the section where it is known."""
    for page in writer.pages:
        for entry in page.get("/Annots") or []:
            link = entry.get_object()
            address = (link.get("/A") or {}).get("/URI")
            if not address or not address.startswith(base):
                continue
            target = urlsplit(address.removeprefix(base))
            name = target.path.removesuffix(".html")
            if name not in starts:
                continue
            number, top = places[name].get(unquote(target.fragment), (starts[name], TOP))
            where = [writer.pages[number].indirect_reference, NameObject("/XYZ"), NullObject(), FloatObject(top)]
            del link[NameObject("/A")]
            link[NameObject("/Dest")] = ArrayObject([*where, NullObject()])


def headings(outline: list[Any], reader: PdfReader) -> Iterator[tuple[str, int, float]]:
    """Title, page and height of every bookmark, in order."""
    for entry in outline:
        if isinstance(entry, list):
            yield from headings(entry, reader)
        else:
            page = reader.get_destination_page_number(entry)
            if page is not None:
                yield entry.title.rstrip("#"), page, float(entry.top or TOP)


def resolve(reader: PdfReader) -> None:
    """Links inside a page point at names; several pages share names, so that each link points at its place itself."""
    named = reader.named_destinations
    for page in reader.pages:
        for entry in page.get("/Annots") or []:
            link = entry.get_object()
            if isinstance(link.get("/Dest"), str) and link["/Dest"] in named:
                link[NameObject("/Dest")] = ArrayObject(named[link["/Dest"]].dest_array)


def title(name: str) -> str:
    """As the page itself gives it, with the chapter's number."""
    page = (SITE / f"{name}.html").read_text(encoding="utf-8")
    found = re.findall(r'property="og:title" content="([^"]*)"', page)[0]
    number = name[:2] if name[:2].isdigit() else ""
    return f"{number}  {html.unescape(found)}".strip()


def print_book(printer: Printer, parts: Parts) -> PdfWriter:
    names = [name for _, listed in parts for name in listed]
    titles = {name: title(name) for name in names}
    before = len(printer.front(parts, titles, {}).pages)
    prints, starts, places = {}, {}, {}
    for name in names:
        prints[name], ids = printer.chapter(name, titles[name], before)
        starts[name], texts = before, list(headings(prints[name].outline, prints[name]))
        places[name] = {
            place: next(((before + number, top) for text, number, top in texts if text == heading), (before, TOP))
            for place, heading in ids.items()
        }
        before += len(prints[name].pages)
    front = printer.front(parts, titles, {name: start + 1 for name, start in starts.items()})
    writer = PdfWriter()
    writer.append(front, import_outline=False)
    for name in names:
        resolve(prints[name])
        writer.append(prints[name], import_outline=False)
    for caption, listed in parts:
        part = writer.add_outline_item(title=caption, page_number=starts[listed[0]]) if caption else None
        for name in listed:
            writer.add_outline_item(title=titles[name], page_number=starts[name], parent=part)
    lead_inside(writer, printer.base, starts, places)
    about = citation.read()
    writer.add_metadata({"/Title": about["title"], "/Author": ", ".join(citation.names(about))})
    writer.compress_identical_objects()
    return writer


def main() -> int:
    base = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find())
        except Error:
            print(ABSENT, file=sys.stderr)
            return 1
        page = browser.new_page(color_scheme="light", reduced_motion="reduce")
        writer = print_book(Printer(page, base), list(parts()))
        browser.close()
    writer.write(BOOK)
    print(f"The book is printed: {len(writer.pages)} pages in {BOOK.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
