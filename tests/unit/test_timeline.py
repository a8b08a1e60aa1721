"""Timeline refuses what would make a figure a lie."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import ClockMismatch, MeasurementError, MissingPhase
from lab.timeline import ENGINE_CHAIN, SERVICE_CHAIN, Clock, MarkRecord, Phase, Source, Timeline


def mark(phase: Phase, ns: int, clock: Clock = Clock.HOST, source: Source = Source.LAB) -> MarkRecord:
    return MarkRecord(phase=phase, ns=ns, clock=clock, source=source)


def test_a_difference_is_in_seconds() -> None:
    timeline = Timeline([mark(Phase.REQUESTED, 1_000), mark(Phase.READY, 2_500_001_000)])
    assert timeline.duration_s(Phase.REQUESTED, Phase.READY) == 2.5


@pytest.mark.parametrize("start,end", [(Phase.REQUESTED, Phase.KERNEL), (Phase.KERNEL, Phase.READY)])
def test_a_missing_phase_is_refused(start: Phase, end: Phase) -> None:
    with pytest.raises(MissingPhase, match="kernel"):
        Timeline([mark(Phase.REQUESTED, 1), mark(Phase.READY, 2)]).duration_s(start, end)


def test_two_clocks_are_refused_and_a_proven_shared_clock_is_the_hosts() -> None:
    timeline = Timeline(
        [mark(Phase.REQUESTED, 10), mark(Phase.MAIN, 20, Clock.GUEST, Source.SERVICE), mark(Phase.READY, 40)]
    )
    with pytest.raises(ClockMismatch):
        timeline.duration_s(Phase.REQUESTED, Phase.MAIN)
    timeline.add(mark(Phase.LISTENING, 30, Clock.SHARED, Source.SERVICE))
    assert timeline.duration_s(Phase.LISTENING, Phase.READY) == 10e-9


def test_guest_marks_subtract_from_guest_marks() -> None:
    timeline = Timeline(
        [mark(Phase.MAIN, 5, Clock.GUEST, Source.SERVICE), mark(Phase.LISTENING, 25, Clock.GUEST, Source.SERVICE)]
    )
    assert timeline.duration_s(Phase.MAIN, Phase.LISTENING) == 20e-9


@pytest.mark.parametrize(
    "start,end", [(Phase.MAIN, Phase.LISTENING), (Phase.CREATED, Phase.STARTED), (Phase.STOPPED, Phase.DELETED)]
)
def test_a_negative_difference_within_a_chain_is_an_error(start: Phase, end: Phase) -> None:
    with pytest.raises(MeasurementError, match="before"):
        Timeline([mark(start, 10), mark(end, 9)]).duration_s(start, end)


def test_between_the_chains_a_difference_is_signed() -> None:
    timeline = Timeline([mark(Phase.STARTED, 10_000_000), mark(Phase.MAIN, 7_000_000)])
    assert timeline.duration_s(Phase.STARTED, Phase.MAIN) == -0.003


def test_phases_that_one_event_shows_have_no_interval_between_them() -> None:
    marks = [
        mark(Phase.REQUESTED, 0),
        mark(Phase.SCHEDULED, 10, source=Source.EVENT),
        mark(Phase.POD_IP, 30, source=Source.EVENT),
        mark(Phase.STARTED, 30, source=Source.EVENT),
        mark(Phase.ENGINE_READY, 70, source=Source.EVENT),
    ]
    found = [(a, b, round(s * 1e9)) for a, b, s in Timeline(marks).steps(ENGINE_CHAIN)]
    assert found == [
        (Phase.REQUESTED, Phase.SCHEDULED, 10),
        (Phase.SCHEDULED, Phase.POD_IP, 20),
        (Phase.STARTED, Phase.ENGINE_READY, 40),
    ]
    apart = [mark(Phase.CREATED, 5, source=Source.RETURN), mark(Phase.STARTED, 5, source=Source.RETURN)]
    assert Timeline(apart).steps(ENGINE_CHAIN) == [(Phase.CREATED, Phase.STARTED, 0.0)]


def test_return_and_event_are_two_marks_and_the_return_counts() -> None:
    timeline = Timeline([mark(Phase.STARTED, 9, source=Source.EVENT), mark(Phase.STARTED, 12, source=Source.RETURN)])
    assert len(list(timeline)) == 2
    assert timeline.mark(Phase.STARTED).source is Source.RETURN


def test_the_services_own_instant_goes_before_its_lines_arrival_unless_it_is_a_guests() -> None:
    timeline = Timeline([mark(Phase.MAIN, 30, source=Source.CONSOLE)])
    timeline.add(mark(Phase.MAIN, 7, Clock.GUEST, Source.SERVICE))
    assert timeline.mark(Phase.MAIN).ns == 30
    shared = Timeline([mark(Phase.MAIN, 30, source=Source.LOG), mark(Phase.MAIN, 28, Clock.SHARED, Source.SERVICE)])
    assert shared.mark(Phase.MAIN).ns == 28


def test_an_instant_happens_once() -> None:
    timeline = Timeline([mark(Phase.READY, 5)])
    timeline.add(mark(Phase.READY, 50))
    assert timeline.mark(Phase.READY).ns == 5


def test_steps_pass_over_what_was_not_seen_and_what_only_a_guest_saw() -> None:
    timeline = Timeline(
        [
            mark(Phase.REQUESTED, 0),
            mark(Phase.INIT, 2_000_000_000, source=Source.CONSOLE),
            mark(Phase.MAIN, 1, Clock.GUEST, Source.SERVICE),
            mark(Phase.READY, 3_000_000_000),
        ]
    )
    assert timeline.steps(SERVICE_CHAIN) == [(Phase.REQUESTED, Phase.INIT, 2.0), (Phase.INIT, Phase.READY, 1.0)]
    assert timeline.steps(ENGINE_CHAIN) == []


@given(st.lists(st.integers(min_value=0, max_value=10**15), min_size=len(SERVICE_CHAIN), max_size=len(SERVICE_CHAIN)))
def test_the_steps_of_a_chain_add_up_to_the_whole(instants: list[int]) -> None:
    timeline = Timeline(mark(phase, ns) for phase, ns in zip(SERVICE_CHAIN, sorted(instants), strict=True))
    total = sum(seconds for _, _, seconds in timeline.steps(SERVICE_CHAIN))
    assert total == pytest.approx(timeline.duration_s(Phase.REQUESTED, Phase.READY), abs=1e-6)


def test_json_keeps_every_mark() -> None:
    timeline = Timeline([mark(Phase.REQUESTED, 1), mark(Phase.MAIN, 9, Clock.GUEST, Source.SERVICE)])
    again = Timeline.from_json(json.loads(json.dumps(timeline.to_json())))
    assert list(again) == list(timeline)


def test_marks_that_are_not_asked_for_are_not_read() -> None:
    read: list[int] = []

    class Kept:
        def __iter__(self) -> Iterator[MarkRecord]:
            read.append(1)
            return iter([mark(Phase.REQUESTED, 1), mark(Phase.READY, 3)])

    timeline = Timeline.unread(Kept())
    assert not read
    assert timeline.duration_s(Phase.REQUESTED, Phase.READY) == 2e-9
    timeline.add(mark(Phase.MAIN, 2))
    assert [one.phase for one in timeline] == [Phase.REQUESTED, Phase.READY, Phase.MAIN]
    assert read == [1]
