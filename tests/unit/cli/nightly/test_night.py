"""The course of a night, with runs that are made up: what is measured when, and what a suspicion leads to."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_run import INSTANTS, make_record
from rich.console import Console

from lab.cli.nightly import night
from lab.cli.nightly.config import Job, Wanted, read_job
from lab.cli.nightly.files import NightExit, exit_of
from lab.cli.nightly.night import Nightly, Result
from lab.errors import LabError
from lab.figures.nights.confirm import Outcome
from lab.figures.nights.night import CONFIRMS
from lab.run.estimate import Span
from lab.store.database import Store
from lab.store.record import Run, RunRecord, RunStatus

HOST = "host-a"
NIGHTS = (1.0, 1.03, 0.98, 1.01, 0.97, 1.02, 0.99, 1.04, 1.0, 0.98)
TARGETS = {name: INSTANTS[name] for name in ("process", "docker")}

JOB = """
[gate]
wait = "0s"
[scenarios.boot]
targets = ["process", "docker"]
rounds = 10
"""


@dataclass(frozen=True)
class FakePlan:
    """What of an `Intent` a night looks at."""

    run: Run
    likely: Span
    entrants: Sequence[Any] = ()


class Machine:
    """Measures what it is told to: `docker_ms` by run, each more than it was; and counts seconds as it does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.docker_ms: list[float] = []
        self.at_s = 0.0
        self.measured: list[tuple[str, int | None, Any]] = []
        self.status = RunStatus.DONE
        self.likely_s = 5.0
        self._ids = itertools.count()

    def made(self, name: str, *, docker_ms: float = 0.0, scale: float = 1.0, **fields: Any) -> RunRecord:
        instants = {name: {key: ms * scale for key, ms in told.items()} for name, told in TARGETS.items()}
        seed = sum(map(ord, name))
        delays = {"docker": docker_ms}
        return make_record(name, seed=seed, noise=0.03, delays_ms=delays, instants=instants, host_id=HOST, **fields)

    @contextmanager
    def planned(self, _: Console, __: Any, options: Any, ___: Store, *, wait: bool) -> Iterator[tuple[FakePlan, None]]:
        run = self.made(f"run-{next(self._ids):02}").run
        self.options = options
        yield FakePlan(run=run, likely=Span(self.likely_s, self.likely_s)), None

    def carry_out(self, _: Console, plan: FakePlan, store: Store, __: None, *, wait: bool) -> tuple[RunStatus, int]:
        number = len(self.measured)
        delay = self.docker_ms[min(number, len(self.docker_ms) - 1)] if self.docker_ms else 0.0
        record = self.made(plan.run.id, docker_ms=delay, started_at=f"2026-02-01T0{number}:00:00+00:00")
        told = plan.run.parameters.get(CONFIRMS)
        parameters = {**record.run.parameters, **({CONFIRMS: told} if told else {})}
        assert store.import_run(replace(record, run=replace(record.run, parameters=parameters)))
        self.measured.append(("tonight", self.options.rounds, told))
        self.at_s += self.likely_s
        return self.status, 0


class AcceptedBuild:
    """A build that is kept, or one that does not run."""

    name = "the accepted one"

    def __init__(self, machine: Machine, error: str = "") -> None:
        self.machine, self.error = machine, error

    def run(self, wanted: Wanted, *, rounds: int, warmup: int, max_s: float | None) -> RunRecord:
        if self.error:
            raise LabError(self.error)
        self.machine.measured.append(("accepted", rounds, max_s))
        return self.machine.made(f"accepted-{len(self.machine.measured)}", n=rounds)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the nights before."""
    path = tmp_path_factory.mktemp("nights") / "lab.db"
    with Store.open(str(path), host_id=HOST) as store:
        made = Machine(store)
        for number, scale in enumerate(NIGHTS, 1):
            at = dict.fromkeys(("started_at", "ended_at"), f"2026-01-{number:02}T03:00:00+00:00")
            assert store.import_run(made.made(f"night-{number:02}", scale=scale, **at))
    return path


@pytest.fixture
def machine(seeded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with Store.open(str(shutil.copy(seeded, tmp_path / "lab.db")), host_id=HOST) as store:
        made = Machine(store)
        monkeypatch.setattr(night, "planned", made.planned)
        monkeypatch.setattr(night, "carry_out", made.carry_out)
        monkeypatch.setattr(night, "_held", list)
        monkeypatch.setattr(night.gate, "look", lambda *_, **__: [])
        yield made


Have = Callable[..., tuple[Result, str]]


@pytest.fixture
def have(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Have:
    """Has a night of the job, and gives what became of it, and what was said."""

    def run(*, more: Mapping[str, Any] | None = None, build: AcceptedBuild | None = None) -> tuple[Result, str]:
        path = tmp_path / "nightly.toml"
        path.write_text(JOB)
        job: Job = replace(read_job(path), **(more or {}))
        if build is not None:
            monkeypatch.setattr(night, "build_of", lambda *_: build)
            job = replace(job, against="kept")
        console = Console(file=StringIO(), width=300)
        nightly = Nightly(job=job, store=machine.store, errors=console, folder=tmp_path, now=lambda: machine.at_s)
        found = nightly.run()
        assert isinstance(console.file, StringIO)
        return found, console.file.getvalue()

    return run


def test_a_night_like_the_others_is_measured_once(have: Have, machine: Machine) -> None:
    result, _ = have()
    assert exit_of(result) is NightExit.OK and len(machine.measured) == 1
    (part,) = result.parts
    assert part.verdict is not None and part.verdict.suspects == []


def test_a_step_is_run_once_more_as_it_was_and_alarms_when_it_is_seen_again(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0]
    result, said = have()
    assert exit_of(result) is NightExit.REGRESSION
    assert machine.measured == [("tonight", 10, None), ("tonight", 10, "run-00")]
    (part,) = result.parts
    assert [one.outcome for one in part.confirmed] == [Outcome.CONFIRMED]
    assert "suspect: docker boot_s" in said and "confirmed: docker boot_s" in said


def test_a_step_that_is_not_seen_again_alarms_nobody(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0, 0.0]
    result, said = have()
    assert exit_of(result) is NightExit.OK and "not seen again: docker boot_s" in said


def test_the_runs_of_a_confirmation_are_no_nights(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0]
    have()
    confirming = [run for run in machine.store.history("boot", host_id=HOST) if CONFIRMS in run.run.parameters]
    assert [run.run.parameters[CONFIRMS] for run in confirming] == ["run-00"]
    assert len(night.nights_of(machine.store.history("boot", host_id=HOST))) == len(NIGHTS) + 1


def test_with_the_accepted_build_both_are_run_in_turns(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0]
    result, said = have(build=AcceptedBuild(machine))
    assert exit_of(result) is NightExit.REGRESSION
    assert [who for who, _, _ in machine.measured] == ["tonight", *("tonight accepted accepted tonight " * 2).split()]
    assert {rounds for _, rounds, _ in machine.measured[1:]} == {3}, "of 10 rounds, in 4 blocks"
    (part,) = result.parts
    assert all(one.against_accepted for one in part.confirmed) and "in turns with the accepted one" in said


def test_where_the_accepted_build_is_as_slow_the_machine_has_changed(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0, 0.0]  # as the accepted build is, in the hour of the confirmation
    result, _ = have(build=AcceptedBuild(machine))
    assert exit_of(result) is NightExit.OK
    (part,) = result.parts
    assert [one.outcome for one in part.confirmed] == [Outcome.NOT_AGAIN]


def test_a_suspicion_that_cannot_be_looked_into_is_void(have: Have, machine: Machine) -> None:
    machine.docker_ms = [80.0]
    result, _ = have(build=AcceptedBuild(machine, error="it fell over"))
    assert exit_of(result) is NightExit.VOID and result.parts[0].unconfirmed == "it fell over"


def test_without_a_build_that_can_be_made_the_scenario_is_run_once_more(
    have: Have, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise LabError("no such version")

    monkeypatch.setattr(night, "build_of", fail)
    machine.docker_ms = [80.0]
    result, _ = have(more={"against": "9.9.9"})
    assert exit_of(result) is NightExit.REGRESSION
    assert "the accepted build cannot be run beside tonight's: no such version" in result.parts[0].notes


def test_what_does_not_fit_into_the_budget_with_its_confirmation_is_left_out_and_told(
    have: Have, machine: Machine
) -> None:
    result, said = have(more={"budget_s": 9.0})
    assert exit_of(result) is NightExit.VOID and machine.measured == []
    told = "it needs about 10 s with what may be to be confirmed, and 9 s of the budget are left"
    assert result.parts[0].left_out == told and f"left out boot: {told}" in said
    assert have(more={"budget_s": 10.0})[0].parts[0].record is not None
    assert machine.options.max_time == 5.0, "half of it, the rest is the confirmation's"


def test_a_suspicion_for_which_no_time_is_left_is_void(
    have: Have, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: Any, **told: Any) -> tuple[RunStatus, int]:
        found = machine.carry_out(*arguments, **told)
        machine.at_s += 100.0
        return found

    monkeypatch.setattr(night, "carry_out", late)
    machine.docker_ms = [80.0]
    result, _ = have(more={"budget_s": 20.0})
    assert exit_of(result) is NightExit.VOID and result.parts[0].unconfirmed == "the budget of time was used up"
    assert len(machine.measured) == 1


def test_a_noisy_machine_measures_nothing(have: Have, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night, "_held", lambda: ["another lab run holds this host: pid 1"])
    result, said = have()
    assert exit_of(result) is NightExit.VOID and machine.measured == []
    assert "void: too noisy to measure: another lab run holds this host: pid 1" in said


def test_an_interrupted_night_keeps_what_it_has_and_measures_no_more(have: Have, machine: Machine) -> None:
    machine.docker_ms, machine.status = [80.0], RunStatus.INTERRUPTED
    result, _ = have()
    assert exit_of(result) is NightExit.INTERRUPTED and len(machine.measured) == 1
    assert result.parts[0].record is not None and result.parts[0].verdict is None
