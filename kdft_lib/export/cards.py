"""A card as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HOW = {
    "pictures": 'student.predict(["photo.jpg"])',
    "texts": 'student.predict(["a text"])',
    "columns": "student.predict([{…}])  # a mapping from columns to values for each row, or a DataFrame",
}

_ALONE = {
    "pictures": """\
from PIL import Image, ImageOps

picture = Image.open("photo.jpg")  # of 8 bits, and nothing of it transparent
picture.draft("RGB", (2 * SIZE, 2 * SIZE))
picture = ImageOps.exif_transpose(picture).convert("RGB")
picture = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
given = {"pictures": numpy.asarray(picture).transpose(2, 0, 1)[None]}""",
    "texts": """\
from tokenizers import Tokenizer

found = Tokenizer.from_file("tokenizer.json").encode("a text")
given = {"words": numpy.array([found.ids])}""",
    "columns": """\
row, inputs = {}, []  # from columns to values
with open("columns.json", encoding="utf-8") as columns:
    known = json.load(columns)
for name, of in known["numbers"].items():
    gap = row.get(name) is None
    inputs.append(((of["gap"] if gap else row[name]) - of["mean"]) / of["std"])
    inputs += [gap] * of["had_gaps"]
for name, values in known["words"].items():
    word = "" if row.get(name) is None else str(row[name])
    inputs += [word == value for value in values]
given = {"rows": numpy.array([inputs], dtype=numpy.float32)}""",
}
_ASKS = """\
session = onnxruntime.InferenceSession("FILE")
(logits,) = session.run(None, given)"""
_SAYS = """\
shares = numpy.exp(logits[0] - logits[0].max())
card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
print(card["classes"][shares.argmax()], shares.max() / shares.sum())"""


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
    lines += ["Without PyTorch, in this folder:", "", "```python", _alone(card, file), "```", ""]
    for name, value in card.items():
        if name not in ("classes", "reader", "model", "arguments", "threshold"):
            lines += [f"## {name[:1].upper()}{name[1:]}", "", *_shown(value), ""]
    return "\n".join(lines).rstrip() + "\n"


def _alone(card: Mapping[str, Any], file: str) -> str:
    """What asks the file with onnxruntime alone, and gives what ``predict`` does."""
    reader = card["reader"]
    reads = _ALONE[reader["kind"]].replace("SIZE", str(reader.get("size")))
    if reader.get("named"):
        reads = reads.replace('{"words"', '{"attention_mask": numpy.array([found.attention_mask]), "input_ids"')
    says = _SAYS if card.get("classes") else "print(logits[0, 0])"
    return f"import json\n\nimport numpy\nimport onnxruntime\n{reads}\n{_ASKS.replace('FILE', file)}\n{says}"


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
