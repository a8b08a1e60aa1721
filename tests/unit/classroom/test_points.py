"""Machines beside each other: over the control of each, apart by CPU, KVM and conditions, and never a ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from made_class import again_as, student_runs

from lab.classroom.handed import handed_of_record
from lab.classroom.points import Chart, charts_of, tags_of
from lab.figures import series
from lab.store.record import RunRecord

Runs = Callable[..., Sequence[RunRecord]]


def charts(records: Sequence[RunRecord], names: dict[str, str] | None = None) -> list[Chart]:
    return charts_of([handed_of_record(one, source="") for one in records], names or {})


def times(record: RunRecord, factor: float) -> RunRecord:
    return replace(record, samples=[replace(one, value=one.value * factor) for one in record.samples])


def test_a_point_is_what_the_students_own_table_says(runs: Runs) -> None:
    (record,) = runs(1)
    (chart,) = charts([record])
    rows = series.series_of(record)
    for panel in chart.panels:
        (point,) = panel.points
        (row,) = (row for row in rows if row.metric == "boot_s" and row.label == panel.label)
        ratio = series.ratio_of(series.beside(rows, row), row)
        assert ratio is not None and (point.mid, point.low, point.high) == (ratio.value, ratio.low, ratio.high)
        assert point.n == 10
    assert [panel.label.partition(" ")[0] for panel in chart.panels] == ["docker", "libvirt:q35"]


def test_a_machine_three_times_as_slow_is_at_the_same_place(runs: Runs) -> None:
    (record,) = runs(1)
    slow = again_as(times(record, 3.0), "slow", host_id="ffffffffffff")
    (chart,) = charts([record, slow])
    for panel in chart.panels:
        one, other = panel.points
        assert one.mid == pytest.approx(other.mid) and one.low == pytest.approx(other.low)


def test_kvm_and_tcg_are_in_no_group_together(runs: Runs) -> None:
    found = charts(runs(40))
    assert len(found) == 2  # other guests beside are another company
    for chart in found:
        labels = [panel.label for panel in chart.panels]
        assert ("libvirt:q35 (kvm)" in labels) is not ("libvirt:q35 (tcg)" in labels)
    assert sum(chart.machines for chart in found) == 40 and found[0].machines >= found[1].machines


def test_the_order_is_of_cpu_and_fingerprint_whatever_the_figures_are(runs: Runs) -> None:
    records = runs(30)
    found = charts(records)
    turned = charts([times(one, 1 + place) for place, one in enumerate(reversed(records))])
    for chart, other in zip(found, turned, strict=True):
        for panel, its in zip(chart.panels, other.panels, strict=True):
            order = [(point.cpu, point.tag) for point in panel.points]
            assert order == sorted(order) == [(point.cpu, point.tag) for point in its.points]
            mids = [point.mid for point in panel.points]
            assert len(mids) < 3 or mids not in (sorted(mids), sorted(mids, reverse=True))


def test_other_conditions_are_another_chart(runs: Runs) -> None:
    (record,) = runs(1)
    spec = {**record.run.parameters["spec"], "memory_bytes": 1 << 30}
    roomy = again_as(record, "roomy", host_id="a" * 12, parameters={**record.run.parameters, "spec": spec})
    alone = again_as(record, "alone", host_id="b" * 12)
    alone = replace(
        alone,
        targets=[one for one in alone.targets if one.target != "libvirt:q35"],
        samples=[one for one in alone.samples if one.target != "libvirt:q35"],
    )
    found = charts([record, roomy, alone])
    assert [chart.machines for chart in found] == [1, 1, 1]


def test_the_newest_of_a_machines_runs_is_shown_and_the_others_counted(runs: Runs) -> None:
    (record,) = runs(1)
    newer = again_as(times(record, 1.0), "newer", started_at="2026-02-01T10:00:00+00:00")
    (chart,) = charts([newer, record])
    for panel in chart.panels:
        (point,) = panel.points
        assert point.run_id == "newer" and point.older == 1


def test_too_few_values_have_no_interval_and_no_control_has_no_point(runs: Runs) -> None:
    (few,) = runs(1, rounds=3)
    (chart,) = charts([few])
    assert all(point.low is None and point.high is None for panel in chart.panels for point in panel.points)
    bare = replace(few, samples=[one for one in few.samples if one.target != "process"])
    assert charts([bare]) == []


def test_clones_of_one_disk_are_machines_of_their_own(runs: Runs) -> None:
    records = [again_as(one, one.run.id, host_id="c" * 12) for one in runs(3)]
    machines = [handed_of_record(one, source="").machine for one in records]
    tags = tags_of(machines)
    assert len(set(tags.values())) == 3 and all(tag.startswith("cccccc-") for tag in tags.values())
    assert tags_of(machines[:1])[machines[0]] == "cccccc"


def test_a_name_stands_beside_a_point_only_where_one_is_given(runs: Runs) -> None:
    one, two = runs(2)
    points = [
        point for chart in charts([one, two], {one.run.id: "Ada"}) for panel in chart.panels for point in panel.points
    ]
    assert {(point.run_id, point.name) for point in points} == {(one.run.id, "Ada"), (two.run.id, "")}


def test_every_scenario_has_its_chart() -> None:
    found = charts(list(student_runs(5)))
    assert [chart.title for chart in found] == sorted(chart.title for chart in found)
    assert {chart.scenario for chart in found} == {"boot", "wake", "memory", "recover", "rollout", "scale"}
