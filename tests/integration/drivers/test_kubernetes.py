"""Kubernetes on a real kind cluster of the lab's own: what only this driver does.

`LAB_REQUIRE=kind` with `LAB_KIND_IMAGE` (a node image that is here) and perhaps `LAB_KIND_CONFIG` makes the
cluster where it is missing. Nothing is pulled, and neither the cluster's DNS nor a StorageClass is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster.kind import POOL, Kind
from lab.driver import Context
from lab.errors import LabError, LaunchError
from lab.features import Execs, Feature, OnThisHost, Replicates, Role
from lab.launch.session import Session
from lab.service.load import parse, start_watch
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source, SystemClock
from scenarios.boot import Boot
from scenarios.cluster import Cluster

pytestmark = pytest.mark.engine("kubernetes")
Drive = Callable[..., KubernetesDriver]
QUIET_S = 1.0
"""How long requests go on before an update, and after it."""


@pytest.fixture
def drive(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Drive]:
    """Drivers that clean up after themselves."""
    made: list[KubernetesDriver] = []

    def one(variant: str = "", **options: str) -> KubernetesDriver:
        made.append(KubernetesDriver(variant, make_context(**options)))
        return made[-1]

    yield one
    for driver in made:
        for thing in (*driver.list_instances(labels), *driver.leftovers(labels)):
            thing.delete()
        driver.close()


@contextlib.contextmanager
def launched(driver: KubernetesDriver, labels: dict[str, str], **changes: Any) -> Iterator[Session]:
    info = driver.info()
    spec = Spec(labels=labels, **changes)
    driver.prepare(spec)
    with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=120) as session:
        session.launch()
        yield session


def test_every_phase_of_a_pod_is_seen_by_an_event(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive(), labels) as session:
        timeline = session.timeline
        by_event = {mark.phase for mark in timeline if mark.source is Source.EVENT}
        assert by_event >= {Phase.SCHEDULED, Phase.STARTED, Phase.ENGINE_READY}
        assert timeline.mark(Phase.MAIN).clock is Clock.SHARED  # kind's kernel is this host's
        assert timeline.steps(ENGINE_CHAIN)
        assert session.instance is not None and session.instance.endpoint is not None
        assert session.instance.endpoint.host == "127.0.0.1"


def test_a_pods_processes_are_found_by_role(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive(), labels) as session:
        assert isinstance(session.instance, OnThisHost) and session.answer is not None
        roles = list(session.instance.host_pids().values())
        assert sorted(set(roles)) == sorted({Role.SERVICE, Role.SHIM, Role.HELPER})
        assert roles.count(Role.SERVICE) == 1
        assert session.spec.nonce.encode() in session.instance.logs()


def test_limits_are_those_of_the_spec(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive(), labels, memory_bytes=64 << 20) as session:
        assert isinstance(session.instance, OnThisHost)
        pids = session.instance.host_pids()
        (pid,) = [pid for pid, role in pids.items() if role is Role.SERVICE]
        limits = [path.read_text().strip() for path in _memory_limits(pid)]
        assert str(64 << 20) in limits


def test_what_runs_the_cluster_is_told_without_the_labs_pods(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive()
    assert Feature.ENGINE_PIDS in driver.info().features
    with launched(driver, labels) as session:
        assert isinstance(session.instance, OnThisHost)
        told = driver.engine_pids()
        assert set(told.values()) >= {"etcd", "kube-apiserver", "kubelet", "containerd", "containerd-shim"}
        assert not set(told) & set(session.instance.host_pids())


def test_a_deployment_replicates_and_rolls_over_without_a_gap(drive: Drive, labels: dict[str, str]) -> None:
    """There is always a pod that is available, and its Service answers before, with both versions, and after. What is
    refused on the way, while kube-proxy has not yet followed, is a figure of the scenario `rollout`."""
    driver = drive("deployment")
    with launched(driver, labels, environment={"LAB_VERSION": "1"}) as session:
        instance = session.instance
        assert isinstance(instance, Replicates) and isinstance(instance, OnThisHost)
        instance.scale(2)
        _until(lambda: list(instance.host_pids().values()).count(Role.SERVICE) == 2)
        instance.scale(1)
        _until(lambda: list(instance.host_pids().values()).count(Role.SERVICE) == 1)
        before = set(instance.host_pids())
        available: list[int] = []

        def replaced() -> bool:
            available.append(_available(driver, session))
            return bool(instance.host_pids()) and not before & set(instance.host_pids())

        (address,) = instance.endpoints()
        with start_watch(address, seconds=120, interval_s=0.05) as watch:
            time.sleep(QUIET_S)
            asked_ns = time.monotonic_ns()
            instance.update(replace(session.spec, environment={"LAB_VERSION": "2"}))
            _until(replaced)
            _until(lambda: _answers(address, "2"))
            done_ns = time.monotonic_ns()
            time.sleep(QUIET_S)
            seen = watch.stop()
        seen.require_punctual()
        assert min(available) >= 1
        quiet, changing = seen.split(asked_ns)
        changing, settled = changing.split(done_ns)
        assert {one.version for one in quiet.requests if one.served} == {"1"} and not quiet.failed
        assert {one.version for one in changing.requests if one.served} == {"1", "2"}
        assert {one.version for one in settled.requests if one.served} == {"2"} and not settled.failed


def test_an_image_that_is_not_on_the_node_is_one_clear_line(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive()
    spec = Spec(labels=labels)
    driver.prepare(spec)
    driver._images[spec.image] = "docker.io/stratalab/service:not-there"
    session = Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60)
    with session, pytest.raises(LaunchError) as raised:
        session.launch()
    assert "the image is missing on the node" in raised.value.brief and raised.value.resolution


def test_a_pod_that_no_node_takes_is_refused_with_the_schedulers_reason(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive()
    driver.prepare(Spec(labels=labels))
    api = driver._target().ground.api
    core = api.core
    nodes = [node["metadata"]["name"] for node in api.call(core.list_node)["items"]]
    for node in nodes:
        api.call(core.patch_node, node, {"spec": {"unschedulable": True}})
    try:
        session = Session(driver, driver.info(), Spec(labels=labels).for_launch(), SystemClock(), timeout_s=60)
        with session, pytest.raises(LaunchError) as raised:
            session.launch()
        assert "cannot be scheduled" in raised.value.brief and "unschedulable" in raised.value.brief
    finally:
        for node in nodes:
            api.call(core.patch_node, node, {"spec": {"unschedulable": False}})
    assert driver.list_instances(labels) == []


def test_a_quota_is_one_clear_line(drive: Drive, labels: dict[str, str]) -> None:
    for variant in ("", "deployment"):
        driver = drive(variant)
        driver.prepare(Spec(labels=labels))
        api = driver._target().ground.api
        (namespace,) = [left.id for left in driver.leftovers(labels) if left.kind == "namespace"]
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        if not variant:
            api.call(api.core.create_namespaced_resource_quota, namespace, quota)
            _until(lambda: bool(api.call(api.core.read_namespaced_resource_quota, "none", namespace).get("status")))  # noqa: B023
        session = Session(driver, driver.info(), Spec(labels=labels).for_launch(), SystemClock(), timeout_s=60)
        with session, pytest.raises(LaunchError) as raised:
            session.launch()
        assert "a quota of the cluster forbids" in raised.value.brief


def test_exec_tells_the_output_and_the_exit_code_of_what_it_ran(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive(), labels) as session:
        assert isinstance(session.instance, Execs)
        watch = ["/service", "watch", "--host", "127.0.0.1", "--port", str(session.spec.port)]
        good = session.instance.exec([*watch, "--seconds", "0.2"], timeout_s=20)
        assert good.exit_code == 0 and good.stderr == b""
        told = parse(good.stdout)
        assert told.requests and not told.failed
        bad = session.instance.exec([*watch, "--nothing-such", "1"], timeout_s=20)
        assert bad.exit_code == 2 and b"--nothing-such" in bad.stderr and bad.stdout == b""
        with pytest.raises(LabError, match="no 'nothing-there' to run"):
            session.instance.exec(["nothing-there"], timeout_s=20)


@pytest.mark.parametrize("route", ["node-port", "host-port", "port-forward"])
def test_each_route_leads_to_the_pod_and_is_named(drive: Drive, labels: dict[str, str], route: str) -> None:
    if route == "host-port" and drive().info().qualifiers["route"] != "host-port":
        return  # the node's CNI maps none, and the driver says so
    driver = drive(route=route)
    assert driver.info().qualifiers["route"] == route
    with launched(driver, labels) as session:
        assert session.answer is not None and session.instance is not None
        assert str(session.instance.endpoint).startswith("127.0.0.1:")


def test_a_runtime_class_that_is_not_there_is_refused(drive: Drive) -> None:
    with pytest.raises(LabError, match="no RuntimeClass 'nothing-there'"):
        drive("nothing-there").info()


def test_the_image_is_on_every_node_by_its_digest(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive()
    driver.prepare(Spec(labels=labels))
    kind, cluster = Kind.find(), driver._target().cluster
    assert cluster is not None
    reference = driver._images[Spec().image]
    assert all(kind.image_config(node, reference).startswith("sha256:") for node in kind.nodes(cluster.name))


def test_the_cluster_listens_on_loopback_only(drive: Drive) -> None:
    cluster = drive()._target().cluster
    assert cluster is not None
    server = Kind.find().kubeconfig(cluster.name)["clusters"][0]["cluster"]["server"]
    ports = {*cluster.ports.values(), urlsplit(server).port}
    found = [one.laddr for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    at = {(laddr.ip, laddr.port) for laddr in found if laddr.port in ports}
    assert {port for _, port in at} == ports, "the test saw too little to tell"
    beyond = [(ip, port) for ip, port in at if not ipaddress.ip_address(ip).is_loopback]
    assert not beyond, f"listening beyond loopback: {beyond}"


def test_the_command_tells_the_clusters_status(drive: Drive) -> None:
    version = drive().info().version
    command = [sys.executable, "-m", "lab", "cluster", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["version"] == f"v{version}" and told["ports_in_use"].endswith(f"of {POOL}")


def test_boot_tells_the_phases(drive: Drive, measure: Callable[..., RunRecord]) -> None:
    record = measure(Boot(), drive())
    assert [target.outcome for target in record.targets] == [Outcome.OK]
    assert {launch.outcome for launch in record.launches} == {Outcome.OK}
    told = {(one.dimensions.get("from"), one.dimensions.get("to")) for one in record.samples if one.metric == "phase_s"}
    assert ("requested", "created") in told and any(end == "engine_ready" for _, end in told)
    assert {one.dimensions["route"] for one in record.samples} <= {"host-port", "node-port"}


@pytest.mark.timeout(1200)
def test_a_cluster_of_its_own_is_made_and_removed(drive: Drive, measure: Callable[..., RunRecord]) -> None:
    driver = drive()
    assert Feature.CLUSTER in driver.info().features
    before = Kind.find().clusters()
    record = measure(Cluster(), driver)
    values = {one.metric: one.value for one in record.samples}
    assert 0 < values["api_s"] <= values["node_ready_s"] <= values["first_pod_s"]
    assert Kind.find().clusters() == before


def _memory_limits(pid: int) -> Iterator[Path]:
    """The files that may hold the limit of the cgroup of `pid`, on either version of cgroups."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        v2 = Path(f"/sys/fs/cgroup{path}/memory.max")
        v1 = Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
        if not controllers and v2.exists():
            yield v2
        if "memory" in controllers.split(",") and v1.exists():
            yield v1


def _available(driver: KubernetesDriver, session: Session) -> int:
    """How many of the deployment's pods the cluster calls available."""
    assert session.instance is not None
    namespace, name = session.instance.id.split("/")
    api = driver._target().ground.api
    found = api.call(api.apps.read_namespaced_deployment, name, namespace)
    return int(found["status"].get("availableReplicas") or 0)


def _answers(address: Endpoint, version: str) -> bool:
    """Whether the Service leads to nothing but `version`, 10 times over."""
    with start_watch(address, seconds=0.5, interval_s=0.05) as watch:
        return {one.version for one in watch.result().requests if one.served or one.failed} == {version}


def _until(true: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(0.1)
