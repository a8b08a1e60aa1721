"""Podman behind Docker's API: named as what it is, its ends seen, its conmon counted, and nothing of a run left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.driver import Context, Driver
from lab.errors import DriverUnavailable, LaunchError
from lab.features import OnThisHost, Role
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.timeline import SystemClock

pytestmark = [
    pytest.mark.engine("docker"),
    pytest.mark.beyond_engine,
    pytest.mark.skipif(shutil.which("podman") is None or os.geteuid() != 0, reason="needs Podman, and root"),
]

# Limits that any host lets a container have, also one whose own are low.
CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Podman takes no run root of more than 50 characters."""
    with tempfile.TemporaryDirectory(prefix="pod", dir="/var/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture
def context(make_context: Callable[..., Context], folder: Path) -> Iterator[Context]:
    """Of a Podman that serves its API here, with a store of its own."""
    (folder / "containers.conf").write_text(CONF)
    folders = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--tmpdir", str(folder / "tmp")]
    podman = ["podman", *folders, "--storage-driver", "vfs"]
    environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
    address = f"unix://{folder}/podman.sock"
    server = subprocess.Popen([*podman, "system", "service", "--time=0", address], env=environment)
    try:
        deadline = time.monotonic() + 30
        while not (folder / "podman.sock").exists():
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield make_context(**{"docker-host": address})
        left = subprocess.run([*podman, "images", "-aq"], capture_output=True, env=environment, check=True, timeout=60)
        assert left.stdout == b""
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def driver(context: Context, labels: dict[str, str]) -> Iterator[Driver]:
    made = make_driver(Target("docker"), context)
    try:
        yield made
    finally:
        for instance in made.list_instances({"lab.run": labels["lab.run"]}):
            instance.delete()
        for leftover in made.leftovers({"lab.run": labels["lab.run"]}):
            leftover.delete()
        made.close()


def test_podman_is_named_and_its_run_is_whole(driver: Driver, labels: dict[str, str]) -> None:
    info = driver.info()
    assert info.engine.startswith("Podman") and info.qualifiers["engine"] == "podman"
    spec = Spec(labels={**labels, "lab.target": "docker"})
    driver.prepare(spec)
    with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=60) as session:
        session.launch()
        session.await_ready()
        assert isinstance(session.instance, OnThisHost)
        roles = session.instance.host_pids()
        assert {Role.SERVICE, Role.SHIM} <= set(roles.values())
        shim = next(pid for pid, role in roles.items() if role is Role.SHIM)
        assert Path(f"/proc/{shim}/comm").read_text().strip() == "conmon"
        assert set(driver.engine_pids().values()) <= {"podman"}  # type: ignore[attr-defined]
    assert [one.kind for one in driver.leftovers({"lab.run": labels["lab.run"]})] == ["image"]


def test_an_end_is_seen_with_its_status(driver: Driver, labels: dict[str, str]) -> None:
    spec = Spec(labels={**labels, "lab.target": "docker"})
    driver.prepare(spec)
    seen: list[Exception] = []

    class Ears:
        def __call__(self, *_: object, **__: object) -> None: ...
        def line(self, *_: object, **__: object) -> None: ...
        def moment(self) -> Ears:
            return self

        def failed(self, error: Exception) -> None:
            seen.append(error)

    from lab.launch.waiter import reserve_port
    from lab.spec import Endpoint

    instance = driver.launch(spec.for_launch(), Endpoint("127.0.0.1", reserve_port(None)), Ears())  # type: ignore[arg-type]
    pids = instance.host_pids()  # type: ignore[attr-defined]
    os.kill(next(pid for pid, role in pids.items() if role is Role.SERVICE), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not seen and time.monotonic() < deadline:
        time.sleep(0.05)
    assert isinstance(seen[0], LaunchError) and "by signal SIGKILL (9)" in seen[0].brief
    instance.delete()


def test_podman_has_no_swarm(context: Context) -> None:
    driver = make_driver(Target("swarm"), context)
    with pytest.raises(DriverUnavailable, match=r"Podman .* has no Swarm"):
        driver.info()
    driver.close()
