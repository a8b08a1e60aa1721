"""systemd-nspawn, LXC and bubblewrap on this host: what the contract does not ask of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from made_image import docker_archive, layer, member

from lab.driver import Context, Driver
from lab.features import OnThisHost, Role
from lab.host import cgroup
from lab.host.procfs import read_fields, read_mounts
from lab.host.procs import Process
from lab.launch.session import Session
from lab.registry import make_driver
from lab.service.build import build_service
from lab.spec import Spec, Target
from lab.timeline import Clock, Phase, Source, SystemClock

TARGETS = ("nspawn", "lxc", "bwrap")
# A lab that launches one instance, says so and is then killed.
LAB = """
import json, sys, time
from pathlib import Path
from lab.driver import Context
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.timeline import SystemClock
name, run_dir, cache_dir, labels = sys.argv[1:]
driver = make_driver(Target.parse(name), Context(run_dir=Path(run_dir), cache_dir=Path(cache_dir)))
spec = Spec(labels={**json.loads(labels), "lab.target": name})
driver.prepare(spec)
session = Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60)
session.launch()
print(json.dumps(sorted(session.instance.host_pids())), flush=True)
time.sleep(120)
"""


def _each(*names: str) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.engine(name), id=name) for name in names]


@contextlib.contextmanager
def _driver(name: str, context: Context) -> Iterator[Driver]:
    with contextlib.closing(make_driver(Target.parse(name), context)) as driver:
        yield driver


@pytest.mark.parametrize("name", _each(*TARGETS))
def test_what_a_killed_lab_left_is_found_by_another_and_nothing_of_it_stays(
    name: str, make_context: Callable[..., Context], labels: Mapping[str, str]
) -> None:
    context = make_context()
    argv = [sys.executable, "-c", LAB, name, str(context.run_dir), str(context.cache_dir), json.dumps(dict(labels))]
    lab = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert lab.stdout is not None
    pids = json.loads(lab.stdout.readline())
    held = [process for pid in pids if (process := Process.of(pid)) is not None]
    groups = {path for pid in pids for path in _groups_of(pid)}
    lab.send_signal(signal.SIGKILL)
    lab.wait(20)
    lab.stdout.close()
    assert len(held) >= 2 and all(one.alive() for one in held), "the tool and the service outlive the lab"
    with _driver(name, make_context()) as other:
        (found,) = other.list_instances({"lab.run": labels["lab.run"]})
        assert isinstance(found, OnThisHost)
        assert {Role.SHIM, Role.SERVICE} <= set(found.host_pids().values())
        found.delete()
        found.delete()
        assert not other.list_instances({"lab.run": labels["lab.run"]})
        for left in other.leftovers({"lab.run": labels["lab.run"]}):
            left.delete()
    assert not [one for one in held if one.alive()]
    assert not [path for path in groups if path.exists()]
    ours = (str(context.run_dir), f"launch={found.labels['lab.launch']}")
    assert not [mount for mount in read_mounts(Path("/")) if any(one in mount.point for one in ours)]
    for folder in (Path("/run/stratalab-nspawn"), Path("/run/stratalab-lxc"), Path("/run/systemd/nspawn")):
        assert not [path for path in folder.rglob("*") if found.labels["lab.launch"] in path.name]


@pytest.mark.parametrize("name", _each("nspawn", "lxc"))
def test_another_image_runs_as_its_user_with_its_environment_in_a_network_of_its_own(
    name: str, context: Context, labels: Mapping[str, str], tmp_path: Path
) -> None:
    service = build_service(context.cache_dir).read_bytes()
    archive = tmp_path / "image.tar"
    run = {
        "Entrypoint": ["/service"],
        "User": "33:34",
        "WorkingDir": "/srv",
        "Env": ["LAB_PORT=8080", "LAB_HOST=0.0.0.0", f"LAB_NONCE={'5' * 32}", "LD_PRELOAD=/no such", "TWO=a\nb"],
    }
    archive.write_bytes(docker_archive([layer(member("service", service, mode=0o755))], **run))
    with _driver(name, context) as driver:
        spec = Spec(labels={**labels, "lab.target": name}, image=str(archive), ready_path="/healthz")
        driver.prepare(spec)
        with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60) as session:
            session.launch()
            instance = session.instance
            assert isinstance(instance, OnThisHost) and instance.endpoint is not None
            (pid,) = [pid for pid, role in instance.host_pids().items() if role is Role.SERVICE]
            status = read_fields(Path(f"/proc/{pid}/status"))
            assert (status["Uid"].split()[0], status["Gid"].split()[0]) == ("33", "34")
            assert int(status["CapEff"], 16) == 0
            told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert {b"TWO=a\nb", b"LD_PRELOAD=/no such"} <= set(told)
            assert Path(f"/proc/{pid}/cwd").readlink() == Path("/srv")
            assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            answer = httpx.get(f"http://{instance.endpoint}/healthz", timeout=10, trust_env=False)
            assert answer.json() == {"status": "ok"}


@pytest.mark.parametrize("name", _each(*TARGETS))
def test_its_clock_is_proven_to_be_the_hosts_whatever_boot_id_it_is_shown_and_started_is_its_tools_word(
    name: str, context: Context, labels: Mapping[str, str]
) -> None:
    with _driver(name, context) as driver:
        spec = Spec(labels={**labels, "lab.target": name})
        driver.prepare(spec)
        with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60) as session:
            session.launch()
            marks = {(mark.phase, mark.source): mark for mark in session.timeline}
            assert marks[Phase.MAIN, Source.SERVICE].clock is Clock.SHARED
            assert (Phase.STARTED, Source.EVENT) in marks


def _groups_of(pid: int) -> Iterator[Path]:
    for directory in cgroup.of_process(pid).directories:
        if "lab" in str(directory.path) or "launch=" in str(directory.path):
            yield directory.path
    assert os.getpid() != pid
