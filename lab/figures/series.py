"""What tables, reports and comparisons show of a run: its values by row, warm-up left out, and how they are written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab import units
from lab.figures import density, stats
from lab.store.record import LaunchRecord, Outcome, RunRecord, TargetRecord
from lab.timeline import ENGINE_CHAIN, LOGIN_CHAIN, SERVICE_CHAIN, SETTLING_CHAIN
from lab.units import RATIO

_EXPLAINING_MEMORY = frozenset(
    {"pss_after_bytes", "role_pss_bytes", "uss_bytes", "rss_bytes", "cgroup_bytes", "unseen_bytes", "netns_count"}
    | {"guest_ram_bytes", "inside_bytes", "engine_pss_bytes", "storage_bytes", "others_running", "idle_cpus"}
    | {density.PART, "noise_bytes", "launch_s", "stopped_level"}
)
_EXPLAINING_OVERHEAD = frozenset({"clock_step_s", "cpu_share", "late_share", "unserved_requests"})
_EXPLAINING_LOAD = frozenset({"requests_sent", "missed_sends"})
_EXPLAINING_NEIGHBOUR = frozenset(
    {"victim_p50_s", "victim_p99_s", "victim_p99_9_s", "drift_p50", "drift_p99", "drift_p99_9", "antagonist_ops_per_s"}
    | {"throttled_s", "throttled_periods", "waited_share", "steal_share"}
)
_EXPLAINING_HOSTKERNEL = frozenset({"idle_functions", "idle_syscalls_calls", "window_s"})
_EXPLAINING_CONTAINMENT = frozenset(
    {"quiet_availability", "quiet_worst_gap_s", "own_gap_s", "outcome_s", "ended_s", "reached_count", "reached_bytes"}
    | {"left_processes", "left_bytes", "clock_offset_s", "host_clock_moved_s"}
)
_EXPLAINING_LIMITS = frozenset({"limit_met_s", "limit_met_bytes"})
_EXPLAINING_SURFACE = frozenset({"calls_tried", "calls_not_tried", "calls_absent", "devices_seen", "mounts_seen"})
_EXPLAINING_COMPAT = frozenset({"features_tried"})
_EXPLAINING_COLDSTART = frozenset(
    {"shown_s", "kth_answer_s", "burst_workers", "gap_call_s", "cold_after_gap", "failed_calls"}
)
_EXPLAINING_WAKE = frozenset(
    {"sleep_s", "answer_s", "clock_late_s", "awake_pss_bytes"}
    | {"asleep_pss_bytes", "asleep_swap_bytes", "asleep_disk_bytes"}
)
_EXPLAINING_TALK = frozenset(
    {"variant_p50_s", "variant_p99_s", "curve_p50_s", "curve_p99_s", "curve_p99_9_s", "first_call_s", "resolve_s"}
    | {"cpu_per_1000_s", "control_p50_s", "control_p99_s", "caller_late_share", "unserved_calls"}
)
_EXPLAINING_TANDEM = frozenset(
    {"first_job_s", "half_job_s", "jth_job_s", "job_cpu_s", "steady_p99_s", "steady_worst_s", "cold_starts"}
    | {"failed_jobs", "held_bytes", "mean_held_bytes", "saved_bytes", "save_s", "job_steps", "looks", "look_share"}
)
_EXPLAINING_APPLICATION = frozenset(
    {"at_s", "service_pss_bytes", "app_role_pss_bytes", "app_uss_bytes", "app_netns_count"}
)
EXPLAINING = (
    frozenset({"replicas_on_node", "phase_s", "lead_s", "stop_s", "delete_s", "wait_cpu_s"})
    | _EXPLAINING_MEMORY
    | _EXPLAINING_OVERHEAD
    | _EXPLAINING_LOAD
    | _EXPLAINING_NEIGHBOUR
    | _EXPLAINING_HOSTKERNEL
    | _EXPLAINING_CONTAINMENT
    | _EXPLAINING_LIMITS
    | _EXPLAINING_SURFACE
    | _EXPLAINING_COMPAT
    | _EXPLAINING_COLDSTART
    | _EXPLAINING_WAKE
    | _EXPLAINING_TALK
    | _EXPLAINING_TANDEM
    | _EXPLAINING_APPLICATION
)
"""Metrics that explain a total or stand beside it; every other is itself an answer to the scenario's question."""

RAW = frozenset({"chunk_s", "request_s", "woken_answer_s"})
"""Values of which one launch yields many: kept and exported, as what its totals are taken from, and in no row. Rows
hold values that are independent of each other, which those of one launch are not."""

ABSENT = "absent"
"""A metric whose samples say, by their dimensions, `why` the metric `of` could not be measured in that round."""

COUNTED = frozenset({"recovered", "rolled_out", "app_recovered"})
"""Metrics that are 1 where a launch came to its end within a limit, and 0 where it did not: shown as `2 of 3`, since a
time exists only for those that did, and its median says nothing of the others."""

FACT = "fact"
"""The metric of what is told in words: its dimension `probe` is what was looked at, `said` what was found (see
lab/figures/evidence.py)."""

IN_NO_ROW = RAW | {density.LEVEL, ABSENT, FACT}
"""Metrics that are no row's as they stand."""

SEEN = "seen"
"""The dimension that tells from which side something was read: `inside` an instance, or `outside` it on its host."""

CONTROL = "process"
"""The target that others are related to: the same service with no platform at all."""

CALL = "call"
"""The dimension that tells of which kind a call of a function was."""
CALL_CHAIN = ("request", "main", "listening", "handler", "answer")
"""The instants of one call, as its client and the service that answers it see them."""

HIGHEST_RATE = "highest_rate"
"""The highest rate of calls, of those that were tried, that was borne."""
PATH, CALLEE = "path", "callee"
"""The dimensions that tell by which way one instance called another, and of which target that was, if another's."""

NODE = "node"
"""The dimension that tells on which of an engine's machines it was measured, where that is each in turn."""

SHARED = "what the pair shares"
"""The fact that tells of both sides of a call; for a callee of another target followed by `with` and that target."""

WAIT_METHOD = "wait_method"
SERVICE = "service"
ENGINE = "engine"
LOGIN = "login"
SETTLING = "settling"
CHAINS = {SERVICE: SERVICE_CHAIN, ENGINE: ENGINE_CHAIN, LOGIN: LOGIN_CHAIN, SETTLING: SETTLING_CHAIN}
"""A launch's, by the name that its steps' dimension `chain` gives."""


Key = tuple[str, str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The values of one row, warm-up left out: one target and metric, and nothing else that must be kept apart.

    `label` is the target with its qualifiers, `libvirt:q35 (tcg)`; `dimensions` are without them; `rounds` tells of
    each value in which round it was measured, warm-up counted with.
    """

    target: str
    label: str
    metric: str
    unit: str
    dimensions: Mapping[str, str]
    values: Sequence[float]
    rounds: Sequence[int] = ()

    @property
    def key(self) -> Key:
        """What makes it the same row in another run."""
        return self.label, self.metric, tuple(sorted(self.dimensions.items()))

    @property
    def name(self) -> str:
        """The metric and its dimensions, for a reader: `from → to`, or the metric's name. How a launch was waited for
        is left out: a note of its own tells it; so is the side, which is the same for all of a metric."""
        rest = {key: value for key, value in self.dimensions.items() if key not in (WAIT_METHOD, SEEN)}
        start, end = rest.pop("from", ""), rest.pop("to", "")
        if rest.get("chain") in CHAINS:
            del rest["chain"]
        what = f"{start} → {end}" if start and end else self.metric
        return " ".join([what, *(f"{key}={value}" for key, value in rest.items())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of a chain: from one phase to the next, with its values in seconds."""

    start: str
    end: str
    series: Series

    @property
    def median(self) -> float:
        return stats.estimate(self.series.values).median


def label(record: TargetRecord) -> str:
    """A target and what its engine adds to its name on this host: `libvirt:q35 (tcg)`."""
    told = [str(value) for value in (record.info.get("qualifiers") or {}).values() if value]
    return f"{record.target} ({', '.join(told)})" if told else record.target


def series_of(record: RunRecord) -> list[Series]:
    """All rows with at least one value, by target as the run lists them, then in the order first measured. Slopes take
    the place of the readings that they are of."""
    found: dict[tuple[str, str, tuple[tuple[str, str], ...]], tuple[list[float], list[int]]] = {}
    units: dict[str, str] = {}
    # Of 100,000 samples most share their mapping of dimensions, which is then taken apart once.
    same: dict[tuple[str, str, int], tuple[list[float], list[int]]] = {}
    derived = density.derived(record.samples)
    for sample in itertools.chain(record.samples, derived):
        if not sample.warmup and sample.metric not in IN_NO_ROW:
            row = same.get((sample.target, sample.metric, id(sample.dimensions)))
            if row is None:
                key = (sample.target, sample.metric, tuple(sample.dimensions.items()))
                row = found.setdefault(key, ([], []))
                same[sample.target, sample.metric, id(sample.dimensions)] = row
                units.setdefault(sample.metric, sample.unit)
            row[0].append(sample.value)
            row[1].append(sample.iteration)
    known = {target.target: target for target in record.targets}
    places = {name: place for place, name in enumerate(known)}
    rows = []
    for target, metric, dimensions in sorted(found, key=lambda key: places.get(key[0], len(places))):
        about = known.get(target)
        qualifiers = (about.info.get("qualifiers") or {}) if about else {}
        values, rounds = found[target, metric, dimensions]
        rows.append(
            Series(
                target=target,
                label=label(about) if about else target,
                metric=metric,
                unit=units[metric],
                dimensions={key: value for key, value in dimensions if qualifiers.get(key) != value},
                values=tuple(values),
                rounds=tuple(rounds),
            )
        )
    return rows


def absences(record: RunRecord) -> dict[tuple[str, str], str]:
    """Why a target has no values of a metric, or not of every round; warm-up left out."""
    return {
        (sample.target, sample.dimensions.get("of", "")): sample.dimensions.get("why", "")
        for sample in record.samples
        if sample.metric == ABSENT and not sample.warmup
    }


def by_path(about: Mapping[str, str]) -> str:
    """Of a sample's dimensions those that tell a path between two instances, as `absences` names what it lacks."""
    return " ".join(f"{key}={about[key]}" for key in (PATH, CALLEE) if key in about)


def failures(record: RunRecord, target: str) -> list[LaunchRecord]:
    """The failed launches of `target`, warm-up left out."""
    return [launch for launch in all_failures(record) if launch.target == target]


def all_failures(record: RunRecord) -> list[LaunchRecord]:
    """The failed launches of every target, warm-up left out."""
    return [launch for launch in record.launches if launch.outcome is Outcome.FAILED and not launch.warmup]


def chain(rows: Iterable[Series], target: str, name: str) -> list[Step]:
    """The steps of `target`'s chain `name`, one after the other from its first phase. Where launches saw different
    phases, the steps that most of them saw."""
    order = [phase.value for phase in CHAINS[name]]
    steps = [
        Step(start=row.dimensions["from"], end=row.dimensions["to"], series=row)
        for row in rows
        if row.target == target
        and row.metric == "phase_s"
        and row.dimensions.get("from") in order
        and row.dimensions.get("to") in order
        and row.dimensions.get("chain", name) == name
    ]
    return _path(steps, order)


def call_chain(rows: Iterable[Series], target: str, kind: str) -> list[Step]:
    """The steps of `target`'s calls of that kind (cold, first, warm), one after the other from `request`."""
    steps = [
        Step(start=row.dimensions["from"], end=row.dimensions["to"], series=row)
        for row in rows
        if row.target == target and row.metric == "phase_s" and row.dimensions.get(CALL) == kind
    ]
    return _path(steps, CALL_CHAIN)


def _path(steps: Sequence[Step], order: Sequence[str]) -> list[Step]:
    path: list[Step] = []
    at = order[0]
    while True:
        onward = [step for step in steps if step.start == at and order.index(step.end) > order.index(at)]
        if not onward:
            return path
        path.append(max(onward, key=lambda step: (len(step.series.values), -order.index(step.end))))
        at = path[-1].end


def beside(rows: Iterable[Series], a: Series) -> Series | None:
    """The control's row with the same metric as `a`; None where there is none or `a` is it, and for what was counted
    inside, where half as many is not half as much of anything. Of several, the one whose dimensions are `a`'s, else the
    one of most values, but for a ratio, which is of what its dimensions name."""
    found = [
        row
        for row in rows
        if row.target == CONTROL and row.metric == a.metric and (a.unit != RATIO or row.dimensions == a.dimensions)
    ]
    if a.target == CONTROL or not found or a.dimensions.get(SEEN) == "inside":
        return None
    return max(found, key=lambda row: (row.dimensions == a.dimensions, len(row.values)))


def is_fact(row: Series) -> bool:
    """Whether the row counts what was found inside an instance: a fact, of which no median or interval says more."""
    return SEEN in row.dimensions and not row.unit and row.metric not in EXPLAINING


def fact(row: Series) -> str:
    """Of a fact's row: the count, and where rounds differed the range of them."""
    low, high = min(row.values), max(row.values)
    return units.quantity(low, row.unit) if low == high else units.span(low, high, row.unit, like=high)


def fact_grid(record: RunRecord, facts: Sequence[Series]) -> list[list[str]]:
    """Targets by what was counted in each: the headings, and a row for each target."""
    metrics = list(dict.fromkeys(row.metric for row in facts))
    unknown = absences(record)
    grid = [["", *(metric.replace("_", " ") for metric in metrics)]]
    for name, target in {row.label: row.target for row in facts}.items():
        found = {row.metric: fact(row) for row in facts if row.label == name}
        cells = [found.get(metric, "not told" if (target, metric) in unknown else "absent") for metric in metrics]
        grid.append([name, *cells])
    return grid


def related(rows: Iterable[Series]) -> str:
    """The heading of what `against` says of these rows."""
    kinds = {row.unit == "bytes" for row in rows}
    if kinds == {True, False}:
        return f"x or over {CONTROL}"
    return f"over {CONTROL}" if True in kinds else f"x {CONTROL}"


def counted(row: Series) -> str:
    """Of a COUNTED row: how many of how many."""
    return f"{sum(row.values):.0f} of {len(row.values)}"


def times(found: stats.Ratio) -> str:
    """A ratio with its interval: `91.2x (88.4-95.0)`."""
    text = f"{units.digits(found.value)}x"
    return text if found.low is None or found.high is None else f"{text} ({units.between(found.low, found.high)})"


def ratio_of(base: Series | None, other: Series) -> stats.Ratio | None:
    """`other`'s median over `base`'s; None where there is nothing to divide by."""
    if base is None or stats.estimate(base.values).median <= 0:
        return None
    return stats.ratio(base.values, other.values)


def against(base: Series | None, other: Series) -> str:
    """How `other` stands to the control: the ratio of medians, and of memory the difference, which is its overhead."""
    if other.unit != "bytes":
        ratio = ratio_of(base, other)
        return times(ratio) if ratio else ""
    if base is None or not (_settled(base) and _settled(other)):
        return ""
    found = stats.difference(base.values, other.values)
    text = f"{'+' if found.value > 0 else ''}{units.quantity(found.value, 'bytes')}"
    if found.low is None or found.high is None:
        return text
    return f"{text} ({units.span(found.low, found.high, 'bytes', like=found.value)})"


def median(row: Series, found: stats.Estimate) -> str:
    """The median as a reader may take it: 'not resolved' for a slope whose interval is too wide."""
    return units.quantity(found.median, row.unit) if _settled(row) else "not resolved"


def _settled(row: Series) -> bool:
    """Whether the row's median is a figure: a slope may be too uncertain for one."""
    return row.metric != density.MARGINAL or density.resolved(stats.estimate(row.values))
