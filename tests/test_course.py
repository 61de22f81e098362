"""The course pack: what students get and what they do not, slides, plans, and the autograder at work."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
import tomllib
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from test_book import BOOK, ROOT, address, prose

sys.path.insert(0, str(ROOT / "tools"))

import course_pack
import course_plan
import find_browser
from check_notebooks import shows_figure

CHAPTERS = course_pack.chapters()
by_name = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    course_pack.write(folder, CHAPTERS)
    return folder


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def exercises_of(chapter):
    """The section as it stands in the book, and its folded cells, found without the builder."""
    cells = chapter.cells
    begin = next(i for i, cell in enumerate(cells) if re.search(r"^## Exercises$", cell.source, flags=re.M))
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
    assert len(folded) >= 3
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
    kept = [cell.source for cell in chapter.cells if cell.cell_type == "code" and cell.source not in folded]
    empty = [cell.source for cell in code if cell.source == "# your answer"]
    assert [cell.source for cell in code if cell.source != "# your answer"] == kept
    assert len(empty) == len(chapter.exercises) == len(re.findall(r"^\*\*\d+ \(", prose(chapter.path), flags=re.M))
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "{cite}" not in text
    assert "{doc}" not in text
    assert address().split("github.com")[1] + "/blob/main/book/" + chapter.path.name not in text
    for target in re.findall(r"\]\(([\w-]+\.ipynb)\)", text):
        assert (pack / "students/chapters" / target).exists(), target


def made_of(tmp_path, *cells):
    path = tmp_path / "99-made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=list(cells)), path)
    return course_pack.Chapter(path)


def test_an_announcement_of_folded_code_goes_with_it(tmp_path):
    folded = nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["hide-cell"]})
    chapter = made_of(
        tmp_path,
        nbformat.v4.new_markdown_cell("# T\n\n## Exercises\n\n**1 (easy).** Ask. One seed as a start:"),
        folded,
        nbformat.v4.new_markdown_cell("Because.\n\n**2 (open).** And then?\n\n## Further reading\n\nOthers."),
    )
    students, solutions = ([cell.source for cell in part] for part in chapter.parts)
    assert students == [
        "# T", "## Exercises", "**1 (easy).** Ask.", "# your answer", "**2 (open).** And then?", "# your answer",
        "## Further reading\n\nOthers.",
    ]  # fmt: skip
    assert solutions == ["**1 (easy).** Ask. One seed as a start:", "x = 1", "Because.", "**2 (open).** And then?"]


def test_a_solution_that_is_not_folded_is_an_error(tmp_path):
    chapter = made_of(
        tmp_path,
        nbformat.v4.new_markdown_cell("## Exercises\n\n**1 (easy).** Ask."),
        nbformat.v4.new_code_cell("x = 1"),
    )
    with pytest.raises(ValueError, match=r"99-made\.ipynb: code among the exercises has no tag hide-cell: x = 1"):
        _ = chapter.parts


def test_projects_are_the_open_exercises(pack):
    text = (pack / "students/projects.md").read_text(encoding="utf-8")
    assert text.count("\n## ") == sum(bool(chapter.levels["open"]) for chapter in CHAPTERS) > 10
    assert not re.search(r":$", text, flags=re.M)
    for target in re.findall(r"\]\(([\w/-]+\.ipynb)\)", text):
        assert (pack / "students" / target).exists(), target


@by_name
def test_slides_show_each_figure_and_formula(pack, chapter):
    html = (pack / f"instructors/slides/{chapter.name}.html").read_text(encoding="utf-8")
    shown = [cell for cell in chapter.parts[0] if cell.cell_type == "code" and shows_figure(cell)]
    images = re.findall(r'<img alt="([^"]*)" src="([^"]+)"', html)
    assert len(images) == sum(
        bool({"image/png", "image/svg+xml"} & set(output.get("data", {}))) for cell in shown for output in cell.outputs
    )
    assert all(alt and (pack / "instructors/slides" / file).exists() for alt, file in images)
    formulas = len(re.findall(r"\$\$.+?\$\$", prose(chapter.path), flags=re.S))
    assert html.count('display="block"') == formulas
    assert 'class="notes"' in html


def test_slides_name_no_other_host(pack):
    """Links that a person may follow are none of these."""
    for path in (pack / "instructors/slides").rglob("*"):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            found = re.findall(r"""(?:src=|<link[^>]*href=|@import\s+|url\()["']?(?:https?:)?//[^\s"')]+""", text)
            assert not found, path.name


def test_slides_fit_and_load_nothing_from_elsewhere(pack):
    from playwright.sync_api import sync_playwright

    chromium = find_browser.find()
    if chromium is None and not os.environ.get("CI"):
        pytest.skip(find_browser.ABSENT)
    said = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
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
        browser.close()
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


def test_plans_keep_the_order_and_use_every_week():
    for planned, weeks in course_plan.courses(CHAPTERS, wanted()):
        numbers = [chapter.number for week in weeks for chapter in week]
        assert course_plan.missing(numbers, wanted()["needs"]) == []
        assert all(weeks)
        assert len(weeks) + planned["project_weeks"] == planned["weeks"]
    assert [planned["weeks"] for planned in wanted()["courses"]] == [4, 8, 12]
    assert numbers == [chapter.number for chapter in CHAPTERS]


def test_a_plan_out_of_order_is_an_error():
    changed = wanted()
    changed["courses"] = [{"weeks": 1, "project_weeks": 0, "chapters": ["01", "02", "04"]}]
    with pytest.raises(ValueError, match="the course of 1 weeks is out of order: 04 needs 03"):
        course_plan.courses(CHAPTERS, changed)


def test_the_fullest_week_is_as_light_as_can_be():
    assert course_plan.spread([3, 1, 1, 3], 2) == [range(2), range(2, 4)]
    assert course_plan.spread([1, 1, 1, 5], 3) == [range(1), range(1, 3), range(3, 4)]
    with pytest.raises(ValueError, match="2 chapters cannot fill 3 weeks"):
        course_plan.spread([1, 1], 3)


def test_times_are_those_of_the_chapters(pack):
    text = (pack / "instructors/plan.md").read_text(encoding="utf-8")
    for chapter in CHAPTERS:
        (row,) = re.findall(
            rf"^\| {chapter.number} [^|]+\| ([\d, ]+|PyTorch) \| ([\d,]+) \| (\d+) \|.*$", text, flags=re.M
        )
        written = sum(len(source.split()) for source in re.split(r"\n+", prose(chapter.path)))
        assert 0.8 * written < int(row[1].replace(",", "")) <= written
        assert f"| {chapter.seconds:.0f} s |" in text
    minutes = Counter(easy=2, medium=1)
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
methods = {"labels": tuned(base), "SVM": [Classical(SVC())]}
transfer = base.but(objective=SoftTargets(teacher), transfer_data=lambda splits: splits.transfer)
methods |= {"soft targets": [transfer], "soft targets, more inputs": [transfer]}
result = compare(methods, utterances, seeds=range(5), reference="labels", progress=False)
conclusions = {"soft targets": "better", "soft targets, more inputs": "worse"}
"""
WRONG = {
    "forgot_the_factor": ({"loss": ("temperature**2 * ", "")}, EXPERIMENT | {"loss-temperature"}),
    "turned_the_divergence": (
        {"loss": ("log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)")},
        EXPERIMENT | {"loss-value", "loss-temperature", "loss-shape"},
    ),
    "left_the_teacher_training": (
        {
            "loop": (
                "    for _ in range(steps):\n",
                "    for _ in range(steps):\n        teacher.train(student.training)\n",
            )
        },
        EXPERIMENT | {"loop-teacher", "loop-modes"},
    ),
    "chose_on_test": (
        {
            "choose": ("return test[means.index(max(means))]", "return max(test, key=sum)"),
            "verdict": (re.compile(r"    ### BEGIN.*END SOLUTION", re.S), UNPAIRED),
        },
        EXPERIMENT | {"choose-check", "verdict-check"},
    ),
    "tuned_unequally": ({"compare": (re.compile(r"methods = .*", re.S), UNEQUAL)}, EXPERIMENT),
}
"""What each changes in the right answer, and the checks that must fail; all but the last leave the experiment out."""


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


@pytest.fixture(scope="module")
def graded(pack, tmp_path_factory):
    """For each student, the points of each check, by the commands on the page for instructors."""
    from nbgrader.api import Gradebook

    folder = tmp_path_factory.mktemp("course") / "assignment"
    shutil.copytree(pack / "instructors/assignment", folder)
    page = (BOOK / "for-instructors.md").read_text(encoding="utf-8")
    first, *others = [line.split()[1:] for line in re.findall(r"^nbgrader .*$", page, flags=re.M)]
    assert [first[0], *(command[0] for command in others)] == [
        "generate_assignment", "autograde", "generate_feedback", "export"
    ]  # fmt: skip
    course_pack.nbgrader(*first, folder=folder)
    left_out = {"compare": (re.compile(r".*", re.S), "raise NotImplementedError()")}
    submissions = {"right": answered({})}
    for name, (changes, _) in WRONG.items():
        submissions[name] = answered(changes if name == "tuned_unequally" else changes | left_out)
    for name, notebook in submissions.items():
        (folder / f"submitted/{name}/vowels").mkdir(parents=True)
        nbformat.write(notebook, folder / f"submitted/{name}/vowels/vowels.ipynb")
    (folder / "submitted/nothing/vowels").mkdir(parents=True)
    shutil.copy(folder / "release/vowels/vowels.ipynb", folder / "submitted/nothing/vowels")
    for command in others:
        course_pack.nbgrader(*command, folder=folder)
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
@pytest.mark.parametrize("student", WRONG)
def test_a_wrong_answer_loses_the_points_that_it_should(graded, student):
    _, scores = graded
    _, failing = WRONG[student]
    assert scores[student] == {name: 0 if name in failing else worth for name, worth in points().items()}


@pytest.mark.slow
def test_points_are_exported_and_feedback_is_written(graded):
    folder, scores = graded
    with (folder / "grades.csv").open(encoding="utf-8") as file:
        rows = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == {student: sum(each.values()) for student, each in scores.items()}
    assert sorted(path.parts[-3] for path in folder.glob("feedback/*/vowels/vowels.html")) == sorted(scores)


def test_the_page_and_the_packs_own_name_what_is_there(pack):
    page = (BOOK / "for-instructors.md").read_text(encoding="utf-8")
    tables = re.findall(r"^\| in `(\w+)` \| what it is \|\n(.*?)\n\n", page, flags=re.M | re.S)
    assert [part for part, _ in tables] == ["students", "instructors"]
    for part, rows in tables:
        assert set(re.findall(r"^\| `([\w.]+)` \|", rows, flags=re.M)) == {
            path.name for path in (pack / part).iterdir()
        }
    text = (pack / "README.md").read_text(encoding="utf-8")
    for part, listed in re.findall(r"^`(\w+)/`.*?\n\n(.*?)\n\n", text, flags=re.M | re.S):
        names = re.findall(r"^- `([\w./-]+)`", listed, flags=re.M)
        assert {name.strip("/") for name in names} == {path.name for path in (pack / part).iterdir()}


def test_the_pack_says_nothing_of_the_machine_that_made_it(pack):
    places = (str(ROOT), str(Path.home()), "/tmp/")
    for path in pack.rglob("*"):
        if path.suffix in (".ipynb", ".md", ".html", ".py"):
            assert not any(place in path.read_text(encoding="utf-8") for place in places), path
