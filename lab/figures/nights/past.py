"""The nights of one host as a reader goes through them: each series over its nights, and what was different when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.figures.nights import levels
from lab.figures.nights.conditions import apart
from lab.figures.nights.judge import judge_each
from lab.figures.nights.levels import LEAST
from lab.figures.nights.night import Night
from lab.figures.nights.otava import ChangePoint
from lab.figures.nights.verdict import Judged, State, Verdict
from lab.figures.series import CONTROL, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series over the nights that are shown, None where it has no part in one. `change_points` are Otava's."""

    key: Key
    points: Sequence[Judged | None]
    change_points: Sequence[ChangePoint] = ()

    @property
    def last(self) -> Judged:
        """The newest that there is."""
        return next(one for one in reversed(self.points) if one is not None)

    def at_equal_control(self) -> list[float | None]:
        """Of each night the figure in its unit, as it would be if the control had been where it mostly is; None where
        the night is void or tells nothing."""
        return [
            None if one is None or one.value is None or one.state is State.VOID else one.value * factor
            for one, factor in zip(self.points, self.factors(), strict=True)
        ]

    def factors(self) -> list[float]:
        """By what each night's figure is multiplied for that."""
        beside = [None if one is None else one.control_value for one in self.points]
        known = sorted(value for value in beside if value is not None)
        usual = known[len(known) // 2] if known else 1.0
        return [1.0 if value is None else (usual / value) ** self.last.weight for value in beside]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The nights of one host. `left_out` tells of runs that are of another kind than the last one, in words."""

    host: str
    host_name: str
    verdicts: Sequence[Verdict]
    lines: Sequence[Line]
    judged: int
    least: float
    left_out: Sequence[str] = ()

    @property
    def last(self) -> Verdict:
        """The newest night's verdict."""
        return self.verdicts[-1]

    def last_of(self, line: Line) -> Judged | None:
        """What the newest night says of the line."""
        return line.points[-1]

    def to_json(self) -> dict[str, Any]:
        """The object of `lab history --json`, of one host."""
        return {
            "host": self.host,
            "host_name": self.host_name,
            "nights_judged": self.judged,
            "least": self.least,
            "left_out": list(self.left_out),
            "levels": {
                "suspects_per_year": levels.SUSPECTS_PER_YEAR,
                "false_alarms_per_year_once_confirmed": levels.FALSE_ALARMS_PER_YEAR,
                "void_nights_per_year": levels.VOIDED_PER_YEAR,
            },
            "nights": [
                {
                    "run": one.run,
                    "at": one.at,
                    "state": one.state.value,
                    "why": one.why,
                    "accepted": one.accepted,
                    "host_changes": list(one.host_changes),
                    "suspects": [suspect.title for suspect in one.suspects],
                }
                for one in self.verdicts
            ],
            "series": [_line_json(line, self.verdicts) for line in self.lines],
        }


def past_of(
    nights: Sequence[Night],
    *,
    host: str,
    host_name: str,
    shown: int | None,
    since: str = "",
    control: str = CONTROL,
    least: float = LEAST,
) -> Past:
    """All `nights` of a host judged in their order; shown are the last `shown` that began at or after `since`. Nights
    of another kind than the last one are left out, and told. Raises ValueError without nights."""
    mine = [one for one in nights if one.group == nights[-1].group]
    verdicts = list(judge_each(mine, control=control, least=least))
    newest = [one for one in verdicts if one.at >= since][-shown if shown else 0 :] or verdicts[-1:]
    found = [{_key(one): one for one in verdict.series} for verdict in newest]
    keys = dict.fromkeys(key for told in found for key in told)
    lines = [Line(key=key, points=[told.get(key) for told in found]) for key in keys]
    return Past(
        host=host,
        host_name=host_name,
        verdicts=newest,
        lines=[line for line in lines if any(one is not None and one.value is not None for one in line.points)],
        judged=len(mine),
        least=least,
        left_out=_left_out(nights),
    )


def _left_out(nights: Sequence[Night]) -> list[str]:
    counts: dict[str, int] = {}
    for one in nights:
        if one.group != nights[-1].group:
            words = ", ".join(apart(one.group, nights[-1].group))
            counts[words] = counts.get(words, 0) + 1
    return [f"{count} run{'s' if count > 1 else ''} with {words}" for words, count in counts.items()]


def _key(one: Judged) -> Key:
    return one.label, one.metric, tuple(sorted(one.dimensions.items()))


def _line_json(line: Line, verdicts: Iterable[Verdict]) -> dict[str, Any]:
    last = line.last
    return {
        "target": last.target,
        "label": last.label,
        "metric": last.metric,
        "name": last.name,
        "unit": last.unit,
        "dimensions": dict(last.dimensions),
        "is_control": last.is_control,
        "last": last.to_json(),
        "nights": [
            {"run": verdict.run, **_point_json(one.to_json())}
            for verdict, one in zip(verdicts, line.points, strict=True)
            if one is not None
        ],
        "change_points": [one.to_json() for one in line.change_points],
    }


_OF_A_POINT = (
    *("state", "why", "value", "n", "control_value", "low", "high", "change", "change_low", "change_high"),
    *("cumulated", "window", "reference", "since", "is_new", "host_changes"),
)


def _point_json(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in _OF_A_POINT}
