"""Ask a file from the command line: ``python -m kdft_lib.export FOLDER photo.jpg …``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kdft_lib.data import read_rows
from kdft_lib.export.reading import load


def main() -> None:
    """A line for each input: what it is called, the answer, and how sure that is."""
    parser = argparse.ArgumentParser(prog="python -m kdft_lib.export", description=__doc__)
    parser.add_argument("file", help="an ONNX file that was exported, or its folder")
    parser.add_argument("inputs", nargs="+", help="pictures; texts; or, for a network of a table, a CSV file")
    parser.add_argument("--threshold", type=float, help="the confidence up to which it is not sure; by default its own")
    given = parser.parse_args()
    shipped = load(given.file)
    asked = given.inputs
    if shipped.reader.kind == "columns":
        asked = [row for path in given.inputs for row in read_rows(Path(path), gaps=True).to_dict("records")]
    for number, answer in enumerate(shipped.predict(asked, threshold=given.threshold)):
        name = number if shipped.reader.kind == "columns" else str(asked[number])[:60]
        print(f"{name}\t{answer:g}" if not shipped.classes else f"{name}\t{answer.label}\t{answer.probability:.3f}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"kdft_lib.export: {error}")
