"""A class of two: real runs, exported as students do it, and the page as a browser draws it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BROWSERS = ("chromium", "google-chrome", "chrome")


def lab(*words: str, state: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        env={**os.environ, "XDG_STATE_HOME": str(state), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two students' exports of real runs, each on a machine of another name."""
    folder = tmp_path_factory.mktemp("class")
    for student in ("ada", "bob"):
        state = folder / "state" / student
        ran = lab(
            *("run", "boot", "-t", "process,socket", "--rounds", "6", "--warmup", "0"),
            state=state,
            LAB_HOST=f"laptop-of-{student}",
        )
        assert ran.returncode == 0, ran.stderr
        (folder / student).mkdir()
        exported = lab("export", "last", "--output", str(folder / student / "boot.json"), state=state)
        assert exported.returncode == 0, exported.stderr
    return folder


@pytest.mark.engine("process")
@pytest.mark.engine("socket")
def test_real_runs_of_two_students_stand_beside_each_other(handed_in: Path) -> None:
    page, broken = handed_in / "class.html", handed_in / "ada" / "broken.json"
    broken.write_text((handed_in / "ada" / "boot.json").read_text()[:1000])
    files = [str(path) for path in sorted(handed_in.glob("*/*.json"))]
    gathered = lab("class", *files, "--html", str(page), "--json", state=handed_in / "state")
    assert gathered.returncode == 1, gathered.stderr
    (line,) = gathered.stderr.splitlines()
    assert str(broken) in line and "it is no JSON" in line
    told = json.loads(gathered.stdout)
    assert (told["runs"], told["machines"], told["copies"]) == (2, 2, [])
    (chart,) = told["charts"]
    (panel,) = chart["panels"]
    assert chart["name"] == "boot_s" and panel["label"].startswith("socket") and len(panel["points"]) == 2
    for point in panel["points"]:
        assert point["n"] == 6 and point["low"] <= point["mid"] <= point["high"]
    shown = page.read_text().partition("<body>")[2]
    assert "laptop-of" not in shown and "broken" not in shown


@pytest.mark.beyond_engine
@pytest.mark.engine("process")
@pytest.mark.engine("socket")
def test_a_browser_draws_the_page_and_asks_nobody(handed_in: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium or Chrome is installed")
    page = tmp_path / "class.html"
    files = [str(handed_in / student / "boot.json") for student in ("ada", "bob")]
    assert lab("class", *files, "--html", str(page), state=handed_in / "state").returncode == 0
    drawn = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--virtual-time-budget=10000", "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert 'class="main-svg"' in drawn.stdout and 'id="no-charts"' not in drawn.stdout
    assert len(re.findall(r'<path class="point\b', drawn.stdout)) == 2  # a machine each
    assert "CONSOLE" not in drawn.stderr, drawn.stderr
