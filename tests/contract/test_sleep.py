"""Each state of sleep that is offered is one, and what comes back from it is what it has to be."""

from __future__ import annotations

from contract_rig import Rest, Rig, Slept, one_line

from lab.features import Feature, Sleeps, SleepState

KEEPS_MEMORY = (SleepState.PAUSED, SleepState.SAVED)


def test_each_state_of_sleep_is_told_with_a_reason_where_it_cannot_be(rig: Rig) -> None:
    rig.needs(Feature.SLEEP)
    instance = rig.served.instance
    assert isinstance(instance, Sleeps)
    states = instance.sleep_states()
    assert states and set(states) <= set(SleepState)
    assert all("\n" not in why and why == why.strip() for why in states.values())


def test_a_state_that_is_not_offered_is_refused_on_one_line(rig: Rig) -> None:
    for state, said in _slept(rig).refusals.items():
        assert said is not None and one_line(said), f"{state}: {said!r}"


def test_it_can_be_put_to_sleep_and_woken_in_each_state_that_is_offered(rig: Rig) -> None:
    for rest in _rests(rig):
        assert rest.error is None, f"{rest.state}: {rest.error}"
        assert rest.before and rest.after, f"{rest.state}: it does not answer"


def test_asleep_it_neither_answers_nor_runs(rig: Rig) -> None:
    for rest in _rests(rig):
        assert not rest.answered_asleep, f"{rest.state}: it answers"
        assert not rest.running, f"{rest.state}: processes {rest.running} run"


def test_it_is_the_same_where_its_memory_was_kept_and_new_where_it_was_not(rig: Rig) -> None:
    for rest in _rests(rig):
        same = rest.after["token"] == rest.before["token"] and rest.after["served"] > rest.before["served"]
        assert same == (rest.state in KEEPS_MEMORY), f"{rest.state}: {rest.before} became {rest.after}"
        assert same or rest.after["token"] != rest.before["token"]


def test_what_it_sleeps_on_is_on_this_hosts_disks(rig: Rig) -> None:
    for rest in _rests(rig):
        assert not rest.missing and all(path.is_absolute() for path in rest.files), f"{rest.state}: {rest.missing}"
        assert rest.files or rest.state is not SleepState.SAVED, "its memory is somewhere"


def test_one_that_sleeps_is_found_and_removed_by_a_driver_that_did_not_put_it_there(rig: Rig) -> None:
    slept = _slept(rig)
    assert slept.error is None and slept.found
    assert not slept.alive_after_delete and not slept.listed_after_delete


def _slept(rig: Rig) -> Slept:
    rig.needs(Feature.SLEEP, Feature.NETWORK)  # by which it is asked who it is
    return rig.slept


def _rests(rig: Rig) -> list[Rest]:
    return list(_slept(rig).rests)
