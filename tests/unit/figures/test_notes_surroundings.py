"""The words beside a run's figures: where targets were not equal, and what did not end by itself."""

from __future__ import annotations

from typing import Any

from lab.figures.notes import of_run
from lab.store.record import (
    ASKED_AGAIN,
    KILLED_AFTER_S,
    LaunchRecord,
    Outcome,
    Run,
    RunRecord,
    RunStatus,
    TargetRecord,
)
from lab.timeline import Timeline


def record(surroundings: dict[str, dict[str, str]], facts: dict[str, list[dict[str, Any]]] | None = None) -> RunRecord:
    return RunRecord(
        run=Run(
            id="r",
            scenario="boot",
            started_at="2026-01-01T00:00:00Z",
            ended_at=None,
            status=RunStatus.DONE,
            owner="o",
            lab_version="0",
        ),
        host={"warnings": []},
        targets=[
            TargetRecord(target=target, outcome=Outcome.OK, info={"facts": {"surroundings": told}})
            for target, told in surroundings.items()
        ],
        samples=[],
        launches=[
            LaunchRecord(
                target=target, iteration=n, warmup=False, outcome=Outcome.OK, timeline=Timeline(), facts=dict(told)
            )
            for target, launches in (facts or {}).items()
            for n, told in enumerate(launches)
        ],
    )


def test_what_differs_around_the_service_is_told_with_who_has_which() -> None:
    same = {"seccomp": "no filter", "rlimit core": "0"}
    told = of_run(
        record({"oci": {**same, "rlimit nofile": "256"}, "docker": {**same, "rlimit nofile": "1024:4096"}}), []
    )
    (line,) = [line for line in told if "around it" in line]
    assert "rlimit nofile (oci: 256; docker: 1024:4096)" in line
    assert "seccomp" not in line and "core" not in line


def test_nothing_is_told_of_equal_surroundings_or_of_one_target() -> None:
    same = {"seccomp": "no filter"}
    assert not [line for line in of_run(record({"oci": same, "docker": same}), []) if "around it" in line]
    assert not [line for line in of_run(record({"oci": same}), []) if "around it" in line]


def test_launches_that_no_stop_signal_ended_are_told() -> None:
    told = of_run(record({"oci": {}, "docker": {}}, {"oci": [{KILLED_AFTER_S: 10.0}] * 3 + [{}], "docker": [{}]}), [])
    (line,) = [line for line in told if "Killed after" in line]
    assert line.startswith("Killed after 10 s") and "oci (3 of 4 launches)" in line and "docker" not in line


def test_launches_for_which_the_engines_api_had_too_much_to_do_are_told() -> None:
    busy = {"reported": {ASKED_AGAIN: "2x 429; 3.00 s waited"}}
    told = of_run(record({"kubernetes": {}}, {"kubernetes": [busy, busy, {}]}), [])
    assert [line for line in told if "in 2 of 3 launches" in line and "2x 429; 3.00 s waited" in line]
    assert not [
        line for line in of_run(record({"kubernetes": {}}, {"kubernetes": [{}]}), []) if "too much to do" in line
    ]
