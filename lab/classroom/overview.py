"""Everything that the page, the terminal and the JSON of a class tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.classroom.copies import Copy, copies_in
from lab.classroom.handed import Class, LeftOut
from lab.classroom.points import Chart, charts_of, has_control
from lab.classroom.progress import Common, LessonOf, common_mistakes, consenting, lessons_of

FORMAT, VERSION = "stratalab class", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A class. `headline` and `not_shown` are for all; `copies`, `left_out` and `changed` are for the teacher alone."""

    runs: int
    machines: int
    students: int
    charts: Sequence[Chart]
    lessons: Sequence[LessonOf]
    mistakes: Sequence[Common]
    copies: Sequence[Copy]
    left_out: Sequence[LeftOut]
    changed: Sequence[LeftOut]
    without_control: int
    older: int

    @property
    def headline(self) -> str:
        """How much there is, in one line."""
        parts = [_count(self.runs, "run"), f"of {_count(self.machines, 'machine')}"]
        if self.students:
            parts.append(f"and the lessons of {_count(self.students, 'student')}")
        return " ".join(parts)

    @property
    def not_shown(self) -> Sequence[str]:
        """What the page has not, without a name or a file's name."""
        return list(self._not_shown())

    def _not_shown(self) -> Iterator[str]:
        if self.older:
            yield f"{_count(self.older, 'older point')} of machines that ran the same again."
        if self.without_control:
            runs = _count(self.without_control, "run")
            yield f"{runs} without a bare process (-t process,…), over which alone machines can be compared."
        if self.left_out:
            yield f"{_count(len(self.left_out), 'file')} that could not be taken; the teacher knows which."
        if self.changed:
            figures = _count(len(self.changed), "figure")
            yield f"{figures} that did not agree with what was signed, or with the same run in another file."
        if self.copies:
            cases = _count(len(self.copies), "case")
            yield f"Who is meant where something stands under two students ({cases}); the teacher knows."

    def to_json(self) -> dict[str, Any]:
        """The object of `lab class --json`, which is for the teacher."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def overview_of(found: Class) -> Overview:
    """Raises nothing: what could not be read was left out before."""
    charts = charts_of(found.runs, consenting(found.lessons))
    who = {lesson.owner or lesson.progress.host.id or lesson.source for lesson in found.lessons}
    return Overview(
        runs=len(found.runs),
        machines=len({run.machine for run in found.runs}),
        students=len(who),
        charts=charts,
        lessons=lessons_of(found),
        mistakes=common_mistakes(found),
        copies=copies_in(found),
        left_out=found.left_out,
        changed=found.changed,
        without_control=sum(not has_control(run) for run in found.runs),
        older=sum(point.older for one in charts for panel in one.panels for point in panel.points),
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
