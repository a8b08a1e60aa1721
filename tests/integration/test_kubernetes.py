"""Kubernetes on a real kind cluster of the lab's own: what only this driver does.

`LAB_REQUIRE=kubernetes` with `LAB_KIND_IMAGE` (a node image that is here) and perhaps `LAB_KIND_CONFIG` makes the
cluster where it is missing. Nothing is pulled, and neither the cluster's DNS nor a StorageClass is used.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.kind import Kind
from lab.driver import Context, Execs, Feature, OnThisHost, Replicates, Role
from lab.errors import LabError, LaunchError
from lab.run import Outcome, RunRecord
from lab.session import Session
from lab.spec import Spec
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source, SystemClock
from scenarios.boot import Boot
from scenarios.cluster import Cluster

pytestmark = pytest.mark.engine("kubernetes")
Drive = Callable[..., KubernetesDriver]


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


def test_a_deployment_replicates_and_rolls_over_without_a_gap(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive("deployment")
    with launched(driver, labels, environment={"LAB_VERSION": "1"}) as session:
        instance = session.instance
        assert isinstance(instance, Replicates) and isinstance(instance, OnThisHost)
        instance.scale(2)
        _until(lambda: list(instance.host_pids().values()).count(Role.SERVICE) == 2)
        instance.scale(1)
        _until(lambda: list(instance.host_pids().values()).count(Role.SERVICE) == 1)
        before = set(instance.host_pids())
        instance.update(Spec(labels=session.spec.labels, nonce=session.spec.nonce, environment={"LAB_VERSION": "2"}))
        _until(lambda: bool(instance.host_pids()) and not before & set(instance.host_pids()))


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


def test_exec_runs_the_service_itself(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive(), labels) as session:
        assert isinstance(session.instance, Execs)
        with pytest.raises(LabError, match="no 'nothing-there' to run"):
            session.instance.exec(["nothing-there"], timeout_s=20)


@pytest.mark.parametrize("route", ["node-port", "host-port", "port-forward"])
def test_each_route_leads_to_the_pod_and_is_named(drive: Drive, labels: dict[str, str], route: str) -> None:
    if route == "host-port" and drive().info().qualifiers["route"] != "host-port":
        return  # the node's CNI maps none, and the driver says so
    driver = drive(route=route)
    assert driver.info().qualifiers == {"route": route}
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


def _until(true: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it has not come to be"
        time.sleep(0.1)
