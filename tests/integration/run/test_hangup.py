"""A closed terminal, or a connection that drops, ends a run like SIGTERM: what was measured stays, the rest goes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.driver import Context
from lab.registry import make_driver
from lab.spec import Target
from lab.store.database import Store
from lab.store.place import run_dirs
from lab.store.record import Outcome, RunRecord, RunStatus

TARGETS = [
    pytest.param(target, marks=pytest.mark.engine(target))
    for target in ("process", "docker", "swarm", "libvirt:microvm")
]
TIMEOUT_S = 180.0


@dataclass
class Terminal:
    """A real `lab` that leads a session on a terminal of its own, as by a login."""

    arguments: list[str]
    state: Path
    hangups: bool = True
    said: bytes = b""
    process: subprocess.Popen[bytes] = field(init=False)
    _master: int = field(init=False)

    def __post_init__(self) -> None:
        self._master, slave = pty.openpty()

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if not self.hangups:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup(1) does

        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab", *self.arguments],
            env={**os.environ, "XDG_STATE_HOME": str(self.state), "COLUMNS": "200"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=own_terminal,  # noqa: PLW1509  no thread of this test's holds a lock
        )
        os.close(slave)

    def read_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.said.decode(errors="replace")
            if select.select([self._master], [], [], 0.1)[0]:
                self.said += os.read(self._master, 65_536)
            assert self.process.poll() is None, self.said.decode(errors="replace")

    def close(self) -> int:
        """Hang up; the exit code of the lab."""
        os.close(self._master)
        return self.process.wait(TIMEOUT_S)


def _record(state: Path) -> RunRecord:
    with Store.open(str(state / "stratalab/lab.db")) as store:
        return store.load("last")


def _launches(state: Path) -> int:
    return len(_record(state).launches) if (state / "stratalab/lab.db").exists() and _runs(state) else 0


def _runs(state: Path) -> int:
    with Store.open(str(state / "stratalab/lab.db")) as store:
        return len(store.runs())


def _left(target: str, run_id: str, folder: Path) -> list[object]:
    driver = make_driver(Target(Target.parse(target).driver), Context(run_dir=folder, cache_dir=folder))
    try:
        labels = {"lab.run": run_id}
        return [*driver.list_instances(labels), *driver.leftovers(labels), *run_dirs(labels)]
    finally:
        driver.close()


@pytest.mark.parametrize("target", TARGETS)
def test_a_closed_terminal_ends_a_run_like_sigterm(target: str, tmp_path: Path) -> None:
    lab = Terminal(["run", "boot", "-t", target, "--rounds", "500", "--timeout", "5m"], tmp_path)
    lab.read_until(lambda: _launches(tmp_path) >= 2)
    assert lab.close() == 130
    record = _record(tmp_path)
    assert record.run.status is RunStatus.INTERRUPTED and record.run.ended_at is not None
    assert [launch for launch in record.launches if launch.outcome is Outcome.OK]
    assert record.run.parameters["stopped_by"] == "the user"
    assert not _left(target, record.run.id, tmp_path)


@pytest.mark.engine("process")
def test_hangups_that_follow_do_not_disturb_the_cleaning(tmp_path: Path) -> None:
    lab = Terminal(["run", "boot", "-t", "process", "--rounds", "500"], tmp_path)
    lab.read_until(lambda: _launches(tmp_path) >= 2)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.killpg(lab.process.pid, number)
    assert lab.close() == 130
    record = _record(tmp_path)
    assert record.run.status is RunStatus.INTERRUPTED and not _left("process", record.run.id, tmp_path)


@pytest.mark.engine("process")
def test_under_nohup_a_run_goes_on_though_its_terminal_is_gone(tmp_path: Path) -> None:
    lab = Terminal(["run", "boot", "-t", "process", "--rounds", "40"], tmp_path, hangups=False)
    lab.read_until(lambda: _launches(tmp_path) >= 2)
    assert lab.close() == 0
    record = _record(tmp_path)
    assert record.run.status is RunStatus.DONE
    assert len([launch for launch in record.launches if not launch.warmup]) == 40


@pytest.mark.engine("process")
def test_a_reader_that_goes_away_does_not_end_a_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    lab = subprocess.Popen(
        [sys.executable, "-m", "lab", "run", "boot", "-t", "process", "--rounds", "30", "--json"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    assert lab.wait(TIMEOUT_S) == 0
    assert _record(tmp_path).run.status is RunStatus.DONE


@pytest.mark.engine("process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_that_waits_for_this_host_goes_without_a_trace(tmp_path: Path, number: signal.Signals) -> None:
    holder = Terminal(["run", "boot", "-t", "process", "--rounds", "5000"], tmp_path / "holder")
    holder.read_until(lambda: _launches(tmp_path / "holder") >= 1)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "lab", "run", "boot", "-t", "process"],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "waiting")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert waiting.stderr is not None
    while "waiting:" not in (line := waiting.stderr.readline()):
        assert line, "it ended without waiting"
    waiting.send_signal(number)
    _, errors = waiting.communicate(timeout=TIMEOUT_S)
    assert waiting.returncode == 130 and "Traceback" not in errors
    assert holder.close() == 130
    made = [found for found in run_dirs({}) if json.dumps(dict(found.labels)).count(f":{waiting.pid}:")]
    assert not made
