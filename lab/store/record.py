"""One execution of a scenario over targets, as it is stored, exported, reported and compared."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.store.sample import Sample
from lab.timeline import Timeline

EXPORT_FORMAT, EXPORT_VERSION = "stratalab run", 2
"""What an exported run says of itself; those of version 1 say nothing."""

KILLED_AFTER_S = "stop_killed_after_s"
ASKED_AGAIN = "asked again"
"""Among the `reported` of a launch's facts: that an engine's API had too much to do, how often, and for how long."""
"""The launch's fact that its stop signal did not end it in so many seconds, and SIGKILL did."""


class RunStatus(enum.StrEnum):
    """`running` is shown as `interrupted` once its owner is dead."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"


class Outcome(enum.StrEnum):
    """How a target, or one launch, ended."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run's own row. Times are ISO 8601 in UTC. `parameters` holds the user's choices, the shuffle's `seed`, the
    spec and, once ended, `stopped_by`; `order` the targets of each round as they were visited.

    `host_id` tells the host (`host_identity`), and is "" where it is not known. `origin` is "" for the lab's own runs,
    else the tool that measured (`hyperfine`, `pyperf`): such runs are shown, and never mixed with the lab's. A run that
    was accepted is the new normal from `accepted_at` on; `notes` are times with what was said.
    """

    id: str
    scenario: str
    started_at: str
    ended_at: str | None
    status: RunStatus
    owner: str
    lab_version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    order: Sequence[Sequence[str]] = ()
    host_id: str = ""
    host_name: str = ""
    origin: str = ""
    accepted_at: str | None = None
    accepted_note: str = ""
    notes: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """One target of a run: its outcome (with `reason` and `remedy` unless ok) and what `info()` and the spec said.

    `info` has the keys engine, version, isolation, features, facts, qualifiers; it is empty when unavailable.
    """

    target: str
    outcome: Outcome
    reason: str = ""
    remedy: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """One launch: its marks and, when it failed, the error and the end of its logs."""

    target: str
    iteration: int
    warmup: bool
    outcome: Outcome
    timeline: Timeline
    error: str = ""
    logs: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRun:
    """How long the turns of a run took, for estimates of the next: by round, each target's in seconds, and each
    target's qualifiers. It is no result."""

    parameters: Mapping[str, Any]
    qualifiers: Mapping[str, Mapping[str, str]]
    turns_s: Sequence[Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything known of a run."""

    run: Run
    host: Mapping[str, Any]
    targets: Sequence[TargetRecord]
    samples: Sequence[Sample]
    launches: Sequence[LaunchRecord]

    def to_json(self) -> dict[str, Any]:
        """The object of `lab export --format json`: `run`, `host`, `targets`, `samples`, `timelines`, and the name and
        version of this format."""
        return {
            "format": EXPORT_FORMAT,
            "version": EXPORT_VERSION,
            "run": asdict(self.run),
            "host": dict(self.host),
            "targets": [asdict(target) for target in self.targets],
            "samples": [sample_to_json(sample) for sample in self.samples],
            "timelines": [
                {
                    "target": launch.target,
                    "iteration": launch.iteration,
                    "warmup": launch.warmup,
                    "outcome": launch.outcome,
                    "error": launch.error,
                    "logs": launch.logs,
                    "facts": dict(launch.facts),
                    "marks": launch.timeline.to_json(),
                }
                for launch in self.launches
            ],
        }


def sample_to_json(sample: Sample) -> dict[str, Any]:
    """A sample as a JSON object."""
    return {
        "target": sample.target,
        "metric": sample.metric,
        "value": sample.value,
        "unit": sample.unit,
        "iteration": sample.iteration,
        "warmup": sample.warmup,
        "dimensions": dict(sample.dimensions),
    }
