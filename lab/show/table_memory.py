"""What memory and density figures consist of, as text for a terminal: one list a target, each line with its n."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab import units
from lab.figures import density, stats
from lab.figures.series import Series
from lab.store.record import RunRecord

_READY = "ready"
Line = tuple[str, Series]

_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("PSS by role", frozenset({"role_pss_bytes"})),
    ("later", frozenset({"pss_after_bytes"})),
    ("same processes", frozenset({"uss_bytes", "rss_bytes"})),
    ("cgroup", frozenset({"cgroup_bytes"})),
    ("CPU while idle", frozenset({"idle_cpus"})),
    ("unseen by PSS", frozenset({"unseen_bytes", "netns_count"})),
    ("guest's memory", frozenset({"guest_ram_bytes"})),
    ("believed inside", frozenset({"inside_bytes"})),
    ("fixed: engine", frozenset({"engine_pss_bytes"})),
    ("on disk", frozenset({"storage_bytes"})),
    ("slope of", frozenset({density.PART})),
    ("noise at N = 0", frozenset({"noise_bytes"})),
    ("start at N", frozenset({"launch_s"})),
)

GROUPED = frozenset[str]().union(*(metrics for _, metrics in _GROUPS))
"""The metrics that `grouped` takes."""


def parts(record: RunRecord, rows: Sequence[Series]) -> list[RenderableType]:
    """For each target with memory figures: what the total consists of and stands beside, after `ready`."""
    shown: list[RenderableType] = []
    for target in record.targets:
        mine = [row for row in rows if row.target == target.target and row.metric in GROUPED]
        if not mine:
            continue
        if not shown:
            shown += [Text(), Text("What explains them", style="bold")]
        shown += [Text(), Text(_headed(mine[0].label, target.info.get("qualifiers") or {}), style="bold")]
        shown.append(Padding(_grid(mine), (0, 0, 0, 2)))
        for slope in (row for row in rows if row.target == target.target and row.metric == density.MARGINAL):
            per_gib, machine = capacity(record, slope)
            shown.append(Padding(Text(f"extrapolated instances per GiB: {per_gib}"), (0, 0, 0, 2)))
            shown.append(Padding(Text(f"extrapolated for this machine: {machine}"), (0, 0, 0, 2)))
    return shown


def capacity(record: RunRecord, slope: Series) -> tuple[str, str]:
    """How many instances fit a GiB and this machine, in words; 'not resolved' where the slope is not."""
    found = stats.estimate(slope.values)
    per_gib = density.per_gib(found)
    machine = density.on_this_machine(record.samples, slope.target, found)
    return _capacity(per_gib), _capacity(machine)


def _capacity(found: density.Capacity | None) -> str:
    if found is None:
        return "not resolved"
    return f"{units.digits(found.value)} ({units.digits(found.low)}-{units.digits(found.high)})"


def _headed(label: str, qualifiers: dict[str, str]) -> str:
    return f"{label}: emulated (TCG)" if qualifiers.get("accel") == "tcg" else label


def grouped(rows: Sequence[Series]) -> tuple[list[tuple[str, str, Series]], str]:
    """One target's rows, each with its group and its name in it, and the names of those that were 0 throughout."""
    shown: list[tuple[str, str, Series]] = []
    nothing: list[str] = []
    for title, metrics in _GROUPS:
        lines = _ordered([_named(row) for row in rows if row.metric in metrics and _wanted(row)])
        shown += [(title, name, row) for name, row in lines if any(row.values)]
        if none := [name for name, row in lines if not any(row.values)]:
            nothing.append(f"{title}: {', '.join(none)}")
    return shown, "; ".join(nothing)


def _grid(rows: Sequence[Series]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    for place in range(5):
        table.add_column(justify="left" if place < 2 else "right", no_wrap=True)
    shown, nothing = grouped(rows)
    before = ""
    for title, name, row in shown:
        found = stats.estimate(row.values)
        interval = "n < 6"
        if found.low is not None and found.high is not None:
            interval = units.span(found.low, found.high, row.unit, like=found.median)
        cells = ("" if title == before else title, name, figure(row, found), interval, f"n {found.n}")
        table.add_row(*map(Text, cells))
        before = title
    return Group(table, Text(f"0 each: {nothing}")) if nothing else table


def figure(row: Series, found: stats.Estimate) -> str:
    """The median, and a count as it is."""
    return f"{found.median:g}" if row.metric == "netns_count" else units.quantity(found.median, row.unit)


def _wanted(row: Series) -> bool:
    """After `ready`; of a guest's memory and the total also what became of it."""
    after = row.dimensions.get("after", _READY)
    return after == _READY or row.metric in ("pss_after_bytes", "guest_ram_bytes")


def _named(row: Series) -> Line:
    told = row.dimensions
    after = told.get("after", "")
    names: dict[str, Callable[[], str]] = {
        "role_pss_bytes": lambda: told["role"],
        "pss_after_bytes": lambda: f"PSS after {after}",
        "uss_bytes": lambda: "USS",
        "rss_bytes": lambda: "RSS",
        "cgroup_bytes": lambda: f"{told['part']} (v{told['version']})" if told["part"] == "total" else told["part"],
        "unseen_bytes": lambda: told["part"],
        "idle_cpus": lambda: "CPUs, over the settling time",
        "netns_count": lambda: "network namespaces",
        "guest_ram_bytes": lambda: told["part"] if told["part"] == "declared" else f"{told['part']} after {after}",
        "inside_bytes": lambda: told["part"],
        "engine_pss_bytes": lambda: told["process"],
        "storage_bytes": lambda: told["part"],
        density.PART: lambda: told["of"],
        "noise_bytes": lambda: "MemAvailable",
        "launch_s": lambda: f"N = {told['level']}",
    }
    return names[row.metric](), row


def _ordered(lines: list[Line]) -> list[Line]:
    """Slopes with the sums first, launches by level, and the rest as measured."""
    of = [row.dimensions["of"] for _, row in lines if row.metric == density.PART]
    places = {name: place for place, name in enumerate(density.parts_of(of))}

    def place(line: Line) -> int:
        dimensions = line[1].dimensions
        return int(dimensions["level"]) if "level" in dimensions else places.get(dimensions.get("of", ""), 0)

    return sorted(lines, key=place)
