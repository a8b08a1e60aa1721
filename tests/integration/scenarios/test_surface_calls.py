"""Every system call is tried once: truly, harmlessly, and by nobody who is still there afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from service_process import started

from scenarios.surface.syscalls import Outcome, Probed, Sees, differs, parse, refused, table

WAIT_S = 60.0
X86 = platform.machine() == "x86_64"
ROOT = os.geteuid() == 0

KILLED, REFUSED, HIDDEN, HELD = "getpgid", "sysinfo", "mlockall", "getsid"  # which the service itself never calls
FILTER = """
import ctypes, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
actions = dict(pair.split(":") for pair in sys.argv[1].split(",") if pair)
code = struct.pack("HBBI", 0x20, 0, 0, 0)
for number, action in actions.items():
    code += struct.pack("HBBI", 0x15, 0, 1, int(number)) + struct.pack("HBBI", 0x06, 0, 0, int(action, 16))
code += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer := ctypes.create_string_buffer(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
listener = libc.syscall(317, 1, 8, program)
assert listener >= 0, ctypes.get_errno()
fcntl.fcntl(listener, fcntl.F_SETFD, 0)  # whom it asks is there, and never answers
os.execv(sys.argv[2], sys.argv[2:])
"""


class Service:
    def __init__(self, process: subprocess.Popen[bytes], port: int, nonce: str) -> None:
        self.process = process
        self.port = port
        self.nonce = nonce

    def get(self, path: str) -> tuple[int, Any]:
        answer = httpx.get(
            f"http://127.0.0.1:{self.port}{path}",
            headers={"X-Lab-Nonce": self.nonce},
            timeout=WAIT_S,
            trust_env=False,
        )
        return answer.status_code, answer.json()

    def probe(self, *, drop: bool) -> Probed:
        status, told = self.get(f"/surface/calls?drop={int(drop)}")
        assert status == 200, told
        return parse(told)

    def processes(self) -> list[int]:
        """Every process of this launch, whoever its parent is now: what it inherits tells."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LAB_NONCE") == self.nonce:
                    found.append(process.pid)
        return found


@contextlib.contextmanager
def start(binary: Path, *prefix: str) -> Iterator[Service]:
    nonce = uuid.uuid4().hex
    with started(*prefix, binary, nonce=nonce, PATH=os.environ["PATH"]) as (process, port):
        yield Service(process, port, nonce)


@pytest.fixture(scope="module")
def probed(binary: Path) -> Probed:
    """What a service with all that this user has finds."""
    with start(binary) as service:
        return service.probe(drop=False)


@pytest.fixture(scope="module")
def dropped(binary: Path) -> Probed:
    with start(binary) as service:
        return service.probe(drop=True)


def said(probed: Probed) -> dict[str, str]:
    return {call.name: call.said for call in probed.calls}


def until(look: Callable[[], object], wanted: object) -> None:
    deadline = time.monotonic() + WAIT_S
    while (found := look()) != wanted:
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.02)


def header_numbers() -> dict[str, int]:
    """The kernel headers' numbers for this machine."""
    if shutil.which("cc") is None:
        pytest.skip("needs cc, to ask the kernel's headers")
    asked = subprocess.run(
        ["cc", "-dM", "-E", "-"],
        input="#include <asm/unistd.h>",
        text=True,
        capture_output=True,
        timeout=30,
        check=True,
    )
    found = re.findall(r"#define __NR_(\w+) (\d+)\b", asked.stdout)
    return {name: int(number) for name, number in found if name not in ("syscalls", "arch_specific_syscall")}


def test_every_number_has_exactly_one_entry(probed: Probed) -> None:
    numbers = Counter(call.number for call in probed.calls)
    assert [number for number, count in numbers.items() if count > 1] == []
    if X86:
        assert set(numbers) == {*range(337), *range(424, 470)}  # between them x86-64 has none
        assert {call.name for call in probed.calls} == set(table())
    known = header_numbers()
    assert {call.name: call.number for call in probed.calls if call.number in known.values()} == known


def test_what_has_no_harmless_form_is_not_tried(probed: Probed) -> None:
    untried = {call.name for call in probed.calls if call.outcome is Outcome.UNTRIED}
    assert untried == {name for name, row in table().items() if row.sees is None} & {c.name for c in probed.calls}
    assert untried >= {"sync", "acct", "vhangup", "sethostname", "setdomainname", "clock_settime", "settimeofday"}
    assert untried >= {"reboot", "kexec_load", "kexec_file_load", "rt_sigreturn", "exit_group"}


# The tries.


def test_each_try_returns_at_once(probed: Probed, dropped: Probed) -> None:
    kinds = {Outcome.OK, Outcome.ERRNO, Outcome.UNTRIED}
    assert [call for call in (*probed.calls, *dropped.calls) if call.outcome not in kinds] == []


def test_a_form_that_works_is_answered_without_an_error_to_whom_nothing_is_refused(probed: Probed) -> None:
    if not ROOT:
        pytest.skip("needs root")
    lacking = ("ENOSYS", "EOPNOTSUPP")  # in a kernel built without
    failed = {c.name: c.said for c in probed.calls if c.sees is Sees.WORKS and c.said not in ("ok", *lacking)}
    assert set(failed) <= {"ptrace", "unshare"}, failed  # a tracer there already; user namespaces turned off
    faults = [c for c in probed.calls if c.sees is Sees.FAULT and c.outcome is Outcome.OK]
    assert faults == []


def test_dropped_it_is_nobody_and_without_a_capability(dropped: Probed, probed: Probed) -> None:
    assert dropped.capabilities == 0
    assert 0 not in dropped.user_ids
    if ROOT:
        assert set(dropped.user_ids) == {65534}
        assert set(probed.user_ids) == {0}
        own = re.search(r"^CapEff:\t(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert own is not None
        assert probed.capabilities == int(own[1], 16)


def test_without_privileges_the_kernel_refuses_what_it_checks_first(probed: Probed, dropped: Probed) -> None:
    if not ROOT:
        pytest.skip("needs root, for the difference")
    lost = {pair.call.name: pair.call.said for pair in differs(dropped.calls, probed.calls)}
    asks_for = {"setgid": 6, "setuid": 7, "chroot": 18, "mount": 21, "pivot_root": 21, "swapon": 21, "setpriority": 23}
    held = {name for name, capability in asks_for.items() if probed.capabilities >> capability & 1}
    assert held
    assert held <= set(lost)
    assert set(lost.values()) <= {"EPERM", "EACCES"}
    assert {table()[name].sees for name in lost} <= {Sees.CHECKED, Sees.WORKS}
    checked = {c.name for c in dropped.calls if c.sees is Sees.CHECKED and c.said != "ENOSYS"}
    by_setting = {"fanotify_init", "userfaultfd", "bpf", "io_uring_setup", "perf_event_open", "open_by_handle_at"}
    assert checked - {c.name for c in refused(dropped.calls)} <= by_setting  # or by the kernel's version
    assert [c for c in refused(dropped.calls) if c.sees is Sees.FAULT] == []


def snapshot(service: Service) -> dict[str, object]:
    pid = service.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    found: dict[str, object] = {
        "limits": [resource.prlimit(pid, kind) for kind in range(16)],
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "session": os.getsid(pid),
        "group": os.getpgid(pid),
        "cpus": os.sched_getaffinity(pid),
        "status": re.findall(
            r"^((?:Umask|TracerPid|Uid|Gid|Groups|Cap\w+|NoNewPrivs|Seccomp):.*)$", status, re.MULTILINE
        ),
        "cwd": Path(f"/proc/{pid}/cwd").readlink(),
        "root": Path(f"/proc/{pid}/root").readlink(),
        "swaps": [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()],
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(),
        "namespaces": {ns.name: ns.readlink() for ns in Path(f"/proc/{pid}/ns").iterdir()},
    }
    if Path("/proc/modules").exists():
        found["modules"] = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    changing = {"ns_last_pid", "perf_event_max_sample_rate"}
    for setting in Path("/proc/sys/kernel").iterdir():
        if setting.is_file() and setting.name not in changing:
            with contextlib.suppress(OSError):  # some are only to be written
                found[f"kernel.{setting.name}"] = setting.read_bytes()
    return found


def mounts(service: Service) -> set[str]:
    return set(Path(f"/proc/{service.process.pid}/mountinfo").read_text().splitlines())


def objects() -> dict[str, int]:
    """How many there are of what outlives its maker: keys, and System V's queues, sets and segments."""
    found = {path.name: len(path.read_text().splitlines()) for path in Path("/proc/sysvipc").glob("*")}
    key_users = Path("/proc/key-users")
    for line in key_users.read_text().splitlines() if key_users.exists() else ():
        user, _, _, keys, _ = line.split()
        if user in ("65534:", f"{os.geteuid()}:") and user != "0:":  # each container of others' has a keyring of root's
            found[user] = int(keys.split("/")[0])
    return found


@pytest.mark.parametrize("drop", [True, False], ids=["dropped", "as-it-is"])
def test_nothing_of_the_host_or_of_the_service_is_changed(binary: Path, drop: bool) -> None:
    # In a mount namespace of its own, where what others mount meanwhile does not show, and its own mounts would.
    prefix = ("unshare", "--mount") if ROOT and shutil.which("unshare") else ()
    with start(binary, *prefix) as service:
        descriptors = Path(f"/proc/{service.process.pid}/fd")
        assert service.get("/healthz")[0] == 200
        until(lambda: len(list(descriptors.iterdir())), 5)  # three, its listener and its epoll
        before, mounted, made = snapshot(service), mounts(service), objects()
        offset_ns = time.time_ns() - time.monotonic_ns()
        service.probe(drop=drop)
        assert abs(time.time_ns() - time.monotonic_ns() - offset_ns) < 500_000_000  # the wall's clock was not set
        after = snapshot(service)
        assert {name: (before[name], after[name]) for name in before if before[name] != after[name]} == {}
        assert set(before) == set(after)
        assert mounts(service) - mounted == set()
        # A mount goes everywhere once its mount point is removed, as others may do; none goes while that is there.
        assert [line for line in mounted - mounts(service) if Path(line.split()[4]).exists()] == []
        until(lambda: {name: count for name, count in objects().items() if count > made.get(name, 0)}, {})
        until(lambda: len(list(descriptors.iterdir())), 5)
        until(service.processes, [service.process.pid])
        assert service.get("/clock")[1]["pid"] == service.process.pid


def test_a_query_that_is_none_is_refused(binary: Path) -> None:
    with start(binary) as service:
        for query in ("?", "?drop", "?drop=", "?drop=2", "?drop=x", "?from=1"):
            assert service.get(f"/surface/calls{query}")[0] == 400, query


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_strace_sees_each_call_once_with_the_same_answer(binary: Path, tmp_path: Path) -> None:
    tracer = ("strace", "-ff", "-n", "-qq", "-e", "raw=all", "-e", "signal=none", "-o", str(tmp_path / "trace"))
    with start(binary, *tracer) as service:
        probed = service.probe(drop=False)
        for child in psutil.Process(service.process.pid).children():
            child.kill()  # the service; its tracer ends with it
        service.process.wait(WAIT_S)
    line = re.compile(r"\[ *(\d+)\] (\w+)\(.*\) += (?:-1 (E\w+)|.*)")
    seen: dict[int, list[str]] = {}
    others = Counter[str]()
    for trace in tmp_path.iterdir():
        lines = [found for found in map(line.match, trace.read_text().splitlines()) if found]
        names = [found[2] for found in lines]
        # After what the C library does in every new process: tied to its parent, perhaps operands, the call, the end.
        begin = next((i for i, pair in enumerate(itertools.pairwise(names)) if pair == ("prctl", "getppid")), None)
        if begin is None or names[-1] != "exit_group" or len(names) - begin > 6:
            others[str(names[:4])] += 1
            continue
        fork = "fork" in names
        tried = lines[begin + 2 if fork else -2]
        assert set(names[begin + 2 : -1]) <= {"getpid", tried[2], *(["wait4"] if fork else [])}
        seen.setdefault(int(tried[1]), []).append(tried[3] or "ok")
    assert others.total() <= 3, others  # the service, its worker, and what the tried fork made
    told = {call.number: [call.said] for call in probed.calls if call.outcome is not Outcome.UNTRIED}
    assert seen == told


# Filters: one made here, whose every answer is known.


@pytest.fixture
def filtered(binary: Path) -> Callable[..., contextlib.AbstractContextManager[Service]]:
    if not X86:
        pytest.skip("its filter is written in x86-64's numbers")
    probe = ctypes.CDLL(None).prctl(21, 0, 0, 0, 0)
    if probe < 0 or "Seccomp_filters" not in Path("/proc/self/status").read_text():
        pytest.skip("needs a kernel with seccomp filters that ask a listener")

    def make(**actions: int) -> contextlib.AbstractContextManager[Service]:
        numbers = {"getpgid": 121, "sysinfo": 99, "mlockall": 151, "getsid": 124}
        wanted = ",".join(f"{numbers[name]}:{action:x}" for name, action in actions.items())
        return start(binary, sys.executable, "-c", FILTER, wanted)

    return make


@pytest.mark.alone  # each call has a time limit of its own, which a busy machine would pass
def test_what_a_filter_does_is_told(filtered: Callable[..., contextlib.AbstractContextManager[Service]]) -> None:
    with filtered() as service:
        control = service.probe(drop=True)
    actions = {KILLED: 0x80000000, REFUSED: 0x00050000 | 13, HIDDEN: 0x00050000 | 38, HELD: 0x7FC00000}
    with filtered(**actions) as service:
        found = service.probe(drop=True)
        until(service.processes, [service.process.pid])
    assert {pair.call.name: (pair.call.said, pair.control.said) for pair in differs(found.calls, control.calls)} == {
        KILLED: ("SIGSYS", "ok"),
        REFUSED: ("EACCES", "EFAULT"),
        HIDDEN: ("ENOSYS", "EINVAL"),
        HELD: ("timeout", "ok"),
    }
    more = {c.name for c in refused(found.calls, control.calls)} - {c.name for c in refused(control.calls)}
    assert more == {KILLED, REFUSED, HIDDEN}
    assert HIDDEN not in {c.name for c in refused(found.calls)}  # alone, ENOSYS may be the kernel's own


def test_a_call_that_hangs_ends_with_the_service(
    filtered: Callable[..., contextlib.AbstractContextManager[Service]],
) -> None:
    with filtered(**{HELD: 0x7FC00000}) as service:
        asked = subprocess.Popen(
            [sys.executable, "-c", _ASK, str(service.port), service.nonce], stdout=subprocess.DEVNULL
        )
        until(lambda: len(service.processes()) >= 3, True)  # its worker, and the one that hangs
        service.process.kill()
        until(service.processes, [])
        asked.wait(WAIT_S)


_ASK = """
import sys, http.client
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
connection.request("GET", "/surface/calls", headers={"X-Lab-Nonce": sys.argv[2]})
try:
    connection.getresponse()
except (OSError, http.client.HTTPException):
    pass
"""
