"""The picture that stands beside a link to a page, where people send each other links: title, claim, diagram."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from io import BytesIO
from pathlib import Path

import resvg_py
from matplotlib.font_manager import FontProperties, findfont, fontManager
from PIL import Image, ImageFont

from kdft_lib.plots import BLUE, GREEN, PURPLE, VERMILION

WIDTH, HEIGHT = 1200, 630
MARGIN = 60
FAMILY = next(
    name
    for name in ("Arial", "Liberation Sans", "Nimbus Sans", "DejaVu Sans")
    if name in {font.name for font in fontManager.ttflist}
)
"""The diagrams are drawn for Arial or what has its measures; matplotlib brings the last."""


def font(family: str, *, bold: bool = False) -> str:
    return str(findfont(FontProperties(family=family, weight="bold" if bold else "normal")))


def render(svg: str | Path, width: int) -> bytes:
    """A PNG."""
    path, text = (str(svg), None) if isinstance(svg, Path) else (None, svg)
    return resvg_py.svg_to_bytes(
        svg_path=path, svg_string=text, width=width, dpi=96, skip_system_fonts=True,
        font_files=[font(FAMILY), font(FAMILY, bold=True), font("DejaVu Sans Mono")],
        sans_serif_family=FAMILY, monospace_family="DejaVu Sans Mono",
    )  # fmt: skip


def wrap(text: str, letters: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Lines no wider than ``width`` pixels; what does not fit is cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        lines = lines[:most]
        while letters.getlength(f"{lines[-1]} …") > width:
            lines[-1] = lines[-1].rpartition(" ")[0]
        lines[-1] += " …"
    return lines


class Column:
    """Text from the top down, as elements of an SVG."""

    def __init__(self, width: int) -> None:
        self.width, self.y = width, 52
        self.elements: list[str] = []

    def add(self, text: str, size: int, fill: str, *, bold: bool = False, most: int = 1, gap: int = 0) -> None:
        letters = ImageFont.truetype(font(FAMILY, bold=bold), size)
        self.y += gap
        for line in wrap(text, letters, self.width, most):
            self.y += round(1.25 * size)
            weight = "bold" if bold else "normal"
            self.elements.append(
                f'<text x="{MARGIN}" y="{self.y}" font-size="{size}" font-weight="{weight}" fill="{fill}">'
                f"{escape(line)}</text>"
            )


def picture(diagram: Path, x: int, y: int, width: int, height: int) -> str:
    """The diagram on a sheet of its own."""
    content = b64encode(render(diagram, 2 * width)).decode()
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="14" fill="#ffffff" stroke="#dddddd"/>'
        f'<image x="{x + 16}" y="{y + 14}" width="{width - 32}" height="{height - 28}"'
        f' href="data:image/png;base64,{content}"/>'
    )


def card(title: str, claim: str, over: str, address: str, diagram: Path | None = None) -> bytes:
    """A PNG of 1200 × 630. Without a diagram, four bars stand for the four choices."""
    colors = (BLUE, GREEN, VERMILION, PURPLE)
    shape = 1.0
    if diagram:
        drawn = Image.open(BytesIO(render(diagram, 400)))
        shape = drawn.width / drawn.height
    wide = shape > 1.4
    column = Column(WIDTH - 2 * MARGIN if wide else 590)
    column.add(over, 24, BLUE, bold=True)
    column.add(title, 46, "#1a1a1a", bold=True, most=2 if wide else 5, gap=8)
    if not wide:
        column.add(claim, 25, "#4a4a4a", most=6, gap=20)
    if diagram and wide:
        top = column.y + 30
        drawing = picture(diagram, MARGIN, top, WIDTH - 2 * MARGIN, 555 - top)
    elif diagram:
        drawing = picture(diagram, 682, 40, 478, 540)
    else:
        bars = zip((150, 230, 380, 300), colors, strict=True)
        drawing = "".join(
            f'<rect x="{780 + 88 * place}" y="{520 - height}" width="60" height="{height}" rx="8" fill="{color}"/>'
            for place, (height, color) in enumerate(bars)
        )
    foot = "".join(
        f'<rect x="{300 * place}" y="618" width="300" height="12" fill="{color}"/>'
        for place, color in enumerate(colors)
    )
    return render(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fbfbf9"/>{"".join(column.elements)}{drawing}{foot}'
        f'<text x="{MARGIN}" y="592" font-size="21" fill="#4a4a4a">{escape(address)}</text></svg>',
        WIDTH,
    )
