"""What the registry finds where the lab runs from a checkout: what pyproject.toml says now, installed again or not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lab

CHECKOUT = Path(lab.__file__).parent.parent
PYPROJECT = "pyproject.toml"

_DRIVER = """
from lab.testing import FakeDriver
class Newcomer(FakeDriver):
    @classmethod
    def variants(cls):
        return {"": "a driver of today"}
"""
_SCENARIO = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Curious:
    name = "curious"
    question = "what is new?"
    requires = frozenset()
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of this lab that can be changed."""
    for name in ("lab", "drivers", "scenarios"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / PYPROJECT, tmp_path)
    return tmp_path


@pytest.fixture
def run(checkout: Path) -> Run:
    """Runs Python with the lab of the checkout; what was installed is the lab as it was before."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def _change(checkout: Path, before: str, after: str) -> None:
    text = (checkout / PYPROJECT).read_text()
    assert text.count(before) == 1
    (checkout / PYPROJECT).write_text(text.replace(before, after))


def _targets(run: Run) -> dict[str, str]:
    ran = run("-m", "lab", "targets", "--json")
    assert ran.returncode == 0, ran.stderr
    return {row["target"]: row["about"] for row in json.loads(ran.stdout)}


def _not_installed(run: Run) -> str:
    return run("-c", "from lab.registry import not_installed; print(*not_installed())").stdout.strip()


def test_a_driver_added_to_a_checkout_is_a_target_at_once(checkout: Path, run: Run) -> None:
    assert "newcomer" not in _targets(run) and _not_installed(run) == ""
    (checkout / "drivers" / "newcomer.py").write_text(_DRIVER)
    group = '[project.entry-points."lab.drivers"]\n'
    _change(checkout, group, group + 'newcomer = "drivers.newcomer:Newcomer"\n')
    found = _targets(run)
    assert found["newcomer"] == "a driver of today" and "docker:host" in found
    assert _not_installed(run) == "lab.drivers:newcomer"


def test_a_scenario_added_to_a_checkout_can_be_asked_at_once(checkout: Path, run: Run) -> None:
    (checkout / "scenarios" / "curious.py").write_text(_SCENARIO)
    group = '[project.entry-points."lab.scenarios"]\n'
    _change(checkout, group, group + 'curious = "scenarios.curious:Curious"\n')
    rows = {row["scenario"]: row["question"] for row in json.loads(run("-m", "lab", "scenarios", "--json").stdout)}
    assert rows["curious"] == "what is new?" and "boot" in rows
    assert _not_installed(run) == "lab.scenarios:curious"


def test_a_driver_taken_out_of_a_checkout_is_no_target_any_more(checkout: Path, run: Run) -> None:
    _change(checkout, 'swarm = "drivers.swarm:SwarmDriver"\n', "")
    assert "swarm" not in _targets(run)
    assert _not_installed(run) == "lab.drivers:swarm"


def test_a_driver_of_another_package_is_a_target_beside_those_of_the_checkout(checkout: Path, run: Run) -> None:
    (checkout / "other.py").write_text(_DRIVER)
    info = checkout / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lab.drivers]\nother = other:Newcomer\n")
    found = _targets(run)
    assert "other" in found and "process" in found
    assert _not_installed(run) == ""


@pytest.mark.parametrize(
    "text,told",
    [
        ("import no_such_sdk\n", "No module named 'no_such_sdk'"),
        ("class Newcomer:\n    def", "invalid syntax"),
        ("Newcomer = 3\n", "it is no class"),
        ("raise RuntimeError('at\\nonce')\n", "at once"),
        ("", "no attribute 'Newcomer'"),
    ],
)
def test_what_is_broken_is_told_in_its_row_and_hides_no_other(checkout: Path, run: Run, text: str, told: str) -> None:
    for folder, group in (("drivers", "lab.drivers"), ("scenarios", "lab.scenarios")):
        (checkout / folder / "newcomer.py").write_text(text)
        head = f'[project.entry-points."{group}"]\n'
        _change(checkout, head, head + f'newcomer = "{folder}.newcomer:Newcomer"\n')
    found = _targets(run)
    assert told in found["newcomer"] and "process" in found
    rows = {row["scenario"]: row["question"] for row in json.loads(run("-m", "lab", "scenarios", "--json").stdout)}
    assert told in rows["newcomer"] and "boot" in rows
    ran = run("-m", "lab", "run", "newcomer", "-t", "process")
    assert ran.returncode == 1 and "Traceback" not in ran.stderr and told in ran.stderr


def test_a_pyproject_that_cannot_be_read_is_one_line(checkout: Path, run: Run) -> None:
    (checkout / PYPROJECT).write_text("[project")
    ran = run("-m", "lab", "targets")
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    told = ran.stderr.splitlines()
    assert len(told) == 2 and "pyproject.toml cannot be read" in told[0]


@pytest.mark.parametrize("theirs", ['[project]\nname = "theirs"\n', "[tool.ruff]\n", ""])
def test_a_lab_within_another_project_takes_no_entry_points_from_it(checkout: Path, run: Run, theirs: str) -> None:
    (checkout / PYPROJECT).write_text(theirs)
    assert "docker" in _targets(run)
