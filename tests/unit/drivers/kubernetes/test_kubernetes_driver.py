"""The whole driver, through the real client, against a stub of the API and a `kind` that runs nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.labels import labels_of
from lab.driver import Context, Driver
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LabError, LaunchError, Unsupported
from lab.features import EngineOnThisHost, Feature, Peers, Replicates, Sleeps, SleepState
from lab.host.ownership import Owner
from lab.launch.peers import on_host
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Ready, Spec
from lab.store.record import ASKED_AGAIN, RunRecord
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source, SystemClock
from scenarios.application.boot import AppBoot

LABELS = {"lab.run": "r1", "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "kubernetes:x"}
Make = Callable[..., KubernetesDriver]
_FORM = manifests.Form(image="i", pull_policy="Never", security={})


@pytest.fixture
def make(tmp_path: Path, stub: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Drivers on the fake kind's whole cluster, whose pool has two ports."""
    binary = tmp_path / "service"
    binary.write_bytes(b"\x7fELF service")
    monkeypatch.setattr("drivers.kubernetes.cluster.images.build_service", lambda _: binary)
    stub.ports = {30000: reserve_port(), 30001: reserve_port()}
    kind.make(ports=stub.ports)
    run_dir, cache_dir = tmp_path / "run", tmp_path / "cache"
    run_dir.mkdir()
    made: list[Driver] = []

    def one(variant: str = "", **options: str) -> KubernetesDriver:
        given = {key.replace("_", "-"): value for key, value in options.items()}
        made.append(KubernetesDriver(variant, Context(run_dir=run_dir, cache_dir=cache_dir, options=given)))
        return made[-1]  # type: ignore[return-value]

    yield one
    for driver in made:
        driver.close()


def spec(**changes: Any) -> Spec:
    return Spec(labels=LABELS, **changes)


@contextlib.contextmanager
def launched(driver: Driver, of: Spec | None = None) -> Iterator[Session]:
    info = driver.info()
    driver.prepare(of or spec())
    with Session(driver, info, (of or spec()).for_launch(), SystemClock(), timeout_s=10) as session:
        session.launch()
        yield session


def test_info_tells_the_cluster_and_the_route(make: Make) -> None:
    info = make().info()
    assert (info.engine, info.version) == ("Kubernetes", "1.28.0")
    assert info.qualifiers["route"] == "host-port"
    here = {Feature.HOST_PIDS, Feature.ENGINE_PIDS, Feature.CLUSTER, Feature.NODES}
    assert info.features == {Feature.NETWORK, Feature.EXEC, Feature.RESTART, Feature.TICKS, Feature.PEERS} | here
    assert info.facts["tick_s"] == 1.0 and info.qualifiers["clock"] == "1 s tick"
    assert json.loads(json.dumps(dict(info.facts)))["cluster"]["node_image"] == "kindest/node:v1.28.0"


def test_a_pod_goes_from_requested_to_ready_with_its_phases(make: Make, stub: Any) -> None:
    with launched(make()) as session:
        timeline = session.timeline
        assert [phase for phase in ENGINE_CHAIN if phase in timeline] == list(ENGINE_CHAIN)
        assert all(seconds > 0.0005 for _, _, seconds in timeline.steps(ENGINE_CHAIN)[1:]), "none of the lab's making"
        assert timeline.mark(Phase.READY).source is Source.LAB
        assert timeline.mark(Phase.MAIN).clock is Clock.SHARED
        assert session.wait_method == "poll"
        assert session.instance is not None
        assert session.instance.endpoint == Endpoint("127.0.0.1", stub.ports[30000])
        (pod,) = stub.listed("pods")
        session.stop()
    assert not stub.listed("pods") and not stub.listed("services")
    assert Phase.STOPPED in timeline and Phase.DELETED in timeline
    container = pod["spec"]["containers"][0]
    assert container["imagePullPolicy"] == "Never"
    assert container["image"].startswith("docker.io/stratalab/service:b") and not container["image"].endswith("latest")
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": str(128 << 20)}
    assert container["readinessProbe"]["periodSeconds"] == 1
    assert pod["spec"]["dnsPolicy"] == "Default" and pod["spec"]["automountServiceAccountToken"] is False
    assert pod["metadata"]["namespace"] == "lab-r1"


def test_labels_that_kubernetes_does_not_take_come_back_as_they_were(make: Make, stub: Any) -> None:
    with launched(make()) as session:
        (pod,) = stub.listed("pods")
        assert pod["metadata"]["labels"]["lab.owner"].startswith("sha256-")
        assert pod["metadata"]["labels"]["lab.run"] == "r1"
        fresh = make()
        assert session.instance is not None
        for wanted in ({}, {"lab.run": "r1"}, {"lab.owner": LABELS["lab.owner"]}):
            (found,) = fresh.list_instances(wanted)
            assert found.id == session.instance.id
            assert dict(found.labels) == dict(session.spec.labels)
            assert found.endpoint == session.instance.endpoint
        assert fresh.list_instances({"lab.owner": "x:y:1:2"}) == []
        found.delete()
        found.delete()
        assert fresh.list_instances({}) == []


def test_a_pod_without_host_ports_is_reached_by_a_service_that_waits_for_no_probe(
    make: Make, stub: Any, kind: Any
) -> None:
    (kind.directory / "cni").write_text('{"type": "bridge"}')
    driver = make()
    assert driver.info().qualifiers["route"] == "node-port"
    with launched(driver):
        (service,) = stub.listed("services")
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["ports"][0]["nodePort"] in stub.ports
    assert not stub.listed("services")


def test_a_deployment_goes_through_its_service_and_scales_and_updates(make: Make, stub: Any) -> None:
    driver = make("deployment")
    assert Feature.REPLICAS in driver.info().features
    with launched(driver) as session:
        instance = session.instance
        assert isinstance(instance, Replicates)
        created = session.timeline.mark(Phase.CREATED)
        assert created.source is Source.RETURN and session.timeline.steps(ENGINE_CHAIN)
        (service,) = stub.listed("services")
        assert service["spec"]["publishNotReadyAddresses"] is False
        (deployment,) = stub.listed("deployments")
        strategy = deployment["spec"]["strategy"]
        assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        assert [str(one) for one in instance.endpoints()] == [str(instance.endpoint)]
        instance.scale(3)
        assert len(stub.listed("pods")) == 3
        updated = Spec(labels=session.spec.labels, nonce=session.spec.nonce, environment={"LAB_VERSION": "2"})
        instance.update(updated)
        environments = [pod["spec"]["containers"][0]["env"] for pod in stub.listed("pods")]
        assert all({"name": "LAB_VERSION", "value": "2"} in environment for environment in environments)
        assert set(instance.update_policy()) == {"order", "readiness", "grace", "pre_stop"}
        (found,) = make().list_instances({"lab.launch": session.spec.labels["lab.launch"]})
        assert found.id == instance.id and dict(found.labels) == dict(instance.labels)
        session.stop()
        assert not stub.listed("pods")
    assert not stub.listed("deployments") and not stub.listed("services")


def test_a_pod_is_called_by_its_address_and_a_deployment_by_its_service_too(make: Make, stub: Any) -> None:
    with launched(make(), spec(peers="talk")) as session:
        pod = session.instance
        assert isinstance(pod, Peers)
        address, shut = pod.places()
        assert (address.path, address.host, address.port) == ("pod address", "10.244.0.7", 8080)
        assert (shut.path, "kubernetes:deployment" in shut.why) == ("service", True)
        assert pod.reach(address) is address
        assert "network namespace of its own" in str(pod.reach(on_host("loopback", Endpoint("127.0.0.1", 1))))
    with launched(make("deployment"), spec(peers="talk")) as session:
        deployment = session.instance
        assert isinstance(deployment, Peers)
        address, service = deployment.places()
        assert address.host == "10.244.0.7"
        namespace, _, name = deployment.id.partition("/")
        assert (service.name, service.port) == (f"{name}.{namespace}.svc.cluster.local", 8080)
        assert deployment.reach(service) is service


@pytest.mark.parametrize("variant", ["", "deployment"])
def test_peers_find_an_instance_by_a_service_of_its_alias(make: Make, stub: Any, variant: str) -> None:
    driver, of = make(variant), spec(peers="app", alias="store")
    assert driver.peer_address(of, Endpoint("127.0.0.1", 1)) == ("store", 8080)
    with launched(driver, of) as session:
        (service,) = (one for one in stub.listed("services") if one["metadata"]["name"] == "store")
        (pod,) = stub.listed("pods")
        selector = service["spec"]["selector"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        assert (service["spec"]["type"], service["spec"]["ports"][0]["port"]) == ("ClusterIP", 8080)
        assert labels_of(service) == dict(session.spec.labels)
        assert pod["spec"]["dnsPolicy"] == "ClusterFirst"
        assert "store" in [left.id.rpartition("/")[2] for left in make().leftovers({"lab.run": "r1"})]
    assert not stub.listed("services")


def test_a_service_of_somebody_elses_with_that_name_is_left_alone(make: Make, stub: Any) -> None:
    with launched(make(), spec(peers="app", alias="store")):
        namespace = next(one for one in stub.listed("pods"))["metadata"]["namespace"]
    stub.add("namespaces", {"metadata": {"name": namespace}})
    stub.add("services", {"metadata": {"name": "store"}, "spec": {"ports": []}}, namespace)
    with pytest.raises(LaunchError), launched(make(), spec(peers="app", alias="store")):
        pass
    assert [one["metadata"]["name"] for one in stub.listed("services")] == ["store"]
    assert not stub.listed("pods")


def test_what_is_ready_by_a_connection_is_probed_by_one(make: Make, stub: Any) -> None:
    container = manifests.container(spec(image="i", ready=Ready.TCP, port=6379), _FORM)
    assert container["readinessProbe"]["tcpSocket"] == {"port": 6379}
    assert "httpGet" not in container["readinessProbe"]


def test_a_whole_application_is_launched_each_service_once_the_other_is_there(
    make: Make, stub: Any, tmp_path: Path, measure: Callable[..., RunRecord]
) -> None:
    file = tmp_path / "app.toml"
    file.write_text(
        'entry = "web"\n[services.web]\nimage = "stratalab/service"\nport = 8080\ncalls = ["store"]\n'
        'depends_on = { store = "service_healthy" }\nenvironment = { URL = "http://store:8081/" }\n'
        '[services.store]\nimage = "stratalab/service"\nport = 8081\n'
    )
    record = measure(AppBoot(file=str(file)), make())
    assert [launch.error for launch in record.launches] == ["", ""]
    made = [body["metadata"]["name"] for body in stub.asked("POST", "/(pods|services)$") if body]
    assert (made[0], made[2]) == ("store", "web")
    environments = [pod["spec"]["containers"][0]["env"] for pod in stub.asked("POST", "/pods$") if pod]
    assert len(environments) == 2
    told = {one["name"]: one["value"] for one in environments[1]}
    assert (told["STORE_HOST"], told["STORE_PORT"], told["URL"]) == ("store", "8081", "http://store:8081/")
    after = {s.dimensions["service"]: s.dimensions["after"] for s in record.samples if "after" in s.dimensions}
    assert after == {"web": "store", "store": "nothing"}
    assert not stub.listed("services") and not stub.listed("pods")


def test_a_deployment_sleeps_at_zero_and_wakes_at_the_same_address(make: Make, stub: Any) -> None:
    driver = make("deployment")
    assert Feature.SLEEP in driver.info().features and Feature.SLEEP not in make().info().features
    with launched(driver) as session:
        instance = session.instance
        assert isinstance(instance, Sleeps) and instance.sleep_states() == {SleepState.ZERO: ""}
        before, (deployment,) = instance.endpoint, stub.listed("deployments")
        instance.sleep(SleepState.ZERO, timeout_s=5)
        assert not stub.listed("pods") and stub.listed("deployments") == [deployment]
        assert not instance.sleeps_on(SleepState.ZERO)
        instance.wake(SleepState.ZERO)
        assert len(stub.listed("pods")) == 1 and instance.endpoint == before
        with pytest.raises(Unsupported, match="paused"):
            instance.sleep(SleepState.PAUSED, timeout_s=5)


def test_a_nodeport_that_somebody_took_meanwhile_is_passed_over(make: Make, stub: Any) -> None:
    stub.refuse(
        "POST", "/services", 422, 'Service "x" is invalid: spec.ports[0].nodePort: provided port is already allocated'
    )
    with launched(make("deployment")) as session:
        assert session.instance is not None
        assert session.instance.endpoint == Endpoint("127.0.0.1", stub.ports[30001])


def test_the_pool_bounds_the_instances(make: Make, stub: Any) -> None:
    driver = make()
    with launched(driver), launched(driver):
        with pytest.raises(LaunchError) as raised, launched(driver):
            pass
        assert "all 2 ports of the cluster's pool are in use" in raised.value.brief
    with launched(driver):
        assert len(stub.listed("pods")) == 1


def test_ports_that_others_use_are_not_given_out(make: Make, stub: Any) -> None:
    other = {"metadata": {"name": "theirs"}, "spec": {"ports": [{"port": 80, "nodePort": 30000}]}}
    stub.add("services", other, "default")
    with launched(make()) as session:
        assert session.instance is not None
        assert session.instance.endpoint == Endpoint("127.0.0.1", stub.ports[30001])


def test_a_node_without_the_image_after_loading_is_one_clear_line(make: Make, kind: Any) -> None:
    (kind.directory / "wrong-image").write_text("")
    with pytest.raises(DriverError) as raised:
        make().prepare(spec())
    assert "is missing on the node stratalab-control-plane" in raised.value.brief and raised.value.resolution


def test_an_image_is_loaded_once_and_verified_by_digest(make: Make, kind: Any) -> None:
    make().prepare(spec())
    make().prepare(spec())
    assert len([call for call in kind.calls() if call[1:2] == ["load"]]) == 1


def test_a_users_image_is_loaded_from_its_file(make: Make, stub: Any, tmp_path: Path) -> None:
    from lab.image import open_image, service_archive

    program = tmp_path / "program"
    program.write_bytes(b"theirs")
    path = tmp_path / "theirs.tar"
    path.write_bytes(service_archive(program, tag="docker.io/library/theirs:3", labels={}))
    with launched(make(), spec(image=str(path), ready_path="/", command=("a", "$(HOME)"))) as session:
        (pod,) = stub.listed("pods")
        container = pod["spec"]["containers"][0]
        with open_image(path) as image:
            assert container["image"] == f"docker.io/stratalab/image:{image.digest.removeprefix('sha256:')[:16]}"
        assert container["args"] == ["a", "$$(HOME)"]
        assert session.answer is not None


@pytest.mark.parametrize(
    ("path", "status", "message", "told"),
    [
        ("/pods", 403, 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1', "a quota of the"),
        ("/pods", 403, 'pods is forbidden: User "u" cannot create resource "pods"', "the cluster forbids to create"),
        ("/pods", 403, "unable to create new content in namespace lab-r1 because it is being terminated", "going away"),
        ("/pods", 422, "Pod is invalid: spec: Forbidden", "Kubernetes could not create the pod: Pod is invalid"),
        ("/pods", 401, "Unauthorized", "does not know this user"),
    ],
)
def test_a_refused_pod_is_one_clear_line_and_leaves_nothing(
    make: Make, stub: Any, path: str, status: int, message: str, told: str
) -> None:
    stub.refuse("POST", path, status, message)
    with pytest.raises(LaunchError) as raised, launched(make()):
        pass
    assert told in raised.value.brief and "\n" not in raised.value.brief
    assert not stub.listed("pods") and not stub.listed("services")


def test_a_deployment_over_quota_says_so(make: Make, stub: Any, k8s: Any, quick: None) -> None:
    stub.kubelet = lambda *_: None
    driver = make("deployment")
    info = driver.info()
    driver.prepare(spec())
    session = Session(driver, info, spec().for_launch(), SystemClock(), timeout_s=5)

    def fail(thing: dict[str, Any]) -> dict[str, Any]:
        thing["status"] = {
            "conditions": [k8s.condition("ReplicaFailure", "True", message='pods "x" is forbidden: exceeded quota: q')]
        }
        return thing

    add = stub.add
    stub.add = lambda resource, thing, namespace="": add(
        resource, fail(thing) if resource == "deployments" else thing, namespace
    )
    with session, pytest.raises(LaunchError) as raised:
        session.launch()
    assert "a quota of the cluster forbids it" in raised.value.brief
    assert not stub.listed("deployments") and not stub.listed("pods") and not stub.listed("services")


def test_an_unschedulable_pod_is_removed_and_its_reason_told(make: Make, stub: Any, k8s: Any, quick: None) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        why = k8s.condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes: 1 Insufficient cpu.")
        stub.change(pod, conditions=[why])

    stub.kubelet = kubelet
    with pytest.raises(LaunchError, match="1 Insufficient cpu"), launched(make()):
        pass
    assert not stub.listed("pods")


def test_a_pod_that_fails_after_its_launch_ends_the_wait(make: Make, stub: Any, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        k8s.wait_for(stub, pod, "ErrImageNeverPull", "Container image is not present with pull policy of Never")

    stub.kubelet = kubelet
    with pytest.raises(LaunchError) as raised, launched(make()):
        pass
    assert "the image is missing on the node" in raised.value.brief
    assert "the pod's phase is Pending" in raised.value.details
    assert not stub.listed("pods")


def test_answers_that_were_lost_are_asked_for_again_and_make_nothing_twice(make: Make, stub: Any, quick: None) -> None:
    stub.refuse("POST", "/pods", 500, "etcdserver: request timed out", after=True)
    with launched(make()):
        assert len(stub.listed("pods")) == 1
        assert len(stub.asked("POST", "/pods$")) == 2


def test_a_busy_api_is_asked_again_when_it_said_so(make: Make, stub: Any) -> None:
    stub.refuse("POST", "/pods", 429, "too many requests", headers={"Retry-After": "1"})
    with launched(make()) as session:
        assert session.timeline.duration_s(Phase.REQUESTED, Phase.CREATED) >= 1.0
        assert session.facts()["reported"][ASKED_AGAIN] == "1x 429; 1.00 s waited"


def test_an_api_that_keeps_failing_is_one_clear_line(make: Make, stub: Any, quick: None) -> None:
    driver = make()
    driver.info()
    stub.refuse("GET", "/version", 503, "apiserver not ready", times=9)
    with pytest.raises(DriverUnavailable) as raised:
        driver.info()
    assert "apiserver not ready" in raised.value.brief
    assert len(stub.asked("GET", "/version")) == 5


def test_a_silent_api_is_unavailable(make: Make, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make()
    driver.info()
    monkeypatch.setattr("drivers.kubernetes.connection.client._TIMEOUT_S", (0.3, 0.3))
    stub.refuse("GET", "/version", 200, "late", delay_s=1.0)
    with pytest.raises(DriverUnavailable, match="gave no answer in time"):
        driver.info()


def test_an_api_that_is_not_there_is_unavailable_with_a_remedy(make: Make, kind: Any) -> None:
    path = kind.directory / "kubeconfig"
    path.write_text(path.read_text().replace("127.0.0.1:", "127.0.0.1:1#"))
    with pytest.raises(DriverUnavailable) as raised:
        make().info()
    assert "is not reachable" in raised.value.brief and raised.value.resolution


def test_leftovers_are_the_namespace_and_services_that_lead_nowhere(make: Make, stub: Any) -> None:
    driver = make()
    with launched(driver):
        pass
    orphan = {"metadata": {"name": "lab-x", "labels": {"lab.run": "r1"}}, "spec": {"ports": [{"nodePort": 30001}]}}
    stub.add("services", orphan, "lab-r1")
    found = make().leftovers({"lab.run": "r1"})
    assert [(left.kind, left.id) for left in found] == [("service", "lab-r1/lab-x"), ("namespace", "lab-r1")]
    assert found[1].labels["lab.owner"] == LABELS["lab.owner"] and "lab.target" not in found[1].labels
    for left in found:
        left.delete()
        left.delete()
    assert driver.leftovers({}) == []
    driver.prepare(spec())
    assert [left.kind for left in driver.leftovers({})] == ["namespace"]


def test_a_namespace_that_stays_is_a_cleanup_error(make: Make, stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make()
    driver.prepare(spec())
    (namespace,) = driver.leftovers({})
    monkeypatch.setattr("drivers.kubernetes.pods.inventory.GONE_TIMEOUT_S", 0.2)
    stub.refuse("DELETE", "/namespaces/", 200, "in time")
    with pytest.raises(CleanupError, match="still lists the namespace lab-r1"):
        namespace.delete()


def test_a_runtime_class_is_a_variant_where_the_cluster_has_it(make: Make, stub: Any) -> None:
    with pytest.raises(DriverUnavailable, match="no RuntimeClass 'runsc'; it has none"):
        make("runtimeclass=runsc").info()
    stub.add("runtimeclasses", {"metadata": {"name": "runsc"}, "handler": "runsc"})
    driver = make("runtimeclass=runsc")
    assert driver.info().isolation == "user-space kernel (gVisor)"
    with launched(driver):
        (pod,) = stub.listed("pods")
        assert pod["spec"]["runtimeClassName"] == "runsc"


def test_without_kind_or_its_cluster_the_remedy_is_named(
    make: Make, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kind.directory / "clusters" / "stratalab").unlink()
    with pytest.raises(DriverUnavailable) as raised:
        make().info()
    assert raised.value.brief == "there is no kind cluster 'stratalab'" and raised.value.resolution == "lab cluster up"
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DriverUnavailable) as raised:
        make().info()
    assert "`kind` is not installed" in raised.value.brief and "kind.sigs.k8s.io" in raised.value.resolution


def test_a_foreign_cluster_takes_references_only(make: Make, stub: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes((tmp_path / "fake-kind" / "kubeconfig").read_bytes())
    monkeypatch.setenv("KUBECONFIG", str(path))
    driver = make(context="kind-stratalab")
    info = driver.info()
    assert info.qualifiers["route"] == "node-port" and Feature.CLUSTER not in info.features
    with pytest.raises(Unsupported, match="in no registry") as refused:
        driver.prepare(spec())
    assert "--driver-option service-image=REFERENCE" in refused.value.resolution
    assert driver.engine_pids() == {} and Feature.ENGINE_PIDS not in info.features
    with pytest.raises(Unsupported, match="is a file"):
        driver.prepare(spec(image="/nonexistent/image.tar"))
    with launched(driver, spec(image="registry.example/x:1", ready_path="/")) as session:
        (pod,) = stub.listed("pods")
        assert pod["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
        (service,) = stub.listed("services")
        port = service["spec"]["ports"][0]["nodePort"]
        assert session.instance is not None and session.instance.endpoint == Endpoint("127.0.0.1", port)
    with pytest.raises(BadInput, match="has no context 'no-such'") as wrong:
        make(context="no-such").info()
    assert wrong.value.resolution == "it has: kind-stratalab"
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(DriverUnavailable, match="there is no kubeconfig at"):
        make(context="kind-stratalab").info()


def test_the_labs_own_service_comes_from_where_the_user_pushed_it(
    make: Make, stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes((tmp_path / "fake-kind" / "kubeconfig").read_bytes())
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("LAB_SERVICE_IMAGE", "registry.example/lab:1")
    with launched(make(context="kind-stratalab")) as session:
        (pod,) = stub.listed("pods")
        assert pod["spec"]["containers"][0]["image"] == "registry.example/lab:1"
        assert session.answer is not None  # it is asked for its clock and its nonce as on the lab's own cluster


def test_what_runs_the_cluster_is_all_in_its_nodes_but_the_labs_pods(
    make: Make, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def of_nodes(containers: Any, uids: Any) -> dict[int, str]:
        asked.append((containers, uids))
        return {7: "etcd"}

    monkeypatch.setattr("drivers.kubernetes.pods.processes.of_nodes", of_nodes)
    stub.add("pods", {"metadata": {"name": "etcd"}, "spec": {"containers": []}}, "kube-system")
    driver = make()
    assert isinstance(driver, EngineOnThisHost)
    with launched(driver):
        assert driver.engine_pids() == {7: "etcd"}
        (pod,) = stub.listed("pods", "lab-r1")
    assert asked == [({"4f66ad9a": ["172.18.0.2"]}, [pod["metadata"]["uid"]])]


def test_two_targets_on_one_cluster_never_take_the_same_port(make: Make, stub: Any) -> None:
    drivers = [make(), make("deployment")]
    for driver in drivers:
        driver.prepare(spec())  # both, before anything uses a port
    with contextlib.ExitStack() as stack:
        ports = set()
        for driver in drivers:
            session = Session(driver, driver.info(), spec().for_launch(), SystemClock(), timeout_s=10)
            stack.enter_context(session).launch()
            assert session.instance is not None
            ports.add(session.instance.endpoint)
        assert ports == {Endpoint("127.0.0.1", port) for port in stub.ports.values()}


@pytest.mark.parametrize(("variant", "route"), [("", "mesh"), ("deployment", "host-port")])
def test_a_route_that_cannot_be_is_refused(make: Make, variant: str, route: str) -> None:
    with pytest.raises(LabError) as raised:
        make(variant, route=route).info()
    assert isinstance(raised.value, BadInput | Unsupported) and route in raised.value.brief


def test_logs_are_the_pods_or_what_the_cluster_says_of_it(make: Make, stub: Any) -> None:
    with launched(make()) as session:
        instance = session.instance
        assert instance is not None
        assert b"the pod's phase is Running" in instance.logs()
        stub.logs[stub.listed("pods")[0]["metadata"]["name"]] = b"x" * 70_000
        assert instance.logs() == b"x" * 65_536
    assert instance.logs() == b""


def test_what_the_lab_made_says_whose_it_is(make: Make, stub: Any) -> None:
    with launched(make("deployment")) as session:
        for resource in ("deployments", "services", "pods"):
            (thing,) = stub.listed(resource)
            assert labels_of(thing) == dict(session.spec.labels)
            assert thing["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stratalab"
