"""What is made of a load's records, where rolling out is refused, and the front that spreads requests."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lab.driver import Context, Instance, Mark
from lab.errors import LabError, MeasurementError
from lab.launch.spread import Spreader
from lab.launch.waiter import reserve_port
from lab.service.load import LoadResult, Request, parse
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.testing import FakeDriver, FakeEngine, WaitingClock
from scenarios.rollout import Rollout, rolled_out_ns

Measure = Callable[..., RunRecord]
MS = 1_000_000


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    made = FakeDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path)).engine
    made.clock = WaitingClock()
    return made


def request(
    at_ms: int, took_ms: int | None, status: int | str = 200, version: str = "1", late: bool = False
) -> Request:
    done_ns = None if took_ms is None else (at_ms + took_ms) * MS
    return Request(
        intended_ns=at_ms * MS, sent_ns=at_ms * MS, done_ns=done_ns, status=status, version=version, late=late
    )


def test_it_is_rolled_out_with_the_first_new_answer_after_the_last_old_one() -> None:
    answers = [request(0, 2), request(10, 2, version="2"), request(20, 2), request(30, 3, version="2")]
    assert rolled_out_ns(LoadResult(requests=answers)) == 33 * MS
    assert rolled_out_ns(LoadResult(requests=answers[:3])) is None
    assert rolled_out_ns(LoadResult(requests=[request(0, 1000, "timeout", ""), answers[1]])) == 12 * MS


def test_failed_missed_and_served_are_told_apart() -> None:
    result = LoadResult(
        requests=[
            request(0, 2),
            request(1, 5, 503),
            request(2, 1000, "timeout", ""),
            request(3, 0, "refused", ""),
            request(4, None, "missed", ""),
            request(5, 40),
        ]
    )
    assert (result.sent, result.failed, result.missed) == (5, 3, 1)
    assert result.worst_latency_s == pytest.approx(0.040)
    before, after = result.split(5 * MS)
    assert [one.intended_ns // MS for one in before.requests] == [0, 3, 4]
    assert (before.failed, after.failed) == (1, 2)
    assert LoadResult(requests=[request(0, 3, 503)]).worst_latency_s is None


def test_a_late_client_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.service.load.LATE_SHARE", 0.05)
    good = [request(at, 1) for at in range(19)]
    LoadResult(requests=[*good, request(20, 1, late=True)]).require_punctual()
    with pytest.raises(MeasurementError, match="inconclusive"):
        LoadResult(requests=[*good[1:], request(20, 1, late=True), request(21, 1, late=True)]).require_punctual()


@pytest.mark.parametrize("output", [b"", b"{}\n", b"not json\n", b'{"summary":{"planned":2}}\n'])
def test_what_the_client_tells_in_part_is_no_result(output: bytes) -> None:
    with pytest.raises(LabError, match="not whole"):
        parse(output)


def test_what_the_client_tells_is_understood() -> None:
    line = {"intended_ns": 1, "sent_ns": None, "done_ns": None, "status": "missed", "version": "", "late": True}
    output = json.dumps(line) + "\n" + json.dumps({"summary": {"planned": 1}}) + "\n"
    assert parse(output.encode()).missed == 1


def test_where_the_engine_chooses_the_address_there_is_no_rollout_by_hand(engine: FakeEngine, measure: Measure) -> None:
    class Choosing(FakeDriver):
        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            return super().launch(spec, Endpoint("127.0.0.1", reserve_port()), mark)

    choosing = Choosing("", Context(run_dir=Path("/"), cache_dir=Path("/")))
    choosing.engine = engine
    record = measure(Rollout(seconds=1.0), choosing, engine.clock)
    [launch] = record.launches
    assert launch.outcome is Outcome.FAILED and "the engine chooses the address" in launch.error
    assert "kubernetes:deployment" in launch.error and not record.samples


def test_the_spreader_follows_addresses_and_shows_failures() -> None:
    def listener() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    def endpoint_of(server: socket.socket) -> Endpoint:
        return Endpoint("127.0.0.1", server.getsockname()[1])

    with listener() as a, listener() as b:
        known: list[Endpoint] = [endpoint_of(a), endpoint_of(b)]

        def addresses() -> Sequence[Endpoint]:
            return list(known)

        def connect(front: Endpoint) -> socket.socket:
            return socket.create_connection((front.host, front.port), timeout=10)

        with Spreader(addresses) as spreader:
            with connect(spreader.endpoint) as one_client, connect(spreader.endpoint) as other_client:
                for server in (a, b):
                    server.settimeout(10)
                    inner, _ = server.accept()
                    with inner:
                        inner.sendall(b"hello")
                assert {one_client.recv(10), other_client.recv(10)} == {b"hello"}
                assert one_client.recv(10) == other_client.recv(10) == b""
            known.clear()
            for _ in range(50):
                with connect(spreader.endpoint) as client:
                    client.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):  # it was connected before the news reached the front
                        if client.recv(1) == b"":
                            break
            else:
                raise AssertionError("a front without addresses goes on connecting")
