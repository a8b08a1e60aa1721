"""The service's fixed mix of system calls: the same each time, none failed, and nothing to choose."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from lab.service.build import build_service
from lab.store.place import cache_dir

NONCE = "5eed0000000000000000000000000008"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"LAB_PORT": str(port), "LAB_NONCE": NONCE}
    process = subprocess.Popen([str(build_service(cache_dir()))], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(2)] == [b"main", b"listening"]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def post(address: str, path: str, *, method: str = "POST", nonce: str = NONCE) -> httpx.Response:
    return httpx.request(method, address + path, headers={"X-Lab-Nonce": nonce}, timeout=30, trust_env=False)


def test_the_mix_is_the_same_each_time_and_none_of_it_fails(address: str) -> None:
    first, second = post(address, "/mix").json(), post(address, "/mix").json()
    assert first == second
    calls = first["calls"]
    assert len({one["number"] for one in calls}) == len(calls) == 11
    assert [one["name"] for one in calls if one["failed"]] == []
    assert sum(one["count"] for one in calls) == 460


@pytest.mark.parametrize(
    ("path", "method", "nonce", "status"),
    [("/mix?count=1", "POST", NONCE, 400), ("/mix", "GET", NONCE, 405), ("/mix", "POST", "0" * 32, 403)],
)
def test_there_is_nothing_to_choose(address: str, path: str, method: str, nonce: str, status: int) -> None:
    assert post(address, path, method=method, nonce=nonce).status_code == status
