"""The parent of what a daemon of the set-up leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REAP = Path(__file__).parents[3] / "vagrant/reap.py"
ORPHAN = """
import os, sys, time
if os.fork():
    os._exit(0)
while os.getppid() == int(sys.argv[2]):
    time.sleep(0.01)
open(sys.argv[1], "w").write(str(os.getppid()))
"""


def test_orphans_become_its_children_and_it_ends_after_the_last(tmp_path: Path) -> None:
    told = tmp_path / "parent"
    daemon = f'exec {sys.executable} -c "$0" "$1" $$'
    reaper = subprocess.Popen([sys.executable, str(REAP), "sh", "-c", daemon, ORPHAN, str(told)])
    assert reaper.wait(60) == 0
    assert told.read_text() == str(reaper.pid)


def test_a_daemon_that_does_not_start_is_told_by_its_exit_status() -> None:
    assert subprocess.run([sys.executable, str(REAP), "sh", "-c", "exit 3"], timeout=60, check=False).returncode == 3
