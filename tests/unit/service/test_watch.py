"""What a watch comes to: availability, silences, and the watcher's own lateness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lab.errors import MeasurementError
from lab.service.load import LoadResult, Request
from lab.service.watch import window

MS = 1_000_000
EVERY_MS = 10


def watch(
    count: int = 100,
    *,
    latency_ms: float = 1.0,
    slow: Mapping[int, float] | None = None,
    lost: Sequence[int] = (),
    late: Sequence[int] = (),
    touched: Sequence[int] = (),
    status: Mapping[int, str] | None = None,
) -> LoadResult:
    """A request every 10 ms; `slow` take other times, `lost` time out, `status` were not even asked. The watcher was
    `late` to ask, or while those `touched` were under way."""
    made = []
    for i in range(count):
        intended, told = i * EVERY_MS * MS, (status or {}).get(i)
        took = 1000.0 if i in lost else (slow or {}).get(i, latency_ms)
        made.append(
            Request(
                intended_ns=intended,
                sent_ns=None if told else intended + (6 * MS if i in late else 0),
                done_ns=None if told else intended + round(took * MS),
                status=told or ("timeout" if i in lost else 200),
                version="",
                late=i in late or i in touched,
            )
        )
    return LoadResult(requests=made)


def test_a_calm_window_is_available_and_its_silences_are_as_long_as_the_interval() -> None:
    seen = window(watch(), 0, 1000 * MS)
    assert (seen.asked, seen.answered, seen.availability, seen.throughout) == (100, 100, 1.0, True)
    assert seen.worst_gap_s == pytest.approx(0.010)
    assert seen.own_gap_s == 0.0
    assert not seen.inconclusive


def test_a_window_has_only_what_was_meant_for_it() -> None:
    result = watch(lost=range(40, 50))
    assert window(result, 0, 400 * MS).throughout
    assert window(result, 500 * MS, 1000 * MS).throughout
    during = window(result, 300 * MS, 600 * MS)
    assert (during.asked, during.answered) == (30, 20)
    assert during.availability == pytest.approx(2 / 3)
    assert during.worst_gap_s == pytest.approx(0.110)


def test_what_took_longer_than_a_second_was_not_available() -> None:
    seen = window(watch(slow={10: 1000.0, 20: 1000.1}), 0, 1000 * MS)
    assert (seen.asked, seen.answered) == (100, 99)


def test_an_outage_to_the_end_of_the_window_is_a_silence_to_its_end() -> None:
    assert window(watch(lost=range(50, 100)), 0, 1000 * MS).worst_gap_s == pytest.approx(0.509)
    silent = window(watch(lost=range(100)), 0, 1000 * MS)
    assert silent.availability == 0.0
    assert silent.worst_gap_s == pytest.approx(1.0)


def test_a_stall_is_a_silence_though_all_was_answered() -> None:
    stalled = {i: (30 - i) * 10.0 + 1 for i in range(10, 30)}
    seen = window(watch(slow=stalled), 0, 1000 * MS)
    assert seen.throughout
    assert seen.worst_gap_s == pytest.approx(0.210)


def test_a_silence_in_which_the_watcher_was_late_is_its_own() -> None:
    seen = window(watch(lost=[10, 30, 31], late=[31]), 0, 1000 * MS)
    assert seen.own_gap_s == pytest.approx(0.030)
    assert seen.worst_gap_s == pytest.approx(0.020)
    assert seen.answered == 97  # it is no excuse: late for more than 5 %, nothing would count at all


def test_a_watcher_late_for_more_than_a_twentieth_is_inconclusive() -> None:
    assert not window(watch(late=range(5)), 0, 1000 * MS).inconclusive
    assert window(watch(late=range(6)), 0, 1000 * MS).inconclusive
    assert not window(watch(late=range(6)), 500 * MS, 1000 * MS).inconclusive


def test_to_be_late_once_is_one_instant_however_many_requests_were_under_way() -> None:
    stalled = {i: (60 - i) * 10.0 + 1 for i in range(40, 60)}
    seen = window(watch(slow=stalled, late=[50], touched=range(40, 50)), 0, 1000 * MS)
    assert seen.late_share == pytest.approx(0.01)
    assert not seen.inconclusive
    assert (seen.own_gap_s, seen.worst_gap_s) == (pytest.approx(0.210), pytest.approx(0.010))


def test_what_the_watcher_missed_itself_is_no_outage() -> None:
    seen = window(watch(status={5: "missed", 6: "cut-off"}), 0, 1000 * MS)
    assert (seen.asked, seen.availability) == (98, 1.0)
    assert seen.worst_gap_s == pytest.approx(0.030)


@pytest.mark.parametrize(
    ("result", "start_ms", "end_ms"),
    [
        (watch(), -50, 900),
        (watch(), 100, 1050),
        (watch(status=dict.fromkeys(range(80, 100), "unsent")), 0, 1000),
        (watch(count=0), 0, 10),
        (watch(status=dict.fromkeys(range(100), "missed")), 0, 1000),
    ],
)
def test_a_watch_that_did_not_see_the_whole_window_is_no_evidence(
    result: LoadResult, start_ms: int, end_ms: int
) -> None:
    with pytest.raises(MeasurementError):
        window(result, start_ms * MS, end_ms * MS)
