"""What one service's calls of another tell, bounded and whole; and a request that goes on through others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_process import started

NONCES = ("5eed00000000000000000000000000a1", "5eed00000000000000000000000000a2")
UNIX = f"lab-test-{os.getpid()}"
WAIT_S = 30.0


class Peer:
    def __init__(self, process: subprocess.Popen[bytes], port: int, nonce: str) -> None:
        self.process = process
        self.port = port
        self.nonce = nonce

    def ask(self, path: str, *, method: str = "GET", nonce: str = "") -> tuple[int, Any]:
        headers = {"X-Lab-Nonce": nonce or self.nonce}
        url = f"http://127.0.0.1:{self.port}{path}"
        answer = httpx.request(method, url, headers=headers, timeout=WAIT_S, trust_env=False)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def pair(binary: Path) -> Iterator[tuple[Peer, Peer]]:
    """A caller and a callee, which also listens on a Unix socket."""
    with (
        started(binary, nonce=NONCES[0]) as (caller, caller_port),
        started("env", f"LAB_UNIX={UNIX}", binary, nonce=NONCES[1]) as (callee, callee_port),
    ):
        yield Peer(caller, caller_port, NONCES[0]), Peer(callee, callee_port, NONCES[1])


def served(callee: Peer) -> int:
    return int(callee.ask("/clock")[1]["served"])


@pytest.mark.parametrize("how", ["kept", "new", "payload", "unix"])
def test_every_call_reaches_the_callee_and_is_told(pair: tuple[Peer, Peer], how: str) -> None:
    caller, callee = pair
    where = f"unix={UNIX}" if how == "unix" else f"host=127.0.0.1&port={callee.port}"
    more = {"kept": "", "new": "&fresh=1", "payload": "&bytes=65536", "unix": ""}[how]
    before = served(callee)
    status, told = caller.ask(f"/call?{where}&nonce={callee.nonce}&rate=500&count=50&waits=1{more}")
    assert status == 200, told
    assert served(callee) - before == 51  # the second question is one of them
    assert told["planned"] == len(told["latency_ns"]) == len(told["wait_ns"]) == 50
    assert sum(told["outcomes"].values()) == 0
    assert all(0 <= wait < latency for wait, latency in zip(told["wait_ns"], told["latency_ns"], strict=True))
    assert told["took_ns"] >= 49 * 2_000_000  # open-loop: none leaves before its instant
    assert told["cpu_ns"] > 0


def test_an_error_of_the_callee_is_no_latency(pair: tuple[Peer, Peer]) -> None:
    caller, callee = pair
    where = f"host=127.0.0.1&port={callee.port}&rate=500&count=5&bytes=10"
    status, told = caller.ask(f"/call?{where}&nonce=wrong")
    assert status == 200
    assert told["latency_ns"] == [None] * 5
    assert told["outcomes"]["status"] == 5


def test_nobody_there_is_refused_each_time(pair: tuple[Peer, Peer]) -> None:
    status, told = pair[0].ask("/call?unix=lab-nobody&rate=500&count=3")
    assert status == 200
    assert (told["outcomes"]["refused"], told["latency_ns"]) == (3, [None] * 3)


def test_calls_by_vsock_of_nobody_are_refused_and_a_host_without_it_serves_on(pair: tuple[Peer, Peer]) -> None:
    """By the CID of this kernel itself, VMADDR_CID_LOCAL: nothing leaves the machine."""
    caller, _ = pair
    status, told = caller.ask("/call?vsock=1&port=41000&rate=500&count=3&timeout_ms=500")
    assert status == 200, told
    assert told["latency_ns"] == [None] * 3
    assert told["outcomes"]["refused"] + told["outcomes"]["timeout"] == 3


def test_a_service_that_is_to_listen_for_guests_serves_on_where_the_kernel_has_no_way_to_any(binary: Path) -> None:
    with started("env", "LAB_VSOCK=host", binary, nonce=NONCES[0]) as (process, port):
        status, told = Peer(process, port, NONCES[0]).ask("/healthz")
        assert (status, told["status"]) == (200, "ok")
    wrong = {"LAB_PORT": "0", "LAB_VSOCK": "all"}
    ended = subprocess.run([binary], env=wrong, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "LAB_VSOCK" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rate=1&count=1", "one of host, name, unix and vsock"),
        ("host=127.0.0.1&unix=a&port=1&rate=1&count=1", "one of host, name, unix and vsock"),
        ("host=127.0.0.1&rate=1&count=1", "port"),
        ("host=127.0.0.1&port=1&rate=0&count=1", "rate"),
        ("host=127.0.0.1&port=1&rate=20001&count=1", "rate"),
        ("host=127.0.0.1&port=1&rate=1&count=5001", "count"),
        ("host=127.0.0.1&port=1&rate=1&count=100", "too long"),
        ("host=127.0.0.1&port=1&rate=1&count=1&bytes=65537", "bytes"),
        ("host=127.0.0.1&port=1&rate=1&count=1&path=healthz", "slash"),
        ("host=127.0.0.1&port=1&rate=1&count=1&timeout_ms=0", "timeout_ms"),
    ],
)
def test_what_cannot_be_meant_is_refused(pair: tuple[Peer, Peer], query: str, problem: str) -> None:
    status, told = pair[0].ask(f"/call?{query}")
    assert status == 400
    assert problem in told["error"]


def test_a_name_that_nobody_knows_is_told_and_calls_nobody(pair: tuple[Peer, Peer]) -> None:
    status, told = pair[0].ask("/call?name=..&port=1&rate=1&count=1")
    assert (status, told["error"]) == (503, "the name is none of DNS")


@pytest.mark.parametrize("path", ["/call?unix=a&rate=1&count=1", "/chain", "/payload", "/chain/next"])
def test_whoever_has_no_nonce_has_no_calls_made(pair: tuple[Peer, Peer], path: str) -> None:
    method = "POST" if path in ("/payload", "/chain/next") else "GET"
    assert pair[0].ask(path, method=method, nonce="another")[0] == 403


def test_a_chain_goes_through_each_and_says_how_deep(pair: tuple[Peer, Peer]) -> None:
    caller, callee = pair
    assert caller.ask("/chain?within=4") == (200, {"depth": 4})
    assert caller.ask("/chain") == (200, {"depth": 1})
    next_one = f"/chain/next?host=127.0.0.1&port={callee.port}&nonce={callee.nonce}"
    assert caller.ask(next_one, method="POST")[0] == 200
    before = served(callee)
    assert caller.ask("/chain") == (200, {"depth": 2})
    assert served(callee) - before == 2
    assert caller.ask("/chain/next?unix=lab-nobody", method="POST")[0] == 200
    assert caller.ask("/chain")[0] == 503


def test_the_service_goes_on_after_all_of_it(pair: tuple[Peer, Peer]) -> None:
    told: list[Mapping[str, Any]] = [peer.ask("/healthz")[1] for peer in pair]
    assert told == [{"status": "ok"}] * 2
