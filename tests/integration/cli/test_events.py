"""`lab run --events`: what another program reads while the command runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lab_command
import pytest


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {**os.environ, **lab_command.make_environment(tmp_path_factory.mktemp("events"))}


def run(environment: dict[str, str], *arguments: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lab", "run", "boot", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True, **more
    )


def test_a_run_is_told_from_its_plan_to_its_end(environment: dict[str, str]) -> None:
    reads, writes = os.pipe()
    with run(environment, "-t", "fake,broken", "--rounds", "1", "--events", str(writes), pass_fds=(writes,)) as child:
        os.close(writes)
        with os.fdopen(reads) as lines:
            told = [json.loads(line) for line in lines]
        _, said = child.communicate()
    assert child.returncode == 0, said
    plan, begun, *middle, ended = told
    assert (plan["event"], plan["targets"], plan["rounds"], plan["warmup"]) == ("plan", ["fake"], 1, 1)
    assert plan["skipped"][0]["target"] == "broken"
    assert plan["run"] == begun["run"] == ended["run"]
    assert (begun["event"], ended["event"], ended["status"]) == ("begun", "ended", "done")
    kinds = [one["event"] for one in middle]
    assert [kind for kind in kinds if kind != "mark"] == [
        *("preparing", "turn", "launch", "committed", "turned", "round_over", "turn", "launch", "committed", "turned"),
        "cleaning",
    ]
    launch, committed = kinds.index("launch"), kinds.index("committed")
    marks = middle[launch + 1 : committed]
    assert {one["event"] for one in marks} == {"mark"} and marks[0]["phase"] == "requested"
    assert {"created", "started", "main", "listening", "ready", "stopped", "deleted"} <= {one["phase"] for one in marks}
    ready = next(one["ns"] for one in marks if one["phase"] == "ready")
    boot_s = next(one["value"] for one in middle[committed]["samples"] if one["metric"] == "boot_s")
    assert ready == round(boot_s * 1e9)


def test_a_reader_that_goes_changes_nothing_of_the_run(environment: dict[str, str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with run(environment, "-t", "fake", "--rounds", "20", "--events", str(writes), pass_fds=(writes,)) as child:
        os.close(writes)
        out, said = child.communicate()
    assert child.returncode == 0 and "Traceback" not in said
    assert "boot_s" in out


def test_a_dry_run_tells_its_plan_and_bad_input_is_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "events"
    with run(environment, "-t", "fake", "--dry-run", "--events", str(path)) as child:
        child.communicate()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["plan"]
    assert path.stat().st_mode & 0o777 == 0o600
    with run(environment, "-t", "fake", "--events", str(tmp_path / "nowhere" / "x")) as child:
        _, said = child.communicate()
    assert child.returncode == 2
    assert said.startswith("lab: --events ") and "Traceback" not in said
