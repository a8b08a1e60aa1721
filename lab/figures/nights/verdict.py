"""What the judge says of a night and of each of its series."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.figures.nights.levels import FALSE_ALARMS_PER_YEAR, SUSPECTS_PER_YEAR


class State(enum.StrEnum):
    """Of a series, or of a whole night: of a night, the first of these that any series is, `VOID` before all.

    `SUSPECT` is worse by at least what matters, and waits for a confirmation. `SMALL` moved by less than matters, and
    `MOVED` is what has no worse side, or is the control.
    """

    VOID = "void"
    SUSPECT = "suspect"
    BETTER = "better"
    MOVED = "moved"
    SMALL = "moved by less than matters"
    STEADY = "steady"
    FEW = "not enough nights"
    UNJUDGED = "not judged"


AWAY = frozenset({State.SUSPECT, State.BETTER, State.MOVED, State.SMALL})
"""States of a series that is not where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A series in one night.

    `value` is in `unit`, `control_value` the control's of the same night, and `weight` how far the two go together (0
    to 1). `change` is how many times as large it is as in the `reference` nights before, at an equal control, with its
    95 % interval (None where nothing could be judged); `window` is how many of the last nights showed it, `since` the
    first run of them, `is_new` whether this is the first night that says so, and `host_changes` what was different from
    then on, in words. `low` and `high` are the band of A/A, in the unit: between them a night without a change lies,
    but for the stated level. `cumulated` is the whole way from what was last accepted, where there were small steps in
    between. `tonight` is what the last night alone shows, with its interval and the chance of as much that is worse.
    `smallest` tells, by nights after it (1, 3, 7), the smallest step that is found with a power of 95 %, as a share.
    """

    target: str
    label: str
    metric: str
    name: str
    unit: str
    dimensions: Mapping[str, str]
    state: State
    why: str = ""
    value: float | None = None
    n: int = 0
    is_control: bool = False
    relative: bool = False
    control_value: float | None = None
    weight: float = 0.0
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    cumulated: float = 1.0
    tonight: float | None = None
    tonight_low: float | None = None
    tonight_high: float | None = None
    p_tonight: float | None = None
    low: float | None = None
    high: float | None = None
    window: int = 0
    reference: int = 0
    since: str = ""
    is_new: bool = False
    host_changes: Sequence[str] = ()
    smallest: Mapping[int, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The series for a reader: target and what is measured."""
        return f"{self.label} {self.name}"

    def to_json(self) -> dict[str, Any]:
        """The object of `lab history --json`; what is endless is null, which JSON has for it."""
        found = {key: _finite(value) for key, value in asdict(self).items()}
        found["state"] = self.state.value
        found["smallest"] = {str(nights): _finite(step) for nights, step in self.smallest.items()}
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A night's verdict: `state` of the whole with `why`, and each series. `host_changes` is what differs from the
    night before, in words."""

    run: str
    at: str
    state: State
    why: str = ""
    series: Sequence[Judged] = ()
    host_changes: Sequence[str] = ()
    accepted: bool = False

    @property
    def suspects(self) -> list[Judged]:
        """The series that a confirmation is needed for."""
        return [one for one in self.series if one.state is State.SUSPECT]

    def to_json(self) -> dict[str, Any]:
        """The object of `lab history --json`."""
        return {
            "run": self.run,
            "at": self.at,
            "state": self.state.value,
            "why": self.why,
            "accepted": self.accepted,
            "host_changes": list(self.host_changes),
            "series": [one.to_json() for one in self.series],
            "levels": {
                "suspects_per_year": SUSPECTS_PER_YEAR,
                "false_alarms_per_year_once_confirmed": FALSE_ALARMS_PER_YEAR,
            },
        }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
