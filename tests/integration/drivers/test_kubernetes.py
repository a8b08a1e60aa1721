"""Kubernetes on a real kind cluster of the lab's own: what only this driver does.

`LAB_REQUIRE=kind` with `LAB_KIND_IMAGE` (a node image that is here) and perhaps `LAB_KIND_CONFIG` makes the
cluster where it is missing. Nothing is pulled, and neither the cluster's DNS nor a StorageClass is used.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster.kind import POOL, Kind
from drivers.kubernetes.connection.client import Api
from lab.driver import Context
from lab.errors import BadInput, LabError, LaunchError
from lab.features import Execs, Feature, OnThisHost, Replicates, Role
from lab.host import procs
from lab.host.memory import standing
from lab.launch.session import Session
from lab.service.load import parse, start_watch
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source, SystemClock
from scenarios.boot import Boot
from scenarios.cluster import Cluster
from scenarios.memory import Memory

pytestmark = pytest.mark.engine("kubernetes")
Drive = Callable[..., KubernetesDriver]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
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
        drive("runtimeclass=nothing-there").info()


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


def test_what_one_event_shows_has_one_instant(drive: Drive, labels: dict[str, str]) -> None:
    """Between two marks of the lab's own making lie some 20 µs; two events of a cluster are further apart."""
    with launched(drive(), labels) as session:
        told = sorted(mark.ns for mark in session.timeline if mark.source is Source.EVENT)
        gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
        assert gaps and not [gap for gap in gaps if 0 < gap < 50_000]
        assert all(seconds > 50e-6 for _, _, seconds in session.timeline.steps(ENGINE_CHAIN))


def test_launches_and_stops_begin_at_random_instants_of_the_kubelets_second(
    drive: Drive, measure: Callable[..., RunRecord]
) -> None:
    record = measure(Boot(), drive(), rounds=6)
    waits = [launch.facts["tick"]["waited_s"][what] for launch in record.launches for what in ("launch", "stop")]
    assert len(set(waits)) == 12 and max(waits) < 1.0
    assert {sample.dimensions["clock"] for sample in record.samples} == {"1 s tick"}
    stops = [sample.value for sample in record.samples if sample.metric == "stop_s"]
    assert max(stops) - min(stops) > 0.1  # locked onto the tick they were within 50 ms of each other


def test_processes_that_come_and_go_fail_no_look_and_are_no_standing_cost(
    drive: Drive, labels: dict[str, str], measure: Callable[..., RunRecord]
) -> None:
    """Pods are made and removed all the while, and with them `portmap`, `runc` and shims."""
    busy, watched, over = drive(), drive(), threading.Event()
    watched.info()

    def come_and_go() -> None:
        while not over.is_set():
            with launched(busy, labels):
                pass

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(60):
            listed = procs.present(watched.engine_pids())
            assert standing(listed)
            time.sleep(0.1)
        record = measure(Memory(settle=0.5, requests=0, alloc=0), watched, rounds=3)
    finally:
        over.set()
        thread.join()
    assert {launch.outcome for launch in record.launches} == {Outcome.OK}
    fixed = {one.dimensions["process"] for one in record.samples if one.metric == "engine_pss_bytes"}
    assert "kubelet" in fixed and not fixed & {"portmap", "ptp", "host-local", "loopback", "runc"}


@pytest.fixture
def namespace(drive: Drive) -> Iterator[Callable[..., str]]:
    """Makes namespaces as an administrator would, and removes them."""
    api = drive()._target().ground.api
    made: list[str] = []

    def one(labels: Mapping[str, str] | None = None) -> str:
        name = f"lab-test-{secrets.token_hex(4)}"
        api.call(api.core.create_namespace, {"metadata": {"name": name, "labels": dict(labels or {})}})
        made.append(name)
        _until(lambda: api.found(api.core.read_namespaced_service_account, "default", name) is not None)
        return name

    yield one
    for name in made:
        api.found(api.core.delete_namespace, name)


@pytest.mark.parametrize("variant", ["", "deployment"])
def test_pods_run_under_pod_security_restricted(
    drive: Drive, labels: dict[str, str], namespace: Callable[..., str], variant: str
) -> None:
    name = namespace(RESTRICTED)
    driver = drive(variant, namespace=name, route="node-port")
    with launched(driver, labels) as session:
        assert isinstance(session.instance, OnThisHost) and session.answer is not None
        assert session.instance.id.startswith(f"{name}/")
        (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status and "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
        assert not status.partition("Uid:\t")[2].startswith("0\t")
    assert [left.id for left in driver.leftovers(labels) if left.kind == "namespace"] == []


def test_a_host_port_that_pod_security_forbids_names_another_way(
    drive: Drive, labels: dict[str, str], namespace: Callable[..., str]
) -> None:
    name = namespace(RESTRICTED)
    driver = drive(namespace=name, route="host-port")
    with pytest.raises(LaunchError) as raised, launched(driver, labels):
        pass
    assert "hostPort" in raised.value.brief and "-o route=node-port" in raised.value.resolution


@pytest.mark.parametrize(
    ("limits", "remedy", "options", "changes"),
    [
        ({"max": {"memory": "64Mi"}}, "give --memory 64M", {}, {"memory_bytes": 64 << 20}),
        ({"min": {"memory": "32Mi"}}, "give -o request-memory=32Mi", {"request-memory": "32Mi"}, {}),
        ({"max": {"cpu": "500m"}}, "give --cpus 0.5", {}, {"cpus": 0.5}),
    ],
)
def test_a_limit_range_is_told_with_what_meets_it_and_that_does(
    drive: Drive,
    labels: dict[str, str],
    namespace: Callable[..., str],
    limits: dict[str, Any],
    remedy: str,
    options: dict[str, str],
    changes: dict[str, Any],
) -> None:
    name, api = namespace(), drive()._target().ground.api
    body = {"metadata": {"name": "bounds"}, "spec": {"limits": [{"type": "Container", **limits}]}}
    api.call(api.core.create_namespaced_limit_range, name, body)
    with pytest.raises(LaunchError) as raised, launched(drive(namespace=name), labels):
        pass
    assert "a LimitRange of the namespace forbids the pod" in raised.value.brief
    assert remedy in raised.value.resolution
    with launched(drive(**{"namespace": name, **options}), labels, **changes) as session:
        assert session.answer is not None


@pytest.mark.parametrize("way", ["token", "exec"])
def test_a_user_of_one_namespace_alone_measures_there(
    drive: Drive,
    labels: dict[str, str],
    namespace: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    owner = drive()
    owner.prepare(Spec(labels=labels))  # so that the node has the image
    name, api = namespace(), owner._target().ground.api
    monkeypatch.setenv("KUBECONFIG", str(_confined(owner, api, name, tmp_path, way)))
    monkeypatch.setenv("LAB_SERVICE_IMAGE", owner._images[Spec().image])
    driver = drive(context="confined")
    info = driver.info()
    assert "may not list them" in info.facts["nodes"]
    with launched(driver, labels) as session:
        assert session.answer is not None and session.instance is not None
        assert session.instance.id.startswith(f"{name}/")
        assert session.instance.endpoint is not None and session.instance.endpoint.host != "127.0.0.1"
        assert [one.id for one in driver.list_instances(labels)] == [session.instance.id]
    assert driver.list_instances(labels) == [] and driver.leftovers(labels) == []
    with pytest.raises(BadInput, match="it has: confined"):
        drive(context="another").info()


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


def _confined(owner: KubernetesDriver, api: Api, namespace: str, directory: Path, way: str) -> Path:
    """The kubeconfig of an account that may do all in `namespace`, and nothing elsewhere."""
    from kubernetes import client

    rules = client.RbacAuthorizationV1Api(api.core.api_client)
    api.call(api.core.create_namespaced_service_account, namespace, {"metadata": {"name": "dev"}})
    role = {"kind": "ClusterRole", "name": "admin", "apiGroup": "rbac.authorization.k8s.io"}
    subject = {"kind": "ServiceAccount", "name": "dev", "namespace": namespace}
    binding = {"metadata": {"name": "dev"}, "roleRef": role, "subjects": [subject]}
    api.call(rules.create_namespaced_role_binding, namespace, binding)
    wanted = {"spec": {"expirationSeconds": 3600}}
    told = api.call(api.core.create_namespaced_service_account_token, "dev", namespace, wanted)
    token = str(told["status"]["token"])
    cluster = owner._target().cluster
    assert cluster is not None
    user: dict[str, Any] = {"token": token}
    if way == "exec":
        version = "client.authentication.k8s.io/v1"
        answer = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}}
        (directory / "answer").write_text(json.dumps(answer))
        user = {"exec": {"apiVersion": version, "command": "cat", "args": [str(directory / "answer")]}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "contexts": [{"name": "confined", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": Kind.find().kubeconfig(cluster.name)["clusters"][0]["cluster"]}],
        "users": [{"name": "u", "user": user}],
    }
    path = directory / "kubeconfig"
    path.write_text(json.dumps(config))  # which YAML is a superset of
    return path
