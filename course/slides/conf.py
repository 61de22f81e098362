"""Slides by reveal.js, with formulas as on the book's pages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools/extensions"))

project = "kdft"
author = "The kdft authors"
copyright = "2026, The kdft authors; CC BY 4.0"
extensions = ["myst_parser", "sphinx_revealjs", "mathml"]
myst_enable_extensions = ["amsmath", "dollarmath"]
html_math_renderer = "mathml"
html_copy_source = False
revealjs_html_theme = "revealjs-simple"
revealjs_style_theme = "white"
revealjs_static_path = ["_static"]
revealjs_css_files = ["slides.css"]
revealjs_script_conf = {
    "hash": True,
    "center": False,
    "transition": "none",
    "slideNumber": "c/t",
    "width": 1280,
    "height": 720,
}
revealjs_script_plugins = [{"src": "revealjs/plugin/notes/notes.js", "name": "RevealNotes"}]
