"""The service tries each feature within its limit, whatever becomes of it, and nothing of a try stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from service_process import started

from lab.service.build import build, build_service
from lab.store.place import cache_dir
from scenarios.compat import parse, said

NONCE = "5eed0000000000000000000000000005"
WAIT_S = 70.0


def _get(port: int, path: str, *, nonce: str = NONCE) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers={"X-Lab-Nonce": nonce}, timeout=WAIT_S, trust_env=False)


def _tried(port: int) -> dict[str, str]:
    answer = _get(port, "/compat")
    assert answer.status_code == 200
    return {name: said(*told) for name, told in parse(answer.json()).items()}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


def _mounted() -> list[str]:
    """Mounts by the name that the tries give theirs, in this namespace."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - tmpfs lab " in line]


def _left() -> list[Path]:
    return list(Path("/tmp").glob("lab-compat-*"))


def test_what_every_host_has_works_and_neither_process_nor_file_nor_mount_stays() -> None:
    before: dict[str, Any] = {
        "left": set(_left()),
        "mounts": _mounted(),
        "shm": set(Path("/dev/shm").glob("lab-*")),
        "host name": os.uname().nodename,
    }
    with started(build_service(cache_dir()), nonce=NONCE) as (process, port):
        assert _get(port, "/compat", nonce="0" * 32).status_code == 403
        found = _tried(port)
        assert not psutil.Process(process.pid).children(recursive=True)
        assert _get(port, "/healthz").status_code == 200
    assert len(found) > 100
    everywhere = (
        *("sockets: TCP", "sockets: UDP", "sockets: Unix, abstract", "locks: flock", "locks: POSIX", "files: sendfile"),
        *("events: epoll", "events: inotify", "timers: timerfd", "memory: shared file", "memory: POSIX shared memory"),
        *("processes: forks, 16 deep", "processes: runs a program", "devices: null", "/proc: own maps"),
    )
    assert {name: found[name] for name in everywhere} == dict.fromkeys(everywhere, "works")
    assert found["measure: processors"] == f"works ({os.sysconf('SC_NPROCESSORS_ONLN')})"
    assert not [words for words in found.values() if words.startswith(("not tried", "ended without"))]
    assert before == {
        "left": set(_left()),
        "mounts": _mounted(),
        "shm": set(Path("/dev/shm").glob("lab-*")),
        "host name": os.uname().nodename,
    }


def test_one_that_hangs_and_those_that_a_signal_ends_are_told_and_the_others_go_on(
    programs: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    flags = (f'-DPRESSURE_PATH="{pipe}"', "-DPROBE_NS=(NS_PER_S)")
    limited = build("service", programs, flags=flags)
    # Whoever makes a larger file is ended by SIGXFSZ (setrlimit(2)).
    script = f"ulimit -f 1; exec {limited}"
    with started("/bin/sh", "-c", script, nonce=NONCE) as (_, port):
        found = _tried(port)
        assert _get(port, "/healthz").status_code == 200
    assert found["/proc: pressure"] == "no answer in 1 s"
    assert found["memory: shared file"] == found["files: holes found"] == "killed by SIGXFSZ"
    assert found["sockets: TCP"] == found["/proc: kernel's symbols"] == "works"
