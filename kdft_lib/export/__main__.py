"""Ask a file from the command line: ``python -m kdft_lib.export FOLDER photo.jpg …``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kdft_lib.data import read_rows
from kdft_lib.data.own import TABLES
from kdft_lib.data.text_files import texts_of
from kdft_lib.export.reading import load


def main() -> None:
    """A line for each input: what it is called, the answer, and how sure that is."""
    parser = argparse.ArgumentParser(prog="python -m kdft_lib.export", description=__doc__)
    parser.add_argument("file", help="an ONNX file that was exported, or its folder")
    parser.add_argument(
        "inputs",
        nargs="+",
        help="pictures; texts, tables of them or .txt files with one in each line; or, for a network of a table, tables"
        f" ({', '.join(TABLES)})",
    )
    parser.add_argument("--text-column", default="text", help="a table's column of texts (default: %(default)s)")
    parser.add_argument("--threshold", type=float, help="the confidence up to which it is not sure; by default its own")
    given = parser.parse_args()
    shipped = load(given.file)
    kind, asked = shipped.reader.kind, given.inputs
    if kind == "columns":
        asked = [row for path in given.inputs for row in read_rows(Path(path), gaps=True).to_dict("records")]
    elif kind == "texts":
        asked = [text for said in given.inputs for text in _texts(said, given.text_column)]
    for number, answer in enumerate(shipped.predict(asked, threshold=given.threshold)):
        name = number if kind == "columns" else " ".join(str(asked[number]).split())[:60]
        print(f"{name}\t{answer:g}" if not shipped.classes else f"{name}\t{answer.label}\t{answer.probability:.3f}")


def _texts(said: str, column: str) -> list[str]:
    """The texts of a file, or what was said itself."""
    path = Path(said)
    if path.suffix in TABLES:
        return texts_of(read_rows(path, [column]), column, path)
    if path.suffix == ".txt":
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if os.path.isfile(said):  # Of a name that is too long, Path's own raises.
        raise ValueError(
            f"{said} is a file, and the network reads texts; give a table of them ({', '.join(TABLES)}), a .txt file"
            " with one in each line, or the text itself"
        )
    return [said]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"kdft_lib.export: {error}")
