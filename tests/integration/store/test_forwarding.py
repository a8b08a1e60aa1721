"""Nothing is lost while the fleet's server is away: a real one is stopped while runs are measured and sent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from private_postgresql import Server
from store_promises import save

from lab.store import transfer
from lab.store.database import Store
from lab.store.forwarding import Destination

SECRET = "hush-hush"


@pytest.fixture
def url(request: pytest.FixtureRequest, postgresql: Server) -> str:
    return postgresql.url(postgresql.make_database(request.node.nodeid), password=SECRET)


def test_a_server_that_dies_within_a_transfer_has_all_of_it_or_nothing(
    url: str, postgresql: Server, tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    central = Destination(url)
    enter = transfer.enter

    def enter_and_die(connection: Any, record: Any) -> None:
        enter(connection, record)  # all rows are there, and not committed
        postgresql.stop()

    with Store.open(str(tmp_path / "local.db")) as local:
        for run_id in ("a", "b"):
            save(local, make_record(run_id, n=5))
        with monkeypatch.context() as dying:
            dying.setattr(transfer, "enter", enter_and_die)
            done = central.send(local, tries=1)
        assert done.left == ["a", "b"] and done.problem is not None and "does not answer" in str(done.problem)
        assert SECRET not in str(done.problem) + done.problem.details
        done = central.send(local, tries=2, sleep=lambda _: postgresql.start())  # it is away at first, and comes back
        assert done.sent == ["a", "b"] and done.left == [] and done.problem is None
        with Store.open(url) as there:
            assert there.load("a").to_json() == local.load("a").to_json()
            assert there.load("b").to_json() == local.load("b").to_json()


# A run on it measures nothing of this host, and so holds a lock of its test's own; its third launch waits for a file.
DRIVER = """
import time
from pathlib import Path
from lab.run.lock import host_lock
from lab.testing import FakeDriver
HOME = Path(__file__).parent
host_lock.__wrapped__.__kwdefaults__["directories"] = (HOME,)
class Driver(FakeDriver):
    launched = 0
    def __init__(self, variant, context):
        super().__init__(variant, context)
        self.name = "fake"
    def launch(self, *given):
        Driver.launched += 1
        for _ in range(3000):  # a minute, should the test have died
            if Driver.launched <= 2 or (HOME / "go on").exists():
                break
            time.sleep(0.02)
        return super().launch(*given)
"""


def test_a_run_goes_on_while_the_server_is_stopped_and_is_sent_later(
    url: str, postgresql: Server, tmp_path: Path
) -> None:
    (tmp_path / "fleet_fake-1.0.dist-info").mkdir()
    (tmp_path / "fleet_fake.py").write_text(DRIVER)
    about = tmp_path / "fleet_fake-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fleet-fake\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[lab.drivers]\nfake = fleet_fake:Driver\n")
    environment = {
        **os.environ,
        "LAB_FORWARD": url,
        "LAB_STORE": str(tmp_path / "local.db"),
        "PYTHONPATH": str(tmp_path),
        "COLUMNS": "200",
    }

    def lab(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    running = lab("run", "boot", "-t", "fake", "--rounds", "3", "--json")
    assert running.stderr is not None
    told = []
    for line in running.stderr:
        told.append(line)
        if line.startswith("committed"):
            break
    postgresql.stop()
    (tmp_path / "go on").touch()
    try:
        _, rest = running.communicate(timeout=300)
    finally:
        postgresql.start()
    said = "".join(told) + rest
    assert running.returncode == 0, said
    assert "not forwarded yet: 1 run, kept here; `lab forward` sends them" in rest and SECRET not in said
    for sent in ("1 run", "0 runs"):
        done = lab("forward")
        out, err = done.communicate(timeout=120)
        assert (done.returncode, err) == (0, "") and f": {sent}" in out and SECRET not in out
    with Store.open(str(tmp_path / "local.db")) as local, Store.open(url) as there:
        (run,) = there.runs()
        record = local.load(run.id)
        assert there.load("last").to_json() == record.to_json()
        assert len([launch for launch in record.launches if not launch.warmup]) == 3
