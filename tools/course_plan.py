"""The plan of a course: which chapters in which week, and how long they take."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Protocol


class Chapter(Protocol):
    """What a plan needs to know of a chapter."""

    @property
    def number(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def words(self) -> int: ...

    @property
    def lines(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def levels(self) -> Mapping[str, int]: ...


def positive(value: object) -> bool:
    """a positive number"""
    return isinstance(value, int | float) and value > 0


def whole(value: object) -> bool:
    """a whole number, 0 or more"""
    return isinstance(value, int) and value >= 0


def numbers(value: object) -> bool:
    """a list of chapters such as ["01", "02"]"""
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def numbers_or_all(value: object) -> bool:
    """a list of chapters such as ["01", "02"] ("all" for the whole book)"""
    return value == "all" or numbers(value)


FORMS: dict[str, dict[str, Callable[[object], bool]]] = {
    "pace": {"words": positive, "lines": positive},
    "minutes": {"easy": positive, "medium": positive},
    "assignment": {"needs": numbers, "minutes": positive},
    "project": {"needs": numbers, "minutes": positive},
    "courses": {"weeks": whole, "project_weeks": whole, "chapters": numbers_or_all},
}


def read(path: Path) -> dict[str, Any]:
    """What is wanted, each entry of the form that the plans need."""
    wanted = tomllib.loads(path.read_text(encoding="utf-8"))
    for table, forms in FORMS.items():
        entries = wanted.get(table)
        for entry in entries if entries and isinstance(entries, list) else [entries]:
            for key, form in forms.items():
                value = entry.get(key) if isinstance(entry, dict) else None
                if not form(value):
                    given = "missing" if value is None else repr(value)
                    raise ValueError(f"{key} of {table} is {given}; make it {form.__doc__}")
    return wanted


def reading(chapter: Chapter, wanted: dict[str, Any]) -> float:
    return chapter.words / wanted["pace"]["words"] + chapter.lines / wanted["pace"]["lines"]


def exercising(chapter: Chapter, wanted: dict[str, Any]) -> int:
    """Open exercises count where a project takes one up."""
    return sum(chapter.levels[level] * spent for level, spent in wanted["minutes"].items())


def minutes(chapter: Chapter, wanted: dict[str, Any]) -> float:
    """To read, to run and to solve."""
    return reading(chapter, wanted) + chapter.seconds / 60 + exercising(chapter, wanted)


def spread(loads: Sequence[float], weeks: int) -> list[range]:
    """Consecutive chapters for each week, so that the fullest week is as light as can be, and then the next."""
    ways = ([0, *cuts, len(loads)] for cuts in combinations(range(1, len(loads)), weeks - 1))
    best = min(ways, key=lambda way: sorted((sum(loads[a:b]) for a, b in pairwise(way)), reverse=True))
    return [range(a, b) for a, b in pairwise(best)]


def missing(chosen: Sequence[str], needs: dict[str, list[str]]) -> list[str]:
    """Chapters that come without, or before, one that they need."""
    return [
        f"{number} needs {need}"
        for place, number in enumerate(chosen)
        for need in needs[number]
        if need not in chosen[:place]
    ]


def check(course: dict[str, Any], chosen: Sequence[str], wanted: dict[str, Any]) -> None:
    """Raise a ValueError where a course cannot be taught as it stands in plan.toml."""
    named = f"the course of {course['weeks']} weeks"
    for number in chosen:
        if number not in wanted["needs"]:
            raise ValueError(f"{named} names {number!r}; choose from {', '.join(wanted['needs'])}")
        if chosen.count(number) > 1:
            raise ValueError(f"{named} names {number} {chosen.count(number)} times; keep one")
    if unmet := missing(chosen, wanted["needs"]):
        raise ValueError(f"{named} is out of order: {'; '.join(unmet)}; list first what others need")
    left = course["weeks"] - course["project_weeks"]
    if not 1 <= left <= len(chosen):
        raise ValueError(
            f"{named} has {len(chosen)} chapters for {left} weeks before the project; "
            "change weeks, project_weeks or chapters, so that each of these weeks has a chapter"
        )
    unread = [number for number in wanted["project"]["needs"] if number not in chosen]
    if course["project_weeks"] and unread:
        raise ValueError(
            f"{named} ends in a project, which needs {listed(unread)}; "
            "add what is needed to its chapters, or set project_weeks to 0"
        )


def courses(chapters: Sequence[Chapter], wanted: dict[str, Any]) -> list[tuple[dict[str, Any], list[list[Chapter]]]]:
    """Each course, and the chapters of each of its weeks but those of the project."""
    known = {chapter.number: chapter for chapter in chapters}
    if odd := known.keys() ^ wanted.get("needs", {}).keys():
        raise ValueError(f"[needs] and the book's chapters differ in {listed(sorted(odd))}; give each chapter one line")
    made = []
    for course in wanted["courses"]:
        chosen = list(known) if course["chapters"] == "all" else course["chapters"]
        check(course, chosen, wanted)
        loads = [minutes(known[number], wanted) for number in chosen]
        weeks = spread(loads, course["weeks"] - course["project_weeks"])
        made.append((course, [[known[chosen[place]] for place in week] for week in weeks]))
    return made


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def hours(spent: float) -> str:
    return f"{spent / 60:.1f} h"


def first_week(weeks: Sequence[Sequence[Chapter]], needs: Sequence[str]) -> int | None:
    """The first week after which all that is needed has been read."""
    read: set[str] = set()
    for number, week in enumerate(weeks, 1):
        read |= {chapter.number for chapter in week}
        if set(needs) <= read:
            return number
    return None


def timetable(course: dict[str, Any], weeks: Sequence[Sequence[Chapter]], wanted: dict[str, Any]) -> list[str]:
    """The table of one course."""
    assignment = wanted["assignment"]
    handed_out = first_week(weeks, assignment["needs"])
    due = min(handed_out + 1, course["weeks"]) if handed_out else None
    lines = [f"## {course['weeks']} weeks", "", "| week | chapters | reading | running | exercises | also | in all |"]
    lines += ["|---|---|---|---|---|---|---|"]
    total = 0.0
    for number in range(1, course["weeks"] + 1):
        week = weeks[number - 1] if number <= len(weeks) else []
        read, solve = (sum(count(each, wanted) for each in week) for count in (reading, exercising))
        run = sum(each.seconds for each in week) / 60
        spent, also = read + run + solve, []
        if number == handed_out:
            also.append("assignment out")
        if number == due:
            spent += assignment["minutes"]
            also.append(f"assignment due ({hours(assignment['minutes'])})")
        if course["project_weeks"] and number == len(weeks):
            also.append("project chosen")
        if not week:
            spent += wanted["project"]["minutes"]
            also += ["project shown, and graded by the rubric"] * (number == course["weeks"])
        names = ", ".join(f"{each.number} {each.title.split(':')[0]}" for each in week)
        counts = f"{hours(read)} | {run:.0f} min | {hours(solve)}" if week else " | | "
        lines.append(f"| {number} | {names or 'project'} | {counts} | {'; '.join(also)} | {hours(spent)} |")
        total += spent
    lines += ["", f"In all {hours(total)} of a student's time, {hours(total / course['weeks'])} a week."]
    if not due:
        lines += [f"The assignment needs {', '.join(assignment['needs'])}, which this course leaves out."]
    if not course["project_weeks"]:
        lines += ["There is no project; `projects.md` and `rubric.md` are for courses that have one."]
    return lines


def plan(chapters: Sequence[Chapter], path: Path) -> str:
    """All courses, and what they were computed from."""
    try:
        wanted = read(path)
        made = courses(chapters, wanted)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    pace = wanted["pace"]
    paces = listed([f"{spent} minutes for one marked {level}" for level, spent in wanted["minutes"].items()])
    lines = [
        f"# A plan for {listed([str(course['weeks']) for course, _ in made])} weeks",
        "",
        "Words, lines of code and seconds are counted in the chapters as they are stored. A student is taken to read"
        f" {pace['words']} words or {pace['lines']} lines of code a minute, and to need, for an exercise, {paces}."
        " Chapters are spread so that the fullest week is as light as their order allows, the assignment aside.",
        "",
        "Open exercises are where projects begin. They count there, a week of a project as"
        f" {hours(wanted['project']['minutes'])}, and may be left out otherwise. The assignment counts in the week in"
        " which it is due.",
    ]
    for course, weeks in made:
        lines += ["", *timetable(course, weeks, wanted)]
    lines += ["", "## Each chapter", ""]
    lines += ["| chapter | needs | words | lines of code | reading | running | exercises | in all |", "|" + "---|" * 8]
    for each in chapters:
        needs = ", ".join(wanted["needs"][each.number]) or "PyTorch"
        levels = ", ".join(f"{count} {level}" for level, count in each.levels.items())
        lines.append(
            f"| {each.number} {each.title.split(':')[0]} | {needs} | {each.words:,} | {each.lines} |"
            f" {reading(each, wanted):.0f} min | {each.seconds:.0f} s | {levels} | {hours(minutes(each, wanted))} |"
        )
    return "\n".join(lines) + "\n"
