"""What the service tells of its task: taken whole, or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import MeasurementError, Unsupported
from lab.features import Role
from lab.launch.session import Session
from lab.service import ask
from lab.service.task import Trouble, parse, start_task

TOLD = {
    "kind": "memory",
    "running": False,
    "pid": 7,
    "amount": 8,
    "started_ns": 5,
    "ended_ns": 9,
    "deadline_ns": 20,
    "exit_code": 0,
    "signal": 9,
    "made": 0,
    "refused": 0,
    "errno": 0,
    "bytes": 4096,
    "operations": 0,
}


def test_what_does_not_apply_is_none() -> None:
    state = parse(TOLD)
    assert (state.signal, state.exit_code, state.ended_ns) == (9, None, 9)
    gentle = parse({**TOLD, "signal": 0, "more": "ignored"})
    assert gentle == replace(state, signal=None, exit_code=0)
    running = parse({**TOLD, "running": True, "ended_ns": 0, "signal": 0})
    assert (running.signal, running.exit_code, running.ended_ns) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [{"bytes": None}, {"made": "3"}, {"running": 1}, {"errno": True}, {"refused": -1}, {"ended_ns": 4}, {"kind": "x"}],
)
def test_a_state_that_is_not_whole_is_no_state(wrong: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError):
        parse({**TOLD, **wrong})
    with pytest.raises(MeasurementError):
        parse({name: value for name, value in TOLD.items() if name not in wrong})


class Running:
    """An instance whose service, or whose VMM, is this process."""

    def __init__(self, role: Role) -> None:
        self.role = role

    def host_pids(self) -> dict[int, Role]:
        return {os.getpid(): self.role}


def session_of(instance: object) -> Session:
    return cast("Session", SimpleNamespace(instance=instance))


def test_no_disk_is_filled_among_the_hosts_own_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ask, "post", lambda _, path: asked.append(path))
    with pytest.raises(Unsupported, match="no /tmp but the host's"):
        start_task(session_of(Running(Role.SERVICE)), Trouble.DISK, seconds=1)
    assert asked == []
    for instance in (Running(Role.VMM), object()):  # a guest's mounts are its kernel's; a cluster's are elsewhere
        start_task(session_of(instance), Trouble.DISK, seconds=1, amount=64)
    start_task(session_of(Running(Role.SERVICE)), Trouble.FILES, seconds=1)
    disk = "/task/start?kind=disk&seconds=1&amount=64"
    assert asked == [disk, disk, "/task/start?kind=files&seconds=1"]


def test_a_container_s_own_mounts_are_told_from_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {Path("/proc/self/ns/mnt"): "mnt:[1]", Path(f"/proc/{os.getpid()}/ns/mnt"): "mnt:[2]"}
    monkeypatch.setattr("lab.service.task.read_link", links.get)
    monkeypatch.setattr(ask, "post", lambda _, path: {"path": path})
    assert start_task(session_of(Running(Role.SERVICE)), Trouble.DISK, seconds=1)["path"].startswith("/task/start")
