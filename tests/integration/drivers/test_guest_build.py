"""`lab guest build` is killed: nothing of it stays, or it is found as what a dead process left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.libvirt.whole.building import find_way
from lab.errors import DriverUnavailable
from lab.store.place import run_dirs

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[3]
STEPS = ("building", "running apt-get update", "extracting")
"""Killed as each of these is told: before and as namespaces are made, while apt runs, while dpkg does."""


@pytest.fixture(autouse=True)
def _can_build() -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not here: apt-get install mmdebstrap")
    try:
        find_way()
    except DriverUnavailable as error:
        pytest.skip(str(error))


def test_a_build_that_is_killed_leaves_nothing_but_what_cleaning_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., object]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for step in STEPS:
        _kill_at(step)
        until(lambda: not _processes(tmp_path), 20)
        assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
        left = [one for one in run_dirs({}) if one.id.startswith(str(tmp_path))]
        for one in left:
            assert one.kind == "partial file"
            one.delete()
    cache = tmp_path / "stratalab"
    # What locks is kept, and is empty; nothing was taken for an image.
    assert {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()} <= {
        "guests/.lock-bookworm"
    }


def _kill_at(step: str) -> None:
    argv = [sys.executable, "-m", "lab", "guest", "build"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as lab:
        assert lab.stderr is not None
        said = []
        for line in lab.stderr:
            said.append(line)
            if line.startswith(step):
                break
        else:
            pytest.fail(f"it ended before it told '{step}': {''.join(said)}")
        time.sleep(0.3)
        os.kill(lab.pid, signal.SIGKILL)


def _processes(place: Path) -> list[str]:
    """Those that still work for a build below `place`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended
        if str(place).encode() in words and int(entry.name) != os.getpid():
            found.append(entry.name)
    return found
