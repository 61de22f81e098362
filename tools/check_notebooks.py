"""Check the notebooks as they are stored; the build reads their outputs and runs nothing."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from count_prose import counted

BOOK = Path(__file__).parents[1] / "book"
RECIPES = BOOK.parent / "recipes"
MOST_SECONDS = 90
MOST_CELLS = 60
MOST_WORDS, MOST_NUMERALS, MOST_INTERVALS = 2200, 90, 15
SHORT = {"00-ten-minutes": (900, 10)}
"""Chapters with fewer words, and at most so many cells of code."""
PAGES = {"between-tokenizers", "does-it-carry", "the-fields-bugs", "where-to-start"}
"""Notebooks that are no chapters: nothing is to be learned step by step, exercised or taken home."""
SHOWN = re.compile(r"(?ms)^```python\n# recipes/(\w+\.py)\n(.*?)^```")
RECORDED = re.compile(r"recorded\(f?\"([a-z0-9]+(?:-[a-z0-9]+)*)")
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
        if "photographs" in tags and any(_is_picture(output) for output in cell.outputs):
            yield f"cell {number} stores photographs, which are not ours to publish; execute it with `make notebooks`"
        if shows_figure(cell) and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            yield f"cell {number} shows a figure without alt text (metadata mystnb.image.alt)"
        if len(cell.source.splitlines()) > 20:
            yield f"cell {number} has {len(cell.source.splitlines())} lines; 20 is the most"
    if "widgets" in notebook.metadata:
        yield "it stores the state of widgets, whose page asks other hosts; execute it with `make notebooks`"
    if path.stem not in SHORT.keys() | PAGES:
        yield from problems_of_exercises(notebook.cells)
    most = (MOST_WORDS, None) if path.stem not in PAGES else (MOST_WORDS, MOST_CELLS)
    yield from problems_of_reading(notebook, *SHORT.get(path.stem, most))
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


def problems_of_reading(notebook: Any, most_words: int, most_cells: int | None) -> Iterator[str]:
    """A chapter is short, its assertions are folded, the training of what is recorded is seen, and it is of use."""
    counts, cells = counted(notebook), notebook.cells
    limits = {"words": most_words, "numerals": MOST_NUMERALS, "intervals": MOST_INTERVALS, "cells": most_cells}
    for what, most in limits.items():
        if most is not None and getattr(counts, what) > most:
            yield f"its prose has {getattr(counts, what)} {what}; {most} is the most"
    seen: set[str] = set()
    for place, cell in enumerate(cells, 1):
        named = f"cell {place} of all, {cell.source[:30]!r},"
        if cell.cell_type == "markdown":
            for recipe, lines in SHOWN.findall(cell.source):
                seen.add(recipe)
                yield from (f"{named} shows {problem}" for problem in problems_of_lines(recipe, lines))
            continue
        if re.search(r"^\s*assert ", cell.source, re.M) and "hide-cell" not in cell.metadata.get("tags", []):
            yield f"{named} asserts in sight; move it to a cell tagged hide-cell behind it"
        for name in RECORDED.findall(cell.source):
            recipe = _recipe_of(name)
            if recipe is None:
                yield f"{named} reads the record {name}, and no recipe has it"
            elif recipe not in seen:
                yield f"{named} reads a record of recipes/{recipe}, and no cell before it shows its lines"
    if most_cells is None and not any(re.search("^## Take it home", cell.source, re.M) for cell in cells):
        yield 'it has no section "Take it home"'


def _recipe_of(record: str) -> str | None:
    """The file in which the name stands, as it is or with a number to fill in."""
    spelt = [f'"{record}"', '"' + re.sub(r"\d+$", "{", record)]
    return next((path.name for path in sorted(RECIPES.glob("*.py")) if any(s in path.read_text() for s in spelt)), None)


def problems_of_lines(recipe: str, lines: str) -> Iterator[str]:
    """Each block between lines of dots stands in the recipe, indented there or not."""
    text = (RECIPES / recipe).read_text(encoding="utf-8")
    for block in re.split(r"(?m)^\.\.\.$", lines):
        block = block.strip("\n")
        if not any(textwrap.indent(block, " " * depth) in text for depth in (0, 4, 8)):
            yield f"lines that are not in recipes/{recipe}: {block.splitlines()[0]!r} and those after it"


def shows_figure(cell: Any) -> bool:
    return any({"image/png", "image/svg+xml"} & output.get("data", {}).keys() for output in cell.outputs)


def _is_picture(output: Any) -> bool:
    """Whatever could hold one: an image, or HTML with one in it."""
    return any(kind.startswith("image/") or kind == "text/html" for kind in output.get("data", {}))


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
