"""LXC's log, which two read: who waits for the start, and who is told of the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers import lxc
from lab.errors import LaunchError
from lab.launch.ends import Ending

DEAD: Any = SimpleNamespace(process=SimpleNamespace(alive=lambda: False))
STARTED = b'lxc-start lab NOTICE   start - start.c:post_start:1 - Started "/lab" with pid "4711"\n'
WARNED = b"lxc-start lab 20261201 WARN     cgfsng - cgroups/cgfsng.c:1 - Invalid argument - Ignoring cgroup2 limits\n"


class Marks:
    """Remembers the phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(self, phase: Any, *, source: Any) -> None:
        self.phases.append(phase)


def log_with(path: Path, *lines: bytes) -> lxc._Log:
    log = lxc._Log(path)
    with path.open("wb", buffering=0) as writer:
        writer.write(b"".join(lines))
    return log


def test_a_start_that_the_other_has_read_is_one_though_all_is_over(tmp_path: Path) -> None:
    log = log_with(tmp_path / "log", WARNED, STARTED)
    log.ending(Ending(status=0))  # reads all of it
    marks: Any = Marks()
    assert lxc._await_started(log, DEAD, marks) == 4711
    assert marks.phases == ["started"]
    log.close()


def test_what_ends_without_a_start_says_why(tmp_path: Path) -> None:
    log = log_with(tmp_path / "log", WARNED)
    marks: Any = Marks()
    with pytest.raises(LaunchError, match="LXC started no container: Invalid argument - Ignoring"):
        lxc._await_started(log, DEAD, marks)
    assert not marks.phases
    log.close()
