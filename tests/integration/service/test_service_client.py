"""The service's client mode: its schedule against servers that answer, stall, refuse and misbehave."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 30.0
NONCE = "0123456789abcdef"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Lab-Version: %s\r\n\r\nok"


@dataclass
class Report:
    requests: list[dict[str, Any]]
    summary: dict[str, Any]

    def statuses(self) -> list[int | str]:
        return [request["status"] for request in self.requests]


def read_report(output: bytes) -> Report:
    lines = [json.loads(line) for line in output.splitlines()]
    return Report(lines[:-1], lines[-1]["summary"])


def run(binary: Path, *arguments: str, port: int) -> Report:
    command = [str(binary), *arguments, "--host", "127.0.0.1", "--port", str(port)]
    result = subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    report = read_report(result.stdout)
    assert len(report.requests) == report.summary["planned"]
    outcomes = ("answered", "missed", "timeout", "refused", "closed", "broken", "cut-off", "unsent")
    assert sum(report.summary[outcome] for outcome in outcomes) == report.summary["planned"]
    return report


@contextlib.contextmanager
def server(serve: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """A server on loopback: `serve(connection, number)` runs in a thread for each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        connections: list[socket.socket] = []

        def handle(connection: socket.socket, number: int) -> None:
            with contextlib.suppress(OSError), connection:
                serve(connection, number)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    arguments = (connection, len(connections) - 1)
                    threading.Thread(target=handle, args=arguments, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_head(connection: socket.socket) -> bytes:
    """The next request's head; empty at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        block = connection.recv(1)
        if not block:
            return b""
        head += block
    return head


def answering(connection: socket.socket, _: int) -> None:
    while read_head(connection):
        connection.sendall(ANSWER % b"v1")


def test_load_keeps_its_absolute_schedule(binary: Path) -> None:
    with server(answering) as port:
        report = run(binary, "load", "--rate", "50", "--seconds", "0.4", port=port)
    assert report.summary["planned"] == 20
    start = report.summary["start_ns"]
    assert [request["intended_ns"] for request in report.requests] == [start + i * 20_000_000 for i in range(20)]
    for request in report.requests:
        assert request["status"] == 200
        assert request["intended_ns"] <= request["sent_ns"] <= request["done_ns"]
        assert request["version"] == "v1"


def test_load_keeps_connections_open_within_its_cap(binary: Path) -> None:
    numbers: set[int] = set()

    def count(connection: socket.socket, number: int) -> None:
        numbers.add(number)
        answering(connection, number)

    arguments = ("--rate", "100", "--seconds", "0.3", "--connections-cap", "3", "--timeout-ms", "10000")
    with server(count) as port:
        report = run(binary, "load", *arguments, port=port)
    # How many are missed is this test's own server's business; what counts is that none made a fourth connection.
    assert report.summary["answered"] + report.summary["missed"] == 30
    assert report.summary["answered"] > len(numbers)
    assert 1 <= len(numbers) <= 3


def test_load_opens_connections_beforehand_and_needs_no_other_in_a_stall(binary: Path) -> None:
    asked = threading.Event()
    opened: list[int] = []

    def slow_after_all_are_there(connection: socket.socket, number: int) -> None:
        opened.append(number)
        with connection:
            while read_head(connection):
                if not asked.is_set():
                    asked.set()
                    time.sleep(0.1)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with server(slow_after_all_are_there) as port:
        report = run(binary, "load", "--rate", "100", "--seconds", "0.5", "--open-first", "40", port=port)
    assert report.statuses() == [200] * 50
    assert len(opened) == 40


def test_connections_that_cannot_be_had_beforehand_are_no_failure(binary: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    report = run(binary, "load", "--rate", "100", "--seconds", "0.1", "--open-first", "9", port=port)
    assert report.statuses() == ["refused"] * 10


def test_a_stall_is_seen_from_the_intended_instants_and_missed_sends_are_counted(binary: Path) -> None:
    resumed = threading.Event()
    begun = threading.Event()
    resumed_ns: list[int] = []

    def stalling(connection: socket.socket, number: int) -> None:
        while read_head(connection):
            begun.set()
            resumed.wait(WAIT_S)
            connection.sendall(ANSWER % b"v1")

    def resume() -> None:
        begun.wait(WAIT_S)
        time.sleep(0.5)
        resumed_ns.append(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        resumed.set()

    waker = threading.Thread(target=resume)
    waker.start()
    arguments = ("--rate", "50", "--seconds", "0.8", "--connections-cap", "5", "--timeout-ms", "10000")
    with server(stalling) as port:
        report = run(binary, "load", *arguments, port=port)
    waker.join(WAIT_S)
    # Five are under way while it stalls; the instants after them find no connection, and are missed, not queued.
    assert report.statuses()[:5] == [200] * 5
    stalled = [request for request in report.requests if request["intended_ns"] < resumed_ns[0]]
    missed = [request for request in stalled[5:] if request["status"] == "missed"]
    late = [request for request in stalled[5:] if request not in missed]
    assert all(request["sent_ns"] >= resumed_ns[0] for request in late), "its instant came when the stall was over"
    assert report.summary["missed"] >= len(missed) > 10
    assert all(request["sent_ns"] is None for request in missed)
    for request in stalled[:5]:
        assert request["done_ns"] - request["intended_ns"] >= resumed_ns[0] - request["intended_ns"]
    assert report.statuses()[-1] == 200


def test_a_request_without_an_answer_times_out_and_frees_its_connection(binary: Path) -> None:
    def silent_once(connection: socket.socket, number: int) -> None:
        if number == 0:
            read_head(connection)
            time.sleep(2)
        answering(connection, number)

    arguments = ("--rate", "20", "--seconds", "0.5", "--connections-cap", "1", "--timeout-ms", "120")
    with server(silent_once) as port:
        report = run(binary, "load", *arguments, port=port)
    first = report.requests[0]
    assert first["status"] == "timeout"
    assert first["done_ns"] - first["sent_ns"] >= 110_000_000
    assert report.requests[1]["status"] == "missed"
    assert 200 in report.statuses()


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", "broken"),
        (b"SSH-2.0-x\r\n\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9000, "broken"),
        (b"HTTP/1.0 503 Busy\r\n\r\nfor a while", 503),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    ],
)
def test_every_answer_has_its_outcome(binary: Path, answer: bytes, status: int | str) -> None:
    def once(connection: socket.socket, _: int) -> None:
        read_head(connection)
        connection.sendall(answer)

    with server(once) as port:
        report = run(binary, "watch", "--seconds", "0.1", "--interval-ms", "50", port=port)
    assert report.statuses() == [status, status]


def test_nobody_there_is_refused(binary: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can have it meanwhile
        report = run(binary, "watch", "--seconds", "0.2", "--interval-ms", "50", port=taken.getsockname()[1])
    assert report.statuses() == ["refused"] * 4


def test_watch_uses_a_new_connection_each_time_and_sees_versions_change(binary: Path) -> None:
    def rolling(connection: socket.socket, number: int) -> None:
        head = read_head(connection)
        assert b"GET /ready HTTP/1.1\r\n" in head
        assert b"X-Lab-Nonce: %s\r\n" % NONCE.encode() in head
        assert b"Connection: close\r\n" in head
        connection.sendall(ANSWER % (b"old" if number < 5 else b"new"))

    with server(rolling) as port:
        arguments = ("--seconds", "0.5", "--interval-ms", "50", "--path", "/ready", "--nonce", NONCE)
        report = run(binary, "watch", *arguments, port=port)
    assert report.statuses() == [200] * 10
    assert sorted(request["version"] for request in report.requests) == ["new"] * 5 + ["old"] * 5


def test_a_platform_that_serves_by_name_is_asked_by_it(binary: Path) -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket, _number: int) -> None:
        asked.append(read_head(connection))
        connection.sendall(ANSWER % b"1")

    arguments = ("--seconds", "0.1", "--interval-ms", "50")
    with server(serve) as port:
        run(binary, "watch", *arguments, "--authority", "f.example.test", port=port)
        by_name = list(asked)
        run(binary, "watch", *arguments, port=port)
    assert all(head.count(b"Host:") == 1 for head in asked)
    assert all(b"\r\nHost: f.example.test\r\n" in head for head in by_name)
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % port in asked[-1]


def test_a_watcher_that_slept_says_so(binary: Path) -> None:
    with server(answering) as port:
        command = [str(binary), "watch", "--host", "127.0.0.1", "--port", str(port), "--seconds", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        stopped_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        time.sleep(0.3)
        woken_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        process.send_signal(signal.SIGCONT)
        report = read_report(process.communicate(timeout=WAIT_S)[0])
    assert report.summary["planned"] == len(report.requests) == 100
    threshold = report.summary["late_after_ns"]
    slept = [r for r in report.requests if stopped_ns < r["intended_ns"] < woken_ns - threshold]
    assert len(slept) >= 25
    assert all(request["late"] for request in slept)
    assert report.summary["late"] == sum(request["late"] for request in report.requests)


def test_sigterm_ends_it_early_with_what_it_saw(binary: Path) -> None:
    with server(answering) as port:
        command = [str(binary), "watch", "--host", "127.0.0.1", "--port", str(port), "--seconds", "60"]
        process = subprocess.Popen([*command, "--interval-ms", "50"], stdout=subprocess.PIPE)
        time.sleep(0.5)
        process.terminate()
        report = read_report(process.communicate(timeout=WAIT_S)[0])
    assert process.returncode == 0
    assert report.summary["answered"] >= 1
    assert report.summary["unsent"] >= 1000
    assert report.requests[-1] | {"intended_ns": 0} == {
        "intended_ns": 0, "sent_ns": None, "done_ns": None, "status": "unsent", "version": "", "late": False
    }  # fmt: skip


def test_a_reader_who_never_reads_does_not_disturb_the_schedule(binary: Path) -> None:
    served: list[int] = []

    def count(connection: socket.socket, number: int) -> None:
        while read_head(connection):
            served.append(number)
            connection.sendall(ANSWER % b"v1")

    read_end, write_end = os.pipe()
    with server(count) as port:
        command = [str(binary), "load", "--host", "127.0.0.1", "--port", str(port), "--rate", "1000", "--seconds", "1"]
        process = subprocess.Popen(command, stdout=write_end)
        os.close(write_end)
        while not readable_bytes(read_end):
            time.sleep(0.02)  # it writes once it has seen all; more than a pipe holds
        read_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        with open(read_end, "rb") as output:  # noqa: PTH123 - a descriptor
            report = read_report(output.read())
        assert process.wait(WAIT_S) == 0
    assert report.summary["planned"] == len(report.requests) == 1000
    assert 0 < report.summary["answered"] <= len(served)
    assert max(request["done_ns"] or 0 for request in report.requests) < read_ns


def readable_bytes(descriptor: int) -> int:
    count = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(count, sys.byteorder)


def test_load_and_service_understand_each_other(binary: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"LAB_PORT": str(port), "LAB_NONCE": NONCE, "LAB_VERSION": "7"}
    service = subprocess.Popen([binary], env=environment, stdout=subprocess.PIPE)
    try:
        assert service.stdout is not None
        service.stdout.readline()
        assert b" listening " in service.stdout.readline()
        report = run(
            binary, "load", "--rate", "200", "--seconds", "0.3", "--path", "/clock", "--nonce", NONCE, port=port
        )
        assert set(report.statuses()) == {200}
        assert {request["version"] for request in report.requests} == {"7"}
        refused = run(binary, "watch", "--seconds", "0.1", "--interval-ms", "50", "--path", "/clock", port=port)
        assert refused.statuses() == [403, 403]
        worked = run(
            binary, "load", "--rate", "40", "--seconds", "0.1", "--path", "/work?us=100", "--nonce", NONCE, port=port
        )
        assert worked.statuses() == [200] * 4
    finally:
        service.kill()
        service.wait(WAIT_S)
        service.stdout.close()  # type: ignore[union-attr]


BASE = ("--host", "127.0.0.1", "--port", "1", "--seconds", "1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("load",),
        ("load", *BASE),
        ("load", *BASE, "--rate"),
        ("load", *BASE, "--rate", "0"),
        ("load", *BASE, "--rate", "20001"),
        ("load", *BASE, "--rate", "5", "--seconds", "3601"),
        ("load", *BASE, "--rate", "20000", "--seconds", "3600"),
        ("load", *BASE, "--rate", "5", "--connections-cap", "1025"),
        ("load", *BASE, "--rate", "5", "--what", "1"),
        ("load", *BASE, "--rate", "5", "--host", "localhost"),
        ("load", *BASE, "--rate", "5", "--path", "x"),
        ("load", *BASE, "--rate", "5", "--nonce", "a\r\nb"),
        ("load", *BASE, "--rate", "5", "--authority", "a b"),
        ("watch", "--host", "127.0.0.1", "--port", "1"),
        ("watch", *BASE, "--interval-ms", "2000"),
        ("watch", *BASE, "--seconds", "0"),
        ("watch", *BASE, "--seconds", "1.0005"),
        ("watch", *BASE, "--seconds", "3600.001"),
        ("watch", *BASE, "--seconds", "1."),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(binary: Path, arguments: tuple[str, ...]) -> None:
    result = subprocess.run([binary, *arguments], capture_output=True, timeout=WAIT_S, check=False)
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"service: ")
    assert result.stderr.count(b"\n") == 1
