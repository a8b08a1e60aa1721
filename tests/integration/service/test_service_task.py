"""The service's tasks: refused where they must be, counted as they go, and ended whatever else has died."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from service_process import started

from lab.errors import Unsupported
from lab.host import cgroup
from lab.service import ask
from lab.service.build import build_enter
from lab.service.task import Antagonist, TaskState, Trouble, start_task, task
from lab.spec import Endpoint, Spec
from lab.units import MIB

NONCE = "5eed0000000000000000000000000004"
WAIT_S = 30.0
SMALL: Mapping[Trouble | Antagonist, int] = {
    Trouble.MEMORY: 4,
    Trouble.FORKS: 6,
    Trouble.FILES: 32,
    Trouble.CPU: 2,
    Antagonist.BUSY: 2,
    Antagonist.BANDWIDTH: 2,
    Antagonist.CACHE: 2,
    Antagonist.FSYNC: 1,
    Antagonist.NETWORK: 2,
    Antagonist.EXECS: 2,
}
"""Kinds that any process may run, each with an amount that this machine hardly feels."""


class Service:
    """A running service, in the place of a session whose instance it is."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.session: Any = SimpleNamespace(
            instance=SimpleNamespace(endpoint=Endpoint("127.0.0.1", port)), spec=Spec(nonce=NONCE)
        )

    def start(self, kind: Trouble | Antagonist, *, seconds: int = 1, amount: int | None = None) -> psutil.Process:
        told = start_task(self.session, kind, seconds=seconds, amount=amount)
        assert told["kind"] == kind
        assert 0 < told["deadline_ns"] - told["started_ns"] <= seconds * 1e9
        return psutil.Process(told["pid"])

    def state(self) -> TaskState:
        return task(self.session)

    def ended(self) -> TaskState:
        wait_for(lambda: not self.state().running)
        return self.state()

    def family(self, leader: psutil.Process, least: int) -> list[psutil.Process]:
        """The task's processes, once there are so many."""
        wait_for(lambda: len(leader.children(recursive=True)) + 1 >= least)
        return [leader, *leader.children(recursive=True)]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def start(*command: str | Path) -> Iterator[Service]:
    with started(*command, nonce=NONCE) as (process, port):
        yield Service(process, port)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def service(binary: Path) -> Iterator[Service]:
    with start(binary) as started:
        yield started


@pytest.fixture
def limited(binary: Path, programs: Path, labels: dict[str, str]) -> Iterator[Service]:
    """A service within a cgroup of its own: 12 processes, 48 MiB, and no swap."""
    where = cgroup.places()
    if not where.can_set("pids") or not where.can_set("memory"):
        pytest.skip(f"no cgroup with limits can be made here: {dict(where.limits)}")
    wanted = cgroup.Limits(pids=12, memory_bytes=48 * MIB, swap_bytes=0)
    group = cgroup.make(where, labels, wanted)
    try:
        with start(build_enter(programs), *group.entrances, "--", binary) as started:
            assert (group.limits().pids, group.limits().memory_bytes) == (12, 48 * MIB)
            yield started
    finally:
        group.remove(timeout_s=WAIT_S)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "kind must be"),
        ("seconds=1", "kind must be"),
        ("kind=sleep&seconds=1", "kind must be"),
        ("kind=files", "seconds must be"),
        ("kind=files&seconds=0", "seconds must be"),
        ("kind=files&seconds=121", "seconds must be"),
        ("kind=files&seconds=1s", "seconds must be"),
        ("kind=files&seconds=1&amount=0", "amount is beyond"),
        ("kind=files&seconds=1&amount=4097", '"most":4096'),
        ("kind=kill&seconds=1&amount=1", '"most":0'),
        ("kind=files&seconds=1&ammount=5", "only kind, seconds and amount"),
        ("kind=files&seconds=1&seconds=9", "only kind, seconds and amount"),
    ],
)
def test_what_cannot_be_meant_is_told_and_not_done(service: Service, query: str, said: str) -> None:
    with pytest.raises(ask.Refused) as refused:
        ask.post(service.session, f"/task/start?{query}")
    assert refused.value.status == 400
    assert said in refused.value.details
    assert service.state().kind == ""


def test_nobody_starts_a_task_without_the_nonce_or_by_get(service: Service) -> None:
    with pytest.raises(ask.Refused) as refused:
        ask.get(service.session, "/task/start?kind=busy&seconds=1")
    assert refused.value.status == 405
    service.session.spec = Spec(nonce="wrong")
    for request in (lambda: service.start(Antagonist.BUSY), service.state):
        with pytest.raises(ask.Refused) as refused:
            request()
        assert refused.value.status == 403


def test_one_at_a_time_and_the_next_when_it_has_ended(service: Service) -> None:
    first = service.start(Trouble.FORKS, amount=3)
    with pytest.raises(Unsupported, match="a task is running"):
        service.start(Trouble.FILES)
    assert service.state().pid == first.pid
    state = service.ended()
    assert (state.kind, state.made, state.signal, state.exit_code) == ("forks", 3, signal.SIGALRM, None)
    assert state.ended_ns is not None and state.ended_ns >= state.deadline_ns
    second = service.start(Trouble.FORKS, amount=2)
    assert second.pid != first.pid
    wait_for(lambda: service.state().made == 2)
    second.kill()
    assert service.ended().signal == signal.SIGKILL


def test_a_fork_bomb_ends_at_its_amount_and_is_gone_after_its_deadline(service: Service) -> None:
    leader = service.start(Trouble.FORKS, amount=20)
    family = service.family(leader, 21)
    assert len(family) == 21
    assert {os.getsid(one.pid) for one in family} == {leader.pid} != {os.getsid(service.process.pid)}
    assert service.ended().made == 20
    assert not psutil.wait_procs(family, WAIT_S)[1]


def test_a_fork_bomb_ends_at_the_limit_and_the_service_answers_meanwhile(limited: Service) -> None:
    limited.start(Trouble.FORKS, amount=100)
    wait_for(lambda: limited.state().refused >= 3)
    state = limited.state()
    assert (state.made, state.errno, state.running) == (10, errno.EAGAIN, True)  # beside the service and the leader
    limited.ended()
    wait_for(lambda: not psutil.Process(limited.process.pid).children())
    limited.start(Trouble.FILES, amount=16)  # there is room again


def test_a_memory_hog_is_killed_at_the_limit_and_not_the_service(limited: Service) -> None:
    limited.start(Trouble.MEMORY, seconds=20, amount=200)
    state = limited.ended()
    assert state.signal == signal.SIGKILL
    assert 24 * MIB < state.bytes <= 48 * MIB
    assert limited.process.poll() is None


def test_a_memory_hog_holds_its_amount_and_offers_itself_to_be_killed(service: Service) -> None:
    leader = service.start(Trouble.MEMORY, amount=8)
    own, its = (Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in (service.process.pid, leader.pid))
    assert its == "1000\n" != own
    wait_for(lambda: service.state().bytes == 8 * MIB)
    assert leader.memory_info().rss > 8 * MIB
    assert service.ended().signal == signal.SIGALRM


def test_memory_that_the_kernel_refuses_is_counted(binary: Path) -> None:
    with start("prlimit", f"--as={24 * MIB}", binary) as bounded:
        bounded.start(Trouble.MEMORY, amount=64)
        wait_for(lambda: bounded.state().refused == 1)
        state = bounded.state()
        assert state.errno == errno.ENOMEM
        assert 0 < state.bytes < 24 * MIB


def test_files_end_at_the_tasks_own_limit(service: Service) -> None:
    leader = service.start(Trouble.FILES, amount=100)
    wait_for(lambda: service.state().refused == 1)
    assert leader.num_fds() == 100
    assert leader.rlimit(psutil.RLIMIT_NOFILE) == (100, 100)
    state = service.state()
    assert (state.made, state.errno) == (97, errno.EMFILE)  # beside stdin, stdout and stderr
    assert psutil.Process(service.process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] > 100


def test_the_limit_on_files_is_never_raised(binary: Path) -> None:
    with start("prlimit", "--nofile=64:64", binary) as bounded, pytest.raises(Unsupported, match="below amount"):
        bounded.start(Trouble.FILES, amount=65)


@contextlib.contextmanager
def with_tmp(binary: Path, root: Path, options: str) -> Iterator[Service]:
    """The service in a root of its own, whose /tmp is a tmpfs with `options`, or none where they are empty."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, to make a mount namespace")
    for name in ("tmp", "proc"):
        (root / name).mkdir(parents=True)
    shutil.copy(binary, root / "service")
    script = 'mount --bind /proc "$1/proc" && { [ -z "$2" ] || mount -t tmpfs -o "$2" none "$1/tmp"; } '
    script += '&& exec chroot "$1" /service'
    with start("unshare", "--mount", "sh", "-c", script, "sh", root, options) as inside:
        yield inside


@pytest.mark.parametrize(
    ("options", "why"), [("", "no tmpfs"), ("size=0", "without a limit"), ("size=8m", "more MiB than amount")]
)
def test_no_disk_is_filled_whose_size_is_not_proven(binary: Path, tmp_path: Path, options: str, why: str) -> None:
    with with_tmp(binary, tmp_path / "root", options) as inside, pytest.raises(Unsupported, match=why):
        inside.start(Trouble.DISK, amount=7)


def test_a_disk_is_filled_to_its_size_and_is_empty_again(binary: Path, tmp_path: Path) -> None:
    with with_tmp(binary, tmp_path / "root", "size=1m") as inside:
        tmp = Path(f"/proc/{inside.process.pid}/root/tmp")
        inside.start(Trouble.DISK)
        wait_for(lambda: inside.state().refused == 1)
        assert os.statvfs(tmp).f_bfree == 0
        state = inside.ended()
        assert (state.bytes, state.errno) == (MIB, errno.ENOSPC)
        wait_for(lambda: os.statvfs(tmp).f_bfree == os.statvfs(tmp).f_blocks)
        assert list(tmp.iterdir()) == []


def test_cpus_are_spun_by_as_many_processes(service: Service) -> None:
    leader = service.start(Trouble.CPU)
    assert len(service.family(leader, os.cpu_count() or 1)) == os.cpu_count() == service.state().amount
    state = service.ended()
    assert state.made == os.cpu_count()
    assert state.operations > 0


def test_the_service_is_killed_and_takes_the_task_with_it(service: Service) -> None:
    leader = service.start(Trouble.KILL)
    assert service.process.wait(WAIT_S) == -signal.SIGKILL
    assert not psutil.wait_procs([leader], WAIT_S)[1]


def test_a_service_that_is_pid_1_is_not_killed_from_within(binary: Path) -> None:
    probe = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*probe, "true"], capture_output=True, timeout=WAIT_S, check=False).returncode != 0:
        pytest.skip("namespaces cannot be made here")
    with start(*probe, binary) as first:
        with pytest.raises(Unsupported, match="pid 1"):
            start_task(first.session, Trouble.KILL, seconds=1)
        assert first.state().kind == ""


def test_no_kernel_panics_that_is_not_a_guests_with_leave(service: Service) -> None:
    with pytest.raises(Unsupported, match="no guest that was started with leave"):
        service.start(Trouble.PANIC)
    assert service.state().kind == ""


def test_each_antagonist_counts_and_ends_by_itself(binary: Path) -> None:
    with contextlib.ExitStack() as running:
        services = {kind: running.enter_context(start(binary)) for kind in Antagonist}
        leaders = {}
        for kind, one in services.items():
            try:
                leaders[kind] = one.start(kind, amount=SMALL[kind])
            except Unsupported as refused:
                assert (kind, "no disk" in str(refused)) == (Antagonist.FSYNC, True)
        left = [path for path in (Path("/var/tmp/.lab-task"), Path("/.lab-task")) if path.exists()]
        assert len(left) == (Antagonist.FSYNC in leaders)
        for kind in leaders:
            state = services[kind].ended()
            assert (state.exit_code, state.signal, state.refused) == (0, None, 0), state
            assert state.ended_ns is not None and state.deadline_ns <= state.ended_ns
            assert state.operations > 0, state
            assert (state.bytes > 0) == (kind not in (Antagonist.BUSY, Antagonist.EXECS)), state
            assert psutil.Process(services[kind].process.pid).children() == []
        assert not any(path.exists() for path in left)


@pytest.mark.parametrize("victim", ["service", "leader"])
def test_every_kind_ends_when_the_service_or_its_first_process_is_killed(binary: Path, victim: str) -> None:
    with contextlib.ExitStack() as running:
        families = []
        for kind, amount in SMALL.items():
            one = running.enter_context(start(binary))
            try:
                leader = one.start(kind, seconds=100, amount=amount)
            except Unsupported:
                assert kind is Antagonist.FSYNC  # this machine has no disk at /var/tmp or /
                continue
            processes = {Trouble.FORKS: 7, Trouble.CPU: 2, Antagonist.BUSY: 2, Antagonist.NETWORK: 4}
            families += one.family(leader, processes.get(kind, 1))
            os.kill(one.process.pid if victim == "service" else leader.pid, signal.SIGKILL)
            if victim == "leader":
                assert one.ended().signal == signal.SIGKILL
        assert not psutil.wait_procs(families, WAIT_S)[1]
        assert not any(Path(path).exists() for path in ("/var/tmp/.lab-task", "/.lab-task"))


def test_every_process_has_a_deadline_of_its_own(service: Service) -> None:
    leader = service.start(Trouble.FORKS, seconds=2, amount=5)
    family = service.family(leader, 6)
    stopped = [psutil.Process(service.process.pid), leader]
    for one in stopped:
        one.suspend()  # neither can end anybody now
    try:
        wait_for(lambda: all(child.status() == psutil.STATUS_ZOMBIE for child in family[1:]))
        assert leader.status() == psutil.STATUS_STOPPED
    finally:
        for one in stopped:
            one.resume()
    assert service.ended().signal == signal.SIGALRM
    assert not psutil.wait_procs(family, WAIT_S)[1]


def test_every_kind_ends_at_its_deadline_though_who_asked_for_it_is_dead(binary: Path) -> None:
    script = (
        "import http.client, sys, time\n"
        "for port, query in (word.split('/') for word in sys.argv[2:]):\n"
        "    connection = http.client.HTTPConnection('127.0.0.1', int(port))\n"
        "    connection.request('POST', f'/task/start?seconds=9&{query}', headers={'X-Lab-Nonce': sys.argv[1]})\n"
        "    connection.getresponse().read()\n"
        "print('asked', flush=True)\n"
        "time.sleep(100)\n"
    )
    with contextlib.ExitStack() as running:
        services = {kind: running.enter_context(start(binary)) for kind in SMALL}
        queries = [f"{one.port}/kind={kind}&amount={SMALL[kind]}" for kind, one in services.items()]
        with subprocess.Popen([sys.executable, "-c", script, NONCE, *queries], stdout=subprocess.PIPE) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == b"asked\n"
            asking.kill()
        states = {kind: one.state() for kind, one in services.items()}
        begun = {kind for kind, state in states.items() if state.running}
        assert set(SMALL) - begun <= {Antagonist.FSYNC}, states
        families: list[psutil.Process] = []
        for kind in begun:
            with contextlib.suppress(psutil.NoSuchProcess):  # one that ended just now is told of below
                families += services[kind].family(psutil.Process(states[kind].pid), 1)
        for kind in begun:
            state = services[kind].ended()
            assert state.signal == (signal.SIGALRM if kind in Trouble else None), state
            assert state.ended_ns is not None and state.ended_ns >= state.deadline_ns
        assert not psutil.wait_procs(families, WAIT_S)[1]


def test_an_asker_that_does_not_wait_for_the_answer_has_its_task_ended_too(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S) as connection:
        head = f"POST /task/start?kind=forks&seconds=1&amount=3 HTTP/1.1\r\nHost: x\r\nX-Lab-Nonce: {NONCE}\r\n\r\n"
        connection.sendall(head.encode())
    wait_for(lambda: service.state().made == 3)
    assert service.ended().signal == signal.SIGALRM
