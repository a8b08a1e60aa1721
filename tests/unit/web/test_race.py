"""What the page shows of a run, by what the run tells."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from lab.web.race import Race

PLAN = {
    "event": "plan",
    "run": "20260101-aaaa",
    "scenario": "boot",
    "headline": "boot_s",
    "rounds": 10,
    "warmup": 1,
    "targets": ["process", "docker", "libvirt:q35"],
    "labels": {"process": "process", "docker": "docker", "libvirt:q35": "libvirt:q35 (tcg)"},
    "skipped": [{"target": "swarm", "reason": "no swarm", "remedy": "docker swarm init"}],
}


def planned(**changes: Any) -> Race:
    race = Race("lab run boot")
    race.hear({**PLAN, **changes})
    race.hear({"event": "begun", "run": "20260101-aaaa", "started_at": "now"})
    return race


def launch(race: Race, target: str, values: Iterable[float], *, first: int = 1, wait: str = "marker") -> None:
    for place, value in enumerate(values):
        number = abs(hash((target, first, place)))
        told = {"launch": number, "target": target, "iteration": first + place, "warmup": first + place == 0}
        race.hear({"event": "turn", **told})
        race.hear({"event": "launch", **told})
        for phase, ns in (("requested", 0), ("main", value * 9e8), ("ready", value * 1e9)):
            race.hear(
                {"event": "mark", "launch": number, "phase": phase, "ns": int(ns), "clock": "host", "source": "lab"}
            )
        sample = {"metric": "boot_s", "value": value, "unit": "s", "dimensions": {"wait_method": wait}}
        race.hear({"event": "committed", **told, "outcome": "ok", "error": "", "samples": [sample]})


def places(race: Race) -> dict[str, int]:
    return {one["label"]: one["place"] for one in race.shown()["podium"]["places"]}


def spread(around: float, n: int) -> list[float]:
    return [around * (1 + 0.001 * place) for place in range(n)]


def lane(race: Race, target: str) -> dict[str, Any]:
    return next(one for one in race.shown()["lanes"] if one["target"] == target)


@pytest.mark.parametrize("n", [1, 5])
def test_there_is_no_podium_before_there_are_intervals(n: int) -> None:
    race = planned()
    for target, value in (("process", 0.003), ("docker", 0.3), ("libvirt:q35", 3.0)):
        launch(race, target, spread(value, n))
    assert places(race) == {}
    assert race.shown()["podium"]["waits"] == f"Places come with intervals, after 6 rounds; {n} so far."
    race.ended(0, "")
    assert places(race) == {}


def test_places_are_by_intervals_and_shared_where_those_leave_it_open() -> None:
    race = planned()
    launch(race, "process", spread(0.003, 6))
    launch(race, "docker", [0.30, 0.31, 0.32, 0.33, 0.34, 0.35])
    launch(race, "libvirt:q35", [0.29, 0.31, 0.33, 0.35, 0.36, 0.37])
    assert places(race) == {"process": 1, "docker": 2, "libvirt:q35 (tcg)": 2}
    first, *others = race.shown()["podium"]["places"]
    assert (first["shared"], first["n"], first["interval"]) == (False, 6, "3.00-3.01")
    assert all(one["shared"] for one in others)


def test_a_podium_says_what_is_emulated_and_what_was_waited_for_otherwise() -> None:
    race = planned()
    for target, value, wait in (("process", 0.003, "poll"), ("docker", 0.3, "poll"), ("libvirt:q35", 3.0, "marker")):
        launch(race, target, spread(value, 6), wait=wait)
    emulated, waited = race.shown()["podium"]["notes"]
    assert "emulated" in emulated
    assert waited == "Waited for in different ways: process by poll, docker by poll, libvirt:q35 (tcg) by marker."


def test_the_warm_up_counts_for_nobody() -> None:
    race = planned()
    launch(race, "docker", [9.0], first=0)
    assert lane(race, "docker")["n"] == 0
    assert race.shown()["round"] == "warm-up"


def test_what_the_engine_says_is_beside_the_service_and_may_come_after_it() -> None:
    race = planned()
    race.hear({"event": "launch", "launch": 1, "target": "docker", "iteration": 1, "warmup": False})
    for phase, ns in (("requested", 0), ("created", 12e6), ("main", 265e6), ("started", 268e6), ("ready", 270e6)):
        race.hear({"event": "mark", "launch": 1, "phase": phase, "ns": int(ns), "clock": "host", "source": "lab"})
    found = lane(race, "docker")
    assert [one["phase"] for one in found["service"]] == ["main", "ready"]
    assert [(one["phase"], one["at"]) for one in found["engine"]] == [("created", "12.0 ms"), ("started", "268 ms")]


def test_instants_of_a_guests_clock_are_drawn_nowhere() -> None:
    race = planned()
    race.hear({"event": "launch", "launch": 1, "target": "docker", "iteration": 1, "warmup": False})
    for phase, ns, clock in (("requested", 0, "host"), ("main", 5, "guest"), ("ready", int(1e9), "host")):
        race.hear({"event": "mark", "launch": 1, "phase": phase, "ns": ns, "clock": clock, "source": "lab"})
    assert [one["phase"] for one in lane(race, "docker")["service"]] == ["ready"]


def test_a_negative_step_is_not_drawn() -> None:
    race = planned()
    race.hear({"event": "launch", "launch": 1, "target": "docker", "iteration": 1, "warmup": False})
    for phase, ns in (("requested", 0), ("main", 9), ("ready", 5)):
        race.hear({"event": "mark", "launch": 1, "phase": phase, "ns": ns, "clock": "host", "source": "lab"})
    assert lane(race, "docker")["service"] == []


def test_who_is_left_out_or_fails_says_why() -> None:
    race = planned()
    assert lane(race, "swarm")["why"] == "no swarm (docker swarm init)"
    told = {"event": "target", "target": "docker", "outcome": "failed", "reason": "it died", "remedy": ""}
    race.hear(told)
    race.hear({"event": "committed", "launch": None, "target": "docker", "iteration": 2, "warmup": False}
              | {"outcome": "failed", "error": "no port", "samples": []})  # fmt: skip
    assert (lane(race, "docker")["state"], lane(race, "docker")["failed"]) == ("failed", 1)
    assert race.shown()["problems"] == ["docker: no port"]
    for target in ("process", "libvirt:q35"):
        launch(race, target, spread(0.1, 6))
    assert set(places(race)) == {"process", "libvirt:q35 (tcg)"}


def test_a_question_without_one_figure_per_target_has_no_podium() -> None:
    race = planned(headline="share")
    for target in PLAN["targets"]:
        told = {"launch": 1, "target": target, "iteration": 1, "warmup": False, "outcome": "ok", "error": ""}
        samples = [{"metric": "share", "value": 1.0, "unit": "", "dimensions": {"k": str(k)}} for k in range(2)]
        race.hear({"event": "committed", **told, "samples": samples * 6})
    assert race.shown()["podium"] == {
        "places": [],
        "waits": "",
        "notes": ["This question has no one figure per target: see the report."],
    }


def test_what_is_shown_does_not_grow_with_the_run() -> None:
    race = planned()
    sizes = []
    for n in (6, 400):
        launch(race, "docker", spread(0.3, n), first=1 + n)
        sizes.append(len(json.dumps(race.shown())))
    assert sizes[1] < sizes[0] + 100


@pytest.mark.parametrize(("code", "state"), [(0, "done"), (130, "stopped"), (1, "failed"), (137, "failed")])
def test_how_it_ended_is_its_exit_code(code: int, state: str) -> None:
    race = planned()
    race.ended(code, "lab: something")
    race.stopping()
    assert (race.shown()["state"], race.shown()["told"]) == (state, "lab: something")


def test_events_of_later_versions_are_passed_over() -> None:
    race = planned()
    race.hear({"event": "something new"})
    race.hear({})
    assert race.shown()["state"] == "measuring"
