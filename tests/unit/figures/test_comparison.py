"""What `compare` calls a difference, what it refuses, and that both are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from lab.errors import IncomparableRuns
from lab.figures import notes
from lab.figures.compared import Row, RunComparison, Verdict
from lab.figures.comparison import compare_runs
from lab.show.table import render_comparison
from lab.store.record import LaunchRecord, Outcome, RunRecord, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Timeline

Make = Callable[..., RunRecord]


def row(comparison: RunComparison, target: str, name: str = "boot_s") -> Row:
    (found,) = [r for r in comparison.rows if r.target == target and r.name.startswith(name)]
    return found


def test_a_delay_is_found_where_it_is_and_nowhere_else(make_record: Make) -> None:
    found = compare_runs(
        make_record("a", seed=1, noise=0.02), make_record("b", seed=2, noise=0.02, delays_ms={"docker": 50})
    )
    docker = row(found, "docker")
    assert docker.verdict is Verdict.SLOWER
    assert docker.ratio is not None
    assert docker.ratio.low is not None
    assert docker.ratio.high is not None
    assert docker.ratio.low < 316 / 266 < docker.ratio.high
    assert [r.target for r in found.regressions] == ["docker"] == [r.target for r in found.alarms]
    assert row(found, "libvirt:q35 (tcg)").verdict is Verdict.SAME
    assert row(found, "docker", "requested → main").verdict is Verdict.SLOWER
    assert row(found, "docker", "requested → created").verdict is Verdict.SAME
    back = compare_runs(
        make_record("b", seed=2, noise=0.02, delays_ms={"docker": 50}), make_record("a", seed=1, noise=0.02)
    )
    assert row(back, "docker").verdict is Verdict.FASTER
    assert not back.regressions
    assert [r.target for r in back.alarms] == ["docker"]


def test_phases_explain_and_do_not_alarm(make_record: Make) -> None:
    instants = {"docker": {"created": 12.0, "main": 265.0, "listening": 265.2, "ready": 266.0, "started": 268.0}}
    late = {"docker": {**instants["docker"], "created": 100.0}}
    found = compare_runs(make_record("a", instants=instants), make_record("b", seed=5, instants=late))
    assert row(found, "docker", "requested → created").verdict is Verdict.SLOWER
    assert not found.alarms


def test_the_families_are_corrected_apart(make_record: Make) -> None:
    found = compare_runs(make_record("a", seed=1), make_record("b", seed=2))
    totals = [r for r in found.rows if r.can_alarm]
    assert {r.metric for r in totals} == {"boot_s"}
    assert len(totals) == 3
    least = min(totals, key=lambda r: r.p or 0)
    assert least.p_corrected == pytest.approx(min(1, 3 * (least.p or 0)))
    assert found.rows[: len(totals)] == totals


def test_too_few_values_are_not_compared(make_record: Make) -> None:
    found = compare_runs(make_record("a", n=3), make_record("b", n=3, seed=2))
    assert row(found, "docker").verdict is Verdict.NOT_COMPARED
    assert row(found, "docker").reason == "no test of 3 and 3 values can reach 5%"
    assert row(found, "docker").ratio is not None


def test_warm_up_is_left_out_and_failures_are_counted(make_record: Make) -> None:
    b = make_record("b", seed=2)
    failed = LaunchRecord(
        target="docker", iteration=11, warmup=False, outcome=Outcome.FAILED, timeline=Timeline(), error="boom"
    )
    b = replace(b, launches=[*b.launches, failed, replace(failed, warmup=True)])
    found = row(compare_runs(make_record("a"), b), "docker")
    assert (found.failed_a, found.failed_b) == (0, 1)
    assert found.a is not None
    assert found.a.n == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": "memory"}, "different scenarios: boot and memory"),
        ({"parameters": {"spec": {"image": "nginx", "cpus": 1.0, "memory_bytes": 134217728}}}, "differ in image"),
        ({"parameters": {"spec": {"image": "stratalab/service", "cpus": 2.0, "memory_bytes": 1}}}, "differ in cpus"),
        ({"parameters": {"spec": {"image": "stratalab/service", "cpus": 1.0, "memory_bytes": 1}}}, "differ in memory"),
    ],
)
def test_what_is_not_equal_is_refused(make_record: Make, change: Any, message: str) -> None:
    with pytest.raises(IncomparableRuns, match=message):
        compare_runs(make_record("a"), make_record("b", **change))


def test_runs_with_nothing_in_common_are_refused(make_record: Make) -> None:
    process, docker = ({name: {"main": 1.0, "ready": 2.0}} for name in ("process", "docker"))
    with pytest.raises(IncomparableRuns, match="no target in common: process; docker"):
        compare_runs(make_record("a", instants=process), make_record("b", instants=docker))
    with pytest.raises(IncomparableRuns, match="run b has no complete launch"):
        compare_runs(make_record("a"), make_record("b", n=0))
    a = make_record("a", instants={"libvirt:q35": {"main": 1.0, "ready": 2.0}})
    (target,) = a.targets
    kvm = {**target.info, "qualifiers": {"accel": "kvm"}}
    samples = [replace(s, dimensions={**s.dimensions, "accel": "kvm"}) for s in a.samples]
    b = replace(a, targets=[replace(target, info=kvm)], samples=samples)
    with pytest.raises(IncomparableRuns, match=r"B ran libvirt:q35 \(kvm\)"):
        compare_runs(a, b)


def test_another_way_of_waiting_is_not_compared(make_record: Make) -> None:
    b = make_record("b", seed=2)
    dimensions = {"docker": {"wait_method": "marker"}}
    b = replace(
        b,
        samples=[
            replace(s, dimensions=dimensions[s.target]) if s.metric == "boot_s" and s.target in dimensions else s
            for s in b.samples
        ],
    )
    found = compare_runs(make_record("a"), b)
    rows = [r for r in found.rows if r.target == "docker" and r.can_alarm]
    assert [r.verdict for r in rows] == [Verdict.NOT_COMPARED] * 2
    assert rows[0].reason == "B has it with wait_method=marker"


def test_a_target_that_fails_now_is_a_regression_and_a_skipped_one_is_not(make_record: Make) -> None:
    def without_docker(outcome: Outcome) -> RunRecord:
        b = make_record("b", seed=2)
        targets = [
            replace(t, outcome=outcome, reason="no daemon", info={}) if t.target == "docker" else t for t in b.targets
        ]
        return replace(b, targets=targets, samples=[s for s in b.samples if s.target != "docker"])

    failed = compare_runs(make_record("a"), without_docker(Outcome.FAILED))
    assert [(r.target, r.verdict, r.reason) for r in failed.regressions] == [
        ("docker", Verdict.FAILS, "failed in B: no daemon")
    ]
    skipped = compare_runs(make_record("a"), without_docker(Outcome.SKIPPED))
    assert not skipped.regressions
    assert row(skipped, "docker").reason == "skipped in B: no daemon"


def with_metric(record: RunRecord, metric: str, unit: str, values: list[float]) -> RunRecord:
    """`record` with a value of `metric` in each measured round of docker."""
    made = [
        Sample(target="docker", metric=metric, value=value, unit=unit, iteration=1 + place, warmup=False)
        for place, value in enumerate(values)
    ]
    return replace(record, samples=[*record.samples, *made])


@pytest.mark.parametrize(
    ("metric", "unit", "good", "bad"),
    [
        ("recovered", "share", 1.0, 0.0),
        ("rolled_out", "share", 1.0, 0.0),
        ("requests_failed", "requests", 0.0, 50.0),
        ("failed_replicas", "replicas", 0.0, 3.0),
        ("recover_s", "s", 1.0, 2.0),
        ("served_per_s", "requests/s", 100.0, 50.0),
    ],
)
def test_what_is_worse_is_known_of_each_metric(
    make_record: Make, metric: str, unit: str, good: float, bad: float
) -> None:
    better, worse = (
        with_metric(make_record(name), metric, unit, [value] * 10) for name, value in (("a", good), ("b", bad))
    )
    found = compare_runs(better, worse)
    assert [r.metric for r in found.regressions] == [metric] == [r.metric for r in found.alarms]
    back = compare_runs(worse, better)
    assert not back.regressions and [r.metric for r in back.alarms] == [metric]


@pytest.mark.parametrize("metric", ["requests_sent", "missed_sends"])
def test_what_the_client_sent_alarms_nobody(make_record: Make, metric: str) -> None:
    a, b = (
        with_metric(make_record(name), metric, "requests", [value] * 10) for name, value in (("a", 0.0), ("b", 50.0))
    )
    found = compare_runs(a, b)
    assert row(found, "docker", metric).verdict is Verdict.HIGHER and not found.alarms


def test_counts_are_compared_by_their_shares(make_record: Make) -> None:
    a, b = (make_record(name, n=20, noise=0.0) for name in ("a", "b"))
    found = compare_runs(
        with_metric(a, "recovered", "share", [1.0] * 20), with_metric(b, "recovered", "share", [1.0] * 11 + [0.0] * 9)
    )
    [worse] = found.regressions
    assert (worse.metric, worse.verdict, worse.share_a, worse.share_b) == ("recovered", Verdict.LOWER, 1.0, 0.55)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(render_comparison(found))
    assert "20 of 20" in captured.get() and "11 of 20" in captured.get()


def test_a_time_that_no_launch_came_to_is_not_called_a_failed_launch(make_record: Make) -> None:
    a, b = make_record("a"), make_record("b")
    found = compare_runs(
        with_metric(with_metric(a, "recovered", "share", [1.0] * 10), "recover_s", "s", [1.0] * 10),
        with_metric(b, "recovered", "share", [0.0] * 10),
    )
    assert row(found, "docker", "recover_s").reason == "not seen in B"


def test_what_differs_is_named_and_what_always_changes_is_not(make_record: Make) -> None:
    a, b = make_record("a"), make_record("b", lab_version="0.2.0")
    volatile = {"load": [9], "volatile": {"boot_id": "x"}, "memory": {"available_bytes": 1}}
    host = {**b.host, **volatile, "kernel": {"release": "6.2.0"}}
    spec = {**b.run.parameters["spec"], "port": 80, "nonce": "x"}
    parameters = {**b.run.parameters, "spec": spec, "cold": True, "seed": 77, "stopped_by": "time"}
    targets = [replace(t, info={**t.info, "version": "99"}) if t.target == "docker" else t for t in b.targets]
    b = replace(b, host=host, run=replace(b.run, parameters=parameters), targets=targets)
    found = compare_runs(a, b)
    assert {d.fact: (d.a, d.b) for d in found.differences} == {
        "lab_version": ("0.1.0", "0.2.0"),
        "host.kernel.release": ("6.1.0", "6.2.0"),
        "spec.port": (None, 80),
        "run.cold": (None, True),
        "docker.version": ("20.10.24", "99"),
    }


def test_is_the_same_each_time_and_goes_into_json(make_record: Make) -> None:
    first, second = (compare_runs(make_record("a"), make_record("b", seed=2)) for _ in range(2))
    assert first == second
    told = json.loads(json.dumps(first.to_json()))
    assert told["alarm"] is bool(first.alarms)
    assert {"target", "metric", "dimensions", "ratio", "p", "p_corrected", "verdict"} <= set(told["rows"][0])


def test_a_loaded_host_is_named_beside_the_result(make_record: Make) -> None:
    a, b = make_record("a"), make_record("b", seed=2)
    load = {"code": "load", "text": "load average is 5.2 on 2 cores", "remedy": "wait"}
    smt = {"code": "smt", "text": "SMT is on", "remedy": ""}
    found = compare_runs(a, replace(b, host={**b.host, "warnings": [load, smt]}))
    assert list(found.warnings) == ["B: load average is 5.2 on 2 cores (wait)"]
    assert not found.differences


def test_other_company_and_what_was_asked_for_and_is_not_there_stand_in_the_last_line(make_record: Make) -> None:
    alone = {"process": {"main": 2.1, "listening": 2.3, "ready": 2.9}}
    a, b = make_record("a"), make_record("b", instants=alone)
    assert compare_runs(a, make_record("c")).company == ""
    absent = TargetRecord(target="swarm", outcome=Outcome.SKIPPED, reason="no engine", remedy="start one")
    found = compare_runs(a, replace(b, targets=[*b.targets, absent]))
    assert found.company == (
        "They ran in different company, which can be the whole difference: A alone ran docker, libvirt:q35."
    )
    last = notes.conclusion(found)
    assert found.company in last and last.endswith("Asked for: B lacks swarm (skipped).")
    assert found.to_json()["missing"] == {"A": "", "B": "swarm (skipped)"}


def test_a_target_that_never_ran_is_no_company(make_record: Make) -> None:
    a, b = make_record("a"), make_record("b")
    absent = TargetRecord(target="swarm", outcome=Outcome.SKIPPED, reason="no engine")
    assert compare_runs(replace(a, targets=[*a.targets, absent]), b).company == ""
