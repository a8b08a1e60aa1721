"""A scenario: a procedure over instances that yields samples, measured once per target and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, runtime_checkable

from lab.driver import Driver, Info
from lab.features import Feature
from lab.launch.session import Session
from lab.spec import Spec
from lab.timeline import HostClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """Launches asked for together: those that became ready, how many did not, and when the first was asked for, in ns
    of the host's clock."""

    sessions: Sequence[Session]
    failed: int
    requested_ns: int


class Bench(Protocol):
    """What a scenario works with: one target in one round. Its methods may be called from several threads."""

    @property
    def info(self) -> Info:
        """What the target's engine said of itself before the run."""

    @property
    def driver(self) -> Driver:
        """The target's driver, for what is no launch: see the Protocols of `lab.driver`."""

    @property
    def spec(self) -> Spec:
        """What is launched, with this target's labels; no launch's own."""

    @property
    def clock(self) -> HostClock:
        """The clock that every mark of the host's is read from."""

    def session(
        self, *, port: int | None = None, at_once: bool = False, **changes: Any
    ) -> AbstractContextManager[Session]:
        """A launched session; several may live at the same time. On leaving it is deleted, and its timeline and the
        samples emitted since the last commit are committed together. A failed launch is recorded and raises.

        `changes` are fields of the spec; `port` is the one on loopback, drawn without it. `at_once` is for a launch
        within what the scenario itself times: no random part of the engine's tick precedes it.
        """

    def sessions(self, count: int, *, parallel: int = 1, **changes: Any) -> AbstractContextManager[Launches]:
        """`count` launches asked for in a row, `parallel` at a time, without waiting for `ready` between them; given
        when each became ready or failed. Those that failed are recorded and removed. On an engine that ticks the first
        is asked for at a random instant, and the others as soon as they can be."""

    def unlaunched(self, *, host_port: int | None = None, **changes: Any) -> AbstractContextManager[Session]:
        """As `session`, not launched yet: the scenario calls `ask` and `await_ready`, from one thread, when it sees
        fit. `host_port` is the one on loopback; no random part of the engine's tick precedes (`begin_at_random`)."""

    def begin_at_random(self) -> None:
        """On an engine that ticks, wait a random part of its tick: just before an instant that the scenario takes
        itself, as a session does before a launch and a stop."""

    def others(self) -> Sequence[Bench]:
        """The run's other targets that are measured in this round, for what is between two: launches by them are
        recorded as theirs, and what is found belongs to who emits it."""

    def random(self) -> Random:
        """Chance for the order within this target's round, the same each time for the run's seed."""

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        """Keep a sample of this target and round. An error that leaves `measure` discards what is not committed;
        one of a launch's ending does not, and is recorded beside what was measured before the stop."""


class Scenario(Protocol):
    """One question; its module's docstring says what each metric's start, end and unit are.

    A scenario with parameters is a frozen pydantic dataclass: its fields are what `--param` gives.
    """

    name: str
    question: str
    headline: str  # the metric by which an adaptive run stops and targets are ranked
    requires: frozenset[Feature]  # a target that lacks one is skipped, and shown so

    def measure(self, bench: Bench) -> None:
        """Measure one target once. Errors of launches are the bench's; anything else is a defect and propagates."""


@runtime_checkable
class Sized(Protocol):
    """A scenario that launches more than one instance, for the plan that a user sees before the run."""

    @property
    def launches(self) -> int:
        """The most launches per target and round."""

    @property
    def at_once(self) -> int:
        """The most instances alive at the same time."""


@runtime_checkable
class Paced(Protocol):
    """A scenario that is asked for other than ten rounds after one of warm-up, where the user does not say."""

    rounds: int
    warmup: int


@runtime_checkable
class OwnService(Protocol):
    """A scenario that asks what only the lab's own service answers: with any other image it is not run."""

    own_service: bool  # True


@runtime_checkable
class CallsAgain(Protocol):
    """A scenario that calls one worker of a function again and again: a target whose workers are not to be called so
    often is refused (`exceeding_calls`)."""

    calls_by: str  # the parameter that decides how often

    @property
    def calls_per_worker(self) -> int:
        """The most calls of one worker."""


@runtime_checkable
class Takes(Protocol):
    """A scenario whose rounds last longer than its launches, for the same plan."""

    @property
    def likely_s_per_round(self) -> float:
        """What a target's round takes beside its launches, in seconds, roughly."""


@runtime_checkable
class Makes(Protocol):
    """A scenario that makes more than instances of the service, for the same plan."""

    @property
    def memory_bytes(self) -> int:
        """What that takes beside the instances' declared memory, roughly."""

    @property
    def changes(self) -> str:
        """What it is, and how long it stays, in words."""


@runtime_checkable
class Brings(Protocol):
    """A scenario that launches services which it describes itself, in place of the run's one spec."""

    def services(self, spec: Spec) -> Mapping[str, Spec]:
        """What is launched, by name, as it was described; labels are those of `spec`."""

    def specs(self, spec: Spec, driver: Driver) -> Mapping[str, Spec]:
        """The same as they are launched on the target of `driver`, which prepares each before the rounds. Raises
        Unsupported for what cannot be there, BadInput for what cannot be anywhere."""

    def told(self) -> Sequence[str]:
        """What a reader of the plan must know of it, a line each."""


@runtime_checkable
class Needs(Protocol):
    """A scenario that needs more of this host than the engines' features."""

    def look(self) -> None:
        """Raises Unsupported with the remedy where the host lacks it: every target is then skipped, and shown so."""


def exceeding_calls(info: Info, calls: int) -> str:
    """Why so many calls of one worker are too many on the platform of `info`; empty where they are not."""
    most = info.facts.get("calls_per_worker")
    if not isinstance(most, int) or calls <= most:
        return ""
    why = info.facts.get("calls_per_worker_why", "beyond that they are not to be compared")
    return f"{calls} calls of one worker, and at most {most} are to be compared on {info.engine}: {why}"
