"""The service itself, over raw sockets: endpoints, refusals, caps, marks and signals."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.errors import BadInput, LabError
from lab.host.pinning import cpu_list
from lab.host.procfs import read_cpu_list
from lab.service import build as service_build
from lab.service.build import (
    Compiler,
    available_compilers,
    build,
    build_enter,
    build_guest_init,
)
from lab.service.guest_config import GuestConfig

NONCE = "5eed0000000000000000000000000001"
WAIT_S = 20.0
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--net"]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    port: int

    def ask(self, request: bytes) -> bytes:
        """All that comes back until the service closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as connection:
            connection.sendall(request)
            return read_to_end(connection)

    def get(self, path: str, *, method: str = "GET", nonce: str | None = NONCE) -> tuple[int, dict[str, str], Any]:
        header = "" if nonce is None else f"X-Lab-Nonce: {nonce}\r\n"
        answer = self.ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode())
        return parse(answer)


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while block := connection.recv(65536):
        received += block
    return received


def parse(answer: bytes) -> tuple[int, dict[str, str], Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert int(headers["content-length"]) == len(body)
    return int(lines[0].split()[1]), headers, json.loads(body)


@contextlib.contextmanager
def running(binary: Path, *, prefix: tuple[str, ...] = (), **environment: str) -> Iterator[Service]:
    port = free_port()
    process = subprocess.Popen(
        [*prefix, str(binary)],
        env={"LAB_PORT": str(port), "LAB_NONCE": NONCE, **environment},
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        process.first_lines = [process.stdout.readline(), process.stdout.readline()]  # type: ignore[attr-defined]
        yield Service(process, port)
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


@pytest.fixture(scope="module")
def service(binary: Path) -> Iterator[Service]:
    with running(binary, LAB_VERSION="v7") as started:
        yield started


def test_healthz_needs_no_nonce(service: Service) -> None:
    status, headers, body = service.get("/healthz", nonce=None)
    assert (status, body, headers["x-lab-version"]) == (200, {"status": "ok"}, "v7")
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/clock", "/work?us=1", "/job?steps=1", "/facts"])
@pytest.mark.parametrize("nonce", [None, "", "wrong", NONCE[:-1], NONCE[:-1] + "2", NONCE + "0"])
def test_other_endpoints_refuse_without_the_nonce(service: Service, path: str, nonce: str | None) -> None:
    status, headers, body = service.get(path, nonce=nonce)
    assert status == 403
    assert NONCE not in json.dumps(body)
    assert headers["x-lab-version"] == "v7"


def test_alloc_refuses_without_the_nonce(service: Service) -> None:
    assert service.get("/alloc?mib=1", method="POST", nonce=None)[0] == 403


def test_an_empty_nonce_admits_nobody(binary: Path) -> None:
    with running(binary, LAB_NONCE="") as unsecured:
        assert unsecured.get("/clock", nonce="")[0] == 403
        assert unsecured.get("/clock", nonce=None)[0] == 403
        assert unsecured.get("/healthz", nonce=None)[0] == 200


def test_clock_tells_instants_in_order_on_the_hosts_clock(service: Service) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    status, _, clock = service.get("/clock")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert status == 200
    assert clock["nonce"] == NONCE
    assert 0 < clock["main_ns"] < clock["listening_ns"] < before < clock["now_ns"] < after
    assert clock["main_boottime_ns"] < clock["listening_boottime_ns"] < clock["now_boottime_ns"]
    assert clock["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert clock["kernel"] == os.uname().release
    assert clock["pid"] == service.process.pid
    assert clock["time_namespace"] == str(Path("/proc/self/ns/time").readlink())
    assert clock["version"] == "v7"


def test_clock_tells_how_often_it_answered_and_a_token_that_each_start_draws_anew(binary: Path) -> None:
    tokens = set()
    for _ in range(2):
        with running(binary) as started:
            assert started.get("/nowhere", nonce=None)[0] == 404 and started.ask(b"no HTTP\r\n\r\n")
            told = [started.get("/clock")[2] for _ in range(2)]
        assert [one["served"] for one in told] == [3, 4], (
            "every answer counts, a refusal too, and the one that tells it"
        )
        tokens |= {one["token"] for one in told}
    assert len(tokens) == 2 and all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)


@pytest.mark.parametrize("given", [{"LAB_IDLE_MS": "100"}, {"LAB_IDLE_MS": "soon"}])
def test_it_ends_for_idleness_only_where_somebody_else_keeps_its_socket(binary: Path, given: Mapping[str, str]) -> None:
    environment = {"LAB_PORT": str(free_port()), "LAB_NONCE": NONCE, "LISTEN_PID": "1", "LISTEN_FDS": "1", **given}
    ended = subprocess.run([binary], env=environment, capture_output=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 2 and b"LAB_IDLE_MS: " in ended.stderr


def test_marks_are_written_to_stdout_with_the_clocks_values(service: Service) -> None:
    _, _, clock = service.get("/clock")
    assert service.process.first_lines == [  # type: ignore[attr-defined]
        f"lab {NONCE} main {clock['main_ns']}\n".encode(),
        f"lab {NONCE} listening {clock['listening_ns']}\n".encode(),
    ]


def test_work_takes_at_least_what_was_asked(service: Service) -> None:
    status, _, work = service.get("/work?us=3000")
    assert status == 200
    assert work["requested_us"] == 3000
    assert work["took_ns"] >= 3_000_000
    assert work["iterations"] > 0


def test_work_does_not_block_others_and_is_reaped(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as working:
        working.sendall(f"GET /work?us=400000 HTTP/1.1\r\nHost: x\r\nX-Lab-Nonce: {NONCE}\r\n\r\n".encode())
        assert service.get("/healthz")[0] == 200
        working.setblocking(False)
        with pytest.raises(BlockingIOError):
            working.recv(1)
        working.settimeout(WAIT_S)
        assert parse(read_to_end(working))[0] == 200
    service.get("/healthz")
    wait_for(lambda: not psutil.Process(service.process.pid).children())


def test_work_is_capped_in_number(binary: Path) -> None:
    request = f"GET /work?us=10000000 HTTP/1.1\r\nHost: x\r\nX-Lab-Nonce: {NONCE}\r\n\r\n".encode()
    with running(binary) as busy, contextlib.ExitStack() as connections:
        # Stopped as soon as made: sixteen spinning processes would be a load on whoever runs the tests.
        for count in range(1, 17):
            connection = socket.create_connection(("127.0.0.1", busy.port), timeout=WAIT_S)
            connections.enter_context(connection).sendall(request)
            wait_for(lambda count=count: len(psutil.Process(busy.process.pid).children()) == count)
            psutil.Process(busy.process.pid).children()[-1].suspend()
        children = psutil.Process(busy.process.pid).children()
        assert busy.get("/work?us=1")[0] == 503
        busy.process.terminate()
        assert busy.process.wait(WAIT_S) == 0
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()  # one may have been stopped before it had bound its life to the service's
        assert not psutil.wait_procs(children, WAIT_S)[1]


def test_a_job_does_all_of_its_steps_by_its_own_cpu_time(service: Service) -> None:
    status, _, few = service.get("/job?steps=1000000")
    assert status == 200
    assert (few["nonce"], few["steps"], few["mib"]) == (NONCE, 1_000_000, 0)
    _, _, many = service.get("/job?steps=20000000&mib=4")
    assert (many["steps"], many["mib"]) == (20_000_000, 4)
    assert many["cpu_ns"] > 5 * few["cpu_ns"] > 0, "twenty times the work"
    assert few["token"] == many["token"] == service.get("/clock")[2]["token"]
    assert many["served"] > few["served"]


def test_jobs_share_the_room_for_their_memory_and_one_that_does_not_fit_is_refused(binary: Path) -> None:
    request = f"GET /job?steps=20000000000&mib=8&room=20 HTTP/1.1\r\nHost: x\r\nX-Lab-Nonce: {NONCE}\r\n\r\n".encode()
    with running(binary) as busy, contextlib.ExitStack() as connections:
        for count in (1, 2):
            connection = socket.create_connection(("127.0.0.1", busy.port), timeout=WAIT_S)
            connections.enter_context(connection).sendall(request)
            wait_for(lambda count=count: len(psutil.Process(busy.process.pid).children()) == count)
        children = psutil.Process(busy.process.pid).children()
        wait_for(lambda: all(child.memory_info().rss > 8 * 2**20 for child in children))
        assert busy.get("/job?steps=1&mib=8&room=20")[::2] == (503, {"error": "no room for this job's memory"})
        assert busy.get("/job?steps=1&mib=3&room=20")[0] == 200, "a smaller one fits"
        assert busy.get("/job?steps=1")[0] == 200
        busy.process.terminate()
        assert busy.process.wait(WAIT_S) == 0
        assert not psutil.wait_procs(children, WAIT_S)[1]


@pytest.mark.parametrize("query", ["", "?steps=0", "?steps=x", "?steps=20000000001", "?steps=1&mib=4097", "?mib=1"])
def test_a_job_refuses_what_is_no_number_within_its_cap(service: Service, query: str) -> None:
    assert service.get(f"/job{query}")[0] == 400


def test_alloc_holds_touches_and_frees(binary: Path) -> None:
    with running(binary) as holder:
        memory = psutil.Process(holder.process.pid).memory_info
        assert memory().rss < 4 * 2**20
        assert holder.get("/alloc?mib=24", method="POST")[2] == {"held_mib": 24}
        assert holder.get("/alloc?mib=8", method="POST")[2] == {"held_mib": 32}
        assert 32 * 2**20 <= memory().rss < 40 * 2**20
        assert holder.get("/facts")[2]["allocated_mib"] == 32
        assert holder.get("/alloc?mib=0", method="POST")[2] == {"held_mib": 0}
        assert memory().rss < 8 * 2**20


def test_alloc_answers_507_beyond_its_cap_and_where_the_kernel_has_none(binary: Path) -> None:
    with running(binary) as holder:
        assert holder.get("/alloc?mib=2", method="POST")[0] == 200
        assert holder.get("/alloc?mib=4095", method="POST")[0] == 507
    with running(binary, prefix=("prlimit", "--as=67108864")) as limited:
        assert limited.get("/alloc?mib=512", method="POST")[0] == 507
        assert limited.get("/alloc?mib=4", method="POST")[2] == {"held_mib": 4}


def test_facts_tell_what_the_service_can_see(service: Service) -> None:
    status, _, facts = service.get("/facts")
    assert status == 200
    assert facts["pid"] == service.process.pid
    assert (facts["uid"], facts["gid"]) == (os.getuid(), os.getgid())
    assert facts["namespaces"]["net"] == str(Path("/proc/self/ns/net").readlink())
    assert facts["cpus_online"] == os.cpu_count()
    assert facts["memory_total"] in Path("/proc/meminfo").read_text()
    assert facts["cgroup"].splitlines()
    assert re.fullmatch("[0-9a-f]{16}", facts["capabilities_effective"])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"OPTIONS /clock HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"GET /alloc?mib=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nBad Name : y\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"POST /alloc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /alloc HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n" + b"a" * 65537, 413),
        (b"POST /alloc HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"\r\nGET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\n\n", 200),
    ],
)
def test_refusals(service: Service, request_bytes: bytes, status: int) -> None:
    answer = service.ask(request_bytes)
    assert parse(answer)[0] == status
    assert parse(answer)[1]["connection"] == "close"


@pytest.mark.parametrize(
    "query", ["", "?", "?us=", "?us=x", "?us=-1", "?us=10000001", "?us=1&us=2", "?mib=1", "?us=1x"]
)
def test_work_refuses_what_is_no_number_within_its_cap(service: Service, query: str) -> None:
    assert service.get(f"/work{query}")[0] == 400


def test_alloc_refuses_what_is_no_number_within_its_cap(service: Service) -> None:
    assert service.get("/alloc?mib=4097", method="POST")[0] == 400
    assert service.get("/alloc", method="POST")[0] == 400


def test_keep_alive_pipelining_and_bodies(service: Service) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as connection:
        connection.sendall(request * 5 + request[:-2])
        received = b""
        while received.count(b'{"status":"ok"}') < 5:
            received += connection.recv(65536)
        connection.sendall(b"bc" + last)
        received += read_to_end(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 7
    assert received.count(b"Connection: close") == 1


def test_a_head_may_come_byte_by_byte_while_others_are_served(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /healthz HTTP/1.0\r\n\r\n":
            slow.sendall(bytes([byte]))
            assert service.get("/healthz")[0] == 200
        assert parse(read_to_end(slow))[0] == 200


def test_stalled_connections_block_nobody_and_the_cap_holds(binary: Path) -> None:
    with running(binary) as crowded, contextlib.ExitStack() as stack:
        stalled = [
            stack.enter_context(socket.create_connection(("127.0.0.1", crowded.port), timeout=WAIT_S))
            for _ in range(511)
        ]
        for connection in stalled:
            connection.sendall(b"GET /hea")
        assert crowded.get("/clock")[0] == 200
        stalled.append(stack.enter_context(socket.create_connection(("127.0.0.1", crowded.port), timeout=WAIT_S)))
        stalled[-1].sendall(b"GET /hea")
        with socket.create_connection(("127.0.0.1", crowded.port), timeout=WAIT_S) as beyond:
            assert parse(read_to_end(beyond))[0] == 503
        stalled[0].sendall(b"lthz HTTP/1.0\r\n\r\n")
        assert parse(read_to_end(stalled[0]))[0] == 200
        assert crowded.get("/healthz")[0] == 200


def test_descriptors_running_out_is_survived(binary: Path) -> None:
    with running(binary, prefix=("prlimit", "--nofile=8")) as poor, contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection(("127.0.0.1", poor.port), timeout=WAIT_S))
        before = psutil.Process(poor.process.pid).cpu_times()
        time.sleep(0.3)
        after = psutil.Process(poor.process.pid).cpu_times()
        assert after.user + after.system - before.user - before.system < 0.15  # it waits, it does not spin
        stack.close()
        assert poor.get("/healthz")[0] == 200


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_status_0(binary: Path, which: signal.Signals) -> None:
    with running(binary) as ending:
        ending.process.send_signal(which)
        assert ending.process.wait(WAIT_S) == 0


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"LAB_PORT": "x"}, b"LAB_PORT"),
        ({"LAB_PORT": "65536"}, b"LAB_PORT"),
        ({}, b"LAB_PORT"),
        ({"LAB_PORT": "0", "LAB_HOST": "localhost"}, b"LAB_HOST"),
        ({"LAB_PORT": "0", "LAB_NONCE": "a b"}, b"LAB_NONCE"),
        ({"LAB_PORT": "0", "LAB_VERSION": "a\r\nb"}, b"LAB_VERSION"),
    ],
)
def test_a_bad_environment_is_one_line_and_status_2(binary: Path, environment: Mapping[str, str], name: bytes) -> None:
    result = subprocess.run([binary], env=dict(environment), capture_output=True, timeout=WAIT_S, check=False)
    assert result.returncode == 2
    assert name in result.stderr
    assert result.stderr.count(b"\n") == 1


def test_a_taken_port_is_one_line_and_status_1_after_the_main_mark(binary: Path, service: Service) -> None:
    environment = {"LAB_PORT": str(service.port), "LAB_NONCE": NONCE}
    result = subprocess.run([binary], env=environment, capture_output=True, timeout=WAIT_S, check=False)
    assert result.returncode == 1
    assert re.fullmatch(rb"service: bind: Address .*in use\n", result.stderr)  # each libc has its own words
    assert re.fullmatch(rb"lab %s main \d+\n" % NONCE.encode(), result.stdout)


def test_without_a_network_it_listens_on_loopback_all_the_same(binary: Path) -> None:
    process = subprocess.Popen([binary], env={"LAB_NETWORK": "none", "LAB_NONCE": NONCE}, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b" main " in process.stdout.readline()
        assert b" listening " in process.stdout.readline()
        assert [c.laddr.ip for c in psutil.Process(process.pid).net_connections()] == ["127.0.0.1"]
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()  # type: ignore[union-attr]


def test_a_closed_stdout_does_not_end_it(binary: Path) -> None:
    port = free_port()
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen([binary], env={"LAB_PORT": str(port)}, stdout=write_end)
    os.close(write_end)
    try:
        wait_for(lambda: answers(port))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(WAIT_S)


def test_as_pid_1_it_reaps_orphans_and_ends_at_sigterm(binary: Path) -> None:
    need_namespaces()
    # The shell leaves an orphan behind and then becomes the service, pid 1 of its namespace.
    script = f"(sleep 0.2 & ) ; exec {binary}"
    port = free_port()
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
        env={"LAB_PORT": str(port), "LAB_NONCE": NONCE, "PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(port))
        as_pid_1 = Service(process, port)
        assert as_pid_1.get("/clock")[2]["pid"] == 1
        inside = psutil.Process(process.pid).children()[0]
        wait_for(lambda: not inside.children())
        inside.terminate()
        assert process.wait(WAIT_S) == 0
    finally:
        process.kill()
        process.wait(WAIT_S)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=WAIT_S):
        return True
    return False


def need_namespaces() -> None:
    probe = subprocess.run([*UNSHARE, "--mount-proc", "true"], capture_output=True, timeout=WAIT_S, check=False)
    if probe.returncode != 0:
        pytest.skip(f"namespaces cannot be made here: {probe.stderr.decode().strip()}")


# The guest's pid 1, in namespaces of its own: the real one is tried in real guests.


@pytest.fixture(scope="session")
def guest_init(cache_dir: Path) -> Path:
    flags = ['-DLAB_COMMAND_LINE="/lab/cmdline"', '-DLAB_CONSOLE="/lab/console"']
    return build("guest-init", cache_dir, flags=flags)


def guest(root: Path, init: Path, binary: Path, config: GuestConfig | bytes, cmdline: str) -> list[str]:
    root.chmod(0o755)  # for guests of another user
    (root / "lab").mkdir()
    shutil.copy(init, root / "init")
    shutil.copy(binary, root / "service")
    (root / "lab/cmdline").write_text(f"console=ttyS0 {cmdline}\n")
    (root / "lab/config").write_bytes(config if isinstance(config, bytes) else config.encode())
    return [*UNSHARE, f"--root={root}", "/init"]


def test_guest_init_runs_the_service_and_stops_it(guest_init: Path, binary: Path, tmp_path: Path) -> None:
    need_namespaces()
    config = GuestConfig(argv=["/service"], service=True, scratch_bytes=2**20)
    command = guest(tmp_path, guest_init, binary, config, f"lab.nonce={NONCE}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert [line.split()[:3] for line in lines] == [
            [b"lab", NONCE.encode(), phase] for phase in (b"init", b"main", b"listening")
        ]
        instants = [int(line.split()[3]) for line in lines]
        assert instants == sorted(instants)
        psutil.Process(process.pid).children()[0].terminate()
        assert process.stdout.read() == b"lab-guest exit 0\n"
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


def test_guest_init_honours_user_groups_directory_and_environment(
    guest_init: Path, binary: Path, tmp_path: Path
) -> None:
    need_namespaces()
    environment = {"PATH": "/none:/", "A": "b c"}
    config = GuestConfig(
        argv=["service"], service=True, environment=environment, cwd="/var/made", uid=1234, gid=56, groups=[56, 789]
    )
    command = guest(tmp_path, guest_init, binary, config, "lab.port=81")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(3)] == [b"init", b"main", b"listening"]
        workload = psutil.Process(process.pid).children(recursive=True)[1]
        assert workload.cmdline() == ["service"]
        assert set(workload.uids()) == {1234}
        assert set(workload.gids()) == {56}
        assert "Groups:\t56 789 \n" in Path(f"/proc/{workload.pid}/status").read_text()
        assert workload.cwd().endswith("/var/made")
        own = {"LAB_NONCE": "", "LAB_PORT": "81", "LAB_NETWORK": "none", "HOSTNAME": "lab"}
        assert workload.environ() == environment | own
        psutil.Process(process.pid).children()[0].terminate()
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


def test_guest_init_makes_the_surroundings_that_engines_make(guest_init: Path, binary: Path, tmp_path: Path) -> None:
    need_namespaces()
    (tmp_path / "etc").mkdir()
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("the host's")
    (tmp_path / "etc/resolv.conf").symlink_to(outside)
    config = GuestConfig(
        argv=["service"],
        environment={"PATH": "::/absent:/"},
        service=True,
        volumes=["/data/deep"],
        stop_signal=signal.SIGINT,
        rlimits={"nofile": (99, 199), "core": (0, 0)},
        told_hostname=False,
    )
    command = guest(tmp_path, guest_init, binary, config, "lab.hostname=box lab.nonce=n")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(3)] == [b"init", b"main", b"listening"]
        workload = psutil.Process(process.pid).children(recursive=True)[1]
        assert (tmp_path / "etc/hostname").read_text() == "box\n"
        assert "127.0.0.1\tbox\n" in (tmp_path / "etc/hosts").read_text()
        assert (tmp_path / "etc/resolv.conf").read_text().startswith("nameserver 127.0.0.1\n")
        assert outside.read_text() == "the host's"
        assert (tmp_path / "data/deep").is_dir()
        assert "HOSTNAME" not in workload.environ()
        assert workload.rlimit(psutil.RLIMIT_NOFILE) == (99, 199)
        assert workload.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        psutil.Process(process.pid).children()[0].terminate()
        assert process.stdout.read() == b"lab-guest exit 0\n"
        process.wait(WAIT_S)
    finally:
        process.kill()
        process.wait(WAIT_S)
        process.stdout.close()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"argv\0/service", b"cut short"),
        (b"rlimit\x007:1\0argv\0/service\0", b"7:1 is no limit"),
        (b"argv\0", b"has no value"),
        (b"uid\0x\0argv\0/service\0", b"uid is not a number"),
        (b"what\0x\0", b"unknown key what"),
        (b"uid\x001\0", b"names no program"),
        (GuestConfig(argv=["/absent"]), b"/absent: No such file"),
    ],
)
def test_guest_init_says_what_is_wrong(
    guest_init: Path, binary: Path, tmp_path: Path, config: GuestConfig | bytes, said: bytes
) -> None:
    need_namespaces()
    command = guest(tmp_path, guest_init, binary, config, "lab.nonce=n")
    result = subprocess.run(command, capture_output=True, timeout=WAIT_S, stdin=subprocess.DEVNULL, check=False)
    assert b"lab-guest error: " in result.stdout
    assert said in result.stdout


@pytest.mark.parametrize(
    "config",
    [
        GuestConfig(argv=[]),
        GuestConfig(argv=["a\0b"]),
        GuestConfig(argv=["a"], cwd="relative"),
        GuestConfig(argv=["a"], environment={"A=B": "c"}),
        GuestConfig(argv=["a" * 300_000]),
        GuestConfig(argv=["a"] * 1024),
    ],
)
def test_guest_config_refuses_what_cannot_be_told(config: GuestConfig) -> None:
    with pytest.raises(BadInput):
        config.encode()


# The launcher into cgroups.


def test_enter_writes_to_each_file_and_becomes_the_program(cache_dir: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.touch()
    enter = build_enter(cache_dir)
    result = subprocess.run(
        [enter, *files, "--", "/usr/bin/env"], env={"X": "y"}, capture_output=True, timeout=WAIT_S, check=False
    )
    assert (result.returncode, result.stdout) == (0, b"X=y\n")
    assert [file.read_text() for file in files] == ["0", "0"]


def _ignore_what_the_c_library_keeps() -> None:
    """As a caller does that was built with another C library (rt_sigaction(2), by its number on this machine)."""
    if platform.machine() == "x86_64":
        ignored = struct.pack("QQQQ", 1, 0x04000000, 0, 0)  # SIG_IGN, with the restorer flag that x86-64 wants
        for number in (32, 33):
            ctypes.CDLL(None).syscall(13, number, ignored, None, 8)


def test_enter_gives_the_program_its_limits_and_nothing_of_its_caller(cache_dir: Path) -> None:
    command = [build_enter(cache_dir), "rlimit=7:64:99", "rlimit=4:0:0", "--", "/bin/cat"]
    of_self = ["/proc/self/limits", "/proc/self/status"]
    shell = ["/bin/sh", "-c", 'trap "" HUP INT QUIT USR1; umask 077; exec "$@"', "sh", *command, *of_self]
    told = subprocess.run(
        shell, capture_output=True, text=True, timeout=WAIT_S, check=True, preexec_fn=_ignore_what_the_c_library_keeps
    ).stdout
    assert re.search(r"Max open files +64 +99 ", told) and re.search(r"Max core file size +0 +0 ", told)
    assert re.search(r"SigIgn:\t0+\n", told) and "Umask:\t0022\n" in told


def test_enter_holds_the_program_to_cpus(cache_dir: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for wanted in (allowed[-1:], allowed[:2]):
        command = [build_enter(cache_dir), f"cpus={cpu_list(wanted)}", "--", "/bin/cat", "/proc/self/status"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
        (line,) = [line for line in told.splitlines() if line.startswith("Cpus_allowed_list:")]
        assert read_cpu_list(line.partition(":")[2].strip()) == wanted


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["/absent/cgroup.procs", "--", "/bin/true"], 125),
        (["cpus=", "--", "/bin/true"], 125),
        (["cpus=0,", "--", "/bin/true"], 125),
        (["cpus=-1", "--", "/bin/true"], 125),
        (["cpus=0,8191", "--", "/bin/true"], 125),  # the kernel grants the first of them
        (["cpus=8192", "--", "/bin/true"], 125),
        (["rlimit=7:1", "--", "/bin/true"], 125),
        (["rlimit=7:2:1", "--", "/bin/true"], 125),  # the kernel takes no soft limit above the hard one
        (["--"], 125),
        ([], 125),
        (["--", "/absent"], 127),
    ],
)
def test_enter_fails_clearly(cache_dir: Path, arguments: list[str], status: int) -> None:
    result = subprocess.run([build_enter(cache_dir), *arguments], capture_output=True, timeout=WAIT_S, check=False)
    assert result.returncode == status
    assert result.stderr.startswith(b"enter: ")


# The build.


def test_builds_are_cached_and_the_same_bytes_anywhere(cache_dir: Path, tmp_path: Path) -> None:
    first = build_enter(cache_dir)
    assert build_enter(cache_dir) == first
    elsewhere = build_enter(tmp_path / "not" / "yet" / "there")
    assert elsewhere.read_bytes() == first.read_bytes()
    assert elsewhere.name == first.name
    assert str(tmp_path).encode() not in elsewhere.read_bytes()
    assert [path.name for path in elsewhere.parent.iterdir()] == [elsewhere.name]


def test_programs_are_static(cache_dir: Path, binary: Path) -> None:
    for program in (binary, build_guest_init(cache_dir), build_enter(cache_dir)):
        headers = subprocess.run(["readelf", "-l", program], capture_output=True, check=True, timeout=WAIT_S).stdout
        assert b"INTERP" not in headers


def test_a_compiler_that_cannot_is_passed_over(tmp_path: Path) -> None:
    broken = Compiler(("false",), "false")
    path = build("enter", tmp_path, compilers=[broken, *available_compilers()])
    assert path.exists()


def test_what_one_compiler_has_built_no_other_is_asked_for(cache_dir: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    unasked = Compiler(("sh", "-c", f": > '{told}'; : > program"), "unasked")
    assert build("enter", tmp_path, compilers=[*available_compilers()[:1], unasked]).name == build_enter(cache_dir).name
    assert not told.exists()


def test_a_program_in_the_making_lies_where_it_is_found_if_its_maker_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    compiler = Compiler(("sh", "-c", f"pwd > '{told}'; : > program"), "played")
    assert build("enter", tmp_path, compilers=[compiler]).exists()
    assert Path(told.read_text().strip()).parent == tmp_path / "partial"


@pytest.mark.parametrize("compilers", [[], [Compiler(("false",), "false")], [Compiler(("/absent/cc",), "absent")]])
def test_no_compiler_is_one_clear_error(tmp_path: Path, compilers: list[Compiler]) -> None:
    with pytest.raises(LabError) as caught:
        build("enter", tmp_path, compilers=compilers)
    assert "apt-get install gcc" in caught.value.resolution
    assert caught.value.details


def test_the_same_sources_are_the_same_program_wherever_they_lie(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build("guest-init", cache_dir)
    shutil.copytree(service_build.SOURCE_DIR, tmp_path / "sources")
    monkeypatch.setattr(service_build, "SOURCE_DIR", tmp_path / "sources")
    again = build("guest-init", tmp_path / "cache")
    assert again.name == before.name and again.read_bytes() == before.read_bytes()
    assert str(tmp_path).encode() not in again.read_bytes()


def test_a_changed_source_is_another_program(cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_enter(cache_dir)
    shutil.copytree(service_build.SOURCE_DIR, tmp_path / "sources")
    with (tmp_path / "sources/cgroup/enter.c").open("a") as source:
        source.write("/* changed */\n")
    monkeypatch.setattr(service_build, "SOURCE_DIR", tmp_path / "sources")
    assert build_enter(cache_dir).name != before.name
