"""The host's control instance: found by its labels, bounded by itself, and gone with or without the lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from lab.driver import Context
from lab.errors import LabError
from lab.host.ownership import Owner
from lab.registry import make_driver
from lab.service.control import control
from lab.spec import Target


def found_of(run_id: str, tmp_path: Path) -> list[Any]:
    driver = make_driver(Target("process"), Context(run_dir=tmp_path, cache_dir=tmp_path))
    return [*driver.list_instances({"lab.run": run_id})]


def test_the_control_answers_and_is_found_by_its_labels_until_it_is_left(
    labels: dict[str, str], tmp_path: Path
) -> None:
    with control(labels, seconds=30) as endpoint:
        assert endpoint.host == "127.0.0.1"
        assert httpx.get(f"http://{endpoint}/healthz", trust_env=False).status_code == 200
        (found,) = found_of(labels["lab.run"], tmp_path)
        assert found.labels["lab.owner"] == str(Owner.current())
    assert found_of(labels["lab.run"], tmp_path) == []


def test_the_control_is_in_the_labs_own_cgroup(labels: dict[str, str], tmp_path: Path) -> None:
    with control(labels, seconds=30):
        (found,) = found_of(labels["lab.run"], tmp_path)
        own = Path("/proc/self/cgroup").read_text()
        assert {Path(f"/proc/{pid}/cgroup").read_text() for pid in found.host_pids()} == {own}


def test_the_control_of_a_dead_lab_ends_by_its_own_deadline_and_by_cleaning(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom lab.service.control import control\n"
        "with control({'lab.run': sys.argv[1], 'lab.owner': 'x'}, seconds=float(sys.argv[2])) as endpoint:\n"
        "    print(endpoint.port, flush=True)\n    time.sleep(60)\n"
    )
    for seconds in (2, 300):
        run_id = f"t{seconds}-{os.getpid()}"
        lab = subprocess.Popen([sys.executable, "-c", script, run_id, str(seconds)], stdout=subprocess.PIPE, text=True)
        assert lab.stdout is not None
        assert int(lab.stdout.readline())
        lab.send_signal(signal.SIGKILL)
        lab.wait()
        lab.stdout.close()
        if seconds > 30:
            (left_over,) = found_of(run_id, tmp_path)
            left_over.delete()  # as `lab clean` does
        deadline = time.monotonic() + 30
        while found_of(run_id, tmp_path):
            assert time.monotonic() < deadline, "the control outlives its deadline"
            time.sleep(0.1)


def test_a_control_that_cannot_listen_says_so(labels: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "service"
    broken.write_text("#!/bin/sh\necho no\n")
    broken.chmod(0o755)
    with pytest.raises(LabError, match="does not listen"), control(labels, seconds=5, binary=broken):
        pass


@pytest.mark.parametrize(("seconds", "bound"), [(0.2, "1"), (1.2, "2"), (30, "30")])
def test_no_part_of_a_second_makes_it_endless_or_shorter(seconds: float, bound: str, labels: dict[str, str]) -> None:
    with control(labels, seconds=seconds):
        (bounded,) = [child for child in psutil.Process().children() if child.name() == "timeout"]
        assert bounded.cmdline()[1:4] == ["-s", "KILL", bound]
