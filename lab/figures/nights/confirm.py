"""Whether a suspect is seen again: a regression alarms only once it is confirmed.

Where the build that was last accepted is kept, both are run in turn in the same hour, and their own values are held
against each other: no night is between them. Each suspect is tested by permutation, one-sided, corrected by Holm's
method over all suspects, at `levels.CONFIRMED`; it must also be worse by the least size that matters. Without that
build the suspect is measured once more, and the repetition is judged by the same band as a night of its own, one-sided
at the same level: what made the night itself slow for this target alone is then not told from a change, and the chance
of a false alarm is the larger, the longer such an effect lasts.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab.figures import rank_test, series, stats
from lab.figures.compared import worse_side
from lab.figures.nights import levels
from lab.figures.nights.judge import judge
from lab.figures.nights.levels import LEAST
from lab.figures.nights.night import Night
from lab.figures.nights.verdict import Judged, State, Verdict
from lab.figures.series import CONTROL, Key, Series
from lab.store.record import RunRecord


class Outcome(enum.StrEnum):
    """What a confirmation comes to, of one suspect or of all: of all, the first of these that any is."""

    CONFIRMED = "confirmed"
    VOID = "void"
    NOT_AGAIN = "not seen again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """One suspect: how many times as large the second look found it, with the 95 % interval, and the chance of as much
    without a change (corrected, one-sided)."""

    target: str
    label: str
    metric: str
    name: str
    outcome: Outcome
    why: str = ""
    change: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    against_accepted: bool = False

    @property
    def title(self) -> str:
        """The series for a reader: target and what is measured."""
        return f"{self.label} {self.name}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "outcome": self.outcome.value}


def outcome_of(found: Sequence[Confirmed]) -> Outcome:
    """Of a whole confirmation; `not seen again` where there was nothing to confirm."""
    outcomes = {one.outcome for one in found}
    return next((one for one in Outcome if one in outcomes), Outcome.NOT_AGAIN)


def confirm_against(
    suspects: Sequence[Judged], again: Sequence[RunRecord], accepted: Sequence[RunRecord], *, least: float = LEAST
) -> list[Confirmed]:
    """The suspects, by the runs `again` of the suspected build and those of the accepted one, made in turn within the
    hour. A suspect that either has no values of is void."""
    new, old = _rows(again), _rows(accepted)
    tested: list[tuple[Judged, stats.Ratio | None, float, str]] = []
    for suspect in suspects:
        a, b = old.get(_key(suspect)), new.get(_key(suspect))
        if a is None or b is None:
            which = "accepted" if a is None else "suspected"
            tested.append((suspect, None, 1.0, f"the {which} build has no values of it"))
            continue
        if min(*a.values, *b.values) <= 0:
            tested.append((suspect, None, 1.0, "values of 0 or below have no ratio"))
            continue
        ratio = stats.ratio(a.values, b.values)
        side = worse_side(suspect.metric, suspect.unit)
        p = rank_test.permutation_test(a.values, b.values) / 2
        tested.append((suspect, ratio, p if math.log(ratio.value) * side > 0 else 1 - p, ""))
    corrected = iter(stats.holm([p for _, ratio, p, _ in tested if ratio is not None]))
    found = []
    for suspect, measured, _, why in tested:
        if measured is None:
            found.append(_bare(suspect, Outcome.VOID, why, against_accepted=True))
            continue
        side, p = worse_side(suspect.metric, suspect.unit), next(corrected)
        outcome = _outcome(p, math.log(measured.value) * side, least)
        told = _bare(suspect, outcome, _why(outcome, p, least), against_accepted=True)
        found.append(replace(told, change=measured.value, low=measured.low, high=measured.high, p=p))
    return found


def confirm_by_repetition(
    nights: Sequence[Night], verdict: Verdict, again: Night, *, control: str = CONTROL, least: float = LEAST
) -> list[Confirmed]:
    """The suspects of `verdict`, which is of the last of `nights`, by the repetition `again` of its run in the same
    hour. All are void where the control has moved in it."""
    second = judge([*nights, again], control=control, least=least)
    seen = {_key(one): one for one in second.series}
    known = [(suspect, seen.get(_key(suspect))) for suspect in verdict.suspects]
    corrected = iter(stats.holm([one.p_tonight for _, one in known if one is not None and one.p_tonight is not None]))
    found = []
    for suspect, one in known:
        if one is None or one.tonight is None or one.p_tonight is None:
            why = second.why if second.state is State.VOID else (one.why if one is not None else "") or "not measured"
            found.append(_bare(suspect, Outcome.VOID, why))
            continue
        p = next(corrected)
        outcome = _outcome(p, math.log(one.tonight) * worse_side(one.metric, one.unit), least)
        told = _bare(suspect, outcome, _why(outcome, p, least))
        found.append(replace(told, change=one.tonight, low=one.tonight_low, high=one.tonight_high, p=p))
    return found


def _outcome(p: float, worse: float, least: float) -> Outcome:
    return Outcome.CONFIRMED if p <= levels.CONFIRMED and worse >= math.log1p(least) else Outcome.NOT_AGAIN


def _why(outcome: Outcome, p: float, least: float) -> str:
    if outcome is Outcome.CONFIRMED:
        return ""
    return f"less than {least:.1%} worse" if p <= levels.CONFIRMED else "no more than chance gives"


def _key(one: Judged) -> Key:
    return one.label, one.metric, tuple(sorted(one.dimensions.items()))


def _rows(records: Sequence[RunRecord]) -> dict[Key, Series]:
    found: dict[Key, Series] = {}
    for record in records:
        for row in series.series_of(record):
            known = found.get(row.key)
            found[row.key] = row if known is None else replace(known, values=(*known.values, *row.values))
    return found


def _bare(suspect: Judged, outcome: Outcome, why: str, *, against_accepted: bool = False) -> Confirmed:
    return Confirmed(
        target=suspect.target,
        label=suspect.label,
        metric=suspect.metric,
        name=suspect.name,
        outcome=outcome,
        why=why,
        against_accepted=against_accepted,
    )
