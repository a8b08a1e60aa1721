"""`lab nightly` and `--require` as a job sees them: exit codes, and the files for other readers.

The nights before are copies of a real run of the fake engine, each as much slower or quicker as nights are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import junitparser
import pytest
from lab_command import Lab, make_lab
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from lab.store.database import Store
from lab.store.record import RunRecord

NIGHTS = (1.0, 1.04, 0.97, 1.02, 0.95, 1.01, 1.05, 0.98, 0.99, 1.03)
"""By how much each night before differed."""

# An attempt to reach a fake service is made in real time, so that a loaded machine moves the figures a little.
pytestmark = pytest.mark.alone

JOB = """
budget = "10m"
folder = "out"
[gate]
wait = "0s"
window = "0.1s"
load_per_core = 1000000
steal = 1.0
pressure = 1.0
[run]
rounds = 6
[scenarios.boot]
targets = ["fake"]
require = ["fake"]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "nightly.toml"
    path.write_text(JOB)
    return path


def seed(lab: Lab, folder: Path) -> list[str]:
    """The nights before the one that a test has."""
    assert lab("run", "boot", "-t", "fake", "--rounds", "6").returncode == 0
    with Store.open(str(folder / "state" / "stratalab" / "lab.db")) as store:
        first = store.load("last")
        for ago, factor in enumerate(NIGHTS, 1):
            assert store.import_run(night(first, ago, factor))
        return [run.id for run in store.runs()]


def night(record: RunRecord, ago: int, factor: float) -> RunRecord:
    """`record` as it might have been `ago` nights before."""
    moved = {
        name: (datetime.fromisoformat(str(at)) - timedelta(days=ago)).isoformat()
        for name, at in (("started_at", record.run.started_at), ("ended_at", record.run.ended_at))
    }
    samples = [replace(one, value=one.value * factor * (1 + 0.01 * (one.iteration % 3 - 1))) for one in record.samples]
    return replace(record, run=replace(record.run, id=f"night-{ago:02}", **moved), samples=samples)


def runs(lab: Lab) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab("runs", "--json").stdout)
    return found


def test_a_night_like_the_others_alarms_nobody_and_a_step_that_is_seen_again_does(
    lab: Lab, job: Path, tmp_path: Path
) -> None:
    before = seed(lab, tmp_path)
    usual = lab("nightly", "-c", str(job), "--json", "--folder", str(tmp_path / "elsewhere"))
    assert usual.returncode == 0, usual.stdout + usual.stderr
    told = json.loads(usual.stdout)
    assert told["exit_code"] == 0 and told["noisy"] == []
    assert [(c["target"], c["total"], c["standing"]) for c in told["scenarios"][0]["cases"]] == [
        ("fake", "boot_s", "passed")
    ]
    assert len(runs(lab)) == len(before) + 1, "nothing to confirm"
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} >= {"junit.xml", "summary.md", "metrics.om"}

    summary = tmp_path / "step.md"
    summary.write_text("# Another step's\n")
    known = {run["id"] for run in runs(lab)}
    fleet = tmp_path / "fleet.db"
    change(job, "[gate]", 'forward = "fleet.db"\n[gate]')
    slow = lab("nightly", "-c", str(job), MAIN_S="0.08", GITHUB_STEP_SUMMARY=str(summary))
    assert slow.returncode == 3, slow.stdout + slow.stderr
    assert "suspect: fake boot_s" in slow.stderr and "confirmed: fake boot_s" in slow.stderr
    assert "exit 3: a regression was seen, and seen again" in slow.stderr
    assert len(runs(lab)) == len(before) + 3, "the night, and its confirmation"
    assert "2 runs" in slow.stderr.split("forwarded to")[1].splitlines()[0]
    with Store.open(str(fleet)) as sent:
        assert {run.id for run in sent.runs()} == {run["id"] for run in runs(lab)} - known
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "out" / "junit.xml"))
    assert (suite.name, suite.tests, suite.failures) == ("lab boot", 1, 1)
    (case,) = suite
    assert case.name == "fake boot_s" and "1.8" in case.result[0].message
    assert summary.read_text().startswith("# Another step's\n### boot\n") and "regression" in summary.read_text()
    gauges = {one.name: one for one in read_prometheus((tmp_path / "out" / "stratalab.prom").read_text())}
    assert [s.labels["standing"] for s in gauges["stratalab_standing"].samples if s.value] == ["regression"]
    assert (tmp_path / "out" / "stratalab.prom").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "out" / "junit.xml").stat().st_mode & 0o777 == 0o600


def test_what_is_not_seen_again_alarms_nobody(lab: Lab, job: Path, tmp_path: Path) -> None:
    seed(lab, tmp_path)
    once = lab("nightly", "-c", str(job), MAIN_S="0.08", MAIN_S_OF_LATER="0.03")
    assert once.returncode == 0, once.stdout + once.stderr
    assert "not seen again" in once.stdout


def change(job: Path, old: str, new: str) -> None:
    assert old in job.read_text()
    job.write_text(job.read_text().replace(old, new))


def test_what_cannot_be_measured_tonight_is_told_and_has_its_code(lab: Lab, job: Path, tmp_path: Path) -> None:
    """Without nights before: too noisy, no time left, a required target that is not there."""
    change(job, "pressure = 1.0", "pressure = 0.000001")
    change(job, "load_per_core = 1000000", "load_per_core = 0.000001")
    noisy = lab("nightly", "-c", str(job))
    assert noisy.returncode == 4, noisy.stderr
    assert "void: too noisy to measure: " in noisy.stderr and runs(lab) == []
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "out" / "junit.xml"))
    assert (suite.failures, suite.skipped) == (0, 1)

    job.write_text(JOB)
    change(job, 'budget = "10m"', 'budget = "0.2s"')
    change(job, 'require = ["fake"]\n', "")
    late = lab("nightly", "-c", str(job))
    assert late.returncode == 4 and "left out boot: it needs about" in late.stderr
    assert runs(lab) == [] and "of the budget are left" in (tmp_path / "out" / "summary.md").read_text()

    job.write_text(JOB)
    change(job, 'targets = ["fake"]', 'targets = ["fake", "broken"]')
    change(job, 'require = ["fake"]', 'require = ["fake", "broken"]')
    lacking = lab("nightly", "-c", str(job))
    assert lacking.returncode == 1, lacking.stderr
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "out" / "junit.xml"))
    assert [case.name for case in suite if isinstance(next(iter(case.result), None), junitparser.Failure)] == ["broken"]
    assert "required: skipped: the engine is not there (install it)" in (tmp_path / "out" / "junit.xml").read_text()
    assert "not enough nights" in lacking.stdout


def test_a_run_lacks_no_required_target_silently(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake,broken", "--rounds", "1", "--require", "fake,broken")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "lab: required broken: skipped: the engine is not there (install it)"
    planned = lab("run", "boot", "-t", "fake,broken", "--require", "broken", "--dry-run")
    assert planned.returncode == 1 and "lab: required broken: skipped" in planned.stderr
    assert lab("run", "boot", "-t", "fake,broken", "--rounds", "1", "--require", "fake").returncode == 0
    unknown = lab("run", "boot", "-t", "fake", "--require", "broken")
    assert unknown.returncode == 2 and "none of the run's targets, fake" in unknown.stderr
