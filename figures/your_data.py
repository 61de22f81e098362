"""Run what the page on a reader's own data shows, and write what its four commands print beside it, shortened.

python figures/your_data.py            # all four, a minute or two on one core
python figures/your_data.py table      # one of them
"""

from __future__ import annotations

import contextlib
import json
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kdft_lib.experiments import as_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/your-data-your-model.md"
PRINTED = ROOT / "book/your-data"
KEPT = ("accuracy", "R²", "cross-entropy", "bytes", "milliseconds")
"""The columns that the page has room for."""


def blocks(heading: str) -> list[str]:
    """The code in Python below a heading, up to the next one."""
    text = PAGE.read_text(encoding="utf-8").split(f"# {heading}\n")[1]
    return re.findall(r"```python\n(.*?)```", re.split(r"(?m)^#+ (?=.*\n\n)", text)[0], flags=re.S)


def commands() -> dict[str, list[str]]:
    """The arguments of the four commands, by the name of the script."""
    lines = re.findall(r"(?m)^python examples/(\w+)\.py (.*)$", PAGE.read_text(encoding="utf-8"))
    return {name: shlex.split(rest) for name, rest in lines}


def make_data() -> None:
    """Write the files of the page into the folder where we are."""
    names: dict[str, object] = {}
    for code in blocks("Something to try it on") + blocks("Answers from elsewhere"):
        exec(compile(code, PAGE.name, "exec"), names)


def printed(name: str, more: Sequence[str] = ()) -> str:
    """Run a command where we are, with some options put behind its own; what it prints, without some columns."""
    given = [*commands()[name], *more]
    sys.argv = [f"{name}.py", *given]
    runpy.run_path(str(ROOT / f"examples/{name}.py"), run_name="__main__")
    found = json.loads(Path(given[given.index("--out") + 1], "metrics.json").read_text(encoding="utf-8"))
    rows = {arm: {key: row[key] for key in KEPT if key in row} for arm, row in found["test"].items()}
    return as_text(found | {"test": rows}) + "\n"


def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_data()
        for name in names or commands():
            (PRINTED / f"{name}.txt").write_text(printed(name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
