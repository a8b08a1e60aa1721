"""The nights of each host for a terminal: a line a series, and below what has moved and what was different."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from lab.figures.nights.past import Line, Past
from lab.show.listing import plain_table
from lab.show.nights import words
from lab.show.terminal import printable

_SPARK_CELLS = 16


def render_history(scenario: str, pasts: Sequence[Past]) -> RenderableType:
    """Every host's nights, one after the other."""
    return Group(*[part for past in pasts for part in _of_host(scenario, past)])


def _of_host(scenario: str, past: Past) -> list[RenderableType]:
    title = (
        f"{scenario} on {past.host_name or past.host or 'a host that no run tells'}: {len(past.verdicts)} nights shown"
    )
    if past.judged > len(past.verdicts):
        title += f", {past.judged} judged"
    table = plain_table("target", "metric", "nights", "last", "band of A/A", "change", "verdict", text_columns=3)
    table.columns[-1].justify = "left"
    for column in table.columns[2:6]:
        column.no_wrap = True
    for line in past.lines:
        table.add_row(*(Text(printable(cell)) for cell in _cells(past, line)))
    notes = [Text(printable(f"- {note}")) for note in words.notes(past)]
    return [Text(printable(title), style="bold"), Text(printable(words.headline(past))), Text(), table, Text(), *notes]


def _cells(past: Past, line: Line) -> list[str]:
    one = past.last_of(line)
    if one is None:
        return [line.last.label, line.last.name, words.sparkline(line, _SPARK_CELLS), *[""] * 3, "no figure tonight"]
    said = f"{one.state}: {one.why}" if one.why and not one.is_control else str(one.state)
    if one.state == past.last.state == "void" and not one.is_control:
        said = "void"
    return [
        f"{one.label} (control)" if one.is_control else one.label,
        one.name,
        words.sparkline(line, _SPARK_CELLS),
        words.value(one),
        words.band(one),
        "" if one.change is None else f"x {one.change:.2f}",
        said,
    ]
