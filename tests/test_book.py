"""The book as it is stored: pages, notebooks, references and links. The built site is checked by `make book`."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

import kdft_lib
from kdft_lib.data import TensorData

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*NOTEBOOKS, *BOOK.rglob("*.md")])
sys.path.insert(0, str(ROOT / "tools"))

import check_notebooks  # noqa: E402
import check_pages  # noqa: E402
import run_nbval  # noqa: E402


def address():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]


def prose(path):
    """The Markdown of a page or notebook."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def code(path):
    """The code of a notebook, without the lines that are IPython's."""
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def test_every_page_is_in_the_table_of_contents_and_back():
    assert sorted(check_pages.pages()) == sorted(str(path.relative_to(BOOK).with_suffix("")) for path in PAGES)
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stored_as_they_should_be(path):
    assert list(check_notebooks.problems(path)) == []
    nbformat.validate(nbformat.read(path, as_version=4))


def test_all_notebooks_together_keep_their_time():
    assert sum(check_notebooks.seconds(nbformat.read(path, 4)) for path in NOTEBOOKS) < 20 * 60


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_first_cells_say_what_and_how(path):
    cells = nbformat.read(path, as_version=4).cells
    first, second = prose(path).split("\n")[0], cells[0].source + cells[1].source
    assert first.startswith("# ")
    colab = address().replace("https://github.com", "https://colab.research.google.com/github")
    assert f"{colab}/blob/main/book/{path.name}" in second
    (said,) = re.findall(r" · about (\d+) seconds on one CPU core · data: ", second)
    assert check_notebooks.seconds(nbformat.read(path, 4)) < int(said) + 10, "it took longer than it says"
    assert "data" in second.lower()
    set_up = next(cell.source for cell in cells if cell.cell_type == "code")
    assert re.search(rf'^ +%pip install -q "kdft-lib\[[\w,]+\] @ git\+{re.escape(address())}"', set_up, re.M)
    assert not any(re.search(r"^\s*# %", cell.source, re.M) for cell in cells if cell.cell_type == "code")
    assert "torch" not in re.findall(r"%pip install(.*)", set_up)[0].split()
    assert "import kdft_lib" in set_up


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_import_only_what_the_wheel_brings(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(
        r'"kdft-lib\[([\w,]+)\]', code(path) + prose(path) + path.read_text(encoding="utf-8").replace("\\", "")
    )
    wanted = [
        *project["dependencies"],
        *(e for name in extras[1].split(",") for e in project["optional-dependencies"][name]),
    ]
    distributions = {re.match(r"[\w-]+", entry)[0].lower() for entry in wanted}
    named = {"sklearn": "scikit-learn", "kdft_lib": None}
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(ast.parse(code(path)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for module in modules - set(sys.stdlib_module_names):
        distribution = named.get(module, module)
        assert distribution is None or distribution in distributions, module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_something_is_compared_exactly_and_something_asserted(path):
    cells = nbformat.read(path, as_version=4).cells
    assert any("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells)
    assert "assert " in code(path)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_citations_exist_and_links_inside_the_book_lead_somewhere(path):
    keys = set(re.findall(r"^@\w+\{([\w-]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), flags=re.M))
    text = prose(path)
    for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
        assert set(re.split(r",\s*", cited)) <= keys, cited
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text) + re.findall(
        r"\{doc\}`(?:[^`<]*<)?([\w./-]+)", text
    ):
        file = path.parent / target
        assert file.exists() or list(file.parent.glob(f"{file.name}.*")), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_asterisk_is_left_in_the_text(path):
    """Emphasis inside emphasis, or against a letter, is shown as asterisks."""
    from markdown_it import MarkdownIt

    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", prose(path), flags=re.S)
    lines = [token.children for token in MarkdownIt().enable("table").parse(text) if token.type == "inline"]
    assert [part.content for line in lines for part in line if part.type == "text" and "*" in part.content] == []


def test_each_reference_is_used_and_complete():
    from pybtex.database import parse_file

    library = parse_file(BOOK / "references.bib")
    used = {
        key
        for path in PAGES
        for cited in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose(path))
        for key in re.split(r",\s*", cited)
    }
    assert set(library.entries) == used
    for key, entry in library.entries.items():
        assert entry.persons["author"], key
        assert entry.fields["title"], key
        assert re.fullmatch(r"\d{4}", entry.fields["year"]), key


@pytest.mark.parametrize("name", kdft_lib.__all__)
def test_each_public_name_is_on_its_api_page(name):
    page = (BOOK / f"api/{name}.md").read_text(encoding="utf-8")
    assert f".. automodule:: kdft_lib.{name}\n   :members:\n   :imported-members:" in page
    module = getattr(kdft_lib, name)
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert ">>>" in thing.__doc__, f"{name}.{public} has no example"


def test_every_method_is_compared_and_priced():
    from kdft_lib import objectives, strategies

    page = (BOOK / "which-one.md").read_text(encoding="utf-8")
    costs = (BOOK / "costs.txt").read_text(encoding="utf-8")
    bases = {"Objective", "LogitObjective", "FeatureObjective", "Sum", "Weight", "Strategy", "blocks"}
    for module in (objectives, strategies):
        for name in set(module.__all__) - bases:
            link = f"{{class}}`~{module.__name__}.{name}`"
            assert link in page, name
            assert link in costs or name == "Phases", name
    assert "costs.txt" in page


def test_the_page_on_own_methods_runs():
    text = (BOOK / "add-your-own.md").read_text(encoding="utf-8")
    targets = torch.arange(64) % 3
    names = {"data": TensorData(torch.randn(64, 4) + torch.eye(3, 4)[targets], targets)}
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.S):
        exec(compile(code, "add-your-own", "exec"), names)
    assert names["student"][0].weight.grad is None
    assert {"direction/cosine", "soft_targets/kd"} < set(names["history"].epochs[-1])
    (objective,) = re.findall(r"(class Direction.*?)```", text, flags=re.S)
    assert len(objective.strip().splitlines()) <= 20


def bugs():
    """The items of the page on the field's bugs by heading: what stands below each, and how many cells."""
    found = {}
    for cell in nbformat.read(BOOK / "the-fields-bugs.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            if found and "hide-cell" not in cell.metadata.get("tags", []):
                found[list(found)[-1]][1] += 1
            continue
        before, *parts = re.split(r"^#{2,3} ", cell.source, flags=re.M)
        if found:
            found[list(found)[-1]][0] += f"\n\n{before}"
        found |= {part.split("\n")[0]: [part, 0] for part in parts}
    return {heading: (text, cells) for heading, (text, cells) in found.items() if cells}


def test_each_bug_of_the_field_is_seen_shown_and_kept_out():
    """A test that is renamed or removed takes the page with it."""
    assert len(bugs()) > 15
    assert f"lists {len(bugs())} that" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"there are {len(bugs())}: {{doc}}`the-fields-bugs`" in prose(BOOK / "11-common-mistakes.ipynb")
    for heading, (text, _) in bugs().items():
        assert "*Symptom*: " in text, heading
        where = re.findall(r"\[([\w-]+) #(\d+)\]\(https://github\.com/[\w.-]+/([\w.-]+)/(?:issues|pull)/(\d+)\)", text)
        assert where, heading
        assert "*Where*: " in text, heading
        assert [said for _, said, _, _ in where] == [linked for *_, linked in where], heading
        (kept_out,) = re.findall(r"^\*Kept out by\* (.*)$", text, re.M)
        tests = re.findall(r"`tests/(test_\w+)\.py::(test_\w+)`", kept_out)
        assert len(tests) == kept_out.count("::") > 0, heading
        for file, name in tests:
            source = ast.parse((ROOT / f"tests/{file}.py").read_text(encoding="utf-8"))
            assert name in {node.name for node in source.body if isinstance(node, ast.FunctionDef)}, name


def test_the_table_of_the_fields_bugs_has_each_with_its_places():
    start = nbformat.read(BOOK / "the-fields-bugs.ipynb", as_version=4).cells[0].source
    rows = re.findall(r"^\| \[(.+?)\]\(#([\w-]+)\) \| (.+) \|$", start, re.M)
    assert [row[0] for row in rows] == list(bugs())
    for heading, anchor, places in rows:
        assert anchor == re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        links = set(re.findall(r"https://github\.com/[^)]+/(?:issues|pull)/\d+", bugs()[heading][0]))
        assert set(re.findall(r"https://[^)]+", places)) == links, heading


@pytest.mark.parametrize(
    ("old", "new"),
    [("::test_", "::test_no_"), ("*Where*", "*There*"), ("#61](", "#62]("), ("*Kept out by*", "*Kept by*"), ("", "")],
)
def test_a_bug_whose_test_is_gone_is_found(monkeypatch, old, new):
    (text, cells), count = next(iter(bugs().values())), len(bugs())
    assert old in text
    changed = {str(number): (text.replace(old, new), cells) for number in range(count)}
    monkeypatch.setitem(globals(), "bugs", lambda: changed)
    with pytest.raises((AssertionError, ValueError)) if old else contextlib.nullcontext():
        test_each_bug_of_the_field_is_seen_shown_and_kept_out()


def test_the_inventory_of_torch_is_that_of_its_names():
    import torch_inventory

    assert torch_inventory.PATH.read_bytes() == torch_inventory.inventory()
    for name in torch_inventory.NAMES:
        thing = torch
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)


def test_the_intros_figure_shows_the_recorded_numbers():
    from kdft_lib.experiments import recorded

    drawn = re.findall(r">([^<>]+)</text>", (BOOK / "images/intro.svg").read_text(encoding="utf-8"))
    words = (BOOK / "intro.md").read_text(encoding="utf-8"), (ROOT / "README.md").read_text(encoding="utf-8")
    fields = {
        ("vision", "500 labels"): ("SVM on pixels",),
        ("vision-itself", "500 labels"): (
            "Lite0, augmented", "width 12, distilled", "width 12, labels", "width 12, its own names",
        ),
        ("language", "50 labels"): (
            "MiniLM, head", "bag, MiniLM's decisions", "bag, labels", "SVM", "SVM, pseudo-labels",
        ),
        ("speech", "300 labels"): ("the wide network", "distilled", "labels", "SVM"),
    }  # fmt: skip
    for (name, labels), methods in fields.items():
        for method in methods:
            scores = recorded(name)[labels].test[method]
            mean = f"{100 * sum(scores) / len(scores):.1f}"
            assert mean in drawn, method
            assert mean in words[0], method
    for size in (text.split(", ")[1] for text in drawn if text.endswith(" kB")):
        assert all(size in text for text in words), size


def test_nothing_names_a_place_on_the_authors_machine():
    for path in [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("kdft_lib/**/*.py"), *ROOT.glob("kdft_lib/assets/**/*.json")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|tmp|work)/", text), path


@pytest.mark.slow
def test_a_changed_number_in_a_tagged_output_fails(tmp_path):
    """On a copy, cut after its first tagged cell, of the notebook that comes to one soonest."""

    def beginning(path):
        notebook = nbformat.read(path, as_version=4)
        tagged = next(
            i for i, cell in enumerate(notebook.cells) if "nbval-check-output" in cell.metadata.get("tags", [])
        )
        notebook.cells = notebook.cells[: tagged + 1]
        return notebook

    source = min(map(beginning, NOTEBOOKS), key=check_notebooks.seconds)
    nbformat.write(source, tmp_path / "right.ipynb")
    (output,) = source.cells[-1].outputs
    holder, key = (output, "text") if output.output_type == "stream" else (output.data, "text/plain")
    holder[key], changes = re.subn(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 1) % 10), holder[key])
    assert changes == 1
    nbformat.write(source, tmp_path / "wrong.ipynb")
    site = ROOT  # the working tree serves as the wheel does
    done = run_nbval.run(sorted(tmp_path.glob("*.ipynb")), site, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nbval passed: right.ipynb" in done.stdout, done.stdout
    assert "nbval FAILED: wrong.ipynb" in done.stdout
    assert "mismatch" in done.stdout


def test_the_state_of_a_progress_bar_is_found(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    nbformat.write(notebook, tmp_path / NOTEBOOKS[0].name)
    (said,) = check_notebooks.problems(tmp_path / NOTEBOOKS[0].name)
    assert said.startswith("it stores the state of widgets")


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "text/html"])
def test_stored_photographs_are_found(tmp_path, kind):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.metadata["tags"] = ["photographs"]
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="10 photographs appear where you run this")]
    nbformat.write(notebook, tmp_path / "copy.ipynb")
    assert not [said for said in check_notebooks.problems(tmp_path / "copy.ipynb") if "photographs" in said]
    cell.outputs += [nbformat.v4.new_output("display_data", {kind: "a cell"})]
    nbformat.write(notebook, tmp_path / "copy.ipynb")
    found = [said for said in check_notebooks.problems(tmp_path / "copy.ipynb") if "photographs" in said]
    assert found == ["cell 1 stores photographs, which are not ours to publish; execute it with `make notebooks`"]


def test_a_stored_error_without_its_tag_is_found(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])]
    nbformat.write(notebook, tmp_path / "copy.ipynb")
    assert "cell 1 stores an error and has no tag raises-exception" in list(
        check_notebooks.problems(tmp_path / "copy.ipynb")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cells: cells[1].metadata.tags.remove("exercise"), "among the exercises and has no tag exercise"),
        (
            lambda cells: cells[2].metadata.tags.clear(),
            "among the exercises and has no tag hide-cell and no tag solution",
        ),
        (lambda cells: cells[3].metadata.tags.clear(), "among the exercises and has no tag solution"),
        (lambda cells: cells[4].metadata.tags.append("solution"), "not among the exercises and has the tag solution"),
        (lambda cells: cells[3].update(source="So.\n\n**2 (easy).** And?"), "goes on with another exercise"),
        (lambda cells: cells[1].update(source="**2 (easy).** Ask."), "its exercises are numbered [2]"),
        (lambda cells: cells.pop(0), "its exercises are numbered []"),
    ],
)
def test_an_exercise_without_its_tags_is_found(change, said):
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [
        text("## Exercises"),
        text("**1 (easy).** Ask.", metadata={"tags": ["exercise"]}),
        code("x = 1", metadata={"tags": ["hide-cell", "solution"]}),
        text("Because.", metadata={"tags": ["solution"]}),
        text("## Further reading", metadata={"tags": []}),
    ]
    assert list(check_notebooks.problems_of_exercises(cells)) == []
    change(cells)
    assert any(said in problem for problem in check_notebooks.problems_of_exercises(cells))


def test_broken_links_of_a_site_are_found(tmp_path):
    (tmp_path / "index.html").write_text(
        '<a href="there.html#no"></a><a href="gone.html"></a><a href="https://example.org">'
    )
    (tmp_path / "there.html").write_text('<p id="yes">')
    assert list(check_pages.broken_links(tmp_path)) == [
        "index.html links to there.html#no, and there is no such place on that page",
        "index.html links to gone.html, which does not exist",
    ]


def test_the_notebooks_are_checked_before_the_build():
    done = subprocess.run([sys.executable, ROOT / "tools/check_notebooks.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
