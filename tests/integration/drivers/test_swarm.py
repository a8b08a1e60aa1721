"""Docker Swarm on the real engine: what only it does."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from drivers.swarm import SwarmDriver
from lab.driver import Context, Mark
from lab.errors import BadInput, CleanupError, LaunchError
from lab.features import Execs, OnThisHost, Replicates, Role
from lab.host import cgroup
from lab.host.procs import Process
from lab.launch.session import Session
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source, SystemClock
from lab.units import MIB

pytestmark = pytest.mark.engine("swarm")

MakeDriver = Callable[[], SwarmDriver]
Until = Callable[..., object]
VXLAN = 4789
"""The overlay's port, which listens on every address as long as a swarm has an overlay network."""


@pytest.fixture
def make_driver(context: Context, labels: dict[str, str]) -> Iterator[MakeDriver]:
    made: list[SwarmDriver] = []

    def make() -> SwarmDriver:
        made.append(SwarmDriver("", context))
        return made[-1]

    yield make
    cleaner = make()
    for instance in cleaner.list_instances({"lab.run": labels["lab.run"]}):
        instance.delete()
    for leftover in cleaner.leftovers({"lab.run": labels["lab.run"]}):
        leftover.delete()
    for driver in made:
        driver.close()


def _session(driver: SwarmDriver, labels: Mapping[str, str], **changes: Any) -> Session:
    spec = Spec(labels={**labels, "lab.target": "swarm"}, **changes)
    info = driver.info()
    driver.prepare(spec)
    return Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=60)


def _ask(endpoint: Endpoint, nonce: str) -> dict[str, Any] | None:
    """What `/clock` says there; None where nobody answers."""
    request = f"GET /clock HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Lab-Nonce: {nonce}\r\n\r\n"
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 1) as connection:
            connection.sendall(request.encode())
            answer = b""
            while part := connection.recv(4096):
                answer += part
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    told: dict[str, Any] | None = json.loads(body) if b" 200 " in head else None
    return told


def _listening() -> set[tuple[str, int]]:
    found = set()
    for connection in psutil.net_connections("inet"):
        unconnected_udp = connection.type == socket.SOCK_DGRAM and not connection.raddr
        if connection.status == psutil.CONN_LISTEN or unconnected_udp:
            found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_a_launch_is_marked_by_service_and_container_and_both_bear_the_labels_and_the_limits(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    with _session(make_driver(), labels, memory_bytes=96 * MIB, cpus=0.5, pids=32) as session:
        session.launch()
        seen = {(mark.phase, mark.source): mark.ns for mark in session.timeline}
        assert seen[Phase.CREATED, Source.RETURN] < seen[Phase.STARTED, Source.EVENT], "the service's, the container's"
        assert {(Phase.MAIN, Source.LOG), (Phase.LISTENING, Source.LOG), (Phase.MAIN, Source.SERVICE)} <= set(seen)
        assert session.timeline.duration_s(Phase.CREATED, Phase.STARTED) > 0
        told = engine.inspect_service(session.instance.id)  # type: ignore[union-attr]
        assert told["Spec"]["Labels"] == dict(session.spec.labels)
        assert told["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith("sha256:")  # asks no registry
        (container,) = engine.containers(filters={"label": f"lab.launch={session.spec.labels['lab.launch']}"})
        assert dict(session.spec.labels).items() <= container["Labels"].items()
        assert isinstance(session.instance, OnThisHost)
        roles = session.instance.host_pids()
        (pid,) = [pid for pid, role in roles.items() if role is Role.SERVICE]
        assert Role.SHIM in roles.values()
        held = cgroup.of_process(pid).limits()
        assert (held.memory_bytes, held.cpus, held.pids) == (96 * MIB, 0.5, 32)
        assert isinstance(session.instance, Execs)
        assert session.instance.exec(["/service", "load"], timeout_s=20).exit_code != 0


def test_nothing_listens_beyond_loopback_but_an_overlay(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    before = _listening()
    with _session(make_driver(), labels) as session:
        session.launch()
        seen = _listening() - before
    beyond = {(ip, port) for ip, port in seen if not ipaddress.ip_address(ip).is_loopback and port != VXLAN}
    assert not beyond, f"listening beyond loopback: {beyond}"


@pytest.mark.beyond_engine  # needs an engine that is in no swarm
def test_a_swarm_of_the_runs_own_leaves_with_it_and_with_its_bridge(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    if engine.info()["Swarm"]["LocalNodeState"] != "inactive":
        pytest.skip("this engine is in a swarm already")
    driver = make_driver()
    assert driver.info().facts["swarm"].startswith("begun by the run")
    assert engine.info()["Swarm"]["LocalNodeState"] == "inactive"  # asking changes nothing
    with _session(driver, labels) as session:
        session.launch()
        assert engine.inspect_swarm()["Spec"]["Labels"]["lab.run"] == labels["lab.run"]
        assert not engine.networks(names=["ingress"])
        assert driver.info().facts["beyond_loopback"] == "nothing"
        assert VXLAN not in {port for _, port in _listening()}
    left = make_driver().leftovers({"lab.run": labels["lab.run"]})
    assert {one.kind for one in left} == {"image", "swarm", "network"}
    for one in left:
        one.delete()
        one.delete()
    assert engine.info()["Swarm"]["LocalNodeState"] == "inactive"
    assert not engine.networks(names=["docker_gwbridge"])


@pytest.mark.beyond_engine  # needs an engine that is in no swarm
def test_a_swarm_that_others_use_by_now_is_not_left(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    driver = make_driver()
    driver.prepare(Spec(labels=labels))
    swarms = [one for one in driver.leftovers({"lab.run": labels["lab.run"]}) if one.kind == "swarm"]
    if not swarms:
        pytest.skip("this engine was in a swarm already")
    image = engine.images(filters={"label": f"lab.run={labels['lab.run']}"})[0]["Id"]
    theirs = engine.create_service(
        {"ContainerSpec": {"Image": image}}, name="theirs", mode={"Replicated": {"Replicas": 0}}
    )
    try:
        with pytest.raises(CleanupError, match="theirs") as raised:
            swarms[0].delete()
        assert "docker swarm leave" in raised.value.resolution
    finally:
        engine.remove_service(theirs["ID"])
    secret = engine.create_secret("their-secret", b"x")
    config = engine.create_config("their-config", b"x")
    network = engine.create_network("their-network", driver="overlay")
    try:
        with pytest.raises(CleanupError, match="secret their-secret, config their-config, network their-network"):
            swarms[0].delete()
    finally:
        engine.remove_secret(secret["ID"])
        engine.remove_config(config["ID"])
        engine.remove_network(network["Id"])


@pytest.mark.beyond_engine  # needs an engine that is in no swarm
def test_a_swarm_that_was_there_is_used_and_stays(make_driver: MakeDriver, labels: dict[str, str], engine: Any) -> None:
    if engine.info()["Swarm"]["LocalNodeState"] != "inactive":
        pytest.skip("this engine is in a swarm already")
    engine.init_swarm(advertise_addr="127.0.0.1", listen_addr="127.0.0.1:2377")
    try:
        driver = make_driver()
        assert driver.info().facts["swarm"] == "found"
        assert driver.info().facts["beyond_loopback"].startswith(f"udp {VXLAN}")
        with _session(driver, labels) as session:
            session.launch()
            assert Phase.READY in session.timeline
        assert {one.kind for one in driver.leftovers({"lab.run": labels["lab.run"]})} == {"image"}
        assert engine.networks(names=["ingress"])
    finally:
        engine.leave_swarm(force=True)
        engine.remove_network("docker_gwbridge")


def test_replicas_come_and_go_and_each_answers_at_its_own_address(
    make_driver: MakeDriver, labels: dict[str, str], until: Until
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        service = session.instance
        assert isinstance(service, Replicates)

        def answering() -> set[int]:
            told = [_ask(endpoint, session.spec.nonce) for endpoint in service.endpoints()]
            return {one["main_ns"] for one in told if one}

        service.scale(3)
        until(lambda: len(answering()) == 3)
        assert len(set(service.endpoints())) == 3
        service.scale(1)
        until(lambda: len(service.endpoints()) == 1)


def test_an_update_replaces_the_version_and_begins_the_next_before_the_last_ends(
    make_driver: MakeDriver, labels: dict[str, str], until: Until
) -> None:
    with _session(make_driver(), labels, environment={"LAB_VERSION": "1"}) as session:
        session.launch()
        service = session.instance
        assert isinstance(service, Replicates)
        assert service.update_policy()["order"].startswith("start-first")

        def versions() -> set[str]:
            told = [_ask(endpoint, session.spec.nonce) for endpoint in service.endpoints()]
            return {one["version"] for one in told if one}

        assert versions() == {"1"}
        service.update(replace(session.spec, environment={"LAB_VERSION": "2"}))
        seen: list[set[str]] = []

        def replaced() -> bool:
            # One may end between being listed and being asked: then the other is there already.
            seen.append(versions() or versions())
            return seen[-1] == {"2"}

        until(replaced)
        assert set() not in seen, "at some time neither version answered"


@pytest.mark.parametrize(("restart", "at_least_s"), [(Restart.DEFAULT, 4.5), (Restart.BEST, 0.0)])
def test_a_killed_service_is_begun_again_by_the_declared_policy(
    make_driver: MakeDriver, labels: dict[str, str], restart: Restart, at_least_s: float, until: Until
) -> None:
    driver = make_driver()
    assert set(driver.info().facts["restart"]) == {"default", "best"}
    with _session(driver, labels, restart=restart) as session:
        session.launch()
        service = session.instance
        assert isinstance(service, OnThisHost) and isinstance(service, Replicates)
        (pid,) = [pid for pid, role in service.host_pids().items() if role is Role.SERVICE]
        before = _ask(service.endpoints()[0], session.spec.nonce)
        process = Process.of(pid)
        assert process is not None and before is not None
        killed = time.monotonic()
        process.send(signal.SIGKILL)

        def again() -> bool:
            told = [_ask(endpoint, session.spec.nonce) for endpoint in service.endpoints()]
            return any(one and one["main_ns"] != before["main_ns"] for one in told)

        until(again)
        assert time.monotonic() - killed > at_least_s


def test_a_command_that_is_not_there_is_told_in_swarms_words_and_leaves_nothing(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    driver = make_driver()
    spec = Spec(labels={**labels, "lab.target": "swarm"}).for_launch()
    driver.prepare(spec)
    # An entrypoint that the image lacks: what a user's broken image would be.
    template = driver._template
    driver._template = lambda given: _with_command(template(given), ["/nope"])  # type: ignore[method-assign]
    with pytest.raises(LaunchError, match=r"Swarm could not start the task: .*/nope") as raised:
        driver.launch(spec, None, Deaf())
    assert "\n" not in raised.value.brief
    assert not driver.list_instances({"lab.run": labels["lab.run"]})
    assert not engine.containers(all=True, filters={"label": f"lab.run={labels['lab.run']}"})


def test_a_container_whose_service_is_gone_is_a_leftover(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    driver = make_driver()
    driver.prepare(Spec(labels=labels))
    image = engine.images(filters={"label": f"lab.run={labels['lab.run']}"})[0]["Id"]
    own = {**labels, "lab.target": "swarm", "com.docker.swarm.service.id": "gone"}
    made = engine.create_container(image, labels=own)["Id"]
    found = [one for one in driver.leftovers({"lab.run": labels["lab.run"]}) if one.kind == "container"]
    assert [one.id for one in found] == [made]
    found[0].delete()
    assert not engine.containers(all=True, filters={"id": made})


def test_there_are_no_variants(context: Context) -> None:
    with pytest.raises(BadInput, match="no variant 'host'"):
        SwarmDriver("host", context)


@pytest.mark.alone  # `lab run` waits while another lab's instances are there
@pytest.mark.beyond_engine
def test_where_ports_are_published_on_loopback_each_task_gets_one(tmp_path: Path, until: Until) -> None:
    """Against a private engine with `--ip 127.0.0.1`, in a network namespace of its own."""
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("dockerd", "unshare", "nsenter", "ip")):
        pytest.skip("a private dockerd needs root, dockerd, unshare, nsenter and ip")
    host = f"unix://{tmp_path}/sock"
    places = ["--data-root", f"{tmp_path}/data", "--exec-root", f"{tmp_path}/exec", "--pidfile", f"{tmp_path}/pid"]
    command = ["dockerd", "--ip", "127.0.0.1", "--host", host, "--config-file", f"{tmp_path}/none.json", *places]
    (tmp_path / "none.json").write_text("{}")
    with (tmp_path / "log").open("wb") as log:
        in_its_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        daemon = subprocess.Popen([*in_its_network, *command], stdout=log, stderr=log)
    try:
        until(lambda: (tmp_path / "sock").exists() and _answers(host))
        lab = [sys.executable, "-m", "lab"]
        run = subprocess.run(
            [
                *("nsenter", f"--net=/proc/{daemon.pid}/ns/net", *lab, "run", "boot", "-t", "swarm", "--rounds", "2"),
                *("--warmup", "0", "--json", "--store", str(tmp_path / "lab.db")),
            ],
            env={**os.environ, "DOCKER_HOST": host},
            capture_output=True,
            timeout=200,
            check=False,
        )
    finally:
        daemon.terminate()
        daemon.wait(60)
    assert run.returncode == 0, run.stderr.decode() + (tmp_path / "log").read_text()[-2000:]
    samples = [one for one in json.loads(run.stdout)["samples"] if one["metric"] == "boot_s"]
    assert len(samples) == 2
    for one in samples:
        assert one["dimensions"]["publish"] == "host-mode port" and one["dimensions"]["route"] == "loopback"


def _answers(host: str) -> bool:
    try:
        docker.DockerClient(base_url=host, timeout=5).close()
    except docker.errors.DockerException:
        return False
    return True


class Deaf:
    """A Mark that nobody listens to."""

    def __call__(self, phase: Phase, *, source: Source) -> None: ...
    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: Exception) -> None: ...


def _with_command(template: dict[str, Any], command: list[str]) -> dict[str, Any]:
    return {**template, "ContainerSpec": {**template["ContainerSpec"], "Command": command}}
