"""Check the notebooks as they are stored; the build reads their outputs and runs nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

BOOK = Path(__file__).parents[1] / "book"
MOST_SECONDS = 90
EXERCISE = re.compile(r"^\*\*(\d+) \((?:easy|medium|open)\)\.\*\* ", re.M)


def problems(path: Path) -> Iterator[str]:
    """What is wrong with a notebook, a sentence each."""
    notebook = nbformat.read(path, as_version=4)
    cells = code(notebook)
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        yield f"it was not run from top to bottom: execution counts are {counts}"
    for cell, number in zip(cells, counts, strict=True):
        tags = cell.metadata.get("tags", [])
        kinds = {output.output_type for output in cell.outputs}
        if "error" in kinds and "raises-exception" not in tags:
            yield f"cell {number} stores an error and has no tag raises-exception"
        if "raises-exception" in tags and "error" not in kinds:
            yield f"cell {number} is tagged raises-exception and stores no error"
        if any(output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {number} stores what was written to stderr"
        if shows_figure(cell) and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            yield f"cell {number} shows a figure without alt text (metadata mystnb.image.alt)"
        if len(cell.source.splitlines()) > 20:
            yield f"cell {number} has {len(cell.source.splitlines())} lines; 20 is the most"
    yield from problems_of_exercises(notebook.cells)
    spent = seconds(notebook)
    if spent is None:
        yield "it stores no timings; execute it with `make notebooks`"
    elif spent > MOST_SECONDS:
        yield f"it took {spent:.0f} s; {MOST_SECONDS} is the most"


def code(notebook: Any) -> list[Any]:
    """A notebook's cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def problems_of_exercises(cells: list[Any]) -> Iterator[str]:
    """From the heading "Exercises" to the next one, each cell is an exercise or belongs to a solution, by its tag: what
    students get goes by these tags."""
    inside, numbers = False, []
    for place, cell in enumerate(cells, 1):
        named = f"cell {place} of all, {cell.source[:30]!r},"
        tags, heading = set(cell.metadata.get("tags", [])), re.search("^## ", cell.source, flags=re.M)
        if cell.cell_type == "markdown" and heading:
            inside = cell.source.endswith("## Exercises")
        elif inside:
            begins = EXERCISE.match(cell.source)
            numbers += [int(begins[1])] if begins else []
            wanted = (
                {"exercise"} if begins else {"solution"} if cell.cell_type == "markdown" else {"solution", "hide-cell"}
            )
            if missing := wanted - tags:
                yield f"{named} is among the exercises and has no tag {' and no tag '.join(sorted(missing))}"
            if EXERCISE.search(cell.source, 1):
                yield f"{named} goes on with another exercise; give each a cell of its own"
            continue
        if extra := tags & {"exercise", "solution"}:
            yield f"{named} is not among the exercises and has the tag {' and '.join(sorted(extra))}"
    if numbers != list(range(1, len(numbers) + 1)) or not numbers:
        yield f"its exercises are numbered {numbers}"


def shows_figure(cell: Any) -> bool:
    return any(
        "image/png" in output.get("data", {}) or "image/svg+xml" in output.get("data", {}) for output in cell.outputs
    )


def seconds(notebook: Any) -> float | None:
    """From the first cell's start to the last cell's end, by the stored timings."""
    cells = code(notebook)
    if not cells or not all("execution" in cell.metadata for cell in cells):
        return None
    started = cells[0].metadata["execution"]["iopub.execute_input"]
    ended = cells[-1].metadata["execution"]["shell.execute_reply"]
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def main() -> int:
    found = [f"{path.name}: {problem}" for path in sorted(BOOK.glob("*.ipynb")) for problem in problems(path)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
