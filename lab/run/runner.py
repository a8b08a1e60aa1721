"""Runs a scenario over targets: interleaved rounds in a shuffled, stored order, each result committed as it comes."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Protocol

from lab.driver import Driver, Info
from lab.errors import (
    BadInput,
    DriverError,
    DriverUnavailable,
    LabError,
    MeasurementError,
    ReadyRefused,
    StoreError,
    Unsupported,
)
from lab.features import HasNodes
from lab.figures.series import NODE
from lab.host.facts import Steal
from lab.image.source import Source
from lab.launch.session import Session
from lab.launch.ticks import begin_at_random
from lab.run.clean import QUIET_S, sweep
from lab.run.company import Company, facts
from lab.run.estimate import Estimate, Expected, Span
from lab.run.interrupts import Interrupts
from lab.scenario import Brings, Launches, Scenario
from lab.spec import Spec, Target
from lab.store.database import Store
from lab.store.digest import concealed
from lab.store.place import FULL, no_room
from lab.store.record import LaunchRecord, Outcome, Run, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import HostClock, Phase, SystemClock, Timeline

GIVE_UP_AFTER = 3
"""A target whose launches fail this many times in a row is not tried again in this run."""

FIRST_LOOK = 10
"""An adaptive run may stop after this many rounds, after twice as many, and so on (docs/method.md, rule 9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the user asked for. With `until_ci`, `rounds` is the cap; `max_s` bounds the measuring in seconds.
    Without `timeout_s` each target becomes ready in a time of its own (`Session`).

    `before_launch` runs untimed before each launch and gives facts to keep with it; `dimensions` go to every sample.
    With `each_node` a turn of a target whose engine has several machines is one on each, in an order by chance.
    """

    rounds: int
    warmup: int = 1
    seed: int = 0
    until_ci: float | None = None
    max_s: float | None = None
    timeout_s: float | None = None
    host_port: int | None = None
    before_launch: Callable[[Driver, Spec], Mapping[str, Any]] | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    each_node: bool = False

    def estimate(self, expected: Mapping[str, Expected]) -> Estimate:
        """Of how long all of it takes, where each target's turns take what is `expected` of it."""
        looks = [self.warmup + after for after in range(1, self.rounds) if self.until_ci and _is_look(after)]
        return Estimate(expected=expected, rounds=self.warmup + self.rounds, looks=looks, max_s=self.max_s)


class Progress(Protocol):
    """Who watches a run. One call at a time; `committed` only after the store has committed. `turned` comes after each
    target's turn in a round, `round_over` once the run goes on to the next; `left` is how long it has still to go."""

    def preparing(self, target: str) -> None: ...
    def launching(self, target: str, iteration: int, warmup: bool) -> None: ...
    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None: ...
    def turned(self, left: Span) -> None: ...
    def round_over(self, iteration: int, left: Span) -> None: ...
    def target_changed(self, record: TargetRecord) -> None: ...
    def cleaning(self) -> None: ...
    def problem(self, text: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Entrant:
    """One target in the run: its driver (None when it could not even be made) and what became of it; `bad_input`
    where it was skipped because of what the user gave. `served` once all of a round went well."""

    target: Target
    driver: Driver | None
    info: Info | None
    record: TargetRecord
    failures_in_a_row: int = 0
    bad_input: bool = False
    served: bool = False

    @property
    def running(self) -> bool:
        return self.record.outcome is Outcome.OK

    def learn(self, info: Info, image: Source | None = None) -> None:
        """What its engine says of itself, and what a user's image adds to that."""
        if image is not None:
            emulation = {"emulation": image.emulation} if image.emulation else {}
            info = replace(
                info, facts={**info.facts, "image": image.facts()}, qualifiers={**info.qualifiers, **emulation}
            )
        self.info = info
        self.record = replace(self.record, info=info_json(info))


@dataclass(slots=True, kw_only=True)
class Runner:
    """One run. `run` must carry the id; `spec` the run's labels, which every object made gets; `image` is
    where a user's image was found, `expected` tells of each target how long its turns are thought to take, and
    `company` are the other runs that the engines may have. `on_launch` is given each launch's target, round, whether it
    warms up, and its timeline, before anything is asked for."""

    run: Run
    scenario: Scenario
    entrants: Sequence[Entrant]
    spec: Spec
    plan: Plan
    store: Store
    host: Mapping[str, Any]
    progress: Progress
    image: Source | None = None
    steal: Steal = field(default_factory=Steal)
    clock: HostClock = field(default_factory=SystemClock)
    company: Company | None = None
    expected: Mapping[str, Expected] = field(default_factory=dict)
    on_launch: Callable[[str, int, bool, Timeline], None] | None = None
    _values: dict[str, list[float]] = field(default_factory=dict)

    def execute(self) -> RunStatus:
        """Measure everything, then remove all that the run made.

        One Ctrl-C, SIGTERM or SIGHUP ends the measuring, keeps what was measured and cleans up; further ones do not
        disturb the cleaning. Raises StoreError, after cleaning up, where results cannot be kept.
        """
        self.store.begin(self.run, self.host)
        for entrant in self.entrants:
            self.store.set_target(self.run.id, entrant.record)
        status, stopped_by = RunStatus.INTERRUPTED, "an error"
        with Interrupts(self.progress.cleaning) as interrupts:
            try:
                self._prepare(interrupts)
                if self.company is not None:
                    self.company.await_turn()
                stopped_by = self._rounds(interrupts)
                status = RunStatus.DONE
            except KeyboardInterrupt:
                stopped_by = "the user"
            finally:
                interrupts.hold()
                if self.company is not None:
                    with contextlib.suppress(LabError):  # what follows is what matters
                        self.company.note()
                self._clean(calm=status is RunStatus.DONE)
                self.store.finish(self.run.id, status, now_iso(), self._ending(stopped_by))
        return status

    def _prepare(self, interrupts: Interrupts) -> None:
        for entrant in self.entrants:
            if entrant.driver is None or not entrant.running:
                continue
            self.progress.preparing(str(entrant.target))
            try:
                for spec in self._specs(entrant):
                    entrant.driver.prepare(spec)
                entrant.learn(entrant.driver.info(), self.image)  # again: what was prepared can be part of what it is
                self.store.set_target(self.run.id, entrant.record)
            except StoreError:
                raise
            except (BadInput, Unsupported) as error:
                entrant.bad_input = isinstance(error, BadInput)
                self._end_target(entrant, Outcome.SKIPPED, error)
            except LabError as error:
                self._end_target(entrant, Outcome.FAILED, error)
            except OSError as error:
                self._end_target(entrant, Outcome.FAILED, _driver_error(error))
            interrupts.check()

    def _rounds(self, interrupts: Interrupts) -> str:
        shuffle = Random(self.plan.seed)  # noqa: S311  a reproducible order, not a secret
        started = time.monotonic()
        total = self.plan.warmup + self.plan.rounds
        estimate = self.plan.estimate(self.expected)
        for iteration in range(total):
            order = [entrant for entrant in self.entrants if entrant.running]
            if not order:
                return "no target left"
            shuffle.shuffle(order)
            self.store.add_round(self.run.id, iteration, [str(entrant.target) for entrant in order])
            turns_s: dict[str, float] = {}
            for entrant in order:
                begun_ns = self.clock.now_ns()
                self._measure(entrant, iteration)
                turns_s[str(entrant.target)] = (self.clock.now_ns() - begun_ns) / 1e9
                estimate.add(str(entrant.target), turns_s[str(entrant.target)])
                self.progress.turned(self._left(estimate))
                interrupts.check()
            self.store.end_round(self.run.id, iteration, turns_s)
            if self._precise_enough(iteration + 1 - self.plan.warmup):
                return "precision"
            if self.plan.max_s is not None and time.monotonic() - started > self.plan.max_s and iteration + 1 < total:
                return "time"
            if iteration + 1 < total:
                self.progress.round_over(iteration, self._left(estimate))
        return "rounds"

    def _left(self, estimate: Estimate) -> Span:
        return estimate.left([str(entrant.target) for entrant in self.entrants if entrant.running])

    def _measure(self, entrant: Entrant, iteration: int) -> None:
        for node in self._nodes(entrant, iteration):
            if entrant.running:
                self._measure_on(entrant, iteration, node)

    def _nodes(self, entrant: Entrant, iteration: int) -> Sequence[str]:
        """Where a turn is measured: wherever the engine likes, or on each of its nodes."""
        if not self.plan.each_node or not isinstance(entrant.driver, HasNodes):
            return [""]
        try:
            nodes = list(entrant.driver.nodes())
        except DriverError as error:
            self._end_target(entrant, Outcome.FAILED, error)
            return []
        Random(f"{self.plan.seed} {entrant.target} {iteration} nodes").shuffle(nodes)  # noqa: S311  as above
        return nodes

    def _measure_on(self, entrant: Entrant, iteration: int, node: str) -> None:
        warmup = iteration < self.plan.warmup
        self.progress.launching(str(entrant.target), iteration, warmup)
        bench = _Bench(self, entrant, iteration, warmup, node)
        try:
            self.scenario.measure(bench)
        except BadInput:
            raise
        except (DriverError, MeasurementError, OSError) as problem:
            error = _driver_error(problem) if isinstance(problem, OSError) else problem
            bench.record(error)
            if bench.kept:
                self._learn_values(entrant, bench, warmup)
            entrant.failures_in_a_row += 1
            hopeless = isinstance(error, DriverUnavailable | Unsupported)
            hopeless |= isinstance(error, ReadyRefused) and not entrant.served  # the next launch's answer is the same
            if hopeless or entrant.failures_in_a_row >= GIVE_UP_AFTER:
                self._end_target(entrant, Outcome.FAILED, error)
        else:
            entrant.failures_in_a_row = 0
            entrant.served = True
            bench.commit_rest()
            self._learn_values(entrant, bench, warmup)

    def _learn_values(self, entrant: Entrant, bench: _Bench, warmup: bool) -> None:
        if not warmup:
            self._values.setdefault(str(entrant.target), []).extend(bench.headline_values)

    def _precise_enough(self, measured: int) -> bool:
        if self.plan.until_ci is None or not _is_look(measured):
            return False
        from lab.figures.stats import estimate  # SciPy takes long to import: only where it is needed

        running = [self._values.get(str(entrant.target), []) for entrant in self.entrants if entrant.running]
        widths = [estimate(values).relative_half_width if values else None for values in running]
        return bool(widths) and all(width is not None and width <= self.plan.until_ci for width in widths)

    def _end_target(self, entrant: Entrant, outcome: Outcome, error: LabError) -> None:
        reason, remedy = (self._concealed(text) for text in (error.brief, error.resolution))
        entrant.record = replace(entrant.record, outcome=outcome, reason=reason, remedy=remedy)
        self.store.set_target(self.run.id, entrant.record)
        self.progress.target_changed(entrant.record)

    def _clean(self, *, calm: bool) -> None:
        """With `calm`, nothing was broken off that a daemon could still be finishing."""
        self.progress.cleaning()
        drivers = {e.target.driver: e.driver for e in self.entrants if e.driver is not None and e.info is not None}
        swept = sweep(list(drivers.values()), {"lab.run": self.run.id}, owned=True, quiet_s=0.0 if calm else QUIET_S)
        for problem in (
            *swept.problems,
            *(f"{name} could not be looked at: {why}" for name, why in swept.absent.items()),
        ):
            self.progress.problem(self._concealed(problem))
        for entrant in self.entrants:
            if entrant.driver is not None:
                entrant.driver.close()

    def _ending(self, stopped_by: str) -> dict[str, Any]:
        return {"stopped_by": stopped_by, "steal_fraction": self.steal.stop(), **facts(self.company)}

    def _specs(self, entrant: Entrant) -> Sequence[Spec]:
        """All that is launched on a target. Raises BadInput, Unsupported."""
        assert entrant.driver is not None  # noqa: S101  only those that have one are prepared
        spec = replace(self.spec, labels=self._labels(entrant))
        return list(self.scenario.specs(spec, entrant.driver).values()) if isinstance(self.scenario, Brings) else [spec]

    def _concealed(self, text: str) -> str:
        """`text` without the values of any service's environment."""
        for spec in self.scenario.services(self.spec).values() if isinstance(self.scenario, Brings) else [self.spec]:
            text = concealed(text, spec.environment)
        return text

    def _labels(self, entrant: Entrant) -> dict[str, str]:
        return {**self.spec.labels, "lab.target": str(entrant.target)}


class _Bench:
    """The `Bench` of one target in one round. `kept`: a launch failed in its ending, and what was measured stands."""

    def __init__(self, runner: Runner, entrant: Entrant, iteration: int, warmup: bool, node: str = "") -> None:
        assert entrant.info is not None and entrant.driver is not None  # noqa: S101  running entrants have both
        self.headline_values: list[float] = []
        self.kept = False
        self.driver = entrant.driver
        self.spec = replace(runner.spec, labels=runner._labels(entrant), node=node)
        self.info = entrant.info
        self.clock = runner.clock
        self._runner = runner
        self._entrant = entrant
        self._iteration = iteration
        self._warmup = warmup
        self._samples: list[Sample] = []
        self._recorded_error: LabError | None = None
        self._chance = Random(f"{runner.plan.seed} {entrant.target} {iteration} ticks")  # noqa: S311  as above
        self._lock = threading.RLock()

    def others(self) -> Sequence[_Bench]:
        runner = self._runner
        beside = [one for one in runner.entrants if one.running and one.driver is not None and one is not self._entrant]
        return [_Bench(runner, one, self._iteration, self._warmup) for one in beside]

    def random(self) -> Random:
        return Random(f"{self._runner.plan.seed} {self._entrant.target} {self._iteration}")  # noqa: S311  as above

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        sample = Sample(
            target=str(self._entrant.target),
            metric=metric,
            value=value,
            unit=unit,
            iteration=self._iteration,
            warmup=self._warmup,
            dimensions={
                **self.info.qualifiers,
                **self._runner.plan.dimensions,
                **({NODE: self.spec.node} if self.spec.node else {}),
                **{key: str(text) for key, text in dimensions.items()},
            },
        )
        with self._lock:
            self._samples.append(sample)
            if metric == self._runner.scenario.headline:
                self.headline_values.append(value)

    @contextlib.contextmanager
    def session(self, *, port: int | None = None, at_once: bool = False, **changes: Any) -> Iterator[Session]:
        with self._recorded(port, changes, None if at_once else self._chance) as session:
            session.launch()
            yield session

    def unlaunched(self, *, host_port: int | None = None, **changes: Any) -> contextlib.AbstractContextManager[Session]:
        return self._recorded(host_port, changes, None)

    @contextlib.contextmanager
    def sessions(self, count: int, *, parallel: int = 1, **changes: Any) -> Iterator[Launches]:
        with contextlib.ExitStack() as stack:
            own = [stack.enter_context(contextlib.ExitStack()) for _ in range(count)]
            begun = [each.enter_context(self._recorded(None, changes, None)) for each in own]
            self.begin_at_random()
            with ThreadPoolExecutor(parallel, thread_name_prefix="lab-launch") as pool:
                asked = [pool.submit(session.ask) for session in begun]
                try:
                    served = [_served(*launch) for launch in zip(begun, own, asked, strict=True)]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)  # one under way ends first: it must be removed
                    raise
            requested = [one.timeline.mark(Phase.REQUESTED).ns for one in begun if Phase.REQUESTED in one.timeline]
            yield Launches(
                sessions=[session for session, good in zip(begun, served, strict=True) if good],
                failed=served.count(False),
                requested_ns=min(requested, default=self.clock.now_ns()),
            )

    def begin_at_random(self) -> None:
        begin_at_random(self.info, self.clock, self._chance)

    def record(self, error: LabError) -> None:
        """Commit a failure that happened outside every launch; one of a launch's is committed already."""
        with self._lock:
            if error is not self._recorded_error:
                self._add(
                    LaunchRecord(
                        **self._place(), outcome=Outcome.FAILED, timeline=Timeline(), **_said(error, self.spec)
                    ),
                    [],
                )

    def commit_rest(self) -> None:
        """Commit the samples that no launch took along."""
        with self._lock:
            samples, self._samples = self._samples, []
            if samples:
                self._runner.store.add_samples(self._runner.run.id, samples)

    @contextlib.contextmanager
    def _recorded(self, port: int | None, changes: Mapping[str, Any], chance: Random | None) -> Iterator[Session]:
        """A session not yet launched, whose record is committed at the end, whatever that is."""
        runner = self._runner
        spec = replace(self.spec, **changes).for_launch()
        facts: Mapping[str, Any] = {}
        session = Session(
            self.driver,
            self.info,
            spec,
            runner.clock,
            timeout_s=runner.plan.timeout_s,
            port=port or runner.plan.host_port,
            chance=chance,
        )
        if runner.on_launch is not None:
            runner.on_launch(str(self._entrant.target), self._iteration, self._warmup, session.timeline)
        try:
            with session:
                if runner.plan.before_launch is not None:
                    facts = runner.plan.before_launch(self.driver, spec)
                yield session
        except BadInput:
            raise
        except LabError as error:
            self._commit(session, facts, error)
            raise
        self._commit(session, facts, None)

    def _commit(self, session: Session, facts: Mapping[str, Any], error: LabError | None) -> None:
        with self._lock:
            samples: list[Sample] = []
            blamed = error if error is not self._recorded_error else None  # else it passes by on its way out
            if blamed is not None:
                self._recorded_error = blamed
                self.kept = session.ending
            if error is None or (blamed is not None and self.kept):
                samples, self._samples = self._samples, []
            launch = LaunchRecord(
                **self._place(),
                outcome=Outcome.FAILED if blamed else Outcome.OK,
                timeline=session.timeline,
                facts={**session.facts(), **facts, **({NODE: self.spec.node} if self.spec.node else {})},
                **(_said(blamed, session.spec, session.logs()) if blamed else {}),
            )
            self._add(launch, samples)

    def _place(self) -> dict[str, Any]:
        return {"target": str(self._entrant.target), "iteration": self._iteration, "warmup": self._warmup}

    def _add(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        self._runner.store.add_launch(self._runner.run.id, launch, samples)
        self._runner.progress.committed(launch, samples)


def _said(error: LabError, spec: Spec, logs: bytes = b"") -> dict[str, Any]:
    """What an error said, without what the user gave the service by --env; `logs` are the service's own words."""
    details = concealed(error.details, spec.environment)
    return {"error": concealed(str(error), spec.environment), "logs": details or logs.decode(errors="replace")}


def _driver_error(error: OSError) -> DriverError:
    """What the file system said to a driver, as an error of its target alone: the others go on."""
    where = Path(str(error.filename)) if error.filename else Path(tempfile.gettempdir())
    if error.errno in FULL:
        return no_room(error, where.name, where.parent)
    named = f"{error.filename}: " if error.filename else ""
    return DriverError(f"a file could not be used: {named}{error.strerror or error}", details=repr(error))


def _is_look(measured: int) -> bool:
    doublings, rest = divmod(measured, FIRST_LOOK)
    return measured > 0 and rest == 0 and doublings.bit_count() == 1


def _served(session: Session, own: contextlib.ExitStack, asked: Future[None]) -> bool:
    """Whether a launch that was asked for became ready; where it did not, its record is committed."""
    try:
        asked.result()
        session.await_ready()
    except BadInput:
        raise
    except LabError as error:
        own.__exit__(type(error), error, error.__traceback__)
        return False
    return True


def info_json(info: Info | None) -> dict[str, Any]:
    """An Info as JSON values; empty for None."""
    if info is None:
        return {}
    return {
        "engine": info.engine,
        "version": info.version,
        "isolation": info.isolation,
        "features": sorted(feature.value for feature in info.features),
        "facts": dict(info.facts),
        "qualifiers": dict(info.qualifiers),
    }


def new_run_id() -> str:
    """Sortable by time, unique, short enough for names of engine objects."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now_iso() -> str:
    """The time in UTC by ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
