"""`ready` is what one patient client would see, and what came instead is told."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from raw_server import reset, serving

from lab.errors import LaunchError, ReadyRefused, ReadyTimeout
from lab.launch import telling
from lab.launch import waiter as waiting
from lab.launch.attempt import Attempt
from lab.launch.waiter import Answer, Waiter, reserve_port
from lab.spec import Endpoint, Ready, Spec
from lab.timeline import SystemClock

pytestmark = pytest.mark.alone  # instants are what is tested

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


@contextlib.contextmanager
def waiting_at(endpoint: Endpoint, **spec: Any) -> Iterator[Waiter]:
    waiter = Waiter(Spec(**({"image": "somebody/else", "ready_path": "/"} | spec)), SystemClock())
    try:
        waiter.start(endpoint)
        waiter.attempt()
        yield waiter
    finally:
        waiter.cancel()


def answered(endpoint: Endpoint, timeout_s: float = 20, **spec: Any) -> Answer:
    with waiting_at(endpoint, **spec) as waiter:
        return waiter.wait(timeout_s)


class Service:
    """Answers each request after `delay_s`, and remembers when each came."""

    def __init__(self, delay_s: float, answer: bytes = OK) -> None:
        self.came: list[float] = []
        self._delay_s = delay_s
        self._answer = answer

    def __call__(self, connection: socket.socket) -> None:
        if connection.recv(4096):
            self.came.append(time.monotonic())
            time.sleep(self._delay_s)
            connection.sendall(self._answer)


@pytest.mark.parametrize("workers", [1, 4, 32])
@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_service_that_thinks_is_ready_when_its_first_answer_comes(delay_s: float, workers: int) -> None:
    service = Service(delay_s)
    with serving(service, workers=workers) as endpoint:
        begun_ns = time.monotonic_ns()
        answer = answered(endpoint)
    assert len(service.came) == answer.attempts == 1, "a second request would have taken the service's time"
    assert delay_s <= (answer.received_ns - begun_ns) / 1e9 < delay_s + 0.1


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> float:
    """Patience of a part of what it is, for the tests' sake."""
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.3)
    return 0.3


def test_half_a_second_of_work_is_over_before_a_newer_request_comes_though_it_takes_four_times_as_long() -> None:
    assert waiting.PATIENCE_S >= 4 * 0.5


def test_the_first_connection_is_kept_and_newer_ones_come_ever_later_beside_it(hasty: float) -> None:
    service = Service(3.5 * hasty)
    with serving(service) as endpoint:
        answer = answered(endpoint)
    gaps = [later - earlier for earlier, later in zip(service.came, service.came[1:], strict=False)]
    assert answer.received_ns - answer.sent_ns < 4.5 * hasty * 1e9
    assert gaps == [pytest.approx(hasty, abs=0.1), pytest.approx(2 * hasty, abs=0.1)]


def test_who_asks_for_less_patience_is_not_held_by_a_connection_that_leads_nowhere() -> None:
    service, dead = Service(0.0), threading.Event()

    def first_is_dead(connection: socket.socket) -> None:
        if dead.is_set():
            service(connection)
        else:
            dead.set()
            time.sleep(60)

    spec = Spec(image="somebody/else", ready_path="/", cpus=0.05)  # with the usual patience it would be 40 s
    with serving(first_is_dead) as endpoint:
        waiter = Waiter(spec, SystemClock(), patience_s=0.01)
        try:
            waiter.start(endpoint)
            waiter.attempt()
            assert waiter.wait(20).attempts == 2
        finally:
            waiter.cancel()


def test_with_a_share_of_a_cpu_patience_is_as_much_longer(hasty: float) -> None:
    service = Service(1.5 * hasty)
    with serving(service) as endpoint:
        answered(endpoint, cpus=0.5)
    assert len(service.came) == 1


def test_a_connection_that_a_forwarder_took_and_lost_is_not_the_only_one(hasty: float) -> None:
    first = threading.Event()

    def forward(connection: socket.socket) -> None:
        connection.recv(4096)
        if not first.is_set():
            first.set()
            time.sleep(30)  # nobody listened yet, and nobody ever will on this one
        connection.sendall(OK)

    with serving(forward) as endpoint:
        begun = time.monotonic()
        assert answered(endpoint).attempts == 2
    assert time.monotonic() - begun < hasty + 0.3


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["reset", "closed"])
def test_a_kept_connection_that_ends_is_replaced_at_once(end: Callable[[socket.socket], None]) -> None:
    ended: list[float] = []

    def fall(connection: socket.socket) -> None:
        connection.recv(4096)
        if not ended:
            time.sleep(0.4)
            ended.append(time.monotonic())
            end(connection)
        else:
            ended.append(time.monotonic())
            connection.sendall(OK)

    with serving(fall) as endpoint:
        assert answered(endpoint).attempts == 2
    assert ended[1] - ended[0] < 0.1


def test_at_most_four_connections_stand_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PATIENCE_S", 0.02)
    standing: list[list[float]] = []

    class Watched(waiting._Patient):
        def given_up(self, attempts: Collection[Attempt], now: float) -> list[Attempt]:
            gone = super().given_up(attempts, now)
            standing.append([one.started for one in attempts if one not in gone])
            return gone

    monkeypatch.setattr(waiting, "_Patient", Watched)
    with serving(lambda _: time.sleep(9)) as endpoint, pytest.raises(ReadyTimeout, match="silent"):
        answered(endpoint, timeout_s=1)
    assert max(map(len, standing)) == 4
    first = next(one[0] for one in standing if one)
    assert all(one[0] == first for one in standing if one), "the oldest is the patient client's"
    assert standing[-1][1:] > [first + 0.02 * 3] * 3, "and the others are the newest"


def test_until_somebody_listens_attempts_are_at_most_20_ms_and_2_percent_apart() -> None:
    port, begun = reserve_port(), time.monotonic()
    with waiting_at(Endpoint("127.0.0.1", port)) as waiter:
        time.sleep(0.5)
        with serving(Service(0.0), port=port):
            listening_ns = time.monotonic_ns()
            answer = waiter.wait(10)
    assert (answer.received_ns - listening_ns) / 1e9 < 0.030
    assert 25 <= answer.attempts <= 101
    assert time.monotonic() - begun < 5


def test_waiting_for_nobody_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting_at(Endpoint("127.0.0.1", reserve_port())) as waiter:
        before_ns = waiter._cpu.so_far_ns()
        time.sleep(1)
        spent_ns = waiter._cpu.so_far_ns() - before_ns
    assert spent_ns < 0.06 * 1e9  # 2 % on a machine that does nothing else, which a test's is not


def test_ipv6_is_a_place_to_answer_at() -> None:
    hosts: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        hosts.append(connection.recv(4096))
        connection.sendall(OK)

    with serving(handle, host="::1") as endpoint:
        assert str(endpoint) == f"[::1]:{endpoint.port}"
        assert answered(endpoint).status == 200
    assert f"Host: [::1]:{endpoint.port}\r\n".encode() in hosts[0]


def test_an_address_that_is_none_is_told_where_it_is_given_and_not_in_the_waiters_thread() -> None:
    waiter = Waiter(Spec(), SystemClock())
    with pytest.raises(LaunchError, match=r"no-such-host\.invalid"):
        waiter.start(Endpoint("no-such-host.invalid", 80))
    waiter.cancel()


def test_headers_and_statuses_are_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")

    headers = (("Host", "shop.example"), ("X-Probe", "1"))
    with serving(handle) as endpoint:
        answer = answered(endpoint, ready_status=((200, 399),), ready_headers=headers)
    assert answer.status == 302
    assert asked[0].count(b"Host:") == 1 and b"Host: shop.example\r\n" in asked[0] and b"X-Probe: 1\r\n" in asked[0]


class TestTelling:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telling, "STEADY_S", 0.15)

    @pytest.mark.parametrize(
        "answer,told,help_",
        [
            (
                b"HTTP/1.1 302 F\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
                "302, Location: /login",
                "--ready-path",
            ),
            (b"HTTP/1.1 401 U\r\nContent-Length: 0\r\n\r\n", "answered with 401", "--header"),
            (b"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", "answered with 404", "Host: NAME"),
            (
                b"HTTP/1.1 405 M\r\nAllow: HEAD\r\nContent-Length: 0\r\n\r\n",
                "405, Allow: HEAD",
                "--ready-status 200,405",
            ),
            (b"-ERR unknown command\r\n", "no HTTP: '-ERR unknown command'", "--ready tcp"),
            (b"\x15\x03\x03\x00\x02\x02\x0a", "TLS", "--port"),
            (b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", "TLS", "--port"),
            (b"SSH-2.0-OpenSSH_9.2\x1b[31m\r\n", "no HTTP: 'SSH-2.0-OpenSSH_9.2\\x1b", "--ready tcp"),
        ],
    )
    def test_what_will_not_change_is_told_soon(self, answer: bytes, told: str, help_: str) -> None:
        with serving(Service(0.0, answer)) as endpoint, pytest.raises(ReadyRefused) as raised:
            answered(endpoint, timeout_s=10)
        assert told in raised.value.brief and help_ in raised.value.resolution
        assert str(raised.value).isprintable()

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 425, 429])
    def test_what_may_change_is_waited_for(self, status: int) -> None:
        answers = iter([b"HTTP/1.1 %d Not yet\r\nContent-Length: 0\r\n\r\n" % status] * 5)

        def handle(connection: socket.socket) -> None:
            connection.recv(4096)
            time.sleep(0.05)
            connection.sendall(next(answers, OK))

        with serving(handle) as endpoint:
            assert answered(endpoint).status == 200

    def test_a_page_that_is_there_in_the_end_was_not_given_up_between_other_answers(self) -> None:
        begun = time.monotonic()

        def handle(connection: socket.socket) -> None:
            connection.recv(4096)
            passed = time.monotonic() - begun
            status = 200 if passed > 0.8 else 404 if int(passed * 5) % 2 else 503
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

        with serving(handle) as endpoint:
            assert answered(endpoint).status == 200

    def test_one_that_came_slowly_is_given_as_long_again(self) -> None:
        port = reserve_port()
        with waiting_at(Endpoint("127.0.0.1", port)) as waiter:
            time.sleep(0.8)
            begun = time.monotonic()

            def handle(connection: socket.socket) -> None:
                connection.recv(4096)
                status = 404 if time.monotonic() - begun < 0.6 else 200
                connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

            with serving(handle, port=port):
                assert waiter.wait(10).status == 200

    @pytest.mark.parametrize(
        "handle,told,help_",
        [
            (lambda _: time.sleep(9), "accepted and silent 1 time", "--ready tcp"),
            (lambda c: (c.recv(9999), reset(c)), "reset [0-9]+ times", "listens"),
            (lambda c: c.recv(9999), "closed without a byte [0-9]+ times", "listens"),
            (lambda c: (c.recv(9999), c.sendall(b"HTTP/1.1 503 B\r\nContent-Length: 0\r\n\r\n")), "503", "--timeout"),
            (lambda c: (c.recv(9999), c.sendall(OK[:-2])), "broke off after", "--timeout"),
            (lambda c: (c.recv(9999), c.sendall(OK[:-2]), time.sleep(9)), "no end yet: 58 bytes", "--timeout"),
        ],
        ids=["silent", "reset", "closed", "503", "broken", "unfinished"],
    )  # fmt: skip
    def test_a_timeout_tells_what_came(self, handle: Callable[[Any], object], told: str, help_: str) -> None:
        with serving(handle) as endpoint, pytest.raises(ReadyTimeout, match=told) as raised:
            answered(endpoint, timeout_s=0.5)
        assert not isinstance(raised.value, ReadyRefused)
        assert help_ in raised.value.resolution and "within 0.5 s" in str(raised.value)

    def test_nobody_at_all_is_told_with_the_number_of_refusals(self) -> None:
        with pytest.raises(ReadyTimeout, match=r"refused [0-9]+ times"):
            answered(Endpoint("127.0.0.1", reserve_port()), timeout_s=0.3)

    def test_another_launchs_answer_is_told_as_that(self) -> None:
        with serving(Service(0.0)) as endpoint, pytest.raises(ReadyTimeout, match="nonce"):
            answered(endpoint, timeout_s=0.3, **{"image": Spec().image, "nonce": "0" * 32})


class TestTcp:
    def test_a_service_that_speaks_no_http_is_ready_when_it_takes_a_connection(self) -> None:
        asked: list[bytes] = []
        port = reserve_port()
        with waiting_at(Endpoint("127.0.0.1", port), ready=Ready.TCP) as waiter:
            time.sleep(0.2)
            listening_ns = time.monotonic_ns()
            with serving(lambda connection: asked.append(connection.recv(4096)), port=port):
                answer = waiter.wait(10)
        assert 0 <= answer.received_ns - listening_ns < 0.03e9, (
            "counted from when it stood, not from when that was sure"
        )
        assert answer.status == 0 and asked in ([], [b""])

    def test_a_banner_is_enough(self) -> None:
        with serving(lambda connection: connection.sendall(b"220 hello\r\n")) as endpoint:
            begun = time.monotonic()
            answered(endpoint, ready=Ready.TCP)
        assert time.monotonic() - begun < 0.2

    def test_a_forwarder_that_takes_and_closes_is_not_ready(self) -> None:
        with (
            serving(lambda _: time.sleep(0.02)) as endpoint,
            pytest.raises(ReadyTimeout, match=r"no connection stood .*closed"),
        ):
            answered(endpoint, timeout_s=0.6, ready=Ready.TCP)
