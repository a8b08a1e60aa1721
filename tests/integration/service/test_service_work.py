"""What the service measures of its own platform: each kind bounded, told whole, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from service_process import started

NONCE = "5eed0000000000000000000000000003"
WAIT_S = 30.0
KINDS = {"syscall": "count", "cpu": "count", "switch": "count", "memory": "mib", "fsync": "count"}
MOST = {"syscall": 10_000_000, "cpu": 1_000_000_000, "switch": 1_000_000, "memory": 4096, "fsync": 1000}


class Service:
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str, *, nonce: str = NONCE, method: str = "GET") -> tuple[int, Any]:
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.port}{path}",
            headers={"X-Lab-Nonce": nonce},
            timeout=WAIT_S,
            trust_env=False,
        )
        return answer.status_code, answer.json()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextlib.contextmanager
def start(binary: Path, *prefix: str) -> Iterator[Service]:
    with started(*prefix, binary, nonce=NONCE) as (process, port):
        yield Service(process, port)


@pytest.fixture
def service(binary: Path) -> Iterator[Service]:
    with start(binary) as started:
        yield started


def wait_for_no_children(service: Service) -> None:
    deadline = time.monotonic() + WAIT_S
    while service.children():
        assert time.monotonic() < deadline, service.children()
        time.sleep(0.01)


@pytest.mark.parametrize(("kind", "count"), [("syscall", 20_000), ("cpu", 200_000), ("switch", 400), ("fsync", 5)])
def test_each_kind_tells_its_count_and_every_chunk(service: Service, kind: str, count: int) -> None:
    before = time.monotonic_ns()
    status, told = service.get(f"/measure/{kind}?count={count}")
    took_ns = time.monotonic_ns() - before
    assert status == 200, told
    if kind == "fsync" and "absent" in told:
        pytest.skip("this machine has no disk at /var/tmp or /")
    assert told["count"] == count == told["chunk_count"] * len(told["chunks_ns"])
    assert len(told["chunks_ns"]) == min(100, count)
    assert 0 < told["clock_step_ns"] < 1_000_000  # this host's, where tests can run at all
    assert all(0 < chunk <= told["elapsed_ns"] for chunk in told["chunks_ns"])
    assert sum(told["chunks_ns"]) <= told["elapsed_ns"] < took_ns
    assert (
        0 < told["cpu_ns"] < took_ns
    )  # by another clock, and read around the chunks: of one thread, within the request
    wait_for_no_children(service)


def test_the_time_follows_the_count(service: Service) -> None:
    few, many = (
        min(service.get(f"/measure/cpu?count={count}")[1]["cpu_ns"] for _ in range(5))  # interrupts only add to it
        for count in (400_000, 40_000_000)
    )
    assert 20 < many / few < 500


def test_memory_tells_what_was_copied(service: Service) -> None:
    status, told = service.get("/measure/memory?mib=8")
    assert (status, told["bytes_per_pass"], told["count"]) == (200, 4 * 2**20, 20)


def test_memory_that_cannot_be_had_is_an_error(binary: Path) -> None:
    with start(binary, "prlimit", "--as=33554432") as limited:
        status, told = limited.get("/measure/memory?mib=64")
        assert (status, set(told)) == (500, {"error"})


def test_fsync_names_its_place_and_leaves_no_file(service: Service) -> None:
    _, told = service.get("/measure/fsync?count=3")
    if "absent" in told:
        pytest.skip("this machine has no disk at /var/tmp or /")
    assert told["block_bytes"] == 4096
    assert told["file_system"]
    assert not (Path(told["directory"]) / ".lab-fsync").exists()


def test_fsync_takes_away_the_file_of_one_that_was_killed(service: Service) -> None:
    _, told = service.get("/measure/fsync?count=1")
    if "absent" in told:
        pytest.skip("this machine has no disk at /var/tmp or /")
    left = Path(told["directory"]) / ".lab-fsync"
    left.write_bytes(b"left by a measurement that was killed")
    assert service.get("/measure/fsync?count=1")[0] == 200
    assert not left.exists()


def test_where_all_is_memory_fsync_is_absent_and_has_no_figure(binary: Path, tmp_path: Path) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, to make a mount namespace")
    root = tmp_path / "root"
    root.mkdir()
    script = 'mount -t tmpfs none "$1" && cp "$2" "$1/service" && exec chroot "$1" /service'
    with start(binary, "unshare", "--mount", "sh", "-c", script.replace("$2", str(binary)), "sh", str(root)) as alone:
        status, told = alone.get("/measure/fsync?count=3")
        assert (status, told) == (200, {"absent": "no disk"})


@pytest.mark.parametrize("kind", KINDS)
def test_no_count_beyond_the_bounds_is_taken(service: Service, kind: str) -> None:
    name = KINDS[kind]
    for query in ("", "?", f"?{name}=", f"?{name}=0", f"?{name}={MOST[kind] + 1}", f"?{name}=1x", "?us=1"):
        assert service.get(f"/measure/{kind}{query}")[0] == 400, query
    assert str(MOST[kind]) in service.get(f"/measure/{kind}?{name}=0")[1]["error"]


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_measures_without_the_nonce_or_by_another_method(service: Service, kind: str) -> None:
    path = f"/measure/{kind}?{KINDS[kind]}=1"
    assert service.get(path, nonce="wrong")[0] == 403
    assert service.get(path, method="POST")[0] == 405
    assert service.get("/measure/nothing?count=1")[0] == 404


def test_a_long_measurement_ends_by_its_own_limit_and_tells_what_was_done(service: Service) -> None:
    status, told = service.get("/measure/switch?count=1000000")
    assert status == 200
    assert told["count"] == told["chunk_count"] * len(told["chunks_ns"]) <= 1_000_000
    assert told["elapsed_ns"] < 3e9 + max(told["chunks_ns"])  # no chunk began after 3 s
    wait_for_no_children(service)


def test_others_are_served_meanwhile_and_none_outlives_the_service(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as measuring:
        head = f"GET /measure/switch?count=1000000 HTTP/1.1\r\nHost: x\r\nX-Lab-Nonce: {NONCE}\r\n\r\n"
        measuring.sendall(head.encode())
        deadline = time.monotonic() + WAIT_S
        while len(service.children()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert service.get("/healthz")[0] == 200
        children = service.children()
        service.process.kill()
        assert not psutil.wait_procs(children, WAIT_S)[1]
