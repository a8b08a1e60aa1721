"""Podman by its own API: what a lab that was killed leaves, and what is known of an end that nobody asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from contract_rig import Heard, Recording

from drivers.podman.service import left_services
from lab.driver import Context, Driver
from lab.errors import LaunchError
from lab.features import OnThisHost, Role
from lab.host.procs import Process
from lab.launch.waiter import reserve_port
from lab.registry import make_driver
from lab.spec import Endpoint, Spec, Target

pytestmark = pytest.mark.engine("podman")

KILLED = """
import os, signal, sys
from pathlib import Path
from contract_rig import Heard, Recording
from lab.driver import Context
from lab.host.ownership import Owner
from lab.launch.waiter import reserve_port
from lab.registry import make_driver
from lab.spec import Endpoint, Spec, Target
from lab.store.place import cache_dir, make_run_dir
run = sys.argv[1]
labels = {"lab.run": run, "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "podman"}
context = Context(run_dir=make_run_dir(run, labels), cache_dir=cache_dir())
driver = make_driver(Target("podman"), context)
spec = Spec(labels=labels).for_launch()
driver.launch(spec, Endpoint("127.0.0.1", reserve_port(None)), Recording(None, Heard()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def driver(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Driver]:
    made = make_driver(Target("podman"), make_context())
    try:
        yield made
    finally:
        for one in [*made.list_instances(labels), *made.leftovers(labels)]:
            one.delete()
        left = made.leftovers({"lab.run": labels["lab.run"]})
        made.close()
        assert not left, "found by every label that it bears"


def test_what_a_killed_lab_leaves_is_found_by_label_with_the_service_that_it_ran(
    driver: Driver, labels: dict[str, str]
) -> None:
    run = {"lab.run": f"{labels['lab.run']}-killed"}
    helpers = str(Path(__file__).parents[2] / "helpers")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), helpers])}
    ended = subprocess.run([sys.executable, "-c", KILLED, run["lab.run"]], env=environment, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    left = driver.leftovers(run)
    assert {"image", "podman service"} >= {one.kind for one in left} >= {"image"}
    (instance,) = driver.list_instances(run)
    assert isinstance(instance, OnThisHost)
    processes = [one for pid in instance.host_pids() if (one := Process.of(pid)) is not None]
    assert processes
    for one in (instance, *left):
        one.delete()
    assert not [one for one in processes if one.alive()]
    assert not driver.list_instances(run) and not driver.leftovers(run)
    assert not [one for one in left_services() if one.labels["lab.run"] == run["lab.run"]]


def test_an_end_is_told_with_its_signal_and_its_service_ends_with_the_driver(
    driver: Driver, labels: dict[str, str]
) -> None:
    spec = Spec(labels={**labels, "lab.target": "podman"})
    driver.prepare(spec)
    heard = Heard()
    endpoint = Endpoint("127.0.0.1", reserve_port(None))
    instance = driver.launch(spec.for_launch(), endpoint, Recording(None, heard))
    assert isinstance(instance, OnThisHost)
    roles = instance.host_pids()
    shim = next(pid for pid, role in roles.items() if role is Role.SHIM)
    assert Path(f"/proc/{shim}/comm").read_text().strip() == "conmon"
    os.kill(next(pid for pid, role in roles.items() if role is Role.SERVICE), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not heard.failures and time.monotonic() < deadline:
        time.sleep(0.05)
    assert isinstance(heard.failures[0], LaunchError) and "by signal SIGKILL (9)" in heard.failures[0].brief
    instance.delete()
    serving = [Process.of(pid) for pid in driver.engine_pids()]  # type: ignore[attr-defined]
    driver.close()
    assert serving and not [one for one in serving if one is not None and one.alive()]
    with contextlib.closing(driver):
        assert driver.info().engine == "Podman", "it is served anew"
