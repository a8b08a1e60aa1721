"""Rounds, their order, failures, interrupts and what is kept, on the fake engine."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lab.driver import Context, Driver, Info, Instance, Mark
from lab.errors import (
    BadInput,
    CleanupError,
    DriverError,
    DriverUnavailable,
    LaunchError,
    MeasurementError,
    ReadyRefused,
    StoreError,
    Unsupported,
)
from lab.features import Feature
from lab.host.ownership import Owner
from lab.image.source import Source
from lab.run.estimate import Span, expected
from lab.run.runner import Entrant, Plan, Runner, _is_look, now_iso
from lab.scenario import Bench
from lab.spec import Endpoint, Spec, Target
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.testing import FakeDriver
from lab.testing.clocks import FakeClock
from scenarios.boot import Boot


class Watcher:
    """Records what the runner says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.launches: list[LaunchRecord] = []
        self.turns_left: list[Span] = []
        self.left: dict[int, Span] = {}
        self.on_committed: Callable[[LaunchRecord], None] = lambda _: None

    def preparing(self, target: str) -> None:
        self.said.append(f"preparing {target}")

    def launching(self, target: str, iteration: int, warmup: bool) -> None:
        self.said.append(f"launching {target} {iteration} {'warmup' if warmup else ''}".strip())

    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        self.launches.append(launch)
        self.on_committed(launch)

    def turned(self, left: Span) -> None:
        self.turns_left.append(left)

    def round_over(self, iteration: int, left: Span) -> None:
        self.left[iteration] = left
        self.said.append(f"round {iteration} is over")

    def target_changed(self, record: TargetRecord) -> None:
        self.said.append(f"{record.target} {record.outcome} {record.reason}")

    def cleaning(self) -> None:
        self.said.append("cleaning")

    def problem(self, text: str) -> None:
        self.said.append(f"problem {text}")


def a_run(
    store: Store, drivers: dict[str, Driver], plan: Plan, watcher: Watcher, run_id: str = "r1", scenario: object = None
) -> Runner:
    labels = {"lab.run": run_id, "lab.scenario": "boot", "lab.owner": str(Owner.current())}
    entrants = []
    for name, driver in drivers.items():
        target = Target.parse(name)
        record = TargetRecord(target=name, outcome=Outcome.OK)
        entrants.append(Entrant(target=target, driver=driver, info=driver.info(), record=record))
    run = Run(
        id=run_id,
        scenario="boot",
        started_at=now_iso(),
        ended_at=None,
        status=RunStatus.RUNNING,
        owner=labels["lab.owner"],
        lab_version="0",
    )
    return Runner(
        run=run,
        scenario=scenario or Boot(),  # type: ignore[arg-type]
        entrants=entrants,
        spec=Spec(labels=labels),
        plan=plan,
        store=store,
        host={},
        progress=watcher,
        clock=drivers[next(iter(drivers))].engine.clock,  # type: ignore[attr-defined]
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "lab.db"))


@pytest.fixture
def drivers(tmp_path: Path) -> dict[str, Driver]:
    context = Context(run_dir=tmp_path, cache_dir=tmp_path)
    return {"a": FakeDriver("", context), "b": FakeDriver("", context), "c": FakeDriver("", context)}


def run(store: Store, drivers: dict[str, Driver], **plan: object) -> tuple[RunRecord, Watcher, RunStatus]:
    watcher = Watcher()
    status = a_run(store, drivers, Plan(**plan), watcher).execute()  # type: ignore[arg-type]
    return store.load("r1"), watcher, status


def test_chance_within_a_round_is_the_seeds_and_each_rounds_and_targets_own(
    store: Store, drivers: dict[str, Driver]
) -> None:
    class Drawing(Boot):
        def measure(self, bench: Bench) -> None:
            drawn.append(bench.random().random())
            again.append(bench.random().random())

    drawn: list[float] = []
    again: list[float] = []
    for number, seed in enumerate((7, 7, 8)):
        scenario = Drawing()
        a_run(store, drivers, Plan(rounds=2, warmup=1, seed=seed), Watcher(), f"r{number}", scenario).execute()
    assert drawn == again
    first, second, other = drawn[:9], drawn[9:18], drawn[18:]
    assert first == second
    assert len({*first, *other}) == 18


def test_launches_by_others_are_theirs_and_what_is_found_belongs_to_who_found_it(
    store: Store, drivers: dict[str, Driver]
) -> None:
    class Visiting(Boot):
        def measure(self, bench: Bench) -> None:
            for other in bench.others():
                with other.session() as session:
                    bench.emit("visited_s", 1.0, "s", of=session.spec.labels["lab.target"])

    a_run(store, drivers, Plan(rounds=1, warmup=0), Watcher(), scenario=Visiting()).execute()
    record = store.load("r1")
    visits = {(sample.target, sample.dimensions["of"]) for sample in record.samples}
    assert visits == {(one, other) for one in "abc" for other in "abc" if one != other}
    assert Counter(launch.target for launch in record.launches) == {"a": 2, "b": 2, "c": 2}
    assert not [left for driver in drivers.values() for left in driver.list_instances({})]


def test_each_round_runs_every_target_once_in_a_shuffled_stored_order(store: Store, drivers: dict[str, Driver]) -> None:
    record, watcher, status = run(store, drivers, rounds=12, warmup=2, seed=7)
    assert status is RunStatus.DONE
    assert len(record.run.order) == 14
    assert all(sorted(order) == ["a", "b", "c"] for order in record.run.order)
    assert len({tuple(order) for order in record.run.order}) > 2
    launched = [line.split()[1] for line in watcher.said if line.startswith("launching")]
    assert launched == [target for order in record.run.order for target in order]
    assert [launch.warmup for launch in record.launches[:7]] == [True] * 6 + [False]


def test_the_same_seed_gives_the_same_order(tmp_path: Path, drivers: dict[str, Driver]) -> None:
    orders = []
    for seed, name in ((3, "x"), (3, "y"), (4, "z")):
        store = Store.open(str(tmp_path / f"{name}.db"))
        orders.append(run(store, drivers, rounds=8, warmup=0, seed=seed)[0].run.order)
    assert orders[0] == orders[1] != orders[2]


def test_raw_samples_are_kept_and_warmup_is_marked(store: Store, drivers: dict[str, Driver]) -> None:
    record, _, _ = run(store, drivers, rounds=3, warmup=1)
    totals = [sample for sample in record.samples if sample.metric == "boot_s" and sample.target == "a"]
    assert [sample.warmup for sample in totals] == [True, False, False, False]
    assert [sample.value for sample in totals] == [pytest.approx(0.0615)] * 4


def test_a_failed_launch_is_kept_with_its_error_and_the_target_goes_on(
    store: Store, drivers: dict[str, Driver]
) -> None:
    drivers["a"].engine.fail_launches = 1  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": drivers["a"]}, rounds=3, warmup=0)
    assert [launch.outcome for launch in record.launches] == [Outcome.FAILED, Outcome.OK, Outcome.OK]
    assert "told to fail" in record.launches[0].error and "said so" in record.launches[0].logs
    assert {sample.iteration for sample in record.samples} == {1, 2}
    assert record.targets[0].outcome is Outcome.OK


def test_an_engine_that_goes_away_ends_its_target_and_the_others_go_on(
    store: Store, drivers: dict[str, Driver]
) -> None:
    class Gone(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            raise DriverUnavailable("the engine has stopped", resolution="start it")

    gone = Gone("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    gone.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, watcher, _ = run(store, {"a": drivers["a"], "gone": gone}, rounds=4, warmup=0)
    outcome = {target.target: target for target in record.targets}
    assert outcome["gone"].outcome is Outcome.FAILED and outcome["gone"].remedy == "start it"
    assert sum(launch.target == "a" for launch in record.launches) == 4
    assert sum(launch.target == "gone" for launch in record.launches) == 1
    assert any("gone failed" in line for line in watcher.said)


def test_what_a_target_cannot_do_is_not_asked_of_it_again(store: Store, drivers: dict[str, Driver]) -> None:
    class Unable:
        name, question, headline, requires = "unable", "?", "x_s", frozenset[Feature]()

        def measure(self, bench: Bench) -> None:
            raise Unsupported("no such thing here")

    a_run(store, {"a": drivers["a"]}, Plan(rounds=5, warmup=0), Watcher(), scenario=Unable()).execute()
    record = store.load("r1")
    assert record.targets[0].outcome is Outcome.FAILED and "no such thing" in record.targets[0].reason
    assert len(record.launches) == 1


@pytest.mark.parametrize("good,launches", [(0, 1), (2, 5)])
def test_an_answer_that_will_not_change_ends_a_target_that_was_never_ready(
    store: Store, drivers: dict[str, Driver], good: int, launches: int
) -> None:
    class Redirected(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked > good:
                raise ReadyRefused("GET / is answered with 302", resolution="give --ready-path")
            return super().launch(spec, endpoint, mark)

    driver = Redirected("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": driver}, rounds=9, warmup=0)
    assert len(record.launches) == launches
    assert record.targets[0].outcome is Outcome.FAILED and record.targets[0].remedy == "give --ready-path"


def test_three_failures_in_a_row_end_a_target(store: Store, drivers: dict[str, Driver]) -> None:
    drivers["a"].engine.fail_launches = 100  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": drivers["a"]}, rounds=9, warmup=0)
    assert len(record.launches) == 3
    assert record.targets[0].outcome is Outcome.FAILED


def test_an_adaptive_run_stops_all_targets_together_after_a_look_and_says_so(
    store: Store, drivers: dict[str, Driver]
) -> None:
    record, _, _ = run(store, drivers, rounds=40, warmup=1, until_ci=0.05)
    assert len(record.run.order) == 11
    assert record.run.parameters["stopped_by"] == "precision"


def test_an_adaptive_run_that_is_not_precise_runs_to_its_cap(store: Store, drivers: dict[str, Driver]) -> None:
    class Noisy(FakeDriver):
        count = 0

        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            Noisy.count += 1
            self.engine.clock.advance(1.0 if Noisy.count % 2 else 0.0)
            return super().launch(spec, endpoint, mark)

    noisy = Noisy("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    noisy.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, _, _ = run(store, {"noisy": noisy}, rounds=12, warmup=0, until_ci=0.05)
    assert len(record.launches) == 12 and record.run.parameters["stopped_by"] == "rounds"


def test_an_interrupt_keeps_what_was_measured_and_cleans_up(store: Store, drivers: dict[str, Driver]) -> None:
    class Interrupted(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            if len(watcher.launches) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return instance

    driver = Interrupted("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    watcher = Watcher()
    before = signal.getsignal(signal.SIGINT)
    status = a_run(store, {"a": driver}, Plan(rounds=5, warmup=0), watcher).execute()
    record = store.load("r1")
    assert status is RunStatus.INTERRUPTED is record.run.status
    assert len(record.launches) == 2 and record.run.parameters["stopped_by"] == "the user"
    assert not driver.engine.instances and not driver.engine.images
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_still_cleans_up(store: Store, drivers: dict[str, Driver]) -> None:
    class Stubborn(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            super().launch(spec, endpoint, mark)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("unreachable")

        def list_instances(self, labels):  # type: ignore[no-untyped-def]
            os.kill(os.getpid(), signal.SIGINT)
            return super().list_instances(labels)

    driver = Stubborn("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    watcher = Watcher()
    status = a_run(store, {"a": driver}, Plan(rounds=5, warmup=0), watcher).execute()
    assert status is RunStatus.INTERRUPTED
    assert not driver.engine.instances
    assert watcher.said.count("cleaning") > 1


def test_an_interrupt_is_not_lost_where_removing_fails(store: Store, drivers: dict[str, Driver]) -> None:
    class Stuck(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            delete = instance.delete

            def fail_once() -> None:
                instance.delete = delete  # type: ignore[method-assign]
                raise CleanupError("it is busy")

            instance.delete = fail_once  # type: ignore[method-assign]
            os.kill(os.getpid(), signal.SIGINT)
            return instance

    driver = Stuck("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    status = a_run(store, {"a": driver}, Plan(rounds=5, warmup=0), Watcher()).execute()
    assert status is RunStatus.INTERRUPTED
    assert len(store.load("r1").launches) <= 1
    assert not driver.engine.instances


def test_a_failed_launch_keeps_its_own_error_where_removing_fails_too(
    store: Store, drivers: dict[str, Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            delete = instance.delete

            def fail_once() -> None:
                instance.delete = delete  # type: ignore[method-assign]
                raise CleanupError("it is busy")

            instance.delete = fail_once  # type: ignore[method-assign]
            return instance

    def odd(*_: object, **__: object) -> bool:
        raise MeasurementError("odd clock")

    monkeypatch.setattr("lab.launch.session.proves_shared", odd)
    driver = Silent("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    run(store, {"a": driver}, rounds=1, warmup=0)
    (launch,) = store.load("r1").launches
    assert "odd clock" in launch.error and "it is busy" in launch.logs
    assert not driver.engine.instances


def test_what_is_asked_before_a_launch_and_fails_is_a_recorded_failure(
    store: Store, drivers: dict[str, Driver]
) -> None:
    def warm(_driver: Driver, _spec: Spec) -> dict[str, object]:
        raise MeasurementError("a file is still warm")

    record, _, _ = run(store, {"a": drivers["a"]}, rounds=2, warmup=0, before_launch=warm)
    assert [launch.outcome for launch in record.launches] == [Outcome.FAILED] * 2
    assert "still warm" in record.launches[0].error


def test_info_is_asked_again_once_prepared(store: Store, drivers: dict[str, Driver]) -> None:
    class Learning(FakeDriver):
        def info(self) -> Info:
            return replace(super().info(), version="2" if self.engine.images else "1")

    driver = Learning("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": driver}, rounds=1, warmup=0)
    assert record.targets[0].info["version"] == "2"


@pytest.mark.parametrize("measured,looks", [(0, False), (5, False), (10, True), (20, True), (30, False), (1280, True)])
def test_looks_are_ten_twenty_forty_and_so_on(measured: int, looks: bool) -> None:
    assert _is_look(measured) is looks


def test_everything_of_the_run_is_removed_at_its_end(store: Store, drivers: dict[str, Driver]) -> None:
    run(store, drivers, rounds=2)
    engine = drivers["a"].engine  # type: ignore[attr-defined]
    assert not engine.instances and not engine.images


def test_a_store_that_fails_ends_the_run_clean(
    store: Store, drivers: dict[str, Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(store, "add_launch", full)
    watcher = Watcher()
    with pytest.raises(StoreError):
        a_run(store, drivers, Plan(rounds=2), watcher).execute()
    assert not drivers["a"].engine.instances  # type: ignore[attr-defined]
    assert store.load("r1").run.status is RunStatus.INTERRUPTED


@pytest.mark.parametrize(
    ("problem", "outcome", "reason"),
    [
        (LaunchError("no image"), Outcome.FAILED, "no image"),
        (Unsupported("never here"), Outcome.SKIPPED, "never here"),
        (BadInput("no such"), Outcome.SKIPPED, "no such"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/proc/disk"),
            Outcome.FAILED,
            "/proc cannot be written to: ",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), Outcome.FAILED, "/x: Permission denied"),
    ],
)
def test_what_fails_while_preparing_is_a_row_with_its_reason_and_the_others_go_on(
    store: Store, drivers: dict[str, Driver], problem: Exception, outcome: Outcome, reason: str
) -> None:
    class Unprepared(FakeDriver):
        def prepare(self, spec: Spec) -> None:
            raise problem

    driver = Unprepared("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": drivers["a"], "x": driver}, rounds=2)
    assert {t.target: t.outcome for t in record.targets} == {"a": Outcome.OK, "x": outcome}
    assert reason in next(t.reason for t in record.targets if t.target == "x")
    assert [launch.target for launch in record.launches].count("a") == 3


def test_a_full_disk_at_a_launch_is_that_launches_failure_and_the_others_go_on(
    store: Store, drivers: dict[str, Driver]
) -> None:
    class Full(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            raise OSError(errno.ENOSPC, "No space left on device", "/proc/disk")

    driver = Full("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    driver.engine = drivers["a"].engine  # type: ignore[attr-defined]
    record, _, _ = run(store, {"a": drivers["a"], "x": driver}, rounds=2)
    assert {t.target: t.outcome for t in record.targets} == {"a": Outcome.OK, "x": Outcome.FAILED}
    assert "/proc cannot be written to: there is no space left" in next(
        t.reason for t in record.targets if t.target == "x"
    )


def test_every_row_carries_the_users_image_and_an_emulated_one_is_a_row_of_its_own(
    store: Store, drivers: dict[str, Driver]
) -> None:
    found = Source(
        reference="x:1", digest="sha256:ab", origin="the file /x", platform="linux/arm64", emulation="qemu-user"
    )
    entrants = a_run(store, drivers, Plan(rounds=1), Watcher())
    entrants.image = found
    entrants.execute()
    for target in store.load("r1").targets:
        assert target.info["facts"]["image"]["digest"] == "sha256:ab"
        assert target.info["qualifiers"]["emulation"] == "qemu-user"


def test_a_failed_launch_is_removed_and_its_samples_are_not_kept(store: Store, drivers: dict[str, Driver]) -> None:
    class Half:
        name, question, headline, requires = "half", "?", "x_s", frozenset[Feature]()

        def measure(self, bench: Bench) -> None:
            with bench.session():
                bench.emit("x_s", 1.0, "s")
                raise LaunchError("broke in the middle")

    watcher = Watcher()
    a_run(store, {"a": drivers["a"]}, Plan(rounds=1, warmup=0), watcher, scenario=Half()).execute()
    record = store.load("r1")
    assert not record.samples and record.launches[0].outcome is Outcome.FAILED
    assert not drivers["a"].engine.instances  # type: ignore[attr-defined]


def test_a_failure_outside_every_launch_is_recorded_and_one_of_a_launch_once(
    store: Store, drivers: dict[str, Driver]
) -> None:
    class Outside:
        name, question, headline, requires = "outside", "?", "x_s", frozenset[Feature]()

        def measure(self, bench: Bench) -> None:
            with bench.session():
                pass
            raise MeasurementError("the floor was reached", details="so much was left")

    watcher = Watcher()
    a_run(store, {"a": drivers["a"]}, Plan(rounds=1, warmup=0), watcher, scenario=Outside()).execute()
    good, failed = store.load("r1").launches
    assert good.outcome is Outcome.OK and failed.outcome is Outcome.FAILED
    assert "floor" in failed.error and failed.logs == "so much was left"


def test_no_error_tells_what_the_user_gave_by_env(store: Store, drivers: dict[str, Driver]) -> None:
    class Telling(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            raise LaunchError(f"bad request: {dict(spec.environment)}", details="inspected: TOKEN=hush-hush")

        def prepare(self, spec: Spec) -> None:
            if self._prepare_fails:
                raise Unsupported("cannot take TOKEN=hush-hush", resolution="leave out hush-hush")

        _prepare_fails = False

    context = Context(run_dir=Path("/"), cache_dir=Path("/"))
    telling, refusing = Telling("", context), Telling("", context)
    refusing._prepare_fails = True
    watcher = Watcher()
    runner = a_run(store, {"a": telling, "b": refusing}, Plan(rounds=3, warmup=0, seed=1), watcher)
    runner.spec = replace(runner.spec, environment={"TOKEN": "hush-hush"})
    runner.execute()
    record = store.load("r1")
    told = f"{record} {watcher.said} {watcher.launches}"
    assert "the value of TOKEN" in told and "hush" not in told
    assert {target.outcome for target in record.targets} == {Outcome.FAILED, Outcome.SKIPPED}


class _BadEnd(FakeDriver):
    """Its instances refuse to be stopped or, with `removal`, to be removed."""

    removal = False

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        instance = super().launch(spec, endpoint, mark)
        stop, delete = instance.stop, instance.delete

        def refuse(**_: object) -> None:
            raise DriverError("the instance does not end")

        def refuse_removal() -> None:
            stop(timeout_s=0)
            delete()
            raise CleanupError("something of the instance stays")

        if self.removal:
            instance.delete = refuse_removal  # type: ignore[method-assign]
        else:
            instance.stop = refuse  # type: ignore[method-assign]
            instance.delete = lambda: (stop(timeout_s=0), delete())[1]  # type: ignore[method-assign]
        return instance


@pytest.mark.parametrize("removal", [False, True])
def test_a_launch_whose_end_failed_keeps_the_boot_that_was_measured(
    store: Store, tmp_path: Path, removal: bool
) -> None:
    driver = _BadEnd("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    driver.removal = removal
    record, watcher, _ = run(store, {"a": driver}, rounds=2, warmup=0)
    boots = [sample.iteration for sample in record.samples if sample.metric == "boot_s"]
    assert boots == [0, 1]
    assert "stop_s" not in {sample.metric for sample in record.samples}
    assert [launch.outcome for launch in record.launches] == [Outcome.FAILED, Outcome.FAILED]
    told = "something of the instance stays" if removal else "the instance does not end"
    assert {launch.error for launch in watcher.launches} == {told}


def test_a_service_that_ended_by_itself_keeps_nothing(store: Store, tmp_path: Path) -> None:
    """It answered once, and was gone before anybody stopped it: a crash loop is no boot."""

    class Ends(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            instance = super().launch(spec, endpoint, mark)
            mark.failed(LaunchError("the service ended with exit status 3"))
            return instance

    driver = Ends("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    record, _, _ = run(store, {"a": driver}, rounds=2, warmup=0)
    assert not record.samples
    assert {launch.error for launch in record.launches} == {"the service ended with exit status 3"}


class Uneven(FakeDriver):
    """Each turn takes seconds of its own: a mean, with noise around it, that drifts by a share a turn."""

    def __init__(self, context: Context, clock: FakeClock, mean_s: float, *, drift: float, seed: int) -> None:
        super().__init__("", context)
        self.engine = replace(self.engine, clock=clock, instances={}, images={})
        self.mean_s, self.drift, self.turns = mean_s, drift, 0
        self.chance = random.Random(seed)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        noise = self.chance.lognormvariate(0.0, 0.08)
        self.engine.clock.advance(self.mean_s * (1 + self.drift * self.turns) * noise)
        self.turns += 1
        return super().launch(spec, endpoint, mark)


def uneven(tmp_path: Path, *, slower: float = 1.0, seed: int) -> dict[str, Driver]:
    """One quick, one slow, one between that becomes slower."""
    clock, context = FakeClock(), Context(run_dir=tmp_path, cache_dir=tmp_path)
    means = {"quick": (0.05, 0.0), "slow": (6.0, 0.0), "drifting": (1.5, 0.02)}
    return {
        name: Uneven(context, clock, mean_s * slower, drift=drift, seed=seed + place)
        for place, (name, (mean_s, drift)) in enumerate(means.items())
    }


def timed_run(store: Store, drivers: dict[str, Driver], run_id: str, rounds: int) -> tuple[Watcher, Span, float]:
    """A run that expects what the store tells of this host; and what it thought before, and how long it took after its
    warm-up, in seconds of the fake clock."""
    watcher, clock = Watcher(), drivers["slow"].engine.clock  # type: ignore[attr-defined]
    made = a_run(store, drivers, Plan(rounds=rounds), watcher, run_id)
    earlier = store.timed("boot", Owner.current().host())
    made.expected = {name: expected(name, qualifiers={}, like={}, runs=earlier) for name in drivers}
    before = made.plan.estimate(made.expected).left(list(drivers))
    over_ns: list[int] = []
    keep = watcher.round_over

    def round_over(iteration: int, left: Span) -> None:
        over_ns.append(clock.now_ns())
        keep(iteration, left)

    watcher.round_over = round_over  # type: ignore[method-assign]
    made.execute()
    return watcher, before, (clock.now_ns() - over_ns[0]) / 1e9


@pytest.mark.parametrize("seed", [10, 20, 30])
def test_after_the_warm_up_what_is_left_is_told_within_a_quarter(store: Store, tmp_path: Path, seed: int) -> None:
    watcher, before, took_s = timed_run(store, uneven(tmp_path, seed=seed), "r1", 12)
    assert before == Span(0.0, 0.0), "nothing was known"
    assert took_s > 12 * 7
    assert watcher.left[0].most_s == pytest.approx(took_s, rel=0.25)
    assert len(watcher.turns_left) == 13 * 3
    assert watcher.turns_left[-1] == Span(0.0, 0.0)
    assert sorted(watcher.left) == list(range(12)), "after the last round there is nothing to wait for"


def test_earlier_runs_tell_before_the_first_launch_and_where_they_mislead_the_warm_up_mends_it(
    store: Store, tmp_path: Path
) -> None:
    _, _, took_s = timed_run(store, uneven(tmp_path, seed=1), "r1", 5)
    _, before, again_s = timed_run(store, uneven(tmp_path, seed=2), "r2", 10)
    assert before.most_s == pytest.approx(again_s, rel=0.25)
    watcher, before, slow_s = timed_run(store, uneven(tmp_path, slower=5.0, seed=3), "r3", 5)
    assert before.most_s < slow_s / 3
    assert slow_s > took_s * 3
    assert watcher.left[0].most_s == pytest.approx(slow_s, rel=0.25)


def test_a_target_that_fails_is_no_part_of_what_is_left_and_teaches_nothing(store: Store, tmp_path: Path) -> None:
    drivers = uneven(tmp_path, seed=1)
    drivers["slow"].engine.fail_launches = 100  # type: ignore[attr-defined]
    watcher, _, _ = timed_run(store, drivers, "r1", 9)
    assert watcher.left[3].most_s < 9 * 3
    [told] = store.timed("boot", Owner.current().host())
    assert set(told.qualifiers) == {"quick", "drifting"}
