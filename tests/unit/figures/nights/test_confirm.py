"""lab/figures/nights/confirm.py: a suspect is seen again, or is not."""

from __future__ import annotations

from dataclasses import replace

from few_nights import night, quiet
from made_run import make_record

from lab.figures.nights.confirm import Outcome, confirm_against, confirm_by_repetition, outcome_of
from lab.figures.nights.judge import judge
from lab.figures.nights.night import night_of
from lab.figures.nights.verdict import Judged


def suspect() -> Judged:
    record = make_record(n=10)
    nights = [replace(night_of(make_record(f"n{place}", n=10, seed=place)), run=f"n{place}") for place in range(12)]
    found = judge([*nights, night_of(record)])
    return next(one for one in found.series if one.target == "docker" and one.metric == "boot_s")


def test_a_delay_is_confirmed_against_the_accepted_build_and_none_is_not() -> None:
    accepted, again = make_record(n=20), make_record(n=20, seed=3, delays_ms={"docker": 50.0})
    (found,) = confirm_against([suspect()], [again], [accepted])
    assert found.outcome is Outcome.CONFIRMED and found.against_accepted
    assert found.change is not None and 1.1 < found.change < 1.3
    (same,) = confirm_against([suspect()], [make_record(n=20, seed=4)], [accepted])
    assert same.outcome is Outcome.NOT_AGAIN and same.why


def test_faster_and_less_than_matters_are_not_seen_again() -> None:
    slow, fast = make_record(n=20, delays_ms={"docker": 50.0}), make_record(n=20, seed=5)
    assert confirm_against([suspect()], [fast], [slow])[0].outcome is Outcome.NOT_AGAIN
    (found,) = confirm_against([suspect()], [slow], [fast], least=0.5)
    assert found.outcome is Outcome.NOT_AGAIN and "less than 50" in found.why


def test_without_values_it_is_void() -> None:
    (found,) = confirm_against([suspect()], [], [make_record(n=20)])
    assert found.outcome is Outcome.VOID and "suspected build has no values" in found.why
    assert outcome_of([found]) is Outcome.VOID and outcome_of([]) is Outcome.NOT_AGAIN


def test_a_repetition_confirms_what_it_shows_again_and_is_void_where_the_control_moved() -> None:
    nights = [*quiet(40), *quiet(1, first=40, times={"docker": 1.4})]
    verdict = judge(nights)
    (again,) = confirm_by_repetition(nights, verdict, quiet(1, first=41, times={"docker": 1.4})[0])
    assert again.outcome is Outcome.CONFIRMED and not again.against_accepted
    (usual,) = confirm_by_repetition(nights, verdict, quiet(1, first=41)[0])
    assert usual.outcome is Outcome.NOT_AGAIN
    (void,) = confirm_by_repetition(nights, verdict, night(41, {"process": 4.0, "docker": 1.4, "swarm": 1.0}))
    assert void.outcome is Outcome.VOID and "control moved" in void.why
