"""The plan of a course: which chapters in which week, and how long they take."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Protocol


class Chapter(Protocol):
    """What a plan needs to know of a chapter."""

    number: str
    title: str
    words: int
    lines: int
    seconds: float
    levels: Any


def reading(chapter: Chapter, wanted: dict[str, Any]) -> float:
    return chapter.words / wanted["pace"]["words"] + chapter.lines / wanted["pace"]["lines"]


def exercising(chapter: Chapter, wanted: dict[str, Any]) -> int:
    return sum(count * wanted["minutes"][level] for level, count in chapter.levels.items())


def minutes(chapter: Chapter, wanted: dict[str, Any]) -> float:
    """To read, to run and to solve."""
    return reading(chapter, wanted) + chapter.seconds / 60 + exercising(chapter, wanted)


def spread(loads: Sequence[float], weeks: int) -> list[range]:
    """Consecutive chapters for each week, so that the fullest week is as light as can be, and then the next."""
    if not 1 <= weeks <= len(loads):
        raise ValueError(f"{len(loads)} chapters cannot fill {weeks} weeks")
    ways = ([0, *cuts, len(loads)] for cuts in combinations(range(1, len(loads)), weeks - 1))
    best = min(ways, key=lambda way: sorted((sum(loads[a:b]) for a, b in pairwise(way)), reverse=True))
    return [range(a, b) for a, b in pairwise(best)]


def missing(numbers: Sequence[str], needs: dict[str, list[str]]) -> list[str]:
    """Chapters that come without, or before, one that they need."""
    return [
        f"{number} needs {need}"
        for place, number in enumerate(numbers)
        for need in needs[number]
        if need not in numbers[:place]
    ]


def courses(chapters: Sequence[Chapter], wanted: dict[str, Any]) -> list[tuple[dict[str, Any], list[list[Chapter]]]]:
    """Each course, and the chapters of each of its weeks but those of the project."""
    made = []
    for course in wanted["courses"]:
        chosen = [each for each in chapters if course["chapters"] == "all" or each.number in course["chapters"]]
        if unmet := missing([each.number for each in chosen], wanted["needs"]):
            raise ValueError(f"the course of {course['weeks']} weeks is out of order: {'; '.join(unmet)}")
        loads = [minutes(each, wanted) for each in chosen]
        weeks = spread(loads, course["weeks"] - course["project_weeks"])
        made.append((course, [[chosen[place] for place in week] for week in weeks]))
    return made


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
    handed_out = first_week(weeks, wanted["assignment"]["needs"])
    begun = first_week(weeks, wanted["project"]["needs"]) if course["project_weeks"] else None
    project = wanted["project"]["minutes"] * course["project_weeks"] / 2
    lines = [f"## {course['weeks']} weeks", "", "| week | chapters | reading | running | exercises | also |"]
    lines += ["|---|---|---|---|---|---|"]
    total = 0.0
    for number, week in enumerate(weeks, 1):
        read, solve = (sum(count(each, wanted) for each in week) for count in (reading, exercising))
        run = sum(each.seconds for each in week) / 60
        also = []
        if number == handed_out:
            also.append(f"assignment out ({hours(wanted['assignment']['minutes'])})")
        if handed_out and number == handed_out + 1:
            also.append("assignment due")
        if number == begun:
            also.append("projects chosen")
        names = ", ".join(f"{each.number} {each.title.split(':')[0]}" for each in week)
        lines.append(f"| {number} | {names} | {hours(read)} | {run:.0f} min | {hours(solve)} | {'; '.join(also)} |")
        total += read + run + solve
    for number in range(len(weeks) + 1, course["weeks"] + 1):
        last = "shown and graded by the rubric" if number == course["weeks"] else ""
        lines.append(f"| {number} | project | | | {hours(project / course['project_weeks'])} | {last} |")
    total += wanted["assignment"]["minutes"] + project
    return [*lines, "", f"In all {hours(total)} of a student's time, {hours(total / course['weeks'])} a week."]


def plan(chapters: Sequence[Chapter], path: Path) -> str:
    """All courses, and what they were computed from."""
    wanted = tomllib.loads(path.read_text(encoding="utf-8"))
    pace = wanted["pace"]
    lines = [
        "# A plan for 4, 8 and 12 weeks",
        "",
        "Words, lines of code and seconds are counted in the chapters as they are stored. A student is taken to read"
        f" {pace['words']} words or {pace['lines']} lines of code a minute, and to need"
        f" {wanted['minutes']['easy']} minutes for an easy exercise, {wanted['minutes']['medium']} for a medium and"
        f" {wanted['minutes']['open']} for an open one. Chapters are spread so that the fullest week is as light as"
        " their order allows.",
    ]
    for course, weeks in courses(chapters, wanted):
        lines += ["", *timetable(course, weeks, wanted)]
    lines += ["", "## Each chapter", ""]
    lines += ["| chapter | needs | words | lines of code | reading | running | exercises | in all |", "|" + "---|" * 8]
    for each in chapters:
        needs = ", ".join(wanted["needs"][each.number]) or "PyTorch"
        levels = ", ".join(f"{each.levels[level]} {level}" for level in wanted["minutes"] if each.levels[level])
        lines.append(
            f"| {each.number} {each.title.split(':')[0]} | {needs} | {each.words:,} | {each.lines} |"
            f" {reading(each, wanted):.0f} min | {each.seconds:.0f} s | {levels} | {hours(minutes(each, wanted))} |"
        )
    return "\n".join(lines) + "\n"
