"""Calls between instances, one row for each caller and path: for a terminal, and for a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import series, stats
from lab.figures.series import ABSENT, CALLEE, FACT, PATH, SHARED, Series
from lab.show.terminal import printable
from lab.store.record import RunRecord

BASE = ("kept", "0 KiB")
"""The cell that stands for a path: `call_p50_s` and `call_p99_s`."""

SIDES = ("caller", "callee", "helpers", "engine")
GROUPED = frozenset(
    {"variant_p50_s", "variant_p99_s", "curve_p50_s", "curve_p99_s", "curve_p99_9_s"}
    | {"first_call_s", "resolve_s", "cpu_per_1000_s"}
)
"""What is in these tables and charts, and in no list of what is left."""


@dataclass(frozen=True, slots=True)
class Way:
    """One caller, one path, and the callee's target where that is another."""

    target: str
    label: str
    path: str
    callee: str

    @property
    def said(self) -> str:
        """For a table's row."""
        return f"{self.label}\n{self.path}{f' to {self.callee}' if self.callee else ''}"


def ways(rows: Sequence[Series]) -> list[Way]:
    """In the order in which they were first measured, by caller."""
    told = (row for row in rows if row.metric in ("call_p50_s", "first_call_s", "variant_p50_s"))
    return list(dict.fromkeys(_way(row) for row in told))


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """The cells of each path, what its first call and its calls' work cost, and the paths that are shut."""
    if not ways(rows):
        return []
    found: list[RenderableType] = [Text(), _table(cells(rows)), Text(), _table(costs(rows))]
    if lines := shut(record):
        found += [Text(), _table([["no path", "why"], *lines])]
    return found


def cells(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each path: p50 of every cell and below it p99, a kept connection's first."""
    kinds = {_kind(row): None for row in rows if row.metric.startswith("variant_")}
    kinds.setdefault(BASE, None)
    order = sorted(kinds, key=lambda kind: (kind[0], _kib(kind[1])))
    grid = [["calls: p50, p99", *(f"{connection}\n{payload}" for connection, payload in order)]]
    for way in ways(rows):
        mine = [row for row in rows if _is_of(row, way)]
        grid.append([way.said, *(_cell(mine, kind) for kind in order)])
    return grid


def costs(rows: Sequence[Series]) -> list[list[str]]:
    """The headings, and a row for each path: its first call, its name's resolution, and CPU time by side."""
    grid = [["a first call; CPU per 1,000 calls", "first", "name", *SIDES]]
    for way in ways(rows):
        mine = [row for row in rows if _is_of(row, way)]
        by_side = {row.dimensions.get("side", ""): row for row in mine if row.metric == "cpu_per_1000_s"}
        first = [next((row for row in mine if row.metric == metric), None) for metric in ("first_call_s", "resolve_s")]
        grid.append([way.said, *map(_median, first), *(_median(by_side.get(side)) for side in SIDES)])
    return grid


def shares(record: RunRecord, rows: Sequence[Series]) -> list[str]:
    """Of each path, in the order of `ways`, what both sides share, as the scenario found it; empty where it did not."""
    told = {}
    for sample in record.samples:
        probe = sample.dimensions.get("probe", "")
        if sample.metric == FACT and probe.startswith(SHARED):
            told[sample.target, probe.removeprefix(SHARED).removeprefix(" with ")] = sample.dimensions["said"]
    return [told.get((way.target, way.callee), "") for way in ways(rows)]


def shut(record: RunRecord) -> list[list[str]]:
    """A row for each path that cannot be, with the reason."""
    labels = {target.target: series.label(target) for target in record.targets}
    opened = {
        (sample.target, sample.dimensions.get(PATH), sample.dimensions.get(CALLEE))
        for sample in record.samples
        if sample.metric == "first_call_s"
    }
    found: dict[tuple[str, str], str] = {}
    for sample in record.samples:
        told = sample.dimensions
        if sample.metric != ABSENT or sample.warmup or not told.get("of", "").startswith("call_p50_s path="):
            continue
        if (sample.target, told.get(PATH), told.get(CALLEE)) not in opened:
            callee = f" to {told[CALLEE]}" if CALLEE in told else ""
            found[labels.get(sample.target, sample.target), told[PATH] + callee] = told.get("why", "")
    return [[f"{label}\n{path}", why] for (label, path), why in found.items()]


def _way(row: Series) -> Way:
    told = row.dimensions
    return Way(row.target, row.label, told.get(PATH, ""), told.get(CALLEE, ""))


def _is_of(row: Series, way: Way) -> bool:
    return PATH in row.dimensions and _way(row) == way


def _kind(row: Series) -> tuple[str, str]:
    return row.dimensions.get("connection", BASE[0]), row.dimensions.get("payload", BASE[1])


def _kib(payload: str) -> int:
    number = payload.partition(" ")[0]
    return int(number) if number.isdigit() else 0


def _cell(rows: Sequence[Series], kind: tuple[str, str]) -> str:
    family = "call" if kind == BASE else "variant"
    found = [row for row in rows if _kind(row) == kind]
    return "\n".join(_median(chosen(found, f"{family}_{which}_s")) for which in ("p50", "p99"))


def chosen(rows: Sequence[Series], metric: str) -> Series | None:
    """Of rows of one cell the one at the declared rate, else the one that was measured most often."""
    found = [row for row in rows if row.metric == metric]
    return max(found, key=lambda row: ("rate" not in row.dimensions, len(row.values)), default=None)


def _median(row: Series | None) -> str:
    return "-" if row is None else units.quantity(stats.estimate(row.values).median, row.unit)


def _table(grid: Sequence[Sequence[str]]) -> Table:
    from lab.show.listing import plain_table

    words = len(grid[0]) == 2  # a reason, and no figures
    table = plain_table(*grid[0], text_columns=2 if words else 1)
    for row in grid[1:]:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table
