"""The lesson `boot`, done for real by what its own output says to type, on a machine without libvirt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.figures import stats
from lab.figures.series import series_of
from lab.lesson.record import State, read
from lab.store.database import Store

pytestmark = [pytest.mark.engine("process"), pytest.mark.engine("docker")]
NOWHERE = "libvirt-uri=qemu+unix:///system?socket=/nonexistent"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "120", "LANGUAGE": "en"}


def test_the_lesson_boot_on_real_engines(environment: dict[str, str], tmp_path: Path) -> None:
    def lab(arguments: Sequence[str], code: int = 0) -> str:
        command = [sys.executable, "-m", "lab", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def typed(told: str) -> list[str]:
        """The commands that it says to type next, without the lab's own name."""
        told = told.rsplit("Type next:", maxsplit=1)[-1].rsplit("type:", maxsplit=1)[-1]
        return [
            line.split(" lab ")[-1].strip() for line in told.splitlines() if line.startswith("  ") and " lab " in line
        ]

    (predict,) = typed(lab(["lesson", "start", "boot"]))
    assert predict == "lesson predict boot measure 50ms"
    run, go_on = typed(lab(predict.split()))
    lab([*run.split(), "-o", NOWHERE])
    assert "lesson answer boot interval" in lab(go_on.split())

    with Store.open(str(tmp_path / "state" / "stratalab" / "lab.db")) as store:
        record = store.load("last")
    (docker,) = (row for row in series_of(record) if (row.target, row.metric) == ("docker", "boot_s"))
    found = stats.estimate(docker.values)
    assert found.low is not None and found.high is not None
    lab(["lesson", "answer", "boot", "interval", f"{found.median:.4f}s"], code=1)
    lab(["lesson", "answer", "boot", "interval", f"{found.low:.4f}-{found.high:.4f}s"])
    table = json.loads(lab(["lesson", "check", "boot", "--json"], code=1))
    assert [test["state"] for test in table["tests"][:2]] == ["passed", "passed"]
    assert lab(["lesson", "answer", "boot", "machine", "none"])  # it was skipped

    lab(["lesson", "report", "boot", "--json", str(tmp_path / "boot.json"), "--html", str(tmp_path / "boot.html")])
    told = read(tmp_path / "boot.json")
    assert [step.state for step in told.steps if step.id in ("measure", "interval", "machine")] == [State.PASSED] * 3
    assert {figure.target for figure in told.figures} == {"process", "docker"} and told.host.accel == ""
    lab(["lesson", "verify", str(tmp_path / "boot.html")])
