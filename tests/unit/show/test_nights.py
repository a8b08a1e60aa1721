"""lab/show/nights: nights in a terminal of any width, and on a page."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from few_nights import night, quiet
from rich.cells import cell_len
from rich.console import Console

from lab.figures.nights.night import Night
from lab.figures.nights.past import Past, past_of
from lab.show.nights import words
from lab.show.nights.chart import changed_nights, nights
from lab.show.nights.report import render
from lab.show.nights.table import render_history


def past(made: list[Night], **about: int) -> Past:
    return past_of(made, host="h", host_name="lab-1", **{"shown": None, **about})


def a_past() -> Past:
    made = [replace(one, conditions={"kernel": "6.1"}) for one in quiet(30)]
    made += [replace(one, conditions={"kernel": "6.8"}) for one in quiet(5, first=30, times={"docker": 1.3})]
    made[20] = replace(night(20, {"process": 9.0, "docker": 9.0, "swarm": 9.0}), conditions={"kernel": "6.1"})
    made[33] = replace(made[33], accepted=True)
    return past(made)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    out = StringIO()
    Console(file=out, width=width).print(render_history("boot", [a_past()]))
    assert max(map(cell_len, out.getvalue().splitlines())) <= width
    assert "swarm" in out.getvalue()


def test_the_notes_tell_of_steps_changes_void_nights_and_levels() -> None:
    made = past([replace(one, conditions={"kernel": "6.1"}) for one in quiet(30)])
    assert any("With a power of 95 %" in note for note in words.notes(made))
    told = " ".join(words.notes(a_past()))
    assert "kernel 6.1 → 6.8" in told and "1 of 35 nights are void" in told and "at most 12 a year" in told
    stepped = past([*quiet(30), *quiet(1, first=30, times={"docker": 1.5})])
    (moved,) = [note for note in words.notes(stepped) if note.startswith("docker boot_s is x 1.")]
    assert "since run r30" in moved and "at an equal control" in moved


def test_a_sparkline_has_a_cell_for_each_night_or_for_some_and_dots_for_void_ones() -> None:
    line = next(one for one in a_past().lines if one.last.target == "docker")
    assert len(words.sparkline(line, 100)) == 35 and words.sparkline(line, 100)[20] == "·"
    assert len(words.sparkline(line, 10)) == 10
    flat = past([night(place, {"docker": 1.0}) for place in range(5)])
    assert words.sparkline(flat.lines[0], 24) == "▄" * 5


def test_at_an_equal_control_the_common_part_is_gone() -> None:
    line = next(one for one in past(quiet(60, common=0.2, own=0.01)).lines if one.last.target == "docker")
    raw = [one.value for one in line.points if one is not None and one.value is not None]
    told = [value for value in line.at_equal_control() if value is not None]
    assert max(told) / min(told) < 1.1
    assert max(raw) / min(raw) > 1.5


def test_a_chart_has_every_night_the_changes_and_what_was_accepted() -> None:
    made = a_past()
    line = next(one for one in made.lines if one.last.target == "docker")
    figure = nights(made, line)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in points) == 35
    low, high = figure.layout.yaxis.range
    assert all(low <= value <= high for trace in points for value in trace.y)
    assert changed_nights(made) == [30]
    assert {one.text for one in figure.layout.annotations} == {"1", "accepted"}


def test_a_page_of_one_night_and_of_no_figure_is_a_page() -> None:
    assert "not enough nights" in render("boot", [past(quiet(1))])
    nothing = past([night(0, {})])
    assert "Every night" in render("boot", [nothing])
