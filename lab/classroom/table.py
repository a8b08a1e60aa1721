"""The class on the teacher's terminal: how much there is, where machines' points lie, and what is not for the room."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.classroom.overview import Overview
from lab.classroom.points import told
from lab.classroom.progress import who
from lab.show.terminal import printable


def render_class(overview: Overview) -> RenderableType:
    """For a terminal. Everything that came from a file is shown with nothing in it that a terminal would obey."""
    parts: list[RenderableType] = [Text(overview.headline)]
    for one in overview.charts:
        table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="")
        table.title = Text(f"\n{printable(one.title)}, {printable(told(one.conditions))}")
        for heading in ("target", "CPU", "machines", "medians from", "to"):
            table.add_column(
                heading, overflow="fold", justify="right" if heading in ("machines", "medians from", "to") else "left"
            )
        for panel in one.panels:
            for cpu, points in panel.by_cpu():
                mids = [point.mid for point in points]
                ends = (f"{units.digits(end)}x" for end in (min(mids), max(mids)))
                table.add_row(Text(printable(panel.label)), Text(printable(cpu)), str(len(points)), *ends)
        parts.append(table)
    for lesson in overview.lessons:
        parts.append(
            Text(f"\nLesson {printable(lesson.lesson)}: {lesson.students} students, {lesson.done} through with all")
        )
        for step in lesson.steps:
            stuck = f"; stuck: {who(step.stuck, step.stuck_names)}" if step.stuck else ""
            parts.append(Text(printable(f"  {step.title or step.step}: {who(step.here, step.here_names)}{stuck}")))
    if overview.mistakes:
        parts.append(Text("\nWhat goes wrong often"))
        for mistake in overview.mistakes:
            of = "runs" if mistake.of_runs else f"of {overview.students} students"
            parts.append(Text(f"  {mistake.what}: {mistake.by} {of}"))
    if overview.copies:
        parts.append(Text("\nFor the teacher alone: the same under two"))
        parts += [Text(printable(f"  {copy.what}: {' | '.join(copy.sources)}")) for copy in overview.copies]
    if overview.changed:
        parts.append(Text("\nFor the teacher alone: changed by hand"))
        parts += [Text(printable(f"  {one.source}: {one.why}")) for one in overview.changed]
    return Group(*parts)
