"""The driver contract: what a platform must be able to do to be measured.

Order of calls: `info()` → `prepare(spec)` → `launch(...)` any number of times → `close()`. `list_instances` and
`leftovers` may come at any time, also on a fresh driver that launched nothing (`lab clean` does so). All that a
driver makes carries `spec.labels` from the creating call on. Drivers never read a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab.errors import DriverError
from lab.features import Feature
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source

ANSWERS_AT = "answers_at"
"""The name in `Info.facts` of where instances answer that more than this host reaches, in words for a user's plan;
absent where they answer on loopback, or on a bridge of this host's alone."""


LACKS = "lacks"
"""The name in `Info.facts` of why features are missing, by feature, where that is the engine's settings here."""


class Mark(Protocol):
    """Hands instants to the lab, which reads the clock. May be called from any thread until `Instance.delete`."""

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """`phase` is now."""

    def line(self, text: bytes, *, source: Source) -> None:
        """The service or its guest wrote this line, given without its end, just now; the lab finds the marks in it."""

    def moment(self) -> Mark:
        """A Mark that stays at this instant: for all that one event shows, or one piece of output, so that no interval
        of the lab's own making is between them."""

    def failed(self, error: DriverError) -> None:
        """The engine tells that the accepted launch cannot succeed, or that its service has ended (`lab.launch.ends`
        words that): who waits for it gets the first `error` at once. Never for an end that was asked for."""


class Driver(Protocol):
    """One real engine, in one variant, through its official SDK. Built as `DriverClass(variant, context)`."""

    name: str

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """Variant → one line that explains it; `""` is the default. Asks no engine; raises nothing."""

    def info(self) -> Info:
        """What the engine is, asked now. Raises DriverUnavailable with the remedy."""

    def prepare(self, spec: Spec) -> None:
        """Build or load what launches of `spec` need. Never timed; idempotent. Raises Unsupported, DriverError."""

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Return when the engine has accepted the work, the service to answer at `endpoint`. Raises LaunchError,
        after removing what it had made; `endpoint` is None where the engine chooses or has no network."""

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every instance, running or not, that bears all `labels`; with none given, every one of the lab's."""

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """All of the lab's that is no instance and bears all `labels`: images, networks, cgroups, files, tracing."""

    def close(self) -> None:
        """Let go of connections and threads; removes nothing. Idempotent."""


class Instance(Protocol):
    """One launched service; `endpoint` is where it answers, None without a network."""

    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def endpoint(self) -> Endpoint | None: ...

    def logs(self) -> bytes:
        """What it wrote so far, the last 64 KiB; empty when it is gone."""

    def stop(self, *, timeout_s: float) -> None:
        """Ask it to end, then make it; returns when it has ended. Idempotent. Raises DriverError."""

    def delete(self) -> None:
        """Remove it and all that came with it; returns when verified gone. Idempotent. Raises CleanupError."""


class Leftover(Protocol):
    """Something of the lab's that is not an instance; `kind` is a noun such as `image`."""

    @property
    def kind(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...

    def delete(self) -> None:
        """Remove it; returns when verified gone. Idempotent. Raises CleanupError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What an engine is on this host. `facts` are JSON values. `qualifiers` are shown in the target's row, and rows
    that differ in them never share one (`accel: tcg`)."""

    engine: str
    version: str
    isolation: str
    features: frozenset[Feature]
    facts: Mapping[str, Any] = field(default_factory=dict)
    qualifiers: Mapping[str, str] = field(default_factory=dict)


def say_nothing(_: str) -> None:
    """For whoever has nobody to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a driver gets of the lab: two directories, the options that the user gave for drivers, and `say`, which
    tells the user what takes long before anything is measured.

    `run_dir` is this run's alone, removed at its end or by `lab clean`; other users can pass through it (engines
    that run as another user open files in it) and not list it. `cache_dir` outlives runs.
    """

    run_dir: Path
    cache_dir: Path
    options: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = field(default=say_nothing, compare=False)


def bears(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether an object with `labels` is the lab's and answers to `wanted` (see `Driver.list_instances`)."""
    return "lab.run" in labels and all(labels.get(key) == value for key, value in wanted.items())
