"""The words beside a run's and a comparison's figures: what a reader must know to read them right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab import units
from lab.errors import with_remedy
from lab.features import Feature
from lab.figures import density, nodes, series, shape_notes, stats, tandem
from lab.figures.series import EXPLAINING, HIGHEST_RATE, WAIT_METHOD, Series
from lab.host.noise import HIGH_STEAL_FRACTION, WarningCode, host_warnings
from lab.store.record import ASKED_AGAIN, KILLED_AFTER_S, LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.timeline import Phase

if TYPE_CHECKING:
    from lab.figures.compared import RunComparison

TCG = (
    "Targets marked tcg ran emulated, without KVM: their figures say how emulation does, and nothing of VMs in general."
)
_NO_LOSS_S = 1.0
"""By so much more than usual a busy machine may start an engine's object, and nothing be wrong with the engine."""

_PASSING = frozenset(
    {
        WarningCode.BATTERY,
        WarningCode.LOAD,
        WarningCode.LOW_MEMORY,
        WarningCode.STEAL,
        WarningCode.SWAP,
        WarningCode.THROTTLED,
    }
)
_STOPPED = {
    "precision": "The run stopped itself when all intervals were as narrow as --until-ci asked.",
    "time": "The run stopped itself when its time (--max-time) was over.",
    "the user": "The run was interrupted by the user.",
    "no target left": "The run ended early, because no target was left to measure.",
}


def headline(record: RunRecord) -> str:
    """The run in one line."""
    run = record.run
    warmup = run.parameters.get("warmup")
    rounds = len(run.order) - (warmup if isinstance(warmup, int) else 0)
    parts = [run.scenario, f"run {run.id}", _minute(run.started_at) + " UTC", f"{max(rounds, 0)} rounds"]
    if warmup:
        parts.append(f"after {warmup} of warm-up")
    if run.parameters.get("cold"):
        parts.append("cold")
    return ", ".join([*parts, run.status.value])


def said(run: Run) -> list[str]:
    """Whose run it is, where it is not the lab's own, and what was said of it since, the oldest first."""
    told = [(at, f"note of {_minute(at)}: {text}") for at, text in run.notes]
    if run.accepted_at is not None:
        why = f": {run.accepted_note}" if run.accepted_note else ""
        told.append((run.accepted_at, f"accepted as the new normal, {_minute(run.accepted_at)}{why}"))
    return [*([f"measured by {run.origin}"] if run.origin else []), *(text for _, text in sorted(told))]


def _minute(iso: str) -> str:
    return iso.replace("T", " ")[:16]


def of_run(record: RunRecord, rows: Sequence[Series]) -> list[str]:
    """All that a reader must know, one sentence or two each; the host's warnings last."""
    told = [
        *_ending(record.run),
        *_unequal(record),
        *_different(record),
        *_killed(record),
        *_asked_again(record),
        *_absent(record, rows),
        *_unmeasured(record),
        *_censored(rows),
        *_never_too_much(rows),
        *shape_notes.of_rows(rows),
        *nodes.notes(rows),
        *_figures(rows),
        *_memory(rows),
        *_guests(rows),
        *_density(rows),
        *_tandem(rows),
        *_waiting(rows),
        *_health(record),
        *_slow(record),
        *_left_out(record),
        *_ticks(record),
    ]
    if any(_accel(target.info) == "tcg" for target in record.targets):
        told.append(TCG)
    return [*told, *warnings(record)]


def missing(record: RunRecord) -> str:
    """The targets that were asked for and of which there is no figure, each with how it ended; empty where none is."""
    measured = {sample.target for sample in record.samples if not sample.warmup}
    told = [
        f"{series.label(target)} ({target.outcome if target.outcome is not Outcome.OK else 'no complete launch'})"
        for target in record.targets
        if target.target not in measured
    ]
    return ", ".join(told)


def warnings(record: RunRecord) -> list[str]:
    """What of the host makes the figures weak: as found when the run began, else from its stored facts."""
    return [f"Host: {_with_remedy(found)}" for found in _warnings(record)]


def slow_launch(target: TargetRecord, started_s: float) -> str:
    """What a launch lost until its engine said that it runs, why, and what mends it; empty where no reason is known, or
    nothing to speak of is lost."""
    told = (target.info.get("facts") or {}).get("slow_launch") or {}
    usual_s = told.get("usual_s", 0.0)  # an earlier lab's facts have none
    if not told or (usual_s and started_s < usual_s + _NO_LOSS_S):
        return ""
    usual = f", where {units.quantity(usual_s, 's')} is usual" if usual_s else ""
    return (
        f"{series.label(target)}: {units.quantity(started_s, 's')} of a launch pass before the engine has started "
        f"it{usual}: {told['why']} ({told['remedy']})."
    )


def passing_warnings(record: RunRecord) -> list[str]:
    """Those of them that may be different in the next run on the same host."""
    return [_with_remedy(found) for found in _warnings(record) if found.get("code") in _PASSING]


def conclusion(comparison: RunComparison) -> str:
    """The comparison's outcome in one line."""
    beside = [f"{side} lacks {told}" for side, told in comparison.missing.items() if told]
    after = [told for told in (comparison.hosts, comparison.company) if told]
    shapes = ", ".join(comparison.title(row) for row in comparison.shapes)
    if shapes:
        after.insert(0, f"Their values differ in shape though their medians do not: {shapes}.")
    return " ".join([_found(comparison), *after, *([f"Asked for: {'; '.join(beside)}."] if beside else [])])


def _found(comparison: RunComparison) -> str:
    if not comparison.alarms and not comparison.regressions:
        tested = [row for row in comparison.rows if row.can_alarm and row.p is not None]
        return "No difference seen in the totals." if tested else "No total could be tested."
    rows = [*comparison.alarms, *(row for row in comparison.regressions if row not in comparison.alarms)]
    verdicts = dict.fromkeys(row.verdict for row in rows)
    told = (
        f"{verdict}: {', '.join(comparison.title(row) for row in rows if row.verdict is verdict)}"
        for verdict in verdicts
    )
    return "B against A: " + "; ".join(told) + "."


def probability(p: float) -> str:
    """A p-value with the digits that a reader has use for."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _ending(run: Run) -> Iterator[str]:
    stopped_by = run.parameters.get("stopped_by")
    if isinstance(stopped_by, str) and stopped_by in _STOPPED:
        yield _STOPPED[stopped_by]
    elif stopped_by == "rounds" and run.parameters.get("until_ci") is not None:
        asked = f"± {run.parameters['until_ci']:.0%}"
        yield f"Not all intervals became as narrow as --until-ci asked ({asked}) in these rounds."
    elif run.status is RunStatus.INTERRUPTED:
        yield "The run was interrupted; what it had measured by then is shown."


def _warnings(record: RunRecord) -> list[dict[str, Any]]:
    stored = record.host.get("warnings")
    found = [dict(warning) for warning in stored] if stored is not None else []
    if stored is None:
        found = [{"code": w.code, "text": w.text, "remedy": w.remedy} for w in host_warnings(record.host)]
    steal = record.run.parameters.get("steal_fraction")
    if isinstance(steal, float) and steal >= HIGH_STEAL_FRACTION:
        text = f"a hypervisor took {steal:.1%} of the CPU time while the run lasted"
        found.append({"code": WarningCode.STEAL, "text": text, "remedy": ""})
    return found


def _with_remedy(found: Mapping[str, Any]) -> str:
    return with_remedy(str(found["text"]), str(found.get("remedy") or ""))


def _unequal(record: RunRecord) -> Iterator[str]:
    """Where a target could not have the limits that were asked for, and who else had them (docs/method.md, rule 11)."""
    limits = {
        series.label(target): (target.info.get("facts") or {}).get("limits") or {}
        for target in record.targets
        if target.outcome is not Outcome.SKIPPED
    }
    for label, own in limits.items():
        lacking = [
            f"{name} ({', '.join(filter(None, [text.removeprefix('not set').lstrip(': '), _had_by(name, limits)]))})"
            for name, text in own.items()
            if text.startswith("not set")
        ]
        if lacking:
            yield f"{label} ran without these limits: {'; '.join(lacking)}."


def _had_by(limit: str, limits: Mapping[str, Mapping[str, str]]) -> str:
    """Who had `limit`; empty where nobody did."""
    having = [label for label, own in limits.items() if limit in own and not own[limit].startswith("not set")]
    return f"which {', '.join(having)} had" if having else ""


def _different(record: RunRecord) -> Iterator[str]:
    """What a started service finds around it, where that is not the same on all targets (docs/method.md, rule 11)."""
    found: dict[str, dict[str, list[str]]] = {}
    for target in record.targets:
        for name, text in ((target.info.get("facts") or {}).get("surroundings") or {}).items():
            found.setdefault(name, {}).setdefault(str(text), []).append(target.target)
    told = [
        f"{name} ({'; '.join(', '.join(labels) + ': ' + text for text, labels in values.items())})"
        for name, values in found.items()
        if len(values) > 1
    ]
    if told:
        yield f"The service did not find the same around it on all targets: {', '.join(told)}."


def _killed(record: RunRecord) -> Iterator[str]:
    """Launches that no stop signal ended: their time to stop is the time that was given."""
    launches: dict[str, list[LaunchRecord]] = {}
    for launch in record.launches:
        launches.setdefault(launch.target, []).append(launch)
    told: dict[float, list[str]] = {}
    for target, own in launches.items():
        seconds = [after_s for one in own if isinstance(after_s := one.facts.get(KILLED_AFTER_S), int | float)]
        if seconds:
            told.setdefault(max(seconds), []).append(f"{target} ({len(seconds)} of {len(own)} launches)")
    for after_s, targets in told.items():
        yield (
            f"Killed after {after_s:g} s, since the stop signal did not end the service: {', '.join(targets)}. "
            "Their time to stop is the one that was given."
        )


def _asked_again(record: RunRecord) -> Iterator[str]:
    """Launches within which an engine's API had too much to do."""
    told: dict[str, list[str]] = {}
    for launch in record.launches:
        if said := (launch.facts.get("reported") or {}).get(ASKED_AGAIN):
            told.setdefault(launch.target, []).append(str(said))
    for target, said in told.items():
        of = sum(launch.target == target for launch in record.launches)
        yield (
            f"{target}: in {len(said)} of {of} launches the engine's API had too much to do, and was asked again, "
            f"which is within their times (the first: {said[0]})."
        )


def _absent(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    """The targets that have nothing but what explains, and of which nothing else says why."""
    totals = {row.target for row in rows if row.metric not in EXPLAINING} | {of for of, _ in series.absences(record)}
    others = [label for target, label in {row.target: row.label for row in rows}.items() if target not in totals]
    if totals and others:
        yield f"{', '.join(others)} has no total, because its end was not seen (without a network there is no 'ready')."


def _unmeasured(record: RunRecord) -> Iterator[str]:
    labels = {target.target: series.label(target) for target in record.targets}
    metrics: dict[tuple[str, str], list[str]] = {}
    for (target, metric), why in series.absences(record).items():
        metrics.setdefault((target, why), []).append(metric)
    for (target, why), names in metrics.items():
        yield f"{labels.get(target, target)} has no {', '.join(names)}, or not of every round: {why}."


def _censored(rows: Sequence[Series]) -> Iterator[str]:
    for row in rows:
        if row.metric in series.COUNTED and not all(row.values):
            limit = row.dimensions.get("censored_at")
            within = f" within {limit}" if limit else ""
            apart = [key for key in ("killed", "restart", "policy") if key in row.dimensions]
            which = " ".join(f"{key}={row.dimensions[key]}" for key in apart)
            yield (
                f"{' '.join(filter(None, [row.label, which]))}: {series.counted(row)} {row.metric.replace('_', ' ')}"
                f"{within}; medians of the time are of those alone, and say nothing of the others."
            )


def _never_too_much(rows: Sequence[Series]) -> Iterator[str]:
    """A highest rate that is the highest of those tried is a bound from below."""
    tried = [float(row.dimensions["rate"]) for row in rows if row.metric == "curve_p50_s" and "rate" in row.dimensions]
    borne = [row for row in rows if row.metric == HIGHEST_RATE and tried and min(row.values) >= max(tried)]
    if borne:
        which = dict.fromkeys(f"{row.label} by {row.dimensions.get(series.PATH, 'its path')}" for row in borne)
        yield (
            f"The highest rate that was tried, {max(tried):,.0f} calls/s, was too much in no round for "
            f"{', '.join(which)}: they may bear more (-p rates=…)."
        )


def _figures(rows: Sequence[Series]) -> Iterator[str]:
    answers = [row for row in rows if row.metric not in EXPLAINING and not series.is_fact(row)]
    if any(stats.estimate(row.values).low is None for row in answers):
        yield "Fewer than 6 values have no 95 % interval; their range covers the median less surely than that."
    if any(row.dimensions.get("chain") == series.ENGINE for row in rows):
        yield (
            "'engine' is what the engine says of itself, beside the service's own chain and no part of it; "
            "'between' is signed: negative where the service ran before its engine said so."
        )
    if any(row.dimensions.get("chain") == series.SETTLING for row in rows):
        yield (
            "'login' and 'settling' are of whole guests, beside the service's own chain: systemd starts the service, "
            "sshd and the rest in no order with each other."
        )
    related = [row for row in answers if series.beside(rows, row)]
    if any(row.unit == "bytes" for row in related):
        yield (
            f"'over {series.CONTROL}' is the difference from the bare process's median: the platform's overhead, "
            "with its 95 % bootstrap interval."
        )
    if any(row.unit != "bytes" for row in related):
        yield f"'x {series.CONTROL}' is the ratio to the bare process's median, with its 95 % bootstrap interval."


def _memory(rows: Sequence[Series]) -> Iterator[str]:
    crowded = [row.label for row in rows if row.metric == "others_running" and any(row.values)]
    if crowded:
        yield (
            f"The engine of {', '.join(crowded)} ran other instances, which share pages with the measured one: its PSS "
            "is smaller than it would be alone."
        )


def _guests(rows: Sequence[Series]) -> Iterator[str]:
    guests = {row.label: row.dimensions for row in rows if row.dimensions.get("part") == "declared"}
    for label, told in guests.items():
        back = f"balloon: {told.get('balloon')}, free-page reporting: {told.get('free_page_reporting')}"
        yield (
            f"{label}: its host keeps for a guest what that has touched once, unless it is given back ({back}); memory "
            "that the guest takes anew from what it touched before does not show on the host."
        )


def _density(rows: Sequence[Series]) -> Iterator[str]:
    slopes = [row for row in rows if row.metric == density.MARGINAL]
    for row in slopes:
        if not density.resolved(stats.estimate(row.values)):
            yield (
                f"{row.label}: the slope is not resolved, since half its 95 % interval is more than a quarter of it, "
                f"or fewer than 6 walks were made ({len(row.values)}): more rounds, a higher max, or a quieter machine."
            )
    for row in rows:
        if row.metric == "stopped_level":
            reason, least = row.dimensions.get("reason", ""), min(row.values)
            why = {"floor": "for the floor of available memory", "time": "for time"}.get(reason)
            why = why or f"since the next was {reason}"
            yield f"{row.label}: stopped itself at {least:g} instances, {why}, and removed them."
    if slopes:
        yield (
            "Instances per GiB and on this machine are extrapolations: they hold if the next ones cost as much as "
            "these, and nothing else runs out first."
        )
        yield (
            "Where the slope of used memory and the sum of PSS disagree: page tables, kernel memory, daemons that grow "
            "and page cache that does not give way are in the slope alone; what the kernel shares or merges (KSM) "
            "between instances makes the slope smaller than the cgroups' sum."
        )


def _tandem(rows: Sequence[Series]) -> Iterator[str]:
    yield from filter(None, (tandem.too_few(tandem.crossings(rows)), tandem.looking(rows)))


def _waiting(rows: Sequence[Series]) -> Iterator[str]:
    methods: dict[str, list[str]] = {}
    for row in rows:
        method = row.dimensions.get(WAIT_METHOD)
        if method and row.metric not in EXPLAINING and row.label not in methods.setdefault(method, []):
            methods[method].append(row.label)
    if len(methods) > 1:
        told = "; ".join(f"{method}: {', '.join(labels)}" for method, labels in methods.items())
        yield f"Rows were waited for in different ways, which is part of their difference ({told})."


def _health(record: RunRecord) -> Iterator[str]:
    """What an image's own health check had said when the service was ready: no part of any figure."""
    reported: dict[str, list[Mapping[str, Any]]] = {}
    for launch in record.launches:
        if told := launch.facts.get("reported"):
            reported.setdefault(launch.target, []).append(told)
    for target in record.targets:
        told = reported.get(target.target, [])
        said = Counter(one["health"] for one in told if one.get("health"))
        if said:
            interval = next(one["health_interval_s"] for one in told if one.get("health"))
            counts = ", ".join(f"'{word}' in {count} of {said.total()} launches" for word, count in said.items())
            yield (
                f"{series.label(target)}: the image has a health check, asked every {interval} s by the engine, which "
                f"said {counts} when the launch was over; 'ready' is the first answer that a client got."
            )


def _slow(record: RunRecord) -> Iterator[str]:
    for target in record.targets:
        if not (target.info.get("facts") or {}).get("slow_launch"):
            continue  # before any launch's marks are read
        taken = [
            launch.timeline.duration_s(Phase.REQUESTED, Phase.STARTED)
            for launch in record.launches
            if launch.target == target.target and not launch.warmup and Phase.STARTED in launch.timeline
        ]
        if taken:
            yield slow_launch(target, stats.estimate(taken).median)


def _left_out(record: RunRecord) -> Iterator[str]:
    """What a target's variant lacks, so that its row is not taken for the row of what it was made from."""
    for target in record.targets:
        if left_out := (target.info.get("facts") or {}).get("left_out"):
            yield f"{series.label(target)} starts without: {'; '.join(left_out)}. What it gains is what they cost."


def _ticks(record: RunRecord) -> Iterator[str]:
    """Which engines act on a clock of their own, and what was done about it (docs/method.md, rule 22)."""
    spans: dict[float, list[str]] = {}
    for target in record.targets:
        if Feature.TICKS in (target.info.get("features") or ()):
            seconds = float((target.info.get("facts") or {}).get("tick_s") or 0)
            spans.setdefault(seconds, []).append(series.label(target))
    for seconds, labels in spans.items():
        yield (
            f"{', '.join(labels)} acts on a clock of its own, every {seconds:g} s: each launch and each stop began at "
            "a random instant of it, after a wait that no figure holds, so that times are those of any moment."
        )


def _accel(info: Any) -> Any:
    return (info.get("qualifiers") or {}).get("accel")
