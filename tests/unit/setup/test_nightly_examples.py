"""The files that ship for a nightly job: what reads them takes them, and what they call is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from lab.cli.main import app
from lab.cli.nightly.config import read_job

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "nightly"
SCHEMAS = {
    "github-workflow.yml": ["--builtin-schema", "vendor.github-workflows"],
    "gitlab-ci.yml": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}


def calls(text: str) -> list[str]:
    """Every `lab …` of a file."""
    return [found.strip() for found in re.findall(r"/lab (nightly .*)", text)]


def options_of(command: str) -> set[str]:
    made: Any = typer.main.get_command(app)
    return {name for parameter in made.commands[command].params for name in parameter.opts}


def test_the_jobs_file_is_one() -> None:
    job = read_job(EXAMPLES / "nightly.toml")
    assert [one.scenario.name for one in job.wanted] == ["boot", "memory"]
    assert job.budget_s == 7200.0 and {"junit", "markdown", "openmetrics"} <= set(job.files)


@pytest.mark.parametrize("name", [*SCHEMAS, "stratalab-nightly.service"])
def test_what_each_calls_is_there(name: str) -> None:
    (call,) = calls((EXAMPLES / name).read_text())
    command, *words = call.split()
    flags = {word for word in words if word.startswith("-")}
    assert {"--config", "--folder"} == flags <= options_of(command)
    files = read_job(EXAMPLES / "nightly.toml").files
    text = (EXAMPLES / name).read_text()
    assert set(re.findall(r"build/nightly/([\w.]+)", text)) <= {path.name for path in files.values()}


@pytest.mark.parametrize(("name", "how"), SCHEMAS.items())
def test_each_is_valid_by_its_readers_schema(name: str, how: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *how, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    job = yaml.safe_load((EXAMPLES / name).read_text())
    assert str(job).count("/var/lib/stratalab-nightly/lab.db") == 1, "a store that outlives the job"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_the_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    units = []
    for name in ("stratalab-nightly.timer", "stratalab-nightly.service"):
        text = (EXAMPLES / name).read_text()
        for ours, here in (("/opt/stratalab/.venv/bin/lab", sys.executable), ("User=stratalab", "User=root")):
            text = text.replace(ours, here)
        (tmp_path / name).write_text(text)
        units.append(str(tmp_path / name))
    ran = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in ran.stderr.splitlines() if "stratalab" in line]
    assert (ran.returncode, said) == (0, []), ran.stderr
