"""Slopes out of readings, when they count as resolved, and the scenario's walks on the fake engine."""

from __future__ import annotations

import itertools
import math
import os
import random
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from rich.console import Console

from lab.driver import Context, Driver, Instance, Mark
from lab.errors import LaunchError
from lab.features import Feature, Role
from lab.figures import density, stats
from lab.host.memory import Account, Holding
from lab.host.ownership import Owner
from lab.run.estimate import Span
from lab.run.runner import Entrant, Plan, Runner, now_iso
from lab.show.table import render_run
from lab.spec import Endpoint, Spec, Target
from lab.store.database import Store
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.testing import FakeDriver, FakeEngine
from lab.units import MIB
from scenarios import density as scenario

BASE_BYTES = 8 << 30
EACH_BYTES = 20 * MIB


def reading(of: str, level: int, value: float, *, walk: str = "up", iteration: int = 0, warmup: bool = False) -> Sample:
    return Sample(
        target="docker",
        metric=density.LEVEL,
        value=value,
        unit="bytes",
        iteration=iteration,
        warmup=warmup,
        dimensions={"of": of, "level": str(level), "walk": walk, "visit": str(level)},
    )


def slopes(samples: list[Sample], metric: str = density.MARGINAL, of: str | None = None) -> list[float]:
    return [s.value for s in density.derived(samples) if s.metric == metric and s.dimensions.get("of") == of]


def test_the_slope_is_what_each_instance_takes_without_what_the_lab_itself_took() -> None:
    samples = []
    for level in range(5):
        lab_bytes = 50 * MIB + level * MIB
        samples.append(reading("lab", level, lab_bytes))
        samples.append(reading("available", level, BASE_BYTES - level * EACH_BYTES - lab_bytes))
        samples.append(reading("pss", level, level * 15 * MIB))
    assert slopes(samples) == [pytest.approx(EACH_BYTES)]
    assert slopes(samples, density.PART, "pss") == [pytest.approx(15 * MIB)]
    assert slopes(samples, density.PART, "available-less-pss") == [pytest.approx(5 * MIB)]


def test_what_drifts_with_time_cancels_between_the_walk_up_and_the_walk_down() -> None:
    samples = []
    for walk, order in (("up", range(9)), ("down", range(8, -1, -1))):
        for visit, level in enumerate(order):
            drift = 3 * MIB * visit  # as much as a seventh of an instance at each step
            samples.append(reading("available", level, BASE_BYTES - level * EACH_BYTES - drift, walk=walk))
            samples.append(reading("lab", level, 0, walk=walk))
    found = slopes(samples)
    assert len(found) == 2 and max(found) - min(found) == pytest.approx(6 * MIB)
    assert sum(found) / 2 == pytest.approx(EACH_BYTES)


def test_a_walk_with_one_level_has_no_slope_and_warm_up_stays_warm_up() -> None:
    assert not density.derived([reading("available", 0, 1.0), reading("lab", 0, 1.0)])
    warm = [reading(of, level, 1.0, warmup=True) for of in ("available", "lab") for level in (0, 1)]
    assert [sample.warmup for sample in density.derived(warm) if sample.metric == density.MARGINAL] == [True]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([20.0] * 5, False),  # fewer than 6 walks have no interval
        ([19.0, 20.0, 21.0, 20.0, 19.5, 20.5], True),
        ([15.0, 25.0, 18.0, 22.0, 20.0, 20.0], True),  # a half-width of exactly a quarter
        ([14.9, 25.0, 18.0, 22.0, 20.0, 20.0], False),
        ([-1.0, 1.0, -1.0, 1.0, 0.5, -0.5], False),
    ],
)
def test_a_slope_is_resolved_when_half_its_interval_is_a_quarter_of_it_at_most(
    values: list[float], expected: bool
) -> None:
    found = stats.estimate(values)
    assert density.resolved(found) is expected
    assert (density.per_gib(found) is not None) is expected


def test_capacity_comes_with_the_ends_of_the_slopes_interval() -> None:
    found = stats.estimate([float(one * MIB) for one in (16, 15, 17, 16, 16, 16)])
    fits = density.per_gib(found)
    assert fits is not None and fits.value == 64
    assert fits.low == pytest.approx(1024 / 17) and fits.high == pytest.approx(1024 / 15)
    samples = [reading("available", 0, 4 << 30), reading("floor", 0, 1 << 30), reading("available", 1, 3 << 30)]
    machine = density.on_this_machine(samples, "docker", found)
    assert machine is not None and machine.value == 3 * 64


class Machine:
    """A host with so much memory, of which each instance of the fake engine takes its part; with noise."""

    def __init__(self, engine: FakeEngine, *, noise_bytes: float = 0.0) -> None:
        self.engine = engine
        self.most_at_once = 0
        self._chance = random.Random(5)
        self._noise_bytes = noise_bytes

    def available_bytes(self) -> int:
        count = len(self.engine.instances)
        self.most_at_once = max(self.most_at_once, count)
        return round(BASE_BYTES - count * EACH_BYTES + self._chance.gauss(0, self._noise_bytes))

    def account(self, pids: object) -> Account:
        one = Holding(
            pss_bytes=19 * MIB,
            uss_bytes=0,
            rss_bytes=0,
            shmem_bytes=0,
            swap_bytes=0,
            page_table_bytes=MIB,
            hugetlb_bytes=0,
        )
        return Account(by_pid={1: (Role.SERVICE, one)}, netns=0)


class Told(FakeDriver):
    """A fake engine that tells its instances' processes, and nothing of its own."""

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        instance = super().launch(spec, endpoint, mark)
        instance.host_pids = lambda: {1: Role.SERVICE}  # type: ignore[attr-defined]
        return instance


class TellsDaemon(Told):
    """One whose daemon is known: here, the tests' own process."""

    def engine_pids(self) -> Mapping[int, str]:
        return {os.getpid(): "daemon"}


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Runs the scenario through runner and store on a machine of 8 GiB; gives the record and the machine."""
    with Store.open(str(tmp_path / "lab.db")) as store:
        ids = (f"r{number}" for number in itertools.count(1))

        def run(
            plan: scenario.Density,
            *,
            rounds: int = 1,
            noise_bytes: float = 0.0,
            seed: int = 0,
            driver_class: type[Told] = Told,
        ) -> tuple[RunRecord, Machine]:
            run_id = next(ids)
            context = Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache")
            driver: Driver = driver_class("", context)
            engine: FakeEngine = driver.engine  # type: ignore[attr-defined]
            engine.features = frozenset({Feature.NETWORK, Feature.MARKER, Feature.HOST_PIDS})
            machine = Machine(engine, noise_bytes=noise_bytes)
            for name, value in (
                ("available_bytes", machine.available_bytes),
                ("account", machine.account),
                ("memory_of", lambda _: None),
                ("total_bytes", lambda: BASE_BYTES),
            ):
                monkeypatch.setattr(scenario, name, value)
            labels = {"lab.run": run_id, "lab.scenario": "density", "lab.owner": str(Owner.current())}
            a_run = Run(
                id=run_id,
                scenario="density",
                started_at=now_iso(),
                ended_at=None,
                status=RunStatus.RUNNING,
                owner=labels["lab.owner"],
                lab_version="0",
            )
            entrant = Entrant(
                target=Target("fake"),
                driver=driver,
                info=driver.info(),
                record=TargetRecord(target="fake", outcome=Outcome.OK),
            )
            Runner(
                run=a_run,
                scenario=plan,
                entrants=[entrant],
                spec=Spec(labels=labels),
                plan=Plan(rounds=rounds, warmup=0, seed=seed),
                store=store,
                host={},
                progress=Quiet(),
                clock=engine.clock,
            ).execute()
            return store.load(run_id), machine

        yield run


class Quiet:
    def preparing(self, target: str) -> None: ...
    def launching(self, target: str, iteration: int, warmup: bool) -> None: ...
    def committed(self, launch: object, samples: object) -> None: ...
    def turned(self, left: Span) -> None: ...
    def round_over(self, iteration: int, left: Span) -> None: ...
    def target_changed(self, record: TargetRecord) -> None: ...
    def cleaning(self) -> None: ...
    def problem(self, text: str) -> None: ...


def plan(**changes: object) -> scenario.Density:
    return scenario.Density(**{"settle": 0, **changes})  # type: ignore[arg-type]


def text_of(record: RunRecord) -> str:
    console = Console(width=200, force_terminal=False, record=True)
    with console.capture() as captured:
        console.print(render_run(record))
    return captured.get()


def visits(record: RunRecord, iteration: int = 0) -> list[tuple[str, int]]:
    mine = [s for s in record.samples if s.metric == density.LEVEL and s.dimensions["of"] == "available"]
    mine = sorted((s for s in mine if s.iteration == iteration), key=lambda s: int(s.dimensions["visit"]))
    return [(s.dimensions["walk"], int(s.dimensions["level"])) for s in mine]


def test_every_level_is_visited_on_the_way_up_and_on_the_way_down(measured) -> None:  # type: ignore[no-untyped-def]
    record, machine = measured(plan(max=3), rounds=6)
    up, down = [("up", n) for n in range(4)], [("down", n) for n in range(3, -1, -1)]
    orders = [visits(record, iteration) for iteration in range(6)]
    assert all(order in ([*up, *down], [*down, *up]) for order in orders)
    assert machine.most_at_once == 3 and not machine.engine.instances
    assert {int(s.dimensions["level"]) for s in record.samples if s.metric == "launch_s"} == {1, 2, 3}


def test_the_order_of_the_walks_is_the_seeds(measured) -> None:  # type: ignore[no-untyped-def]
    def orders(seed: int) -> list[str]:
        record, _ = measured(plan(max=1), rounds=8, seed=seed)
        return [visits(record, iteration)[0][0] for iteration in range(8)]

    once = orders(7)
    assert orders(7) == once != orders(8)
    assert set(once) == {"up", "down"}


def test_what_the_engine_takes_is_told_where_it_is_known(measured) -> None:  # type: ignore[no-untyped-def]
    def engine_bytes(driver_class: type[Told]) -> list[float]:
        record, _ = measured(plan(max=1), driver_class=driver_class)
        return [s.value for s in record.samples if s.metric == density.LEVEL and s.dimensions["of"] == "engine"]

    assert engine_bytes(Told) == []
    known = engine_bytes(TellsDaemon)
    assert len(known) == 4 and min(known) > MIB


class TellsPassing(TellsDaemon):
    """One beside whose daemon a helper runs at each listing, for less time than the looks are apart."""

    def engine_pids(self) -> Mapping[int, str]:
        with subprocess.Popen(["sleep", "0"], start_new_session=True) as helper:
            return {**super().engine_pids(), helper.pid: "portmap"}


def test_a_helper_of_the_engine_that_passes_by_fails_nothing_and_costs_nothing(measured) -> None:  # type: ignore[no-untyped-def]
    record, _ = measured(plan(max=1), driver_class=TellsPassing)
    assert [target.outcome for target in record.targets] == [Outcome.OK]
    assert {launch.outcome for launch in record.launches} == {Outcome.OK}
    known = [s.value for s in record.samples if s.metric == density.LEVEL and s.dimensions["of"] == "engine"]
    assert len(known) == 4 and max(known) < 2 * min(known)


def test_what_an_instance_takes_comes_out_of_the_whole_pipeline(measured) -> None:  # type: ignore[no-untyped-def]
    record, _ = measured(plan(max=6), rounds=5, noise_bytes=1.0 * MIB)
    found = stats.estimate(slopes(list(record.samples)))
    assert found.n == 10 and density.resolved(found)
    assert math.isclose(found.median, EACH_BYTES, rel_tol=0.05)
    text = text_of(record)
    assert "20." in text and "not resolved" not in text and "extrapolated instances per GiB" in text


def test_noise_as_large_as_the_slope_is_not_resolved(measured) -> None:  # type: ignore[no-untyped-def]
    record, _ = measured(plan(max=2), rounds=4, noise_bytes=40.0 * MIB)
    text = text_of(record)
    assert "not resolved" in text and "quieter machine" in text


def test_a_run_near_the_floor_stops_there_cleans_up_and_says_so(measured) -> None:  # type: ignore[no-untyped-def]
    floor = BASE_BYTES - 128 * MIB - 2 * EACH_BYTES  # a third instance's declared 128 MiB would go below it
    record, machine = measured(plan(max=8, floor=str(floor)), rounds=2)
    assert machine.most_at_once == 3 and not machine.engine.instances
    stopped = [s for s in record.samples if s.metric == "stopped_level"]
    assert {(s.value, s.dimensions["reason"]) for s in stopped} == {(3.0, "floor")}
    assert record.targets[0].outcome is Outcome.OK
    assert "stopped itself at 3 instances, for the floor of available memory, and removed them" in text_of(record)


def test_without_room_for_one_the_target_fails_and_says_what_to_do(measured) -> None:  # type: ignore[no-untyped-def]
    record, machine = measured(plan(floor=str(BASE_BYTES)), rounds=4)
    assert machine.most_at_once == 0
    target = record.targets[0]
    assert target.outcome is Outcome.FAILED and "floor" in target.reason and "-p floor=SIZE" in target.remedy


def test_a_walk_that_takes_too_long_goes_no_further_up(measured, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    record, machine = measured(plan(max=5, within="0.000001s"), rounds=1)
    assert machine.most_at_once == 1
    assert [s.dimensions["reason"] for s in record.samples if s.metric == "stopped_level"] == ["time"]


def test_the_plan_says_how_many_there_may_be_at_once() -> None:
    shape: Mapping[str, int] = {"launches": plan(max=7).launches, "at_once": plan(max=7).at_once}
    assert shape == {"launches": 14, "at_once": 7}


def test_one_that_does_not_become_ready_ends_the_walk_and_what_was_measured_stays(measured) -> None:  # type: ignore[no-untyped-def]
    class Fourth(Told):
        """Its fourth instance is refused, each time."""

        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            if len(self.engine.instances) == 3:
                raise LaunchError("the fourth is one too many")
            return super().launch(spec, endpoint, mark)

    record, machine = measured(plan(max=6), rounds=1, driver_class=Fourth)
    assert not machine.engine.instances
    assert {level for _, level in visits(record)} == {0, 1, 2, 3}
    assert record.targets[0].outcome is Outcome.OK
    assert [one.error for one in record.launches if one.outcome is Outcome.FAILED] == ["the fourth is one too many"]
    assert "stopped itself at 3 instances, since the next was unserved: the fourth is one too many" in text_of(record)
