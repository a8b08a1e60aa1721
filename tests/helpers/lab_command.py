"""The real command with a fake and a broken driver installed beside the lab's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# The fake engine's clock stands in for the host's, so that a known delay comes out exactly.
# A run on it measures nothing of this host, and so holds a lock of its test's own: these tests run side by side.
DRIVER = """
import os
from dataclasses import replace
from pathlib import Path
from lab.run.lock import host_lock
from lab.testing import FakeDriver
from lab.timeline import SystemClock
host_lock.__wrapped__.__kwdefaults__["directories"] = (Path(__file__).parent,)
class Driver(FakeDriver):
    ones = 0
    def __init__(self, variant, context):
        super().__init__(variant, context)
        self.name = "fake"
        SystemClock.now_ns = lambda _: self.engine.clock.now_ns()
        SystemClock.boottime_ns = lambda _: self.engine.clock.boottime_ns()
        self.engine.fail_launches = int(os.environ.get("FAIL_LAUNCHES", "0"))
        self.engine.main_s = float(os.environ.get("MAIN_S", "0.03"))
        if Driver.ones and "MAIN_S_OF_LATER" in os.environ:
            self.engine.main_s = float(os.environ["MAIN_S_OF_LATER"])
        Driver.ones += 1
    def info(self):
        told = super().info()
        return replace(told, qualifiers={"named": os.environ["QUALIFIER"]}) if "QUALIFIER" in os.environ else told
class Broken(FakeDriver):
    def __init__(self, variant, context):
        super().__init__(variant, context)
        self.name = "broken"
    def info(self):
        from lab.errors import DriverUnavailable
        raise DriverUnavailable("the engine is not there", resolution=os.environ.get("REMEDY", "install it"))
    def list_instances(self, labels):
        self.info()
"""

Lab = Callable[..., subprocess.CompletedProcess[str]]


def make_environment(folder: Path) -> dict[str, str]:
    """What a command needs to have those drivers, and its state in `folder`."""
    site = folder / "site"
    (site / "cli_fake-1.0.dist-info").mkdir(parents=True)
    (site / "cli_fake.py").write_text(DRIVER)
    (site / "cli_fake-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cli-fake\nVersion: 1.0\n")
    (site / "cli_fake-1.0.dist-info" / "entry_points.txt").write_text(
        "[lab.drivers]\nfake = cli_fake:Driver\nbroken = cli_fake:Broken\n"
    )
    return {"XDG_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(site), "COLUMNS": "120"}


def make_lab(folder: Path) -> Lab:
    """Runs the command with its state in `folder`; keywords are environment variables."""
    state = make_environment(folder)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            env={**os.environ, **state, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run
