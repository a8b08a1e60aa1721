"""`kill -9` of a lab whose instances sleep, and `lab clean`: what is held still, or in a file, goes as well."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.host.procs import Process, held_still

ASLEEP = (("process", "paused"), ("docker", "paused"), ("oci", "paused"), ("libvirt:microvm", "saved"))
pytestmark = [pytest.mark.engine(target) for target, _ in ASLEEP]

# Launches an instance on each target, puts it to sleep, tells of it, and waits to be killed.
INSTRUMENTED = """
import json, sys, time
from lab.driver import Context
from lab.features import SleepState
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.registry import make_driver
from lab.run.runner import new_run_id
from lab.spec import Spec, Target
from lab.store.place import cache_dir, make_run_dir
from lab.timeline import SystemClock
run = new_run_id()
labels = {"lab.run": run, "lab.scenario": "wake", "lab.owner": str(Owner.current())}
folder = make_run_dir(run, labels)
told, kept = {"run": run, "folder": str(folder), "pids": [], "files": []}, []
for name, state in json.loads(sys.argv[1]):
    target = Target.parse(name)
    driver = make_driver(target, Context(run_dir=folder, cache_dir=cache_dir()))
    spec = Spec(labels={**labels, "lab.target": name}).for_launch()
    driver.prepare(spec)
    session = Session(driver, driver.info(), spec, SystemClock())
    session.launch()
    session.instance.sleep(SleepState(state), timeout_s=60)
    told["pids"] += session.instance.host_pids()
    told["files"] += [str(path) for path in session.instance.sleeps_on(SleepState(state))]
    kept.append(session)
print(json.dumps(told), flush=True)
time.sleep(600)
"""


def test_what_sleeps_when_its_lab_is_killed_is_removed() -> None:
    lab = subprocess.Popen([sys.executable, "-c", INSTRUMENTED, json.dumps(ASLEEP)], stdout=subprocess.PIPE, text=True)
    assert lab.stdout is not None
    with lab.stdout:
        line = lab.stdout.readline()
        lab.send_signal(signal.SIGKILL)
        lab.wait(60)
    told = json.loads(line)
    processes = [one for pid in told["pids"] if (one := Process.of(pid)) is not None]
    assert sum(bool(held_still(one.pid)) for one in processes) >= len(ASLEEP) - 1, "they outlive their lab, asleep"
    assert told["files"] and all(Path(path).exists() for path in told["files"])
    clean = subprocess.run(
        [sys.executable, "-m", "lab", "clean", "--yes", "--json", "--owner", told["run"]],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert clean.returncode == 0, f"{clean.stderr}\n{clean.stdout}"
    assert not [one for one in processes if one.alive()]
    assert not Path(told["folder"]).exists()
    assert not [path for path in Path("/run/stratalab-oci").glob("*") if told["run"] in path.name]
    assert not list(Path("/sys/fs/cgroup").rglob(f"*{told['run']}*"))
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label=lab.run={told['run']}"], capture_output=True, check=True
    )
    assert not left.stdout.split()
