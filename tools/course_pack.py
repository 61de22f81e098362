"""Write the course pack: chapters for students, solutions, slides, plan, rubric and assignment."""

from __future__ import annotations

import copy
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from check_notebooks import PAGES, seconds
from check_pages import pages
from course_plan import plan
from course_slides import slides
from nbconvert.preprocessors import ClearMetadataPreprocessor, ClearOutputPreprocessor, TagRemovePreprocessor
from pybtex.database import parse_file

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "course"
PACK = ROOT / "_build" / "course" / "kdft-course"
LEVEL = re.compile(r"\*\*\d+ \((\w+)\)\.\*\* ")
LICENCES = ("LICENSE", "LICENSE-TEXT")


@dataclass
class Chapter:
    """A notebook of the book, and what of it goes to whom.

    Among the exercises a cell is tagged ``exercise`` or ``solution``: its code, what announces it, and what is learned
    from it.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def title(self) -> str:
        return str(self.cells[0].source).split("\n")[0].removeprefix("# ")

    def read(self) -> Any:
        return nbformat.read(self.path, as_version=4)

    @functools.cached_property
    def cells(self) -> list[Any]:
        """Those that students get."""
        return list(TagRemovePreprocessor(remove_cell_tags={"solution"}).preprocess(self.read(), {})[0].cells)

    def students_version(self) -> Any:
        """Without outputs, solutions and the link to both; with a cell to answer in under each exercise."""
        given = notebook([])
        for cell in copy.deepcopy(self.cells):
            if cell.cell_type == "markdown":
                cell.source = readable(re.sub(r"\[Open in Colab\]\(\S+\) · ", "", cell.source))
            given.cells.append(cell)
            if tagged(cell, "exercise"):
                given.cells.append(nbformat.v4.new_code_cell("# your answer"))
        kept = ClearMetadataPreprocessor(clear_notebook_metadata=False, preserve_cell_metadata_mask={"tags"})
        return ClearOutputPreprocessor().preprocess(kept.preprocess(given, {})[0], {})[0]

    def solutions(self) -> Any:
        """Each exercise with its solution, outputs included."""
        head = f"# Solutions: {self.title}\n\nThe code goes on from the chapter's own cells."
        cells = [cell for cell in self.read().cells if tagged(cell, "exercise") or tagged(cell, "solution")]
        for cell in cells:
            cell.metadata = {}
            if cell.cell_type == "markdown":
                cell.source = readable(cell.source)
        return notebook([nbformat.v4.new_markdown_cell(head), *cells])

    @property
    def words(self) -> int:
        """Of the prose that students read."""
        return sum(len(cell.source.split()) for cell in self.cells if cell.cell_type == "markdown")

    @property
    def lines(self) -> int:
        """Of the code that students read."""
        code = [cell.source for cell in self.cells if cell.cell_type == "code"]
        return sum(bool(line.strip()) for source in code for line in source.splitlines())

    @property
    def seconds(self) -> float:
        """Of the stored run."""
        spent = seconds(self.read())
        if spent is None:
            raise ValueError(f"{self.path.name} stores no timings; execute it with `make notebooks`")
        return spent

    @functools.cached_property
    def exercises(self) -> list[tuple[str, str]]:
        """Level and text of each."""
        texts = [cell.source for cell in self.cells if tagged(cell, "exercise")]
        return [(found[1], text[found.end() :]) for text in texts if (found := LEVEL.match(text))]

    @property
    def levels(self) -> Counter[str]:
        return Counter(level for level, _ in self.exercises)


def tagged(cell: Any, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def notebook(cells: list[Any]) -> Any:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def readable(text: str) -> str:
    """Citations and links as Jupyter can show them."""
    library = references()

    def cited(found: re.Match[str]) -> str:
        return "(" + "; ".join(library[key.strip()] for key in found[1].split(",")) + ")"

    def linked(found: re.Match[str]) -> str:
        title, name = found[1] or found[2].replace("-", " "), found[2]
        path = ROOT / f"book/{name}.ipynb"
        if path.exists() and is_chapter(path):
            return f"[{title}]({name}.ipynb)"
        return f"[{title}]({repository}/blob/main/book/{name}.{'ipynb' if path.exists() else 'md'})"

    repository = configuration()["repository"]["url"]
    text = re.sub(r"(?m)^```python\n(?=# (recipes/\w+\.py)$)", r"From `\1`:\n\n```python\n", text)
    text = re.sub(r"`(recipes/\w+\.py)`", rf"[`\1`]({repository}/blob/main/\1)", text)
    text = re.sub(r"\{cite(?::\w+)?\}`([^`]+)`", cited, text)
    return re.sub(r"\{doc\}`(?:([^`<]*?)\s*<)?([\w./-]+)>?`", linked, text)


@functools.cache
def configuration() -> Any:
    """Of the book."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@functools.cache
def references() -> dict[str, str]:
    """Authors and year of each entry of the bibliography."""

    def named(entry: Any) -> str:
        names = ["".join(" ".join(person.last_names).split("{")).replace("}", "") for person in entry.persons["author"]]
        authors = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        return f"{authors}, {entry.fields['year']}"

    return {key: named(entry) for key, entry in parse_file(ROOT / "book/references.bib").entries.items()}


def chapters() -> list[Chapter]:
    """In reading order."""
    paths = (ROOT / f"book/{name}.ipynb" for name in pages())
    return [Chapter(path) for path in paths if path.exists() and is_chapter(path)]


def is_chapter(path: Path) -> bool:
    """Whether a notebook belongs to the course; pages of the package do not."""
    return path.stem not in PAGES


def assignment() -> Any:
    """The notebook that nbgrader takes, from its source: what is given, what is answered, what is checked."""
    made = jupytext.read(SOURCE / "vowels.py")
    for number, cell in enumerate(made.cells):
        marks = dict(cell.metadata)
        cell.metadata, cell.id = {}, f"cell-{number:02}"
        name = marks.get("given") or marks.get("answer") or marks.get("check")
        if name:
            answered, checked = "answer" in marks, "check" in marks
            cell.metadata["nbgrader"] = {
                "grade_id": name, "grade": checked, "solution": answered, "locked": not answered,
                "points": marks.get("points", 0), "task": False, "cell_type": "code", "schema_version": 3,
            }  # fmt: skip
            if not checked:
                del cell.metadata["nbgrader"]["points"]
    made.metadata = notebook([]).metadata
    return made


def nbgrader(*command: str, folder: Path) -> None:
    """It calls alembic, which is where this Python's programs are."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *command], cwd=folder, env=os.environ | {"PATH": path},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"nbgrader {' '.join(command)} failed:\n{done.stdout}")


def write_course(folder: Path) -> Path:
    """The course of nbgrader, and in it the notebook for students."""
    (folder / "source/vowels").mkdir(parents=True)
    shutil.copy(SOURCE / "nbgrader_config.py", folder)
    nbformat.write(assignment(), folder / "source/vowels/vowels.ipynb")
    nbgrader("generate_assignment", "vowels", folder=folder)
    return folder / "release/vowels/vowels.ipynb"


def projects(found: Iterable[Chapter]) -> str:
    """The open exercises, each under its chapter as it stands on the site."""
    lines = [(SOURCE / "projects.md").read_text(encoding="utf-8").rstrip()]
    for chapter in found:
        texts = [text for level, text in chapter.exercises if level == "open"]
        if texts:
            page = f"{configuration()['html']['baseurl']}{chapter.name}.html"
            lines += [f"## [{chapter.number} {chapter.title}]({page})", *texts]
    return re.sub(r"\]\((?=[\w-]+\.ipynb\))", "](chapters/", readable("\n\n".join(lines))) + "\n"


def write(pack: Path, found: list[Chapter]) -> None:
    """The pack, for students and for instructors apart."""
    for_students, for_instructors = pack / "students", pack / "instructors"
    (for_students / "chapters").mkdir(parents=True)
    (for_instructors / "solutions").mkdir(parents=True)
    (for_instructors / "plan.md").write_text(plan(found, SOURCE / "plan.toml"), encoding="utf-8")
    for chapter in found:
        nbformat.write(chapter.students_version(), for_students / f"chapters/{chapter.name}.ipynb")
        nbformat.write(chapter.solutions(), for_instructors / f"solutions/{chapter.name}-solutions.ipynb")
    slides(found, for_instructors / "slides", readable)
    (for_students / "projects.md").write_text(projects(found), encoding="utf-8")
    shutil.copy(SOURCE / "rubric.md", for_students)
    shutil.copy(SOURCE / "students.md", for_students / "README.md")
    with tempfile.TemporaryDirectory() as place:
        released = write_course(Path(place))
        shutil.copy(released, for_students)
        course = for_instructors / "assignment"
        (course / "source/vowels").mkdir(parents=True)
        shutil.copy(SOURCE / "nbgrader_config.py", course)
        shutil.copy(Path(place) / "source/vowels/vowels.ipynb", course / "source/vowels")
    for name in LICENCES:
        shutil.copy(ROOT / name, pack)
        shutil.copy(ROOT / name, for_students)
    shutil.copy(SOURCE / "README.md", pack)


def touched(pack: Path) -> list[str]:
    """Files of a pack that are new or changed since it was written; its archive tells."""
    archive = pack.with_suffix(".zip")
    written = {}
    if archive.exists():
        with zipfile.ZipFile(archive) as packed:
            written = {name: packed.read(name) for name in packed.namelist()}
    files = {path.relative_to(pack.parent).as_posix(): path for path in sorted(pack.rglob("*")) if path.is_file()}
    return [name for name, path in files.items() if written.get(name) != path.read_bytes()]


def renew(pack: Path, found: list[Chapter]) -> None:
    """Write the pack and its archive in place of old ones, which stay where that fails or somebody worked in them."""
    if own := touched(pack):
        others = f" and {len(own) - 1} more" if len(own) > 1 else ""
        raise ValueError(
            f"the old pack has files that are new or changed since it was written ({own[0]}{others}); "
            f"move {pack.name} out of {pack.parent} and call `make course` again"
        )
    pack.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=pack.parent) as place:
        made = Path(place) / pack.name
        write(made, found)
        archive = shutil.make_archive(str(made), "zip", place, pack.name)
        if pack.exists():
            pack.rename(Path(place) / "old")
        made.rename(pack)
        Path(archive).replace(pack.with_suffix(".zip"))


def main() -> int:
    try:
        renew(PACK, chapters())
    except ValueError as error:
        print(f"Nothing was written: {error}", file=sys.stderr)
        return 1
    print(f"The course pack is in {PACK.relative_to(ROOT)}, and as {PACK.relative_to(ROOT).with_suffix('.zip')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
