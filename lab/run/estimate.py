"""How long a run has still to go: by earlier runs of this host, and by its own turns once it has some.

A turn is all that one target does in one round: launching, measuring, stopping, deleting and the waits between. A
run's first turn is told from the later ones, since an engine may have to look at things once. These figures are for
whoever waits, and are no result.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.store.record import TimedRun

_MOST_RUNS = 5
"""So many earlier runs, the newest, are asked: the machine and its engines change."""

_RECENT = 10
"""So many turns, the last, say how long the next ones take: launches drift over a run."""

_CONDITIONS = ("scenario", "image", "command", "cpus", "memory", "cold", "driver_options")
"""The parameters of a run that bear on how long a turn takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How long one target's turns are expected to take: a run's first, and each later one. `runs` is how many earlier
    ones say so; with 0 it is a guess."""

    first_s: float
    later_s: float
    runs: int = 0


UNKNOWN = Expected(first_s=0.0, later_s=0.0)
"""Of a target of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the least to the most seconds; both are the same where nothing but measuring ends a run."""

    least_s: float
    most_s: float


def expected(
    target: str, *, qualifiers: Mapping[str, str], like: Mapping[str, Any], runs: Sequence[TimedRun]
) -> Expected:
    """How long `runs`, the newest first, took over `target` where it had these qualifiers and their parameters are
    `like` these. UNKNOWN where there are none such."""
    turns: list[list[float]] = []
    for run in runs:
        own = [seconds for each in run.turns_s if (seconds := each.get(target)) is not None]
        told = run.qualifiers.get(target)
        if not own or told is None or not _same(run.parameters, like):
            continue
        if all(told.get(key) == value for key, value in qualifiers.items()):  # it may tell more, once prepared
            turns.append(own)
    turns = turns[:_MOST_RUNS]
    if not turns:
        return UNKNOWN
    return Expected(
        first_s=statistics.median(own[0] for own in turns),
        later_s=statistics.median(statistics.fmean(own[1:] or own) for own in turns),
        runs=len(turns),
    )


@dataclass(slots=True, kw_only=True)
class Estimate:
    """Of one run of at most so many `rounds`, those of warm-up among them. It may end itself after so many as `looks`
    names, and begins no round after `max_s`."""

    expected: Mapping[str, Expected]
    rounds: int
    looks: Sequence[int] = ()
    max_s: float | None = None
    _turns_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, target: str, seconds: float) -> None:
        """Learn of a turn that is over."""
        self._turns_s.setdefault(target, []).append(seconds)

    def left(self, running: Collection[str]) -> Span:
        """What is left of the run, with the targets that still take part."""
        over = min((len(self._turns_s.get(target, ())) for target in running), default=self.rounds)
        least = next((look for look in self.looks if look > over), self.rounds)
        least_s, most_s = (sum(self._target_s(target, rounds) for target in running) for rounds in (least, self.rounds))
        if self.max_s is not None:
            spent_s = sum(sum(turns) for turns in self._turns_s.values())
            round_s = sum(self._later_s(target) for target in running)
            most_s = min(most_s, max(0.0, self.max_s - spent_s) + round_s)
        return Span(min(least_s, most_s), most_s)

    def _target_s(self, target: str, rounds: int) -> float:
        """What a target has left until so many rounds are over."""
        done = len(self._turns_s.get(target, ()))
        first_s = 0.0 if done else self._expected(target).first_s
        return first_s + self._later_s(target) * max(0, rounds - max(done, 1))

    def _later_s(self, target: str) -> float:
        """A later turn of a target: by this run's own; after the first, by that beside what was expected of both."""
        own, thought = self._turns_s.get(target, ()), self._expected(target)
        if len(own) > 1:
            return statistics.fmean(own[1:][-_RECENT:])
        if not own:
            return thought.later_s
        if not thought.runs or not thought.first_s:
            return own[0]
        scaled = thought.later_s * own[0] / thought.first_s  # the machine became slower
        # A quicker first turn says less: what the earlier ones had to wait for once may be there already.
        return min(max(scaled, min(own[0], thought.later_s)), max(own[0], thought.later_s))

    def _expected(self, target: str) -> Expected:
        return self.expected.get(target, UNKNOWN)


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(_plain(a.get(key)) == _plain(b.get(key)) for key in _CONDITIONS)


def _plain(value: Any) -> Any:
    """As it comes out of a store."""
    return json.loads(json.dumps(value, default=str))
