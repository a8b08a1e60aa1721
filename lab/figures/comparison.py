"""Whether run B differs from run A, and how much: ratios of medians, permutation tests corrected for their number.

Two families of tests, each corrected on its own by Holm's method. The totals (every metric that answers the scenario's
question, `boot_s` for `boot`) are the family that can alarm: of comparisons of a run with its equal, at most `alpha`
alarm at all, slower or faster. Phases and the like explain a total; there are many of them, and in one family with the
totals they would only hide what is there.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab.errors import IncomparableRuns
from lab.figures import notes, rank_test, relative, series, shapes, stats
from lab.figures.compared import Difference, Row, RunComparison, Verdict
from lab.figures.series import COUNTED, EXPLAINING, Series
from lab.store.record import Outcome, RunRecord, TargetRecord

ALPHA = 0.05
EQUAL_SPEC = ("image", "cpus", "memory_bytes")
"""What of the spec must be equal: declared sizes and the service itself (docs/method.md, rule 11)."""

VOLATILE_WORDS = frozenset(
    {"available", "free", "load", "loadavg", "steal", "time", "uptime", "used", "volatile", "warnings"}
)
"""A fact with such a word in its path changes from minute to minute, and is no difference between hosts."""

NOT_CONDITIONS = frozenset(
    {"rounds", "warmup", "seed", "until_ci", "max_time", "timeout", "targets", "stopped_by", "steal_fraction", "spec"}
    # These are in the spec as well.
    | {"image", "port", "ready_path", "command", "env", "cpus", "memory", "pids", "scratch"}
)
"""A run's parameters that say how often, and not under which conditions, it measured."""

_IGNORED_IN_SPEC = frozenset({"labels", "nonce"})


def compare_runs(a: RunRecord, b: RunRecord, *, alpha: float = ALPHA) -> RunComparison:
    """B against A, every row; warm-up left out, failed launches counted beside.

    Figures of two hosts are compared over the control of each, and those without are shown and not compared. Raises
    IncomparableRuns for another scenario, image, CPUs or memory, without a row in common, where a run has no complete
    launch, and where one of two hosts' has no control.
    """
    _check(a, b)
    all_a, all_b = series.series_of(a), series.series_of(b)
    two_hosts = relative.of_two_hosts(a.run, b.run)
    if two_hosts:
        relative.require_control((a, b), (all_a, all_b))
    rows_a, rows_b = (
        {row.key: row for row in (relative.over_control(rows) if two_hosts else rows)} for rows in (all_a, all_b)
    )
    failed = [Counter(launch.target for launch in series.all_failures(record)) for record in (a, b)]
    rows = [
        replace(
            _tested(_row(row, rows_a.get(key), rows_b.get(key), a, b), rows_a.get(key), rows_b.get(key), alpha),
            failed_a=failed[0][row.target],
            failed_b=failed[1][row.target],
        )
        for key, row in {**rows_a, **rows_b}.items()
    ]
    if not set(rows_a) & set(rows_b):
        other = "over the control of each host" if two_hosts else "they measured different things"
        why = next((f"{row.target}: {row.reason}" for row in rows if row.can_alarm), other)
        raise IncomparableRuns(f"runs {a.run.id} and {b.run.id} have no row in common: {why}")
    if two_hosts:
        rows += _left_out(all_a, all_b)
    measured = {sample.target for record in (a, b) for sample in record.samples if not sample.warmup}
    rows += [row for target in a.targets if target.target not in measured for row in _lost(target, a, b)]
    rows = _shaped(_corrected(rows, alpha), rows_a, rows_b, alpha)
    return RunComparison(
        a=a.run.id,
        b=b.run.id,
        scenario=a.run.scenario,
        alpha=alpha,
        rows=sorted(rows, key=lambda row: not row.can_alarm),
        differences=list(_differences(a, b)),
        warnings=[f"{name}: {text}" for name, run in (("A", a), ("B", b)) for text in notes.passing_warnings(run)],
        company=_company(a, b),
        hosts=_hosts(a, b) if two_hosts else "",
        missing={name: notes.missing(run) for name, run in (("A", a), ("B", b))},
    )


def _left_out(in_a: Sequence[Series], in_b: Sequence[Series]) -> Iterator[Row]:
    """What was measured and stands over no control, so that one host's is not compared with another's."""
    rows_a, rows_b = ({row.key: row for row in rows} for rows in (in_a, in_b))
    divided = {row.key for rows in (in_a, in_b) for row in relative.undivided(rows)}
    for key, row in {**rows_a, **rows_b}.items():
        if key not in divided:
            continue
        a, b = rows_a.get(key), rows_b.get(key)
        yield Row(
            target=row.label,
            metric=row.metric,
            name=row.name,
            unit=row.unit,
            dimensions=dict(row.dimensions),
            can_alarm=row.metric not in EXPLAINING,
            a=stats.estimate(a.values) if a else None,
            b=stats.estimate(b.values) if b else None,
            share_a=_share(a),
            share_b=_share(b),
            reason="the control of each host" if row.target == series.CONTROL else "over no control, of two hosts",
        )


def _hosts(a: RunRecord, b: RunRecord) -> str:
    names = [record.run.host_name or record.run.host_id for record in (a, b)]
    if names[0] == names[1]:
        names = [f"{record.run.host_name} ({record.run.host_id})" for record in (a, b)]
    return (
        f"They are of two hosts, {names[0]} and {names[1]}: each figure is over the bare process's "
        f"({series.CONTROL}) of the same round on its own host, and none is compared as it stands."
    )


def _company(a: RunRecord, b: RunRecord) -> str:
    """Targets are interleaved, so that each finds the caches, clocks and queues that the others left."""
    in_a, in_b = (
        {target.target for target in record.targets if target.outcome is not Outcome.SKIPPED} for record in (a, b)
    )
    told = [
        f"{name} alone ran {', '.join(sorted(more))}" for name, more in (("A", in_a - in_b), ("B", in_b - in_a)) if more
    ]
    if not told:
        return ""
    return f"They ran in different company, which can be the whole difference: {'; '.join(told)}."


def _check(a: RunRecord, b: RunRecord) -> None:
    pair = f"runs {a.run.id} and {b.run.id}"
    if a.run.scenario != b.run.scenario:
        raise IncomparableRuns(f"{pair} are of different scenarios: {a.run.scenario} and {b.run.scenario}")
    spec_a, spec_b = _spec(a), _spec(b)
    for key in EQUAL_SPEC:
        if spec_a.get(key) != spec_b.get(key):
            what = key.removesuffix("_bytes")
            raise IncomparableRuns(
                f"{pair} differ in {what}: {spec_a.get(key)} and {spec_b.get(key)}",
                resolution=f"run both with the same --{what}",
            )
    for record in (a, b):
        if not any(not sample.warmup for sample in record.samples):
            raise IncomparableRuns(
                f"run {record.run.id} has no complete launch", resolution=f"lab show {record.run.id}"
            )
    names_a, names_b = ([target.target for target in record.targets] for record in (a, b))
    if not set(names_a) & set(names_b):
        raise IncomparableRuns(f"{pair} have no target in common: {', '.join(names_a)}; {', '.join(names_b)}")


def _row(known: Series, in_a: Series | None, in_b: Series | None, a: RunRecord, b: RunRecord) -> Row:
    """The row of `known`, which is one of the two, not yet tested."""
    row = Row(
        target=known.label,
        metric=known.metric,
        name=known.name,
        unit=known.unit,
        dimensions=dict(known.dimensions),
        can_alarm=known.metric not in EXPLAINING,
        a=stats.estimate(in_a.values) if in_a else None,
        b=stats.estimate(in_b.values) if in_b else None,
        share_a=_share(in_a),
        share_b=_share(in_b),
    )
    if in_a is None:
        return replace(row, reason=_why_absent(known, a, "A"))
    if in_b is None:
        fails = row.can_alarm and _failed(b, known.target)
        verdict = Verdict.FAILS if fails else Verdict.NOT_COMPARED
        return replace(row, verdict=verdict, reason=_why_absent(known, b, "B"))
    return row if known.metric in COUNTED else replace(row, ratio=series.ratio_of(in_a, in_b))


def _share(row: Series | None) -> float | None:
    return statistics.fmean(row.values) if row is not None and row.metric in COUNTED else None


def _tested(row: Row, in_a: Series | None, in_b: Series | None, alpha: float) -> Row:
    if in_a is None or in_b is None:
        return row
    n_a, n_b = len(in_a.values), len(in_b.values)
    if 2 / rank_test.ways(n_a + n_b, n_a) > alpha:
        return replace(row, reason=f"no test of {n_a} and {n_b} values can reach {alpha:.0%}")
    return replace(row, p=rank_test.permutation_test(in_a.values, in_b.values))


def _lost(target: TargetRecord, a: RunRecord, b: RunRecord) -> Iterator[Row]:
    """A target that both runs tried and neither measured still has its row."""
    there = next((other for other in b.targets if other.target == target.target), None)
    if there is not None:
        yield Row(
            target=target.target,
            metric="",
            name="",
            unit="",
            dimensions={},
            can_alarm=False,
            a=None,
            b=None,
            failed_a=len(series.failures(a, target.target)),
            failed_b=len(series.failures(b, target.target)),
            reason=f"no complete launch in either ({there.reason or target.reason})",
        )


def _corrected(rows: Sequence[Row], alpha: float) -> list[Row]:
    done = list(rows)
    for can_alarm in (True, False):
        family = [place for place, row in enumerate(rows) if row.p is not None and row.can_alarm is can_alarm]
        p_values = [p for place in family if (p := rows[place].p) is not None]
        for place, p in zip(family, stats.holm(p_values), strict=True):
            done[place] = replace(rows[place], p_corrected=p, verdict=_verdict(rows[place], p, alpha))
    return done


def _shaped(
    rows: Sequence[Row],
    rows_a: Mapping[series.Key, Series],
    rows_b: Mapping[series.Key, Series],
    alpha: float,
) -> list[Row]:
    """Of the totals whose medians do not differ, those whose shapes do: a family of its own."""
    done = list(rows)
    found: dict[int, float] = {}
    for place, row in enumerate(rows):
        key = (row.target, row.metric, tuple(sorted(row.dimensions.items())))
        if row.can_alarm and row.p is not None and row.metric not in COUNTED:
            p = shapes.shape_p(rows_a[key].values, rows_b[key].values)
            if p is not None:
                found[place] = p
    for place, p in zip(found, stats.holm(list(found.values())), strict=True):
        same = rows[place].verdict is Verdict.SAME
        done[place] = replace(
            rows[place], p_shape=p, verdict=Verdict.SHAPE if same and p <= alpha else rows[place].verdict
        )
    return done


def _verdict(row: Row, p: float, alpha: float) -> Verdict:
    change = _change(row)
    if p > alpha:
        return Verdict.SAME
    if change == 0:
        return Verdict.SHAPE
    larger = change > 0
    if row.unit == "s":
        return Verdict.SLOWER if larger else Verdict.FASTER
    return Verdict.HIGHER if larger else Verdict.LOWER


def _change(row: Row) -> float:
    if row.share_a is not None and row.share_b is not None:
        return row.share_b - row.share_a
    return 0.0 if row.a is None or row.b is None else row.b.median - row.a.median


def _failed(record: RunRecord, target: str) -> bool:
    """Whether the run tried `target` and it did not come up; one that was skipped was not tried."""
    about = next((other for other in record.targets if other.target == target), None)
    if about is None or about.outcome is Outcome.SKIPPED:
        return False
    return about.outcome is Outcome.FAILED or (
        bool(series.failures(record, target)) and not any(s.target == target and not s.warmup for s in record.samples)
    )


def _why_absent(row: Series, record: RunRecord, name: str) -> str:
    about = next((target for target in record.targets if target.target == row.target), None)
    if about is None:
        return f"not in {name}"
    if about.outcome is not Outcome.OK:
        return f"{about.outcome} in {name}: {about.reason}"
    if series.label(about) != row.label:
        return f"{name} ran {series.label(about)}"
    others = [other for other in series.series_of(record) if (other.label, other.metric) == (row.label, row.metric)]
    if row.metric in EXPLAINING or not others:
        complete = any(sample.target == row.target and not sample.warmup for sample in record.samples)
        return f"not seen in {name}" if complete or row.metric in EXPLAINING else f"no complete launch in {name}"
    told = ", ".join(f"{key}={value}" for key, value in others[0].dimensions.items())
    return f"{name} has it with {told or 'no dimensions'}"


def _differences(a: RunRecord, b: RunRecord) -> Iterator[Difference]:
    yield from _differing("", {"lab_version": a.run.lab_version}, {"lab_version": b.run.lab_version})
    yield from _differing("host.", a.host, b.host)
    yield from _differing("spec.", *(_without(_spec(record), _IGNORED_IN_SPEC) for record in (a, b)))
    yield from _differing("run.", *(_without(record.run.parameters, NOT_CONDITIONS) for record in (a, b)))
    infos = {target.target: target.info for target in b.targets}
    for target in a.targets:
        if target.info and infos.get(target.target):
            yield from _differing(f"{target.target}.", target.info, infos[target.target])


def _differing(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    flat_a, flat_b = dict(_flat(a)), dict(_flat(b))
    for path in {**flat_a, **flat_b}:
        words = {word for part in path.split(".") for word in part.split("_")}
        if flat_a.get(path) != flat_b.get(path) and not words & VOLATILE_WORDS:
            yield Difference(prefix + path, flat_a.get(path), flat_b.get(path))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _spec(record: RunRecord) -> Mapping[str, Any]:
    return dict(record.run.parameters.get("spec") or {})


def _without(values: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
