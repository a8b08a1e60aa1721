"""lab/figures/nights/judge.py: the verdict of a night, and what must not change it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from few_nights import figure, night, quiet
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.figures.nights import levels
from lab.figures.nights.judge import judge, judge_each
from lab.figures.nights.night import Night
from lab.figures.nights.verdict import Judged, State, Verdict


def of(verdict: Verdict, target: str) -> Judged:
    return next(one for one in verdict.series if one.target == target)


def stepped(times: float, *, nights: int = 3, before: int = 40, seed: int = 1) -> list[Night]:
    return [*quiet(before, seed=seed), *quiet(nights, seed=seed, first=before, times={"docker": times})]


def test_a_large_step_is_a_suspect_at_once_and_told_with_its_size_and_its_run() -> None:
    verdict = judge(stepped(1.3, nights=1))
    found = of(verdict, "docker")
    assert verdict.state is State.SUSPECT and verdict.suspects == [found]
    assert found.is_new and found.since == "r40" and found.window == 1
    assert found.change_low is not None and found.change_high is not None
    assert found.change_low < 1.3 < found.change_high
    assert of(verdict, "swarm").state is State.STEADY


def test_a_small_step_shows_in_several_nights_and_stays_until_it_is_accepted() -> None:
    nights = [*stepped(1.08, nights=60, before=60)]
    states = [of(verdict, "docker").state for verdict in judge_each(nights)]
    assert State.SUSPECT not in states[:60]
    assert State.SUSPECT in states[60:67]
    assert states[-20:].count(State.SUSPECT) >= 18  # nothing becomes normal by waiting
    nights[-1] = replace(nights[-1], accepted=True)
    after = quiet(20, first=120, times={"docker": 1.08})
    states = [of(verdict, "docker").state for verdict in list(judge_each([*nights, *after]))[120:]]
    assert states.count(State.STEADY) >= 10


def test_what_was_accepted_is_what_the_next_step_is_seen_from() -> None:
    nights = stepped(1.3, nights=12)
    nights[-1] = replace(nights[-1], accepted=True)
    back = quiet(1, first=52)
    found = of(judge([*nights, *back]), "docker")
    assert found.state is State.BETTER and found.change is not None and found.change < 0.85
    again = quiet(1, first=52, times={"docker": 1.3 * 1.3})
    assert of(judge([*nights, *again]), "docker").state is State.SUSPECT


def test_faster_is_told_and_alarms_nobody() -> None:
    verdict = judge(stepped(0.7, nights=1))
    assert verdict.state is State.BETTER and not verdict.suspects
    assert of(verdict, "docker").change == pytest.approx(0.7, rel=0.1)


def test_less_than_matters_is_no_suspect_and_small_steps_add_up() -> None:
    nights, level = quiet(40, own=0.004), 1.0
    for step in range(3):
        level *= 1.03
        nights += quiet(20, first=40 + 20 * step, times={"docker": level}, own=0.004)
    states = [of(verdict, "docker").state for verdict in judge_each(nights)]
    assert State.SMALL in states[40:60] and State.SUSPECT not in states[:60]
    assert State.SUSPECT in states[60:]


def test_the_least_that_matters_is_the_users() -> None:
    nights = stepped(1.12, nights=7, before=60)
    assert of(judge(nights, least=0.05), "docker").state is State.SUSPECT
    assert of(judge(nights, least=0.30), "docker").state is State.SMALL


def test_a_night_whose_control_moved_is_void_for_everything_and_says_why() -> None:
    nights = quiet(40)
    verdict = judge([*nights, night(40, {"process": 3.0, "docker": 3.0, "swarm": 1.0})])
    assert verdict.state is State.VOID and "the control moved" in verdict.why
    assert {one.state for one in verdict.series} == {State.VOID}
    after = quiet(3, first=41)
    assert judge([*nights, night(40, {"process": 3.0, "docker": 3.0, "swarm": 1.0}), *after]).state is State.STEADY


def test_a_control_that_stays_where_it_moved_is_the_new_control_after_eight_nights() -> None:
    nights = [*quiet(40), *quiet(20, first=40, times={"process": 3.0, "docker": 3.0, "swarm": 3.0})]
    states = [verdict.state for verdict in judge_each(nights)]
    assert states[40:48] == [State.VOID] * 8
    assert State.VOID not in states[48:]
    assert states[48:].count(State.STEADY) >= 10  # at an equal control nothing else has moved


def test_the_error_is_the_spread_between_nights_and_not_within_them() -> None:
    calm = of(judge(quiet(60, own=0.01)), "docker")
    wild = of(judge(quiet(60, own=0.05)), "docker")
    for nights in levels.WINDOWS:
        assert wild.smallest[nights] > calm.smallest[nights] >= levels.LEAST


def test_what_goes_with_the_control_is_taken_out_and_what_does_not_is_left() -> None:
    together = of(judge(quiet(60, common=0.2, own=0.01)), "docker")
    apart = of(judge(quiet(60, common=0.0, own=0.05)), "docker")
    assert together.weight > 0.9 and together.smallest[1] < 0.12
    assert apart.weight < 0.5


def test_eight_nights_are_needed() -> None:
    nights = quiet(9)
    verdicts = list(judge_each(nights))
    assert [verdict.state for verdict in verdicts[:8]] == [State.FEW] * 8
    assert "of at least 8" in of(verdicts[7], "docker").why
    assert verdicts[8].state in (State.STEADY, State.SMALL)


def test_one_night_alone_is_not_enough_and_none_is_an_error() -> None:
    assert judge(quiet(1)).state is State.FEW
    with pytest.raises(ValueError, match="no night"):
        judge([])


def test_without_any_control_the_figures_are_judged_as_they_are() -> None:
    nights = quiet(40, targets=("docker", "swarm"), common=0.0)
    found = of(judge([*nights, night(40, {"docker": 1.5, "swarm": 1.0})]), "docker")
    assert found.state is State.SUSPECT and not found.relative and found.control_value is None


def test_a_night_that_lacks_the_control_is_void_where_the_others_have_it() -> None:
    verdict = judge([*quiet(40), night(40, {"docker": 1.0, "swarm": 1.0})])
    assert of(verdict, "docker").state is State.VOID
    assert of(verdict, "docker").why == "the control was not measured"


def test_a_target_that_is_gone_is_told_with_its_reason() -> None:
    last = replace(night(40, {"process": 1.0, "swarm": 1.0}), absent={"docker": "skipped: no daemon"})
    found = of(judge([*quiet(40), last]), "docker")
    assert found.state is State.UNJUDGED and found.why == "skipped: no daemon" and found.value is None


def test_a_guest_without_kvm_is_another_series_and_the_old_one_says_so() -> None:
    def guest(place: int, accel: str, value: float) -> Night:
        label = f"libvirt:q35 ({accel})"
        found = replace(figure("libvirt:q35", value), label=label)
        return Night(run=str(place), at=str(place), figures={(label, "boot_s", ()): found})

    nights = [guest(place, "kvm", 1.0 + place % 3 / 100) for place in range(20)]
    told = {one.label: (one.state, one.why) for one in judge([*nights, guest(20, "tcg", 30.0)]).series}
    assert told["libvirt:q35 (kvm)"] == (State.UNJUDGED, "tonight it was libvirt:q35 (tcg)")
    assert told["libvirt:q35 (tcg)"][0] is State.FEW


def test_a_night_is_called_by_what_can_alarm() -> None:
    def with_phase(place: int, phase: float) -> Night:
        figures = {("docker", "boot_s", ()): figure("docker", 1.0 + place % 3 / 100)}
        figures |= {("docker", "phase_s", ()): figure("docker", phase, metric="phase_s", can_alarm=False)}
        return Night(run=str(place), at=str(place), figures=figures)

    assert judge([*(with_phase(place, 1.0) for place in range(20)), with_phase(20, 3.0)]).state is State.STEADY


def test_figures_without_a_ratio_are_not_judged() -> None:
    found = of(judge([*quiet(40), night(40, {"process": 1.0, "docker": None, "swarm": 1.0})]), "docker")
    assert found.state is State.UNJUDGED and "no ratio" in found.why


def test_a_constant_series_is_steady_and_any_change_of_it_that_matters_is_seen() -> None:
    constant = [night(place, {"process": 1.0, "docker": 2.0}) for place in range(20)]
    verdicts = list(judge_each(constant))
    assert {verdict.state for verdict in verdicts[8:]} == {State.STEADY}
    assert of(judge([*constant, night(20, {"process": 1.0, "docker": 2.2})]), "docker").state is State.SUSPECT
    assert of(judge([*constant, night(20, {"process": 1.0, "docker": 2.02})]), "docker").state is State.SMALL


def test_ties_are_no_change() -> None:
    nights = [night(place, {"process": 1.0, "docker": 2.0 + 0.1 * (place % 2)}) for place in range(40)]
    assert {verdict.state for verdict in judge_each(nights)} == {State.FEW, State.STEADY}


def test_nights_of_another_kind_are_left_out() -> None:
    other = [replace(one, group={"memory": "1 GiB"}) for one in quiet(40, times={"docker": 9.0})]
    assert judge([*other, *quiet(1)]).state is State.FEW


def test_only_what_answers_the_question_alarms_and_smaller_may_be_worse() -> None:
    def with_rate(place: int, rate: float) -> Night:
        figures = {
            ("docker", "requests_per_s", ()): figure("docker", rate, metric="requests_per_s", unit="requests/s"),
            ("docker", "phase_s", ()): figure("docker", rate, metric="phase_s", can_alarm=False),
        }
        return Night(run=str(place), at=str(place), figures=figures)

    nights = [with_rate(place, 100.0 + place % 3) for place in range(30)]
    slow = {one.metric: one.state for one in judge([*nights, with_rate(30, 80.0)]).series}
    fast = {one.metric: one.state for one in judge([*nights, with_rate(30, 130.0)]).series}
    assert slow == {"requests_per_s": State.SUSPECT, "phase_s": State.MOVED}
    assert fast == {"requests_per_s": State.BETTER, "phase_s": State.MOVED}


def test_what_changed_of_the_host_is_named_beside_the_step_and_other_targets_engines_are_not() -> None:
    old = {"kernel": "6.1.0-21", "engine of docker": "Docker 26.1.4", "engine of swarm": "Docker 26.1.4"}
    new = {"kernel": "6.1.0-25", "engine of docker": "Docker 26.1.5", "engine of swarm": "Docker 26.1.5"}
    nights = [replace(one, conditions=old) for one in quiet(40)]
    nights += [replace(one, conditions=new) for one in quiet(2, first=40, times={"docker": 1.4})]
    verdict = judge(nights)
    assert of(verdict, "docker").host_changes == [
        "kernel 6.1.0-21 → 6.1.0-25",
        "engine of docker Docker 26.1.4 → Docker 26.1.5",
    ]
    assert list(judge_each(nights))[40].host_changes and not verdict.host_changes


@given(st.permutations(["process", "docker", "swarm"]))
@settings(max_examples=6, deadline=None)
def test_the_order_of_targets_changes_nothing(order: Sequence[str]) -> None:
    nights = stepped(1.2)
    shuffled = [replace(one, figures={key: one.figures[key] for key in _keys(order)}) for one in nights]
    first, second = judge(nights), judge(shuffled)
    assert {one.target: one for one in first.series} == {one.target: one for one in second.series}


@given(st.floats(1e-9, 1e9))
@settings(max_examples=10, deadline=None)
def test_another_unit_changes_nothing(factor: float) -> None:
    nights = stepped(1.2)
    scaled = [
        replace(one, figures={key: replace(f, log=(f.log or 0.0) + math.log(factor)) for key, f in one.figures.items()})
        for one in nights
    ]
    for mine, other in zip(judge(nights).series, judge(scaled).series, strict=True):
        assert mine.state is other.state and mine.change == pytest.approx(other.change, rel=1e-6)


@given(st.lists(st.sampled_from(["docker", "swarm", "process"]), min_size=30, max_size=30), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_missing_figures_never_end_it(gone: list[str], seed: int) -> None:
    nights = [
        replace(one, figures={key: f for key, f in one.figures.items() if key[0] != missing})
        for one, missing in zip(quiet(30, seed=seed), gone, strict=True)
    ]
    for verdict in judge_each(nights):
        assert verdict.to_json()["state"] in {state.value for state in State}


def test_when_every_night_is_void_nothing_is_judged() -> None:
    nights = [*quiet(10), *(night(10 + place, {"process": 5.0**place, "docker": 1.0}) for place in range(1, 8))]
    assert {verdict.state for verdict in list(judge_each(nights))[11:]} == {State.VOID}


def test_a_year_without_change_has_no_more_suspects_than_stated() -> None:
    """Two years of six series; the whole simulation is in tests/accept/nights_levels.py."""
    targets = ("process", "a", "b", "c", "d", "e", "f")
    found = sum(
        one.is_new and one.state is State.SUSPECT
        for seed in (1, 2)
        for verdict in judge_each(quiet(levels.NIGHTS_PER_YEAR, seed=seed, targets=targets, own=0.2))
        for one in verdict.series
    )
    assert 4 <= found <= 38  # of 24 expected: with a chance of 0.999


def _keys(order: Sequence[str]) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    return [(target, "boot_s", ()) for target in order]
