"""A page loads what it shows, from its own site, and nothing that keeps it from being drawn."""

from __future__ import annotations

import re
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import tinycss2
from docutils import nodes
from fontTools import subset
from PIL import Image
from sphinx.application import Sphinx

NEEDED_BY = {
    "sphinx-thebe": r"(?!)",
    "sphinx-design": r'class="[^"]*\bsd-',
    "design-tabs": r'class="[^"]*\bsd-tab-',
    "togglebutton": r'class="[^"]*\b(toggle|dropdown)\b',
    "mystnb": r'class="[^"]*\bcell\b',
    "clipboard": r'class="[^"]*\bhighlight\b',
    "copybutton": r'class="[^"]*\bhighlight\b',
}
"""Files of extensions, by the beginning of their names, and what stands in the pages that need them."""
MATHS = "_static/fonts/stix-two-math.woff2"
ICONS = "_static/vendor/fontawesome/webfonts"


def without_thebe(app: Sphinx) -> None:
    """Take away what would run cells in the page, with scripts from another host."""
    for listeners in app.events.listeners.values():
        for listener in list(listeners):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def without_extras(head: str) -> str:
    """The theme has its icons as a font; the script that would draw them again weighs more than a chapter. And scripts
    that wait need not come before the styles."""
    return re.sub(
        r'<script [^>]*\bfontawesome\.js\b[^>]*></script>|<link rel="preload" as="script"[^>]*>',
        "",
        head,
    )


def assets(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document,
) -> None:
    """Leave out scripts and styles that the page has no use for; scripts wait until the page is read."""
    context["without_extras"] = without_extras
    body = context.get("body", "")

    def needed(file: Any) -> bool:
        name = Path(file.filename or "").name
        return all(re.search(sign, body) for start, sign in NEEDED_BY.items() if name.startswith(start))

    def waiting(script: Any) -> Any:
        if pagename == "search":  # whose scripts are written in an order
            return script
        attributes = dict(script.attributes)
        if script.filename:
            attributes["defer"] = "defer"
        elif attributes["body"].startswith("DOCUMENTATION_OPTIONS"):
            attributes["type"] = "module"  # which waits, too
        return type(script)(script.filename, priority=script.priority, **attributes)

    context["css_files"] = [file for file in context["css_files"] if needed(file)]
    context["script_files"] = [waiting(file) for file in context["script_files"] if needed(file)]


def pictures(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document,
) -> None:
    """Pictures know their sizes, come when they are scrolled to, and as lossless WebP where that is smaller; those of a
    few colours are marked as drawings, which a dark page may turn over."""
    source = {name: Path(app.srcdir, path) for path, name in app.builder.images.items()}
    first = True

    def improved(tag: re.Match[str]) -> str:
        nonlocal first
        written, address = tag[0], tag["address"]
        path = source.get(unquote(address).rpartition("/")[2])
        attributes = "" if first else ' loading="lazy" decoding="async"'
        first = False
        if path is None:
            return written.replace("<img", f"<img{attributes}", 1)
        if path.suffix == ".svg":
            drawing = "<image" not in (text := path.read_text("utf-8"))
            width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
        else:
            with Image.open(path) as image:
                width, height = image.size
                colors = image.convert("RGB").getcolors(width * height) or []
                counts = sorted(count for count, _ in colors)
                drawing = sum(counts[:-24]) < 0.045 * width * height
                webp = Path(app.outdir, "_images", path.stem + ".webp")
                if not webp.exists():
                    webp.parent.mkdir(exist_ok=True)
                    image.save(webp, lossless=True)
            if webp.stat().st_size < path.stat().st_size:
                written = written.replace(address, address.removesuffix(path.suffix) + ".webp")
        attributes += f' width="{width:.0f}" height="{height:.0f}"' + ' class="drawing"' * drawing
        return written.replace("<img", f"<img{attributes}", 1)

    if "body" in context:
        context["body"] = re.sub(
            r'<img [^>]*?src="(?P<address>[^"]+)"[^>]*>',
            improved,
            context["body"],
        )


def shrink(app: Sphinx, exception: Exception | None) -> None:
    """Keep of the theme's styles and of the fonts what the site shows.

    By Lighthouse's medians of three runs the styles' share of it is 47 kB, 0.3 to 0.8 s until the largest element is
    drawn, and a score of 99, 93 and 99 for the intro, the longest chapter and an API page, in place of 97, 87 and 97.
    """
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = [page.read_text("utf-8") for page in site.rglob("*.html")]
    scripts = [script.read_text("utf-8") for script in site.glob("_static/**/*.js")]
    words = set(re.findall(r"[\w-]+", " ".join(pages + scripts)))
    basic = (site / "_static/basic.css").read_text("utf-8")
    for name, style in (
        ("theme", basic),
        ("pydata-sphinx-theme", ""),
        ("sphinx-book-theme", ""),
    ):
        sheet = site / f"_static/styles/{name}.css"
        rules = tinycss2.parse_stylesheet(
            style or sheet.read_text("utf-8"),
            skip_comments=True,
            skip_whitespace=True,
        )
        sheet.write_text(serialized(rules, words), "utf-8")

    formulas = "".join(formula for page in pages for formula in re.findall("<math.*?</math>", page))
    with resources.as_file(resources.files("ziamath") / "fonts/STIXTwoMath-Regular.ttf") as stix:
        keep(
            stix,
            site / MATHS,
            formulas + "".join(map(italic, formulas)),
            ["ssty", "flac", "dtls"],
        )
    icons = re.findall(
        "[\ue000-\uf8ff]",
        "".join(sheet.read_text("utf-8") for sheet in site.glob("_static/**/*.css")),
    )
    for font in (site / ICONS).glob("*.woff2"):
        keep(font, font, "".join(icons))


def serialized(rules: list[Any], words: set[str]) -> str:
    """The rules whose classes and identifiers are somewhere among the words."""
    written = ""
    for rule in rules:
        if rule.type == "qualified-rule":
            selectors = [part for part in split(rule.prelude) if names(part) <= words]
            if selectors:
                prelude = ",".join(tinycss2.serialize(selector).strip() for selector in selectors)
                written += f"{prelude}{{{tinycss2.serialize(rule.content)}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in (
            "media",
            "supports",
        ):
            inner = serialized(
                tinycss2.parse_rule_list(rule.content, skip_comments=True, skip_whitespace=True),
                words,
            )
            written += f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inner}}}" if inner else ""
        elif rule.type == "at-rule" and rule.lower_at_keyword != "charset":
            written += rule.serialize()
    return written


def split(selectors: list[Any]) -> list[list[Any]]:
    parts: list[list[Any]] = [[]]
    for token in selectors:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def names(selector: list[Any]) -> set[str]:
    """Its classes and identifiers; the script of tooltips puts the names of theirs together."""
    classes = {after.value for dot, after in pairwise(selector) if dot == "." and after.type == "ident"}
    found = classes | {token.value for token in selector if token.type == "hash"}
    return {name for name in found if "tooltip" not in name}


def italic(letter: str) -> str:
    """What a browser shows for a variable of one letter."""
    latin, greek = (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "αβγδεζηθικλμνξοπρςστυφχψω∂ϵϑϰϕϱϖ",
    )
    if letter == "h":
        return "\u210e"
    if letter in latin:
        return chr(0x1D434 + latin.index(letter))
    return chr(0x1D6FC + greek.index(letter)) if letter in greek else ""


def keep(font: Path, to: Path, text: str, features: list[str] | None = None) -> None:
    options = subset.Options(
        flavor="woff2",
        layout_features=features or [],
        name_IDs=["*"],
        notdef_outline=True,
    )
    loaded = subset.load_font(str(font), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=text)
    subsetter.subset(loaded)
    to.parent.mkdir(exist_ok=True)
    subset.save_font(loaded, str(to), options)


def setup(app: Sphinx) -> dict[str, bool]:
    without_thebe(app)
    app.connect("html-page-context", assets, priority=900)
    app.connect("html-page-context", pictures, priority=900)
    app.connect("build-finished", shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
