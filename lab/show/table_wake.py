"""What it costs to sleep and to wake, one row a target and state: for a terminal, and for a report."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import evidence, series, stats
from lab.figures.series import Series
from lab.show.terminal import printable
from lab.store.record import RunRecord

_STATE = "state"
_SHOWN = ("sleep_s", "asleep_pss_bytes", "asleep_disk_bytes", "wake_s")
_PROBES = {"who answers": "who", "uniqueness": "unique"}
_NAME = "asleep and awake"


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """One table for all targets; none where nothing slept. Why a state cannot be is among the notes."""
    found = grid(record, rows)
    if not found:
        return []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for place, heading in enumerate(headings()):
        words = heading in (_NAME, *_PROBES.values())
        table.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=place > 0)
    for cells in found:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in cells))
    return [Text(), table]


def headings() -> list[str]:
    """Of the columns of `grid`."""
    return [_NAME, "to sleep", "held", "on disk", "to wake", "x its boot", "who", "unique", "n"]


def grid(record: RunRecord, rows: Sequence[Series]) -> list[list[str]]:
    """A row for each state that a target slept in: medians, each with its interval on a line of its own, and what was
    found of who woke."""
    found = []
    for woken in (row for row in rows if row.metric == "wake_s"):
        mine = {row.metric: row for row in rows if row.target == woken.target and _alike(row, woken)}
        boot = next((row for row in rows if row.target == woken.target and row.metric == "boot_s"), None)
        ratio = series.ratio_of(boot, woken)
        told = [value for key, value in woken.dimensions.items() if key != series.WAIT_METHOD]
        found.append(
            [
                "\n".join([woken.label, " ".join(told)]),
                *(_cell(mine.get(metric)) for metric in _SHOWN),
                series.times(ratio).replace(" (", "\n(") if ratio else "",
                *(_word(record, woken, probe) for probe in _PROBES),
                str(len(woken.values)),
            ]
        )
    return found


def refused(record: RunRecord) -> list[list[str]]:
    """A row for each state that a target cannot sleep in, with the reason."""
    labels = {target.target: series.label(target) for target in record.targets}
    return [
        [f"{labels.get(target, target)}\n{of.partition('=')[2]}", f"cannot be: {why}"]
        for (target, of), why in series.absences(record).items()
        if of.startswith(f"wake_s {_STATE}=")
    ]


def _alike(row: Series, woken: Series) -> bool:
    """Whether it is of the same state, in the same conditions."""
    return row.dimensions == woken.dimensions


def _word(record: RunRecord, woken: Series, probe: str) -> str:
    """What was found, up to the colon: the rest of the sentence is in the table of what was seen."""
    wanted = f"{woken.dimensions.get(_STATE, '')}: {probe}"
    said = (finding.said.get(woken.label, "") for finding in evidence.findings(record) if finding.probe == wanted)
    return next(said, "").partition(":")[0]


def _cell(row: Series | None) -> str:
    """Median, and below it the interval."""
    if row is None:
        return "none"
    found = stats.estimate(row.values)
    interval = "n < 6"
    if found.low is not None and found.high is not None:
        interval = units.span(found.low, found.high, row.unit, like=found.median)
    return f"{units.quantity(found.median, row.unit)}\n{interval}"
