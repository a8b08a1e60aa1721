"""Requests to a service that no network reaches: by its own `ask` mode, run beside it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import DriverError, Unsupported
from lab.features import ExecResult
from lab.launch.session import Session
from lab.service import ask
from lab.spec import Spec

NONCE = "5eed0000000000000000000000000009"
WAIT_S = 30.0


@pytest.fixture
def environment(binary: Path) -> Iterator[dict[str, str]]:
    """What a running service and those beside it have in their environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    given = {"LAB_HOST": "127.0.0.1", "LAB_PORT": str(port), "LAB_NONCE": NONCE}
    process = subprocess.Popen([binary], env=given, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(2)] == [b"main", b"listening"]
        yield given
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


def run(binary: Path, environment: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [binary, "ask", *argv], env=dict(environment), capture_output=True, timeout=WAIT_S, check=False
    )


class Inside:
    """An instance without a network, whose container has the service's binary as /service."""

    endpoint = None

    def __init__(self, binary: Path, environment: Mapping[str, str]) -> None:
        self.asked: list[Sequence[str]] = []
        self._binary, self._environment = binary, environment

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        self.asked.append(argv)
        assert argv[0] == "/service"
        ended = subprocess.run(
            [self._binary, *argv[1:]],
            env=dict(self._environment),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return ExecResult(ended.returncode, ended.stdout, ended.stderr)


def session_of(instance: Any, **spec: Any) -> Session:
    return cast("Session", SimpleNamespace(instance=instance, spec=Spec(nonce=NONCE, **spec)))


def test_the_answer_s_body_and_nothing_else_is_printed(binary: Path, environment: dict[str, str]) -> None:
    ended = run(binary, environment, "GET", "/clock")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["nonce"] == NONCE


def test_a_service_on_every_address_is_found(binary: Path, environment: dict[str, str]) -> None:
    everywhere = {**environment, "LAB_HOST": "0.0.0.0"}  # noqa: S104  what a container's service is told
    assert run(binary, everywhere, "GET", "/clock").returncode == 0
    assert run(binary, {k: v for k, v in environment.items() if k != "LAB_HOST"}, "GET", "/clock").returncode == 0


def test_a_refusal_is_told_with_its_status(binary: Path, environment: dict[str, str]) -> None:
    ended = run(binary, {**environment, "LAB_NONCE": "wrong"}, "GET", "/clock")
    assert (ended.returncode, ended.stderr) == (4, b"service: status: 403\n")
    assert json.loads(ended.stdout) == {"error": "X-Lab-Nonce"}


@pytest.mark.parametrize(
    "argv", [[], ["GET"], ["GET", "clock"], ["GET", "/a b"], ["GET", "/clock", "0"], ["GET", "/clock", "61"]]
)
def test_bad_arguments_are_refused(binary: Path, environment: dict[str, str], argv: list[str]) -> None:
    assert run(binary, environment, *argv).returncode == 2


def test_without_an_address_there_is_nobody_to_ask(binary: Path) -> None:
    assert run(binary, {}, "GET", "/clock").returncode == 2
    assert run(binary, {"LAB_PORT": "0"}, "GET", "/clock").returncode == 2


@contextlib.contextmanager
def answering(reply: bytes, *, hold: bool = False) -> Iterator[int]:
    """A server that sends `reply` to the first request, and keeps the connection open if it is to `hold` it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(reply)
                if hold:
                    done.wait(WAIT_S)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            thread.join(WAIT_S)


def test_an_answer_that_is_cut_off_is_none(binary: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") as port:
        ended = run(binary, {"LAB_PORT": str(port)}, "GET", "/clock")
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_a_silent_service_is_asked_no_longer_than_the_limit(binary: Path) -> None:
    with answering(b"", hold=True) as port:
        start = time.monotonic()
        ended = run(binary, {"LAB_PORT": str(port)}, "GET", "/clock", "1")
    assert (ended.returncode, ended.stdout) == (3, b"")
    assert time.monotonic() - start >= 0.9


def test_it_asks_from_inside_where_there_is_no_network(binary: Path, environment: dict[str, str]) -> None:
    instance = Inside(binary, environment)
    session = session_of(instance)
    assert ask.get(session, "/clock", timeout_s=5)["nonce"] == NONCE
    assert ask.post(session, "/alloc?mib=0") == {"held_mib": 0}
    assert ask.facts(session)["pid"] > 0
    assert instance.asked[0] == ["/service", "ask", "GET", "/clock", "5"]


def test_a_refusal_from_inside_is_an_error_with_the_service_s_words(binary: Path, environment: dict[str, str]) -> None:
    session = session_of(Inside(binary, environment))
    with pytest.raises(DriverError, match="refused GET /work with 400") as caught:
        ask.get(session, "/work")
    assert "us must be a number" in caught.value.details
    with pytest.raises(DriverError, match="Connection refused"):
        ask.get(session_of(Inside(binary, {"LAB_PORT": "1", "LAB_NONCE": NONCE})), "/clock")


def test_what_has_neither_network_nor_way_in_cannot_be_asked(binary: Path, environment: dict[str, str]) -> None:
    with pytest.raises(Unsupported):
        ask.get(session_of(SimpleNamespace(endpoint=None)), "/clock")
    with pytest.raises(Unsupported):  # another's image has no /service
        ask.get(session_of(Inside(binary, environment), image="another"), "/clock")
