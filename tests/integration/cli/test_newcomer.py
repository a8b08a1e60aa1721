"""A newcomer's driver: one file and one line, found by entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import registry
from lab.errors import BadInput

DRIVER = '''
from lab.testing import FakeDriver

class Newcomer(FakeDriver):
    """An engine that the lab has never heard of."""

    def __init__(self, variant, context):
        super().__init__(variant, context)
        self.name = "newcomer"
'''


@pytest.fixture
def newcomer(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python in which a distribution with one driver and one entry point is installed."""
    (tmp_path / "newcomer.py").write_text(DRIVER)
    info = tmp_path / "newcomer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lab.drivers]\nnewcomer = newcomer:Newcomer\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_a_new_driver_is_one_file_and_one_line(newcomer: dict[str, str]) -> None:
    command = [sys.executable, "-m", "lab", "targets"]
    listed = subprocess.run(command, env=newcomer, capture_output=True, text=True, timeout=60, check=True)
    assert "newcomer" in listed.stdout


def test_the_contract_tests_run_on_it_untouched(newcomer: dict[str, str]) -> None:
    """All of them: none fails, and what is skipped the driver does not promise."""
    contract = Path(__file__).parents[2] / "contract"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "newcomer", str(contract)]
    ran = subprocess.run(command, env=newcomer, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.strip().splitlines()
    assert int(lines[-1].split(" passed")[0].split()[-1]) >= 40
    assert all(": not promised: " in line for line in lines if line.startswith("SKIPPED"))


def test_an_unknown_name_is_answered_by_the_nearest() -> None:
    with pytest.raises(BadInput, match="docker"):
        registry.driver_class("dokcer")
    with pytest.raises(BadInput, match="boot"):
        registry.make_scenario("bot")


def test_a_driver_that_cannot_be_loaded_is_one_clear_line(newcomer: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "newcomer.py").write_text("import nothing_of_this_name\n")
    command = [sys.executable, "-m", "lab", "run", "boot", "-t", "newcomer", "--store", str(tmp_path / "lab.db")]
    ran = subprocess.run(command, env=newcomer, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "nothing_of_this_name" in ran.stderr and "Traceback" not in ran.stderr
