"""The plan of a course: which chapters in which week, and how long they take."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
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


def reading(chapter: Chapter, wanted: dict[str, Any]) -> float:
    return chapter.words / wanted["pace"]["words"] + chapter.lines / wanted["pace"]["lines"]


def exercising(chapter: Chapter, wanted: dict[str, Any]) -> int:
    """Open exercises count where a project takes one up."""
    return sum(chapter.levels[level] * spent for level, spent in wanted["minutes"].items())


def minutes(chapter: Chapter, wanted: dict[str, Any]) -> float:
    """To read, to run and to solve."""
    return reading(chapter, wanted) + chapter.seconds / 60 + exercising(chapter, wanted)


def missing(chosen: Sequence[str], needs: dict[str, list[str]]) -> list[str]:
    """Chapters that come without, or before, one that they need."""
    return [
        f"{number} needs {need}"
        for place, number in enumerate(chosen)
        for need in needs[number]
        if need not in chosen[:place]
    ]


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def hours(spent: float) -> str:
    return f"{spent / 60:.1f} h"


def length(course: dict[str, Any]) -> int:
    """In weeks."""
    return len(course["weeks"]) + course["project_weeks"]


def first_week(weeks: Sequence[Sequence[Chapter]], needs: Sequence[str]) -> int | None:
    """The first week after which all that is needed has been read."""
    read: set[str] = set()
    for number, week in enumerate(weeks, 1):
        read |= {chapter.number for chapter in week}
        if set(needs) <= read:
            return number
    return None


def timetable(course: dict[str, Any], known: Mapping[str, Chapter], wanted: dict[str, Any]) -> list[str]:
    """The table of one course."""
    weeks = [[known[number] for number in week] for week in course["weeks"]]
    last, assignment = length(course), wanted["assignment"]
    if unmet := missing([each.number for week in weeks for each in week], wanted["needs"]):
        raise ValueError(
            f"plan.toml: the course of {last} weeks is out of order: {'; '.join(unmet)}; put first what others need"
        )
    handed_out = first_week(weeks, assignment["needs"])
    due = min(handed_out + 1, last) if handed_out else None
    lines = [f"## {last} weeks", "", "| week | chapters | reading | running | exercises | also | in all |"]
    lines += ["|---|---|---|---|---|---|---|"]
    total = 0.0
    for number in range(1, last + 1):
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
            also += ["project shown, and graded by the rubric"] * (number == last)
        names = ", ".join(f"{each.number} {each.title.split(':')[0]}" for each in week)
        counts = f"{hours(read)} | {run:.0f} min | {hours(solve)}" if week else " | | "
        lines.append(f"| {number} | {names or 'project'} | {counts} | {'; '.join(also)} | {hours(spent)} |")
        total += spent
    lines += ["", f"In all {hours(total)} of a student's time, {hours(total / last)} a week."]
    if not due:
        lines += [f"The assignment needs {', '.join(assignment['needs'])}, which this course leaves out."]
    if not course["project_weeks"]:
        lines += ["There is no project; `projects.md` and `rubric.md` are for courses that have one."]
    return lines


def plan(chapters: Sequence[Chapter], path: Path) -> str:
    """All courses, and what they were computed from."""
    wanted = tomllib.loads(path.read_text(encoding="utf-8"))
    known = {chapter.number: chapter for chapter in chapters}
    pace = wanted["pace"]
    paces = listed([f"{spent} minutes for one marked {level}" for level, spent in wanted["minutes"].items()])
    lines = [
        f"# A plan for {listed([str(length(course)) for course in wanted['courses']])} weeks",
        "",
        "Words, lines of code and seconds are counted in the chapters as they are stored. A student is taken to read"
        f" {pace['words']} words or {pace['lines']} lines of code a minute, and to need, for an exercise, {paces}.",
        "",
        "Open exercises are where projects begin. They count there, a week of a project as"
        f" {hours(wanted['project']['minutes'])}, and may be left out otherwise. The assignment counts in the week in"
        " which it is due.",
    ]
    for course in wanted["courses"]:
        lines += ["", *timetable(course, known, wanted)]
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
