"""A card as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HOW = {
    "pictures": 'student.predict(["photo.jpg"])',
    "texts": 'student.predict(["a text"])',
    "columns": "student.predict([{…}])  # a mapping from columns to values for each row, or a DataFrame",
}


def as_markdown(card: Mapping[str, Any], file: str) -> str:
    """A card of :func:`kdft_lib.export.write` in Markdown: what it is for, how it is asked, and what it is made of."""
    size = card.get("reader", {}).get("size")
    classes, kind = card.get("classes") or [], card["reader"]["kind"]
    what = f"Tells {len(classes)} classes apart: {', '.join(classes)}." if classes else "Predicts a number."
    lines = [f"# {file}", "", what + (f" It sees pictures at {size}×{size} pixels." if size else ""), ""]
    lines += ["```python", "from kdft_lib import export", "", 'student = export.load("this folder")']
    lines += [_HOW[kind], "```", ""]
    if classes:
        lines += [_sure(float(card.get("threshold") or 0)), ""]
    for name, value in card.items():
        if name not in ("classes", "reader", "model", "arguments", "threshold"):
            lines += [f"## {name[:1].upper()}{name[1:]}", "", *_shown(value), ""]
    return "\n".join(lines).rstrip() + "\n"


def _sure(threshold: float) -> str:
    if threshold == 0:
        return 'It answers always; with `threshold=0.9` it says "not sure" up to that confidence.'
    always = ", which is always: no threshold was enough" if threshold == 1 else ""
    return f'Up to a confidence of {threshold:.3f} it says "not sure"{always}; `threshold=` takes another.'


def _shown(value: Any) -> list[str]:
    """A table of what has rows and columns, a list of what has names, a sentence of anything else."""
    if not isinstance(value, Mapping):
        return [_plain(value)]
    if value and all(isinstance(row, Mapping) for row in value.values()):
        columns = list(dict.fromkeys(column for row in value.values() for column in row))
        head = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
        return head + [
            f"| {name} | {' | '.join(_plain(row.get(column, '')) for column in columns)} |"
            for name, row in value.items()
        ]
    return [f"- {name}: {_plain(each)}" for name, each in value.items()]


def _plain(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
