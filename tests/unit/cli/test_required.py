"""What a user requires of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_run import make_record

from lab.cli.command_run import shortfalls_of
from lab.cli.options import RunOptions, requires
from lab.cli.required import shortfalls, skipped
from lab.store.database import Store
from lab.store.history import HistoricRun
from lab.store.record import Outcome, RunRecord

HOST = "host-a"


def with_guest(run_id: str, accel: str, *, accepted: bool = False, **parameters: Any) -> RunRecord:
    """A run with an emulated guest, or one under KVM."""
    record = make_record(run_id, accepted_at="2026-01-02T00:00:00+00:00" if accepted else None)
    targets = [
        replace(one, info={**one.info, "qualifiers": {"accel": accel}}) if one.target == "libvirt:q35" else one
        for one in record.targets
    ]
    run = replace(record.run, parameters={**record.run.parameters, **parameters})
    return replace(record, run=run, targets=targets)


def earlier(*records: RunRecord) -> list[HistoricRun]:
    return [HistoricRun(run=one.run, host=one.host, targets=one.targets, series={}, failures={}) for one in records]


def changed(record: RunRecord, target: str, **changes: Any) -> RunRecord:
    targets = [replace(one, **changes) if one.target == target else one for one in record.targets]
    return replace(record, targets=targets)


@pytest.mark.parametrize(
    ("name", "target", "meant"),
    [
        ("docker", "docker", True),
        ("docker", "docker:host", True),
        ("docker:host", "docker:host", True),
        ("docker:host", "docker", False),
        ("docker", "dockers", False),
        ("libvirt", "libvirt:q35", True),
    ],
)
def test_a_name_requires_its_target_or_all_of_a_driver(name: str, target: str, meant: bool) -> None:
    assert requires(name, target) is meant


def test_what_is_not_among_the_targets_cannot_be_required() -> None:
    with pytest.raises(ValueError, match="--require docker: that is none of the run's targets, process"):
        RunOptions(targets=["process"], require=["docker"])


def test_what_was_measured_is_as_required() -> None:
    assert shortfalls(make_record(), ["process", "docker", "libvirt"], []) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": Outcome.SKIPPED, "reason": "gone", "remedy": "start it"}, "skipped: gone (start it)"),
        ({"outcome": Outcome.FAILED, "reason": "it fell over"}, "failed: it fell over"),
    ],
)
def test_a_required_target_that_is_not_there_is_told_and_another_is_not(changes: Mapping[str, Any], said: str) -> None:
    record = changed(changed(make_record(), "docker", **changes), "process", **changes)
    assert shortfalls(record, ["docker"], []) == {"docker": said}
    assert skipped(record.targets, ["docker"]) == {"docker": said}


def test_a_target_whose_launches_all_failed_is_told() -> None:
    record = make_record()
    silent = replace(record, samples=[one for one in record.samples if one.target != "docker" or one.warmup])
    assert shortfalls(silent, ["docker"], []) == {"docker": "no launch of it was complete"}


def told(now: RunRecord, *before: RunRecord) -> str:
    return shortfalls(now, ["libvirt"], earlier(*before, now)).get("libvirt:q35", "")


def test_a_guest_that_lost_kvm_is_told_night_after_night() -> None:
    kvm, lost, now = with_guest("a", "kvm"), with_guest("b", "tcg"), with_guest("c", "tcg")
    assert told(now, kvm).startswith("ran without KVM (libvirt:q35 (tcg)), which run a had: see `lab doctor`")
    assert "run a had" in told(now, kvm, lost), "once is not silent, and the next night is not either"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ([], with_guest("c", "tcg")),
        ([with_guest("a", "tcg")], with_guest("c", "tcg")),
        ([with_guest("a", "tcg")], with_guest("c", "kvm")),
        ([with_guest("a", "kvm")], with_guest("c", "kvm")),
        ([with_guest("a", "kvm"), with_guest("b", "tcg", accepted=True)], with_guest("c", "tcg")),
        ([with_guest("a", "kvm")], with_guest("c", "tcg", driver_options={"accel": "tcg"})),
    ],
)
def test_what_never_had_it_or_was_meant_is_not_told(before: list[RunRecord], now: RunRecord) -> None:
    assert told(now, *before) == ""


def test_acceptance_of_a_run_with_kvm_accepts_nothing_else() -> None:
    assert told(with_guest("c", "tcg"), with_guest("a", "kvm", accepted=True))
    assert told(with_guest("c", "tcg"), with_guest("0", "tcg", accepted=True), with_guest("a", "kvm"))


def test_only_who_requires_a_guest_is_told() -> None:
    now = with_guest("c", "tcg")
    assert shortfalls(now, ["docker"], earlier(with_guest("a", "kvm"), now)) == {}


def test_the_runs_of_this_host_are_found_in_the_store(tmp_path: Path) -> None:
    before, now = (
        replace(one, run=replace(one.run, host_id=HOST, started_at=f"2026-01-0{day}T00:00:00+00:00"))
        for day, one in enumerate((with_guest("a", "kvm"), with_guest("b", "tcg")), 1)
    )
    elsewhere = replace(before, run=replace(before.run, id="c", host_id="another"))
    options = RunOptions(targets=["process", "docker", "libvirt:q35"], require=["libvirt"])
    with Store.open(str(tmp_path / "lab.db"), host_id=HOST) as store:
        for record in (elsewhere, now):
            assert store.import_run(record)
        assert shortfalls_of(now, options, store) == {}
        assert store.import_run(before)
        assert "which run a had" in shortfalls_of(now, options, store)["libvirt:q35"]
        store.accept("b")
        later = replace(now, run=replace(now.run, id="d", started_at="2026-01-03T00:00:00+00:00"))
        assert shortfalls_of(later, options, store) == {}
