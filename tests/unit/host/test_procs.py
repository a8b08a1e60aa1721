"""Processes told apart from later ones with their pid, and lines cut as they arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.host import procs
from lab.host.procs import Process
from lab.launch.lines import Lines


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(["sleep", "60"], start_new_session=True)
    deadline = time.monotonic() + 10
    while not procs.arguments(started.pid):  # the kernel lets the parent go on a moment before they are there
        assert time.monotonic() < deadline
        time.sleep(0.001)
    yield started
    started.kill()
    started.wait(10)


def test_a_process_is_known_and_ends_when_signalled(child: subprocess.Popen[bytes]) -> None:
    process = Process.of(child.pid)
    assert process is not None and process.alive()
    assert procs.table()[child.pid].parent == os.getpid()
    assert procs.table()[child.pid].session == child.pid
    assert child.pid in [entry.process.pid for entry in procs.descendants(procs.table(), os.getpid())]
    assert procs.arguments(child.pid) == ["sleep", "60"]
    assert not process.wait(0.01)
    process.send(signal.SIGTERM)
    assert process.wait(10)
    assert not process.alive()
    process.send(signal.SIGTERM)
    assert procs.all_ended([process], 0) == []


def test_a_later_process_with_the_same_pid_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    now = Process.of(child.pid)
    assert now is not None
    earlier = Process(now.started_ticks - 1, now.pid)
    earlier.send(signal.SIGKILL)
    assert earlier.wait(0)
    assert child.poll() is None


def test_a_zombie_counts_as_ended(child: subprocess.Popen[bytes]) -> None:
    process = Process.of(child.pid)
    assert process is not None
    child.kill()
    assert process.wait(10)
    assert Process.of(child.pid) is None
    assert child.pid not in procs.table()


@given(st.lists(st.binary(max_size=30)))
def test_lines_are_the_same_however_the_bytes_are_cut(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    lines = Lines()
    got = [line for part in parts for line in lines.feed(part)] + lines.end()
    wanted = whole.split(b"\n")
    complete = [line.removesuffix(b"\r") for line in wanted[:-1]]
    assert got == complete + ([wanted[-1]] if wanted[-1] else [])


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    lines = Lines()
    assert sum(len(line) for _ in range(100) for line in lines.feed(b"x" * 10_000)) >= 900_000
