"""When each service of an application was asked for, ran and answered, on the whole's timeline; who waited for whom;
which part of the whole's memory is whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import series, stats
from lab.figures.series import Series
from lab.show.listing import plain_table
from lab.show.terminal import printable
from lab.store.record import RunRecord

_METRIC = "at_s"
_NOTHING = "nothing"
_REQUESTED, _STARTED, _READY = "requested", "started", "ready"
_LEAST_LINE, _MOST_LINE = 10, 50
_WAITS, _STARTS, _SERVES = "·", "░", "█"
TITLE = f"Services on the whole's timeline ({_WAITS} waits for another, {_STARTS} is being started, {_SERVES} runs)"
_MEMORY = ("service_pss_bytes", "app_role_pss_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One service of one target: medians in seconds of the whole's timeline, None for what was not seen."""

    target: str
    service: str
    after: str
    requested_s: float
    started_s: float | None
    ready_s: float
    n: int


def lanes(record: RunRecord, rows: Sequence[Series]) -> list[Lane]:
    """A lane for each service, those of a target by when they were asked for."""
    found = []
    for target in record.targets:
        mine = [row for row in rows if row.target == target.target and row.metric == _METRIC]
        told = [_lane(series.label(target), name, mine) for name in dict.fromkeys(_service(row) for row in mine)]
        found += sorted((lane for lane in told if lane is not None), key=lambda lane: (lane.requested_s, lane.ready_s))
    return found


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """The timelines of all targets, and the parts of their memory; none where no application was launched."""
    found: list[RenderableType] = []
    if drawn := lanes(record, rows):
        found += [Text(), Text(TITLE, style="bold"), _Timeline(drawn)]
    if any(row.metric in _MEMORY for row in rows):
        found += [Text(), _memory(rows)]
    return found


def grid(record: RunRecord, rows: Sequence[Series]) -> list[list[str]]:
    """A row for each lane, with its target, and its line last: for a report."""
    found = lanes(record, rows)
    whole = _wholes(found)
    return [[lane.target, *cells(lane), line(lane, whole[lane.target], _MOST_LINE)] for lane in found]


def headings() -> list[str]:
    """Of the columns of `cells`."""
    return ["service", "waits for", "asked", "started", "answers", "n"]


def cells(lane: Lane) -> list[str]:
    """Of a lane, in the order of `headings`."""
    times = [
        "absent" if seconds is None else units.quantity(seconds, "s") if seconds else "0"
        for seconds in (lane.requested_s, lane.started_s, lane.ready_s)
    ]
    return [f"  {lane.service}", lane.after, *times, str(lane.n)]


def line(lane: Lane, whole_s: float, width: int) -> str:
    """The lane as a line of at most `width` characters, which stand for `whole_s`."""
    if whole_s <= 0:
        return ""
    asked, ready = (round(width * seconds / whole_s) for seconds in (lane.requested_s, lane.ready_s))
    started = ready if lane.started_s is None else min(ready, round(width * max(lane.started_s, 0.0) / whole_s))
    started = max(started, asked)
    return _WAITS * asked + _STARTS * (started - asked) + _SERVES * max(ready - started, 0)


@dataclass(frozen=True, slots=True)
class _Timeline:
    """The lanes below the name of their target, with lines as wide as the terminal has room for."""

    lanes: Sequence[Lane]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        told = [cells(lane) for lane in self.lanes]
        widths = [max(map(len, column)) for column in zip(headings(), *told, strict=True)]
        room = options.max_width - sum(widths) - 2 * len(widths)
        width = min(_MOST_LINE, room) if room >= _LEAST_LINE else 0
        whole = _wholes(self.lanes)
        for target, mine in groupby(self.lanes, key=lambda lane: lane.target):
            yield Text(printable(target), style="bold")
            table = plain_table(*headings(), "", text_columns=2)
            for column, at_least in zip(table.columns, [*widths, width], strict=True):
                column.no_wrap, column.min_width = True, at_least
            table.columns[-1].justify = "left"
            for lane in mine:
                table.add_row(*(Text(printable(cell)) for cell in (*cells(lane), line(lane, whole[target], width))))
            yield table


def _memory(rows: Sequence[Series]) -> Table:
    table = plain_table("whose PSS", "median", "95 % interval", "n")
    for target, mine in groupby((row for row in rows if row.metric in _MEMORY), key=lambda row: row.label):
        table.add_row(Text(printable(target), style="bold"))
        for row in mine:
            found = stats.estimate(row.values)
            interval = "n < 6"
            if found.low is not None and found.high is not None:
                interval = units.span(found.low, found.high, row.unit, like=found.median)
            name = "  " + (_service(row) or f"by role: {row.dimensions.get('role', '')}")
            told = (name, units.quantity(found.median, row.unit), interval, str(found.n))
            table.add_row(*(Text(printable(cell)) for cell in told))
    return table


def _wholes(found: Sequence[Lane]) -> Mapping[str, float]:
    return {lane.target: max(one.ready_s for one in found if one.target == lane.target) for lane in found}


def _service(row: Series) -> str:
    return row.dimensions.get("service", "")


def _lane(target: str, service: str, rows: Sequence[Series]) -> Lane | None:
    """None for one of which it was not seen that it answered."""
    by_phase: dict[str, list[float]] = {}
    after: dict[str, int] = {}
    for row in rows:
        if _service(row) == service:
            by_phase.setdefault(row.dimensions.get("phase", ""), []).extend(row.values)
            if told := row.dimensions.get("after"):
                after[told] = after.get(told, 0) + len(row.values)
    medians = {phase: stats.estimate(values).median for phase, values in by_phase.items()}
    if _REQUESTED not in medians or _READY not in medians:
        return None
    said = [name if count == max(after.values()) else f"{name} ({count})" for name, count in after.items()]
    return Lane(
        target=target,
        service=service,
        after="" if list(after) == [_NOTHING] else ", ".join(said),
        requested_s=medians[_REQUESTED],
        started_s=medians.get(_STARTED),
        ready_s=medians[_READY],
        n=len(by_phase[_READY]),
    )
