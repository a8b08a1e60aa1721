"""Each machine a point: its figure over its own control, the bare process of the same run, with its interval.

Machines are never put in the order of their figures, and nothing is taken over several: absolute figures of two
machines say nothing of each other, and neither does a ranking of ratios (docs/method.md, rules 12, 13 and 24).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lab import units
from lab.classroom.handed import COMPANY, Handed, Machine
from lab.figures import series, stats
from lab.figures.series import COUNTED, Series
from lab.units import RATIO

_TAG_HEX = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One machine's newest run: `mid` is how many times its control's median the target's is, from `low` to `high` (95
    %; None below n = 6). `tag` is how the machine is called, and `name` its student's, where that one has consented.
    `older` of its runs under the same conditions are not shown."""

    tag: str
    cpu: str
    name: str
    run_id: str
    started_at: str
    n: int
    mid: float
    low: float | None
    high: float | None
    older: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One target's points, by CPU model, and then by tag."""

    label: str
    points: Sequence[Point]

    def by_cpu(self) -> Iterator[tuple[str, Sequence[Point]]]:
        """The points of each CPU model."""
        for cpu, points in itertools.groupby(self.points, key=lambda point: point.cpu):
            yield cpu, list(points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What stands beside each other: one metric of one scenario, under conditions that are the same for all."""

    scenario: str
    name: str
    over_control: bool
    conditions: Mapping[str, str]
    panels: Sequence[Panel]

    @property
    def machines(self) -> int:
        return len({point.tag for panel in self.panels for point in panel.points})

    @property
    def title(self) -> str:
        return f"{self.scenario}: {self.name}" if self.scenario else self.name


def charts_of(runs: Sequence[Handed], names: Mapping[str, str]) -> list[Chart]:
    """By scenario and metric, first the conditions that most machines share; `names` are those of the students who have
    consented, by their runs' ids."""
    tags = tags_of(one.machine for one in runs)
    newest_first = sorted(runs, key=lambda one: (one.started_at, one.run_id), reverse=True)
    found: dict[tuple[str, str, bool, tuple[tuple[str, str], ...]], dict[str, dict[str, list[Point]]]] = {}
    for run in newest_first:
        conditions = tuple(run.conditions.items())
        for row in run.rows:
            point = _point(run, row, tags[run.machine], names.get(run.run_id, ""))
            if point is not None:
                panels = found.setdefault((run.scenario, row.name, row.unit != RATIO, conditions), {})
                panels.setdefault(row.label, {}).setdefault(point.tag, []).append(point)
    made = [
        Chart(
            scenario=scenario,
            name=name,
            over_control=over,
            conditions=dict(conditions),
            panels=[_panel(label, panels[label]) for label in sorted(panels)],
        )
        for (scenario, name, over, conditions), panels in found.items()
    ]
    return sorted(made, key=lambda one: (one.scenario, one.name, -one.machines, sorted(one.conditions.items())))


def tags_of(machines: Iterable[Machine]) -> dict[Machine, str]:
    """How each is called: by the first of its fingerprint, as `lab hosts` shows it, so that students find their own;
    where clones have the same, with a hash of the name behind it."""
    by_id: dict[str, set[Machine]] = {}
    for machine in machines:
        by_id.setdefault(machine.id, set()).add(machine)
    tags: dict[Machine, str] = {}
    for host_id, same in by_id.items():
        for machine in same:
            of_name = hashlib.sha256(f"{machine.id} {machine.name}".encode("utf-8", "replace")).hexdigest()[:_TAG_HEX]
            known = len(same) == 1 and host_id
            tags[machine] = host_id[:_TAG_HEX] if known else "-".join(filter(None, [host_id[:_TAG_HEX], of_name]))
    if len(set(tags.values())) < len(tags):  # one in 16 million pairs
        tags = {machine: f"{tag}-{place}" for place, (machine, tag) in enumerate(sorted(tags.items(), key=str))}
    return tags


def has_control(run: Handed) -> bool:
    """Whether any figure of it can stand beside another machine's."""
    return any(row.target == series.CONTROL or row.unit == RATIO for row in run.rows)


def told(conditions: Mapping[str, str]) -> str:
    """Conditions in words, the targets last."""
    parts = [_told(name, value) for name, value in conditions.items() if name != COMPANY]
    return ", ".join([*parts, f"targets {conditions.get(COMPANY) or 'not told'}"])


def _told(name: str, value: str) -> str:
    if name == "memory" and value.isdecimal():
        value = units.quantity(int(value), "bytes")
    return f"{name} {value.removesuffix('.0')}"


def _panel(label: str, machines: Mapping[str, Sequence[Point]]) -> Panel:
    shown = []
    for points in machines.values():
        newest, *older = points
        shown.append(replace(newest, older=len(older)))
    return Panel(label=label, points=sorted(shown, key=lambda point: (point.cpu, point.tag)))


def _point(run: Handed, row: Series, tag: str, name: str) -> Point | None:
    """None for the control itself, for what stands over none, and for what is no positive number."""
    if row.metric in COUNTED or not row.values or not all(map(math.isfinite, row.values)):
        return None
    if row.unit == RATIO:
        own = stats.estimate(row.values)
        mid, low, high = own.median, own.low, own.high
    else:
        control = series.beside(run.rows, row)
        if control is None or not control.values or not all(map(math.isfinite, control.values)):
            return None
        ratio = series.ratio_of(control, row)
        if ratio is None:
            return None
        mid, low, high = ratio.value, ratio.low, ratio.high
    if not (math.isfinite(mid) and mid > 0):
        return None
    whole = low is not None and high is not None and 0 < low <= high and math.isfinite(high)
    return Point(
        tag=tag,
        cpu=run.cpu,
        name=name,
        run_id=run.run_id,
        started_at=run.started_at,
        n=len(row.values),
        mid=mid,
        low=low if whole else None,
        high=high if whole else None,
    )
