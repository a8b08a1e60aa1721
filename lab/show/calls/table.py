"""What is shown of a function's calls beside their totals: the phases of each kind, bursts, gaps and failed calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import series, stats
from lab.figures.series import Series, Step
from lab.show.terminal import printable
from lab.store.record import RunRecord

KINDS = ("cold", "first", "warm", "direct")
GROUPED = frozenset({"shown_s", "kth_answer_s", "burst_workers", "gap_call_s", "cold_after_gap", "failed_calls"})

Line = tuple[str, str, str, int]
"""The name, the median or count, its interval or range, and n."""


def parts(
    record: RunRecord, rows: Sequence[Series], call: Callable[[Sequence[Step], Sequence[Series]], RenderableType]
) -> list[RenderableType]:
    """For a terminal; `call` draws the steps of one kind of call, and what was shown meanwhile."""
    found: list[RenderableType] = []
    for target in record.targets:
        kinds = {kind: steps for kind in KINDS if (steps := series.call_chain(rows, target.target, kind))}
        if not kinds:
            continue
        label = series.label(target)
        found += [Text(), _line(f"{label}: where a call's time goes (each bar is its own whole)", "bold")]
        for kind, steps in kinds.items():
            found += [Text(), _line(kind, "bold"), call(steps, shown_of(rows, target.target, kind))]
        if lines := beside(rows, target.target):
            grid = Table.grid(padding=(0, 2, 0, 0))
            for place in range(4):
                grid.add_column(justify="left" if place == 0 else "right")
            for name, figure, spread, n in lines:
                grid.add_row(*(Text(printable(cell)) for cell in (name, figure, spread, f"n {n}")))
            found += [Text(), Group(grid)]
    return found


def shown_of(rows: Sequence[Series], target: str, kind: str) -> list[Series]:
    """What the platform showed of calls of that kind, in the order of the medians."""
    mine = [
        row
        for row in rows
        if row.target == target and row.metric == "shown_s" and row.dimensions.get(series.CALL) == kind
    ]
    return sorted(mine, key=lambda row: stats.estimate(row.values).median)


def beside(rows: Sequence[Series], target: str) -> list[Line]:
    """The lines of one target about bursts, gaps and failed calls: by k and by gap, what did not fail left out."""
    mine = [row for row in rows if row.target == target]
    lines = [
        _figure(f"burst of {row.dimensions['burst']}, answer {row.dimensions['k']}", row)
        for row in sorted(_of(mine, "kth_answer_s"), key=lambda row: int(row.dimensions["k"]))
    ]
    lines += [
        (f"burst of {row.dimensions['burst']}, new workers", *_counts(row), len(row.values))
        for row in _of(mine, "burst_workers")
    ]
    cold = {row.dimensions["gap"]: row for row in _of(mine, "cold_after_gap")}
    for row in sorted(_of(mine, "gap_call_s"), key=lambda row: float(row.dimensions["gap"])):
        gap = row.dimensions["gap"]
        was = f", {series.counted(cold[gap])} cold" if gap in cold else ""
        lines.append(_figure(f"after {gap} times the keep-alive{was}", row))
    lines += [
        (f"failed calls, {row.dimensions[series.CALL]}", *_counts(row), len(row.values))
        for row in _of(mine, "failed_calls")
        if any(row.values)
    ]
    return lines


def _of(rows: Sequence[Series], metric: str) -> list[Series]:
    return [row for row in rows if row.metric == metric]


def _figure(name: str, row: Series) -> Line:
    found = stats.estimate(row.values)
    interval = "n < 6"
    if found.low is not None and found.high is not None:
        interval = units.span(found.low, found.high, row.unit, like=found.median)
    return name, units.quantity(found.median, row.unit), interval, found.n


def _counts(row: Series) -> tuple[str, str]:
    """A count's median and range as they are."""
    found = stats.estimate(row.values)
    return f"{found.median:g}", f"{found.minimum:g}-{found.maximum:g}"


def _line(text: str, style: str) -> Text:
    return Text(printable(text), style=style)
