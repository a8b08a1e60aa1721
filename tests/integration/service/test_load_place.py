"""Where the load's client runs: held to CPUs of the host, or beside the service in its container."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lab.errors import LabError
from lab.features import ExecResult
from lab.host.procfs import read_cpu_list, read_fields
from lab.service.build import build_service
from lab.service.load import run_load, run_load_inside, start_load
from lab.spec import Endpoint
from lab.store.place import cache_dir


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Endpoint("127.0.0.1", server.server_address[1])
        server.shutdown()


def test_a_client_is_held_to_its_cpus(endpoint: Endpoint) -> None:
    cpu = min(os.sched_getaffinity(0))
    with start_load(endpoint, rate=20, seconds=0.5, cpus=(cpu,)) as client:
        pid = client._process.pid
        deadline = time.monotonic() + 10.0
        while Path(f"/proc/{pid}/exe").readlink().name != build_service(cache_dir()).name:
            assert time.monotonic() < deadline, "it does not become the client"
            time.sleep(0.005)
        assert read_cpu_list(read_fields(Path(f"/proc/{pid}/status"))["Cpus_allowed_list"]) == [cpu]
        found = client.result()
    assert len(found.requests) == 10 and found.failed == 0


def test_cpus_that_are_not_there_are_an_error(endpoint: Endpoint) -> None:
    with pytest.raises(LabError, match="status 125") as raised:
        run_load(endpoint, rate=20, seconds=0.5, cpus=(8191,))
    assert "cpus=8191" in raised.value.details


class Container:
    """Runs here what it is to run inside, where the service's program is /service."""

    def __init__(self) -> None:
        self.argv: Sequence[str] = ()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        self.argv = argv
        command = [str(build_service(cache_dir())), *argv[1:]]
        ended = subprocess.run(command, capture_output=True, timeout=timeout_s, check=False)
        return ExecResult(ended.returncode, ended.stdout, ended.stderr)


def test_a_client_inside_tells_the_same(endpoint: Endpoint) -> None:
    container = Container()
    found = run_load_inside(container, endpoint.port, rate=20, seconds=0.5)
    assert list(container.argv[:4]) == ["/service", "load", "--host", "127.0.0.1"]
    assert len(found.requests) == 10 and found.failed == 0
    with pytest.raises(LabError, match="failed inside"):
        run_load_inside(container, 0, rate=20, seconds=0.5)
    with pytest.raises(LabError, match="too long"):
        run_load_inside(container, endpoint.port, rate=5000, seconds=60)
