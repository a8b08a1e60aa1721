"""A function's workers come by call and go when they are ended, each by a name of its own; what is shown of them is
theirs."""

from __future__ import annotations

from contract_rig import Rig, not_promised
from function_calls import calls_of

from lab.features import CallPhase, Feature
from lab.timeline import Source


def test_its_facts_tell_how_long_an_idle_worker_is_kept(rig: Rig) -> None:
    rig.needs(Feature.FUNCTION)
    assert "keep_alive_s" in rig.info.facts
    kept_s = rig.info.facts["keep_alive_s"]
    assert kept_s is None or (isinstance(kept_s, int | float) and kept_s > 0)


def test_once_they_are_ended_there_is_no_worker_and_the_next_call_is_the_first_of_a_new_one(rig: Rig) -> None:
    calls = calls_of(rig)
    assert calls.first and calls.before, "it names who serves it"
    assert list(calls.zero) == []
    assert calls.cold["served"] == 1 and calls.cold["token"] != calls.first["token"]


def test_a_worker_has_a_name_that_none_had_before(rig: Rig) -> None:
    calls = calls_of(rig)
    assert len(calls.after) == 1 and not set(calls.after) & set(calls.before)


def test_a_later_call_is_answered_by_the_worker_that_is_there(rig: Rig) -> None:
    calls = calls_of(rig)
    assert (calls.warm["served"], calls.warm["token"]) == (2, calls.cold["token"])
    assert list(calls.after_warm) == list(calls.after) and not calls.shown_warm


def test_what_is_shown_of_a_call_is_of_its_new_worker_and_in_order(rig: Rig) -> None:
    calls = calls_of(rig)
    assert {worker for worker, _, _ in calls.shown} <= set(calls.after), "another's"
    phases = [phase for _, phase, _ in calls.shown]
    assert phases == sorted(phases, key=list(CallPhase).index) and len(phases) == len(set(phases))
    assert all(source in set(Source) for _, _, source in calls.shown)


def test_one_that_is_initialized_before_any_call_has_answered_nobody(rig: Rig) -> None:
    calls = calls_of(rig)
    if calls.not_initialized:
        not_promised(calls.not_initialized)
    assert len(calls.initialized) == 1 and not set(calls.initialized) & {*calls.before, *calls.after}
    assert calls.first_of_initialized["served"] == 1
    assert list(calls.after_initialized) == list(calls.initialized), "no other was started for it"
