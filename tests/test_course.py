"""The course pack: what students get and what they do not, slides, plans, and the autograder at work."""

from __future__ import annotations

import ast
import contextlib
import csv
import html
import os
import re
import shutil
import sys
import tomllib
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import yaml
from test_book import BOOK, ROOT, address, prose

sys.path.insert(0, str(ROOT / "tools"))

import check_notebooks
import course_pack
import course_plan

CHAPTERS = course_pack.chapters()
by_name = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    course_pack.write(folder, CHAPTERS)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """A pack of one file, for what does not depend on the others."""

    def write(pack, found):
        pack.mkdir()
        (pack / "plan.md").write_text(found, encoding="utf-8")

    monkeypatch.setattr(course_pack, "write", write)


def test_a_new_pack_takes_the_place_of_an_old_one_and_of_nothing_else(quick, tmp_path):
    pack = tmp_path / "course/kdft-course"
    course_pack.renew(pack, "old")
    (pack.parent / "marks.txt").write_text("mine", encoding="utf-8")
    course_pack.renew(pack, "new")
    assert (pack / "plan.md").read_text(encoding="utf-8") == "new"
    with zipfile.ZipFile(pack.with_suffix(".zip")) as packed:
        assert packed.read("kdft-course/plan.md") == b"new"
    assert sorted(path.name for path in pack.parent.iterdir()) == ["kdft-course", "kdft-course.zip", "marks.txt"]


@pytest.mark.parametrize("name", ["instructors/assignment/submitted/ann/vowels/vowels.ipynb", "plan.md"])
def test_an_instructors_work_is_never_deleted(quick, tmp_path, name):
    pack = tmp_path / "kdft-course"
    course_pack.renew(pack, "old")
    (pack / name).parent.mkdir(parents=True, exist_ok=True)
    (pack / name).write_text("mine", encoding="utf-8")
    with pytest.raises(
        ValueError, match=rf"new or changed since it was written \(kdft-course/{name}\); move kdft-course"
    ):
        course_pack.renew(pack, "new")
    assert (pack / name).read_text(encoding="utf-8") == "mine"
    pack.rename(tmp_path / "autumn")
    course_pack.renew(pack, "new")
    assert (tmp_path / "autumn" / name).exists()


def test_a_wrong_plan_leaves_the_old_pack_as_it_was(monkeypatch, tmp_path, capsys):
    pack = tmp_path / "course/kdft-course"
    pack.mkdir(parents=True)
    planned = (ROOT / "course/plan.toml").read_text(encoding="utf-8")
    wrong = planned.replace('["03", "04"]', '["04", "03"]', 1)
    (tmp_path / "plan.toml").write_text(wrong, encoding="utf-8")
    (pack / "plan.md").write_text("old", encoding="utf-8")
    shutil.make_archive(str(pack), "zip", pack.parent, pack.name)
    monkeypatch.setattr(course_pack, "PACK", pack)
    monkeypatch.setattr(course_pack, "SOURCE", tmp_path)
    assert course_pack.main() == 1
    said = "the course of 4 weeks is out of order: 04 needs 03; put first what others need"
    assert capsys.readouterr().err == f"Nothing was written: plan.toml: {said}\n"
    assert (pack / "plan.md").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in pack.parent.iterdir()) == ["kdft-course", "kdft-course.zip"]


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def exercises_of(chapter):
    """The section as it stands in the book, and its folded cells, found without the builder."""
    cells = chapter.read().cells
    begins = (i for i, cell in enumerate(cells) if re.search(r"^## Exercises$", cell.source, flags=re.M))
    begin = next(begins, len(cells))
    folded = [cell.source for cell in cells[begin:] if "hide-cell" in cell.metadata.get("tags", [])]
    after = [
        following.source.split("\n\n")[0]
        for cell, following in zip(cells[begin:], cells[begin + 1 :], strict=False)
        if "hide-cell" in cell.metadata.get("tags", [])
    ]
    return folded, [text for text in after if not text.startswith(("**", "##"))]


@by_name
def test_students_get_no_solution_and_instructors_each(pack, chapter):
    for_students = "\n".join(sources(pack / f"students/chapters/{chapter.name}.ipynb"))
    solutions = "\n".join(sources(pack / f"instructors/solutions/{chapter.name}-solutions.ipynb"))
    folded, explained = exercises_of(chapter)
    assert len(folded) >= 3 or not chapter.exercises
    for source in folded:
        assert source not in for_students
        assert source in solutions
    for text in map(course_pack.readable, explained):
        assert text not in for_students
        assert text in solutions
    for number, text in re.findall(r"^\*\*(\d+) \(\w+\)\.\*\* (.{20})", prose(chapter.path), flags=re.M):
        assert text in for_students, number
        assert text in solutions, number


@by_name
def test_the_rest_of_a_chapter_is_whole_and_has_no_outputs(pack, chapter):
    notebook = nbformat.read(pack / f"students/chapters/{chapter.name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    folded, _ = exercises_of(chapter)
    kept = [cell.source for cell in chapter.read().cells if cell.cell_type == "code" and cell.source not in folded]
    empty = [cell.source for cell in code if cell.source == "# your answer"]
    assert [cell.source for cell in code if cell.source != "# your answer"] == kept
    assert len(empty) == len(chapter.exercises) == len(re.findall(r"^\*\*\d+ \(", prose(chapter.path), flags=re.M))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "{cite}" not in text
    assert "{doc}" not in text
    assert address().split("github.com")[1] + "/blob/main/book/" + chapter.path.name not in text
    for target in re.findall(r"\]\(([\w-]+\.ipynb)\)", text):
        assert (pack / "students/chapters" / target).exists(), target


def test_solutions_go_with_what_announces_and_explains_them(tmp_path):
    def text(source, *tags):
        return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})

    cells = [
        text("# T\n\n## Exercises"),
        text("**1 (easy).** Ask.", "exercise"),
        text("One seed as a start:", "solution"),
        nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["hide-cell", "solution"]}),
        text("Because.", "solution"),
        text("**2 (open).** And then?", "exercise"),
        text("## Further reading\n\nOthers."),
    ]
    path = tmp_path / "99-made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert list(check_notebooks.problems_of_exercises(cells)) == []
    chapter = course_pack.Chapter(path)
    assert chapter.exercises == [("easy", "Ask."), ("open", "And then?")]
    students, solutions = (
        [cell.source for cell in made.cells] for made in (chapter.students_version(), chapter.solutions())
    )
    assert students == [
        "# T\n\n## Exercises", "**1 (easy).** Ask.", "# your answer", "**2 (open).** And then?", "# your answer",
        "## Further reading\n\nOthers.",
    ]  # fmt: skip
    assert solutions[1:] == [cell.source for cell in cells[1:-1]]


def test_projects_are_the_open_exercises(pack):
    text = (pack / "students/projects.md").read_text(encoding="utf-8")
    site = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
    headings = re.findall(rf"^## \[(\d\d) .+\]\({re.escape(site)}\1-[\w-]+\.html\)$", text, flags=re.M)
    assert headings == [chapter.number for chapter in CHAPTERS if chapter.levels["open"]]
    assert len(headings) > 10
    assert not re.search(r":$", text, flags=re.M)
    assert "(11 asks you to read a paper)" in text
    assert re.search(r"^Go through the checklist with a paper", text, flags=re.M)
    for target in re.findall(r"\]\(([\w/-]+\.ipynb)\)", text):
        assert (pack / "students" / target).exists(), target


def test_what_students_get_says_where_recipes_are(pack):
    """They are not in the pack."""
    paths = [*(pack / "students").rglob("*.ipynb"), *(pack / "students").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    linked = re.findall(rf"\[`(recipes/\w+\.py)`\]\({address()}/blob/main/\1\)", text)
    assert set(linked) == set(re.findall(r"recipes/\w+\.py", text))
    assert len(linked) >= 8
    assert all((ROOT / name).exists() for name in linked)


def test_what_students_get_says_how_to_install_it(pack):
    text = (pack / "students/README.md").read_text(encoding="utf-8")
    assert f'"kdft-lib[notebooks] @ git+{address()}"' in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in text
    for name in course_pack.LICENCES:
        assert (pack / "students" / name).read_bytes() == (ROOT / name).read_bytes()


def test_slides_are_listed_by_number(pack):
    text = (pack / "instructors/slides/index.html").read_text(encoding="utf-8")
    listed = re.findall(r'href="([\w-]+)\.html"[^>]*>(?:<[^>]+>)*(\d\d) ', text)
    assert listed == [(chapter.name, chapter.number) for chapter in CHAPTERS]


@by_name
def test_slides_show_each_figure_and_formula(pack, chapter):
    text = (pack / f"instructors/slides/{chapter.name}.html").read_text(encoding="utf-8")
    shown = [cell for cell in chapter.cells if cell.cell_type == "code" and check_notebooks.shows_figure(cell)]
    images = re.findall(r'<img alt="([^"]*)" src="([^"]+)"', text)
    assert len(images) == sum(
        bool({"image/png", "image/svg+xml"} & set(output.get("data", {}))) for cell in shown for output in cell.outputs
    )
    assert all(alt and (pack / "instructors/slides" / file).exists() for alt, file in images)
    formulas = len(re.findall(r"\$\$.+?\$\$", prose(chapter.path), flags=re.S))
    assert text.count('display="block"') == formulas
    assert 'class="notes"' in text


def test_slides_name_no_other_host(pack):
    """Links that a person may follow are none of these."""
    for path in (pack / "instructors/slides").rglob("*"):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            found = re.findall(r"""(?:src=|<link[^>]*href=|@import\s+|url\()["']?(?:https?:)?//[^\s"')]+""", text)
            assert not found, path.name


@pytest.mark.slow
def test_slides_fit_and_load_nothing_from_elsewhere(pack, chromium):
    said = []
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    page.on("console", lambda message: said.append(message.text))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
    for chapter in CHAPTERS:
        page.goto((pack / f"instructors/slides/{chapter.name}.html").as_uri())
        page.wait_for_function("Reveal.isReady()")
        sizes = page.evaluate(
            """Reveal.getSlides().map(slide => {
                const {h, v} = Reveal.getIndices(slide);
                Reveal.slide(h, v || 0);
                const small = [...slide.querySelectorAll("math, img")].filter(
                    each => each.getBoundingClientRect().width < 5);
                return [slide.scrollWidth, slide.scrollHeight, small.length];
            })"""
        )
        assert len(sizes) > 3
        assert [size for size in sizes if size[0] > 1280 or size[1] > 720 or size[2]] == [], chapter.name
    assert said == []


def wanted():
    return tomllib.loads((ROOT / "course/plan.toml").read_text(encoding="utf-8"))


def test_prerequisites_are_those_of_the_intros_map():
    needs = wanted()["needs"]
    alt = re.search(r":alt: (Dependencies of the chapters.*)", (BOOK / "intro.md").read_text(encoding="utf-8"))[1]
    for first, last, _, one, two in re.findall(
        r"(\d\d)(?: (?:to|and) (\d\d))?([a-z ]*) needs? (\d\d)(?: and (\d\d))?", alt
    ):
        for number in range(int(first), int(last or first) + 1):
            assert needs[f"{number:02}"] == [each for each in (one, two) if each], number
    for arrow in ("01-02", "02-03", "03-04", "04-05", "04-06", "02-07", "07-08", "08-09"):
        before, after = arrow.split("-")
        assert needs[after] == [before]
    assert {chapter.number for chapter in CHAPTERS} <= set(needs)


def test_courses_are_those_of_the_page_and_the_last_is_the_whole_book():
    courses = wanted()["courses"]
    assert [course_plan.length(course) for course in courses] == [4, 8, 12]
    for course in courses:
        numbers = [number for week in course["weeks"] for number in week]
        assert all(course["weeks"])
        assert not course["project_weeks"] or {"10", "11"} <= set(numbers)
    assert numbers == [chapter.number for chapter in CHAPTERS] == list(wanted()["needs"])


def planned(*weeks):
    """The table of a course without a project."""
    known = {chapter.number: chapter for chapter in CHAPTERS}
    return "\n".join(course_plan.timetable({"weeks": weeks, "project_weeks": 0}, known, wanted()))


@pytest.mark.parametrize(
    ("weeks", "said"),
    [([["01", "02"], ["04", "03"]], "04 needs 03"), ([["01", "02"], ["07", "08"], ["10"]], "10 needs 04")],
)
def test_a_course_that_cannot_be_taught_is_an_error(weeks, said):
    with pytest.raises(
        ValueError, match=rf"^plan.toml: the course of {len(weeks)} weeks is out of order: {said}; put first"
    ):
        planned(*weeks)


def test_the_assignment_counts_in_the_week_in_which_it_is_due():
    table = planned(*wanted()["courses"][0]["weeks"])
    rows = re.findall(r"^\| \d .*$", table, flags=re.M)
    assert ["assignment out" in row for row in rows] == [False, True, False, False]
    assert ["assignment due (2.0 h)" in row for row in rows] == [False, False, True, False]
    weeks = [float(row.split("|")[-2].split()[0]) for row in rows]
    assert weeks[2] > weeks[1] + 1
    assert sum(weeks) == pytest.approx(float(re.search(r"In all ([\d.]+) h", table)[1]), abs=0.2)
    last = planned(["01", "02"], ["03", "04"]).splitlines()[5]
    assert "assignment out; assignment due" in last
    without = planned(["01", "02"], ["03"])
    assert "The assignment needs 04, which this course leaves out." in without
    assert "assignment due" not in without


def test_a_project_is_chosen_when_everything_is_read(pack):
    text = (pack / "instructors/plan.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\d+) .*project chosen", text, flags=re.M) == ["7", "10"]
    assert re.findall(r"^\| (\d+) \| project .*\| 7\.5 h \|$", text, flags=re.M) == ["8", "11", "12"]
    assert text.count("There is no project; `projects.md` and `rubric.md` are for courses that have one.") == 1


def test_times_are_those_of_the_chapters(pack):
    text = (pack / "instructors/plan.md").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        (row,) = re.findall(
            rf"^\| {chapter.number} [^|]+\| ([\d, ]+|PyTorch) \| ([\d,]+) \| (\d+) \|.*$", text, flags=re.M
        )
        written = sum(len(source.split()) for source in re.split(r"\n+", prose(chapter.path)))
        assert 0.8 * written < int(row[1].replace(",", "")) <= written
        assert f"| {chapter.seconds:.0f} s |" in text
    minutes = Counter(easy=2, medium=1, open=1)  # which counts as a project
    fake = type("Fake", (), {"words": 1000, "lines": 50, "seconds": 120.0, "levels": minutes})
    assert course_plan.minutes(fake, wanted()) == 10 + 5 + 2 + 60


def test_the_assignment_installs_from_where_the_book_is():
    assert f'%pip install -q "kdft-lib[notebooks] @ git+{address()}"' in course_pack.assignment().cells[1].source


def test_what_students_get_has_no_answers_and_no_hidden_checks(pack):
    released = "\n".join(sources(pack / "students/vowels.ipynb"))
    assert "HIDDEN" not in released
    assert "SOLUTION" not in released
    assert released.count("raise NotImplementedError()") == 6
    assert "log_softmax" not in released
    assert sources(pack / "instructors/assignment/source/vowels/vowels.ipynb") == [
        cell.source for cell in course_pack.assignment().cells
    ]


def points():
    cells = [cell.metadata["nbgrader"] for cell in course_pack.assignment().cells if "nbgrader" in cell.metadata]
    return {cell["grade_id"]: cell["points"] for cell in cells if cell["grade"]}


EXPERIMENT = {"compare-fair", "compare-inputs", "compare-conclusions"}
UNPAIRED = """
    from scipy import stats

    gap = stats.ttest_ind(scores, reference).confidence_interval(0.95)
    if gap.low > 0:
        return "better"
    return "worse" if gap.high < 0 else "open"
"""
UNEQUAL = """
methods = {"labels": grid(base, lr=RATES), "SVM": [Classical(SVC())]}
transfer = base.but(objective=SoftTargets(teacher), transfer_data="transfer")
methods |= {"soft targets": [transfer], "soft targets, more inputs": [transfer]}
result = compare(methods, utterances, seeds=range(5), reference="labels", progress=False)
conclusions = {"soft targets": "better", "soft targets, more inputs": "worse"}
"""
BORROWED = """
    return soft_target_loss(student_logits, teacher_logits.detach(), temperature)
"""
OTHERS = {
    "slipped_in_three_parts": (
        {
            "loss": ("temperature**2 * ", ""),
            "loop": (
                "    for _ in range(steps):\n",
                "    for _ in range(steps):\n        teacher.train(student.training)\n",
            ),
            "choose": ("return test[means.index(max(means))]", "return max(test, key=sum)"),
            "compare": ("SoftTargets(teacher)", "SoftTargets(teacher, temperature=1.0, kd_weight=0.5, ce_weight=0.5)"),
        },
        {"compare-fair", "loss-temperature", "loop-teacher", "loop-modes", "choose-check"},
    ),
    "turned_the_divergence_and_compared_unequals": (
        {
            "loss": ("log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)"),
            "verdict": (re.compile(r"    ### BEGIN.*END SOLUTION", re.S), UNPAIRED),
            "compare": (re.compile(r".*", re.S), UNEQUAL),
        },
        EXPERIMENT | {"loss-value", "loss-temperature", "loss-shape", "verdict-check"},
    ),
    "called_the_library_and_spoiled_the_svm": (
        {
            "loss": (re.compile(r"    ### BEGIN.*END SOLUTION", re.S), BORROWED),
            "compare": ("result = ", 'methods["SVM"] = [Classical(SVC(C=1e-6))]\nresult = '),
        },
        {"loss-value", "loss-temperature", "loss-shape", "loss-gradient", "compare-fair"},
    ),
    "right_in_other_words": (
        {"compare": ("base.but(objective=SoftTargets(teacher))", "base.taught_by(teacher, SoftTargets)")},
        set(),
    ),
}
"""What each changes in the right answer, and the checks that must fail: one part's answer moves no other's checks."""


def answered(changes):
    """The right answers; where some are replaced, without checks."""
    made = course_pack.assignment()
    for cell in made.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in changes:
            old, new = changes[name]
            old = old if isinstance(old, re.Pattern) else re.compile(re.escape(old))
            changed = old.sub(new.replace("\\", r"\\"), cell.source, count=1)
            assert changed != cell.source, name
            cell.source = changed
        if changes and cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "pass"
    return made


def nbgrader(*command, folder):
    """In this process, since nbgrader takes long to load; the pack's own call is a program's."""
    from jupyter_core.application import NoStart
    from nbgrader.apps import NbGraderApp

    application = NbGraderApp.instance()
    try:
        quiet = warnings.catch_warnings(action="ignore")  # of SQLAlchemy, about nbgrader
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder), contextlib.suppress(NoStart), quiet:
            patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
            application.initialize(list(command))
            application.start()
    finally:
        application.reset()


@pytest.fixture(scope="module")
def graded(pack, kernels, tmp_path_factory):
    """For each student, the points of each check, by the commands on the page for instructors."""
    from nbgrader.api import Gradebook

    folder = tmp_path_factory.mktemp("course") / "assignment"
    shutil.copytree(pack / "instructors/assignment", folder)
    source = folder / "source/vowels/vowels.ipynb"
    shortened, places = re.subn(r"steps=100\b", "steps=20", source.read_text(encoding="utf-8"))
    assert places == 2, "the experiment's steps are given once and checked once"
    shortened, places = re.subn(r"steps=300\b", "steps=100", shortened)
    assert places == 1, "the teacher's steps are given"
    source.write_text(shortened, encoding="utf-8")
    page = (BOOK / "for-instructors.md").read_text(encoding="utf-8")
    first, *others = [line.split()[1:] for line in re.findall(r"^nbgrader .*$", page, flags=re.M)]
    assert [first[0], *(command[0] for command in others)] == [
        "generate_assignment", "autograde", "generate_feedback", "export"
    ]  # fmt: skip
    nbgrader(*first, folder=folder)
    submissions = {"right": answered({})}
    for name, (changes, _) in OTHERS.items():
        submissions[name] = answered(changes)
    for name, notebook in submissions.items():
        (folder / f"submitted/{name}/vowels").mkdir(parents=True)
        nbformat.write(notebook, folder / f"submitted/{name}/vowels/vowels.ipynb")
    (folder / "submitted/nothing/vowels").mkdir(parents=True)
    shutil.copy(folder / "release/vowels/vowels.ipynb", folder / "submitted/nothing/vowels")
    for command in others:
        nbgrader(*command, folder=folder)
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as gradebook:
        scores = {
            student: {
                grade.name: grade.score
                for grade in gradebook.find_submission_notebook("vowels", "vowels", student).grades
            }
            for student in (*submissions, "nothing")
        }
    return folder, scores


@pytest.mark.slow
def test_the_right_answer_gets_all_points_and_an_empty_one_none(graded):
    _, scores = graded
    assert scores["right"] == points()
    assert sum(points().values()) == 15
    assert set(scores["nothing"].values()) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("student", OTHERS)
def test_another_answer_loses_the_points_that_it_should(graded, student):
    _, scores = graded
    _, failing = OTHERS[student]
    assert scores[student] == {name: 0 if name in failing else worth for name, worth in points().items()}


@pytest.mark.slow
def test_points_are_exported_and_feedback_is_written(graded):
    folder, scores = graded
    with (folder / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == {student: sum(each.values()) for student, each in scores.items()}
    assert sorted(path.parts[-3] for path in folder.glob("feedback/*/vowels/vowels.html")) == sorted(scores)


@pytest.mark.slow
def test_feedback_says_what_was_wrong_and_quotes_no_hidden_test(graded):
    folder, scores = graded
    whole = "\n".join(cell.source for cell in course_pack.assignment().cells)
    part = r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS"
    shown = re.sub(part, "", whole, flags=re.S)
    lines = {line.strip() for found in re.findall(part, whole, flags=re.S) for line in found.splitlines()}
    hidden = {line for line in lines if line not in shown}
    assert len(hidden) > 30
    pages = {
        student: html.unescape(
            re.sub(r"<[^>]+>", "", (folder / f"feedback/{student}/vowels/vowels.html").read_text(encoding="utf-8"))
        )
        for student in scores
    }
    for student, page in pages.items():
        assert [line for line in hidden if line in page] == [], student
        assert "HIDDEN" not in page
    assert "temperature 0.5: Scalars are not close!" in pages["slipped_in_three_parts"]
    assert "AssertionError: the teacher answers in training mode" in pages["slipped_in_three_parts"]
    assert (
        "AssertionError: it calls kdft_lib; write it with torch alone"
        in pages["called_the_library_and_spoiled_the_svm"]
    )
    assert "AssertionError: soft targets: another objective" in pages["slipped_in_three_parts"]
    assert "SVM: other settings than the given ones" in pages["called_the_library_and_spoiled_the_svm"]


def test_each_check_says_what_it_found():
    for cell in course_pack.assignment().cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            asserts = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Assert)]
            assert all(node.msg for node in asserts), cell.source


def test_the_page_and_the_packs_own_name_what_is_there(pack):
    page = (BOOK / "for-instructors.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| in `(\w+)` \| what it is \|\n(.*?)\n\n", page, flags=re.M | re.S)
    assert [part for part, _ in tables] == ["students", "instructors"]
    for part, rows in tables:
        assert set(re.findall(r"`([\w.-]+)`", "".join(re.findall(r"^\| (.+?) \|", rows, flags=re.M)))) == {
            path.name for path in (pack / part).iterdir()
        }
    text = (pack / "README.md").read_text(encoding="utf-8")
    for part, listed in re.findall(r"^`(\w+)/`.*?\n\n(.*?)\n\n", text, flags=re.M | re.S):
        names = re.findall(r"`([\w./-]+)`", "".join(re.findall(r"^- (.+?):", listed, flags=re.M)))
        assert {name.strip("/") for name in names} == {path.name for path in (pack / part).iterdir()}


def test_the_pack_says_nothing_of_the_machine_that_made_it(pack):
    places = (str(ROOT), str(Path.home()), "/tmp/")
    for path in pack.rglob("*"):
        if path.suffix in (".ipynb", ".md", ".html", ".py"):
            assert not any(place in path.read_text(encoding="utf-8") for place in places), path
