"""How long a run has still to go: what is learnt from earlier runs, and what from its own turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lab.run.estimate import UNKNOWN, Estimate, Expected, Span, expected
from lab.store.record import TimedRun

LIKE = {"scenario": {"replicas": 2}, "image": "i", "cpus": 1.0, "memory": 128, "cold": False, "rounds": 10, "seed": 7}


def timed(
    *turns_s: Mapping[str, float], qualifiers: Mapping[str, Mapping[str, str]] | None = None, **parameters: object
) -> TimedRun:
    told = {name: {} for name in turns_s[0]} if qualifiers is None else qualifiers
    return TimedRun(parameters={**LIKE, **parameters}, qualifiers=told, turns_s=turns_s)


def of(runs: Sequence[TimedRun], target: str = "docker", qualifiers: Mapping[str, str] | None = None) -> Expected:
    return expected(target, qualifiers=qualifiers or {}, like=LIKE, runs=runs)


def test_the_first_turn_is_told_from_the_mean_of_the_later_ones_by_the_median_of_the_runs() -> None:
    runs = [
        timed({"docker": 9.0, "process": 0.1}, {"docker": 1.0}, {"docker": 3.0}),
        timed({"docker": 5.0}, {"docker": 2.5}),
        timed({"docker": 70.0}, {"docker": 60.0}),
    ]
    assert of(runs) == Expected(first_s=9.0, later_s=2.5, runs=3)
    assert of(runs, "process") == Expected(first_s=0.1, later_s=0.1, runs=1)
    assert of(runs, "swarm") == of([]) == UNKNOWN


@pytest.mark.parametrize(
    "other",
    [
        {"scenario": {"replicas": 3}},
        {"image": "j"},
        {"memory": 64},
        {"cold": True},
        {"driver_options": {"context": "elsewhere"}},
    ],
)
def test_runs_under_other_conditions_say_nothing_and_how_many_rounds_is_none(other: Mapping[str, object]) -> None:
    runs = [timed({"docker": 9.0}, **other), timed({"docker": 1.0}, rounds=100, seed=8)]
    assert of(runs) == Expected(first_s=1.0, later_s=1.0, runs=1)


def test_a_target_with_other_qualifiers_says_nothing_and_one_that_tells_more_does() -> None:
    runs = [
        timed({"docker": 9.0}, qualifiers={"docker": {"accel": "tcg"}}),
        timed({"docker": 1.0}, qualifiers={"docker": {"accel": "kvm", "emulation": "none"}}),
        timed({"docker": 5.0}, qualifiers={}),  # it failed there
    ]
    assert of(runs, qualifiers={"accel": "kvm"}) == Expected(first_s=1.0, later_s=1.0, runs=1)


def test_only_the_newest_runs_are_asked() -> None:
    runs = [timed({"docker": float(seconds)}) for seconds in (1, 2, 3, 4, 5, 60, 70, 80)]
    assert of(runs) == Expected(first_s=3.0, later_s=3.0, runs=5)


def estimate(
    first_s: float, later_s: float, *, runs: int = 0, rounds: int = 11, looks: Sequence[int] = (), max_s: float = 1e9
) -> Estimate:
    thought = {"a": Expected(first_s=first_s, later_s=later_s, runs=runs)}
    return Estimate(expected=thought, rounds=rounds, looks=looks, max_s=max_s)


def left(made: Estimate, *turns_s: float) -> Span:
    for seconds in turns_s:
        made.add("a", seconds)
    return made.left(["a"])


def test_before_the_first_turn_it_is_what_is_expected() -> None:
    assert left(estimate(5.0, 2.0)) == Span(25.0, 25.0)


def test_after_the_first_turn_a_guess_gives_way_to_it() -> None:
    assert left(estimate(5.0, 5.0), 0.5) == Span(5.0, 5.0)


@pytest.mark.parametrize(
    ("first_s", "later_s"),
    [
        (12.0, 6.0),  # three times as slow as it was
        (46.0, 23.0),
    ],
)
def test_after_the_first_turn_what_was_expected_is_scaled_by_it(first_s: float, later_s: float) -> None:
    assert left(estimate(4.0, 2.0, runs=3), first_s).most_s == pytest.approx(10 * later_s)


def test_what_only_the_first_turn_had_to_wait_for_then_is_no_part_of_the_scale() -> None:
    assert left(estimate(45.0, 3.6, runs=3), 3.7).most_s == pytest.approx(36.0)


def test_later_turns_say_how_long_the_next_take_and_of_many_the_last_ten() -> None:
    assert left(estimate(5.0, 5.0, runs=3), 9.0, 1.0, 2.0).most_s == pytest.approx(8 * 1.5)
    drifting = [float(seconds) for seconds in range(1, 31)]
    assert left(estimate(5.0, 5.0, rounds=32), *drifting).most_s == pytest.approx(2 * 25.5)


def test_after_the_last_turn_nothing_is_left() -> None:
    assert left(estimate(5.0, 5.0, rounds=2), 9.0, 1.0) == Span(0.0, 0.0)


def test_a_run_that_may_end_itself_has_a_least_and_a_most() -> None:
    made = estimate(1.0, 1.0, rounds=41, looks=(11, 21))
    assert left(made) == Span(11.0, 41.0)
    assert left(made, *[1.0] * 10) == Span(1.0, 31.0)
    assert left(made, 1.0) == Span(10.0, 30.0)  # it looked, and goes on
    assert left(made, *[1.0] * 10) == Span(20.0, 20.0)


def test_no_round_is_begun_after_the_most_time_and_the_one_under_way_is_ended() -> None:
    made = estimate(2.0, 2.0, rounds=100, max_s=9.0)
    assert left(made) == Span(11.0, 11.0)
    assert left(made, 2.0, 2.0) == Span(7.0, 7.0)
    assert left(made, 20.0).most_s <= 11.0


def test_a_target_that_was_given_up_takes_no_more_time() -> None:
    thought = {"a": Expected(first_s=1.0, later_s=1.0), "b": Expected(first_s=60.0, later_s=60.0)}
    made = Estimate(expected=thought, rounds=10)
    made.add("a", 1.0)
    made.add("b", 60.0)
    assert made.left(["a", "b"]).most_s == pytest.approx(9 * 61)
    assert made.left(["a"]).most_s == pytest.approx(9)
    assert made.left([]) == Span(0.0, 0.0)
