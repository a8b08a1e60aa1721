"""A fleet's hosts as a terminal shows them: what has become of each, and each one's figures over its own control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from lab import units
from lab.figures import series, stats
from lab.figures.relative import over_control
from lab.show.listing import plain_table
from lab.show.terminal import printable
from lab.store.record import RunRecord


def render_jobs(rows: Sequence[tuple[str, str, str, str]]) -> RenderableType:
    """A line a host: its name, its state, its run, and what it said last."""
    table = plain_table("host", "state", "run", "said", text_columns=4)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def render_hosts(records: Mapping[str, RunRecord]) -> RenderableType:
    """What the hosts measured, `records` by the inventory's names: by metric and target a line a host, as a ratio to
    the bare process of the same host and round. What one host takes says nothing of another."""
    rows = {
        host: [row for row in over_control(series.series_of(one)) if row.metric not in series.EXPLAINING]
        for host, one in records.items()
    }
    keys = dict.fromkeys((row.metric, row.target, row.name) for found in rows.values() for row in found)
    parts: list[RenderableType] = []
    for metric in dict.fromkeys(metric for metric, _, _ in keys):
        table = plain_table(f"{metric}, over {series.CONTROL}", "host", "median", "95 % interval", "n", text_columns=2)
        for key in (key for key in keys if key[0] == metric):
            for host, found in rows.items():
                for row in (one for one in found if (one.metric, one.target, one.name) == key):
                    table.add_row(*(Text(printable(cell)) for cell in (row.label, host, *_cells(row))))
        parts += [Text(), table]
    if without := [host for host, found in rows.items() if not found]:
        why = f"a run needs the control, {series.CONTROL}, and a target beside it, to be shown beside other hosts'"
        parts.append(Text(printable(f"- {', '.join(without)}: {why}.")))
    return Group(*parts)


def _cells(row: series.Series) -> Sequence[str]:
    found = stats.estimate(row.values)
    if found.low is None or found.high is None:
        return f"{units.digits(found.median)}x", "n < 6", str(found.n)
    return f"{units.digits(found.median)}x", units.between(found.low, found.high), str(found.n)
