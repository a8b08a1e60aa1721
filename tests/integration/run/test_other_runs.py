"""Two labs on one engine in namespaces of their own, as two CI containers with one docker.sock: both stay whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.run.lock import LOCK_NAME
from lab.store.database import Store
from lab.store.record import Outcome, RunRecord, RunStatus

pytestmark = [
    pytest.mark.engine("docker"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces of its own need root"),
]

FEW, ROUNDS, LONG = 6, 12, 30
DELAYS_S = (0, 0.2, 0.4)
"""Of cleans that begin in different phases of a round."""
TIMEOUT_S = 300.0


def _container(state: Path, *arguments: str) -> list[str]:
    """`lab` with its own processes, locks and /var/tmp, and the host's engine, as in a container. (This test's files
    are in /tmp, so that only the lock there is hidden.)"""
    own = "mount -t tmpfs none /run/lock && mount -t tmpfs none /var/tmp && "
    own += f": >> /tmp/{LOCK_NAME} && : > /run/lock/own && mount --bind /run/lock/own /tmp/{LOCK_NAME} && "
    words = [sys.executable, "-m", "lab", *arguments]
    script = own + f'export XDG_STATE_HOME={state} && exec "$@"'
    return ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", *words]


def _begin(state: Path, *, rounds: int = ROUNDS) -> subprocess.Popen[str]:
    run = _container(state, "run", "boot", "-t", "docker", "--rounds", str(rounds))
    return subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _until_measured(lab: subprocess.Popen[str]) -> str:
    assert lab.stderr is not None
    said = ""
    while "committed" not in said:
        line = lab.stderr.readline()
        assert line, said
        said += line
    return said


def _lab(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def _record(state: Path) -> RunRecord:
    with Store.open(str(state / "stratalab/lab.db")) as store:
        return store.load("last")


def _whole(record: RunRecord, *, rounds: int = ROUNDS) -> bool:
    good = [one for one in record.launches if one.outcome is Outcome.OK and not one.warmup]
    return record.run.status is RunStatus.DONE and len(good) == rounds == len(record.launches) - 1


def test_a_clean_in_another_container_leaves_a_living_run_and_names_it(tmp_path: Path) -> None:
    lab = _begin(tmp_path / "run", rounds=LONG)
    _until_measured(lab)
    with ThreadPoolExecutor() as pool:
        clean = _container(tmp_path / "clean", "clean", "--yes")
        cleaned = list(
            pool.map(lambda delay_s: _lab(["sh", "-c", f'sleep {delay_s}; exec "$@"', "sh", *clean]), DELAYS_S)
        )
    told = json.loads(_lab(_container(tmp_path / "clean", "clean", "--yes", "--json")).stdout)
    _, errors = lab.communicate(timeout=TIMEOUT_S)
    record = _record(tmp_path / "run")
    assert lab.returncode == 0 and _whole(record, rounds=LONG), errors
    theirs = {item["fate"] for item in told["found"] if item["labels"].get("lab.run") == record.run.id}
    assert theirs == {"owner out of sight"} and not told["removed"]
    for one in cleaned:
        assert one.returncode == 0, one.stderr
        assert f"of run {record.run.id}, whose owner is" in one.stdout
        assert f"lab clean --owner {record.run.id}" in one.stdout


def test_a_clean_on_the_host_sees_that_it_lives(tmp_path: Path) -> None:
    lab = _begin(tmp_path / "run", rounds=LONG // 2)
    _until_measured(lab)
    told = json.loads(_lab([sys.executable, "-m", "lab", "clean", "--yes", "--json"]).stdout)
    _, errors = lab.communicate(timeout=TIMEOUT_S)
    record = _record(tmp_path / "run")
    assert lab.returncode == 0 and _whole(record, rounds=LONG // 2), errors
    assert {item["fate"] for item in told["found"] if item["labels"].get("lab.run") == record.run.id} == {"live owner"}


def test_what_a_killed_container_left_goes_by_its_name_alone(tmp_path: Path) -> None:
    lab = _begin(tmp_path / "run")
    _until_measured(lab)
    lab.kill()  # and with it, all in its namespace
    lab.wait()
    run = _record(tmp_path / "run").run.id
    first = _lab(_container(tmp_path / "clean", "clean", "--yes"))
    assert f"lab clean --owner {run}" in first.stdout, first.stdout
    second = json.loads(_lab(_container(tmp_path / "clean", "clean", "--yes", "--json", "--owner", run)).stdout)
    assert second["removed"] and not second["problems"]
    assert {item["labels"]["lab.run"] for item in second["removed"]} == {run}
    none = _lab(_container(tmp_path / "clean", "clean", "--yes", "--owner", run))
    assert none.returncode == 2 and f"nothing of '{run}' is here" in none.stderr


def test_a_second_run_waits_or_leaves_and_carries_it(tmp_path: Path) -> None:
    first = _begin(tmp_path / "first")
    _until_measured(first)
    leaves = _lab(_container(tmp_path / "leaves", "run", "boot", "-t", "docker", "--rounds", "1", "--no-wait"))
    shows = _lab(_container(tmp_path / "shows", "run", "boot", "-t", "docker", "--dry-run"))
    waits = _lab(_container(tmp_path / "waits", "run", "boot", "-t", "docker", "--rounds", "3"))
    _, errors = first.communicate(timeout=TIMEOUT_S)
    record = _record(tmp_path / "first")
    assert first.returncode == 0 and _whole(record), errors
    assert leaves.returncode == 1 and f"another lab run uses the same engine: run {record.run.id}" in leaves.stderr
    assert f"waits for run {record.run.id}" in shows.stderr
    later = _record(tmp_path / "waits")
    assert waits.returncode == 0 and f"waiting: run {record.run.id}" in waits.stderr, waits.stderr
    assert later.run.parameters["other_runs"]["waited_for"] == [record.run.id]
    assert "other_runs" not in record.run.parameters


def test_of_two_that_begin_together_one_waits_for_the_other(tmp_path: Path) -> None:
    both = [_begin(tmp_path / name, rounds=FEW) for name in ("a", "b")]
    said = [lab.communicate(timeout=TIMEOUT_S)[1] for lab in both]
    records = [_record(tmp_path / name) for name in ("a", "b")]
    assert [lab.returncode for lab in both] == [0, 0], said
    assert all(_whole(record, rounds=FEW) for record in records)
    assert any("waiting: run" in text for text in said), said
    spans = sorted(_measured_ns(record) for record in records)
    assert spans[0][1] <= spans[1][0], "they measured at the same time"


def _measured_ns(record: RunRecord) -> tuple[int, int]:
    marks = [mark["ns"] for launch in record.launches for mark in launch.timeline.to_json() if mark["clock"] == "host"]
    return min(marks), max(marks)
