"""What Sphinx and the theme write, as a screen reader needs it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

BETTER = (
    # A signature's arguments are a list; descriptions without terms are none.
    (
        r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>",
        lambda found: f'<ul class="sig-params">\n{items(found[1])}</ul>',
    ),
    # The role of a bibliography's entry is deprecated.
    (r'role="doc-biblioentry"', lambda found: 'role="listitem"'),
    # Its text says more.
    (
        r'<summary aria-label="Toggle hidden content">',
        lambda found: "<summary>",
    ),
    # A header without text is an empty cell.
    (r"<th[^>]*>(?:<p></p>)?</th>", lambda found: "<td></td>"),
)


def items(descriptions: str) -> str:
    return descriptions.replace("<dd>", "<li>").replace("</dd>\n", "</li>\n")


def article(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document,
) -> None:
    for written, better in BETTER:
        context["body"] = re.sub(written, better, context.get("body", ""))


def navigation(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document,
) -> None:
    """The arrow that unfolds a part of the navigation says what it does."""
    generate: Callable[..., Any] = context["generate_toctree_html"]

    def labeled(*arguments: Any, **named: Any) -> str:
        return str(generate(*arguments, **named)).replace("<summary>", '<summary aria-label="Pages of this part">')

    context["generate_toctree_html"] = labeled


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("html-page-context", article, priority=900)
    app.connect("html-page-context", navigation, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
