"""The whole Knative driver, through the real client, against the stub of a cluster with Knative's part in it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from knative_cluster import KNATIVE, KnativeCluster

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.knative import KnativeDriver, ingress, status
from drivers.kubernetes.knative.instance import Function
from lab.driver import Context
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LabError, LaunchError, Unsupported
from lab.features import CallPhase, Execs, Feature, Invoked, OnThisHost, Sleeps, SleepState
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.spec import Endpoint, Spec
from lab.timeline import ENGINE_CHAIN, Clock, Phase, Source, SystemClock

LABELS = {"lab.run": "r1", "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "knative"}
Make = Callable[..., KnativeDriver]


@pytest.fixture
def knative(stub: Any, k8s: Any) -> Iterator[KnativeCluster]:
    made = KnativeCluster(stub, k8s)
    yield made
    made.close()


@pytest.fixture
def make(tmp_path: Path, stub: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Drivers on the fake kind's whole cluster; with or without Knative, as the test has it."""
    binary = tmp_path / "service"
    binary.write_bytes(b"\x7fELF service")
    monkeypatch.setattr("drivers.kubernetes.cluster.images.build_service", lambda _: binary)
    kind.make()
    run_dir, cache_dir = tmp_path / "run", tmp_path / "cache"
    run_dir.mkdir()
    made: list[KnativeDriver | KubernetesDriver] = []

    def one(kind: type[Any] = KnativeDriver, **options: str) -> Any:
        given = {key.replace("_", "-"): value for key, value in options.items()}
        made.append(kind("", Context(run_dir=run_dir, cache_dir=cache_dir, options=given)))
        return made[-1]

    yield one
    for driver in made:
        driver.close()


def spec(**changes: Any) -> Spec:
    return Spec(labels=LABELS, **changes)


@contextlib.contextmanager
def launched(driver: KnativeDriver, of: Spec | None = None, *, timeout_s: float = 10) -> Iterator[Session]:
    info = driver.info()
    driver.prepare(of or spec())
    with Session(driver, info, (of or spec()).for_launch(), SystemClock(), timeout_s=timeout_s) as session:
        session.launch()
        yield session


def function_of(session: Session) -> Function:
    assert isinstance(session.instance, Function)
    return session.instance


def call(session: Session) -> int:
    """One call as a client makes it: to the ingress, by the service's name."""
    at = function_of(session).endpoint
    assert at is not None
    headers = {"Host": at.named, "X-Lab-Nonce": session.spec.nonce}
    return httpx.get(f"http://{at}/clock", headers=headers, trust_env=False).status_code


def test_info_tells_knative_and_what_it_is_configured_with(make: Make, knative: KnativeCluster) -> None:
    info = make().info()
    assert (info.engine, info.version) == ("Knative Serving", "1.22.1")
    wanted = {Feature.SLEEP, Feature.FUNCTION, Feature.NETWORK, Feature.EXEC, Feature.TICKS, Feature.HOST_PIDS}
    assert info.features == wanted | {Feature.ENGINE_PIDS}
    assert info.qualifiers["route"] == "ingress kourier"
    facts = json.loads(json.dumps(dict(info.facts)))
    assert facts["keep_alive_s"] == 6.0
    assert "30s" in facts["scale_to_zero"]
    assert facts["concurrency"].startswith("1 of calls at a time")
    assert "answers_at" not in facts  # of a kind cluster's nodes, which only this host reaches


def test_a_function_goes_from_requested_to_ready_with_its_phases(
    make: Make, stub: Any, knative: KnativeCluster
) -> None:
    with launched(make()) as session:
        timeline = session.timeline
        session.instance.settle(timeout_s=5)  # type: ignore[union-attr]
        assert [phase for phase in ENGINE_CHAIN if phase in timeline] == list(ENGINE_CHAIN)
        # Of the pod's own readiness nothing is told: the Service's comes after the ingress knows its name.
        started, ready = timeline.mark(Phase.STARTED), timeline.mark(Phase.ENGINE_READY)
        assert ready.source is Source.EVENT
        assert ready.ns - started.ns > 0.02e9
        assert timeline.mark(Phase.MAIN).clock is Clock.SHARED
        function = function_of(session)
        name = function.id.partition("/")[2]
        expected = Endpoint("127.0.0.1", knative.gateway.server_address[1], f"{name}.lab-r1.svc.example.test")
        assert function.endpoint == expected
        assert call(session) == 200
        (service,) = stub.listed(KNATIVE)
        told = function.reported()
        assert "service condition Ready" in told and "container service startedAt" in told
        assert told["activator"] == "in the way (ServerlessService in mode Proxy)"
        session.stop()
        assert "activator" not in function.reported()
        facts = session.facts()["reported"]
    assert facts["activator"].startswith("in the way"), "what is gone takes nothing back"
    assert Phase.STOPPED in timeline and Phase.DELETED in timeline
    assert not stub.listed(KNATIVE) and not stub.listed("pods") and not stub.listed("services", "lab-r1")
    template = service["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/min-scale"] == "0"
    assert annotations["autoscaling.knative.dev/window"] == "6s"
    assert json.loads(annotations["stratalab/labels"])["lab.run"] == "r1"
    assert template["spec"]["containerConcurrency"] == 1
    (container,) = template["spec"]["containers"]
    assert re.fullmatch(r"dev\.local/stratalab/service:b[0-9a-f]{16}", container["image"])
    assert container["imagePullPolicy"] == "Never"
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": str(128 << 20)}
    assert container["securityContext"]["runAsNonRoot"] is True
    assert service["metadata"]["labels"]["lab.run"] == "r1"


def test_without_knative_the_remedy_is_told(make: Make, stub: Any) -> None:
    with pytest.raises(DriverUnavailable, match=r"no Knative Serving.*services of serving.knative.dev/v1") as caught:
        make().info()
    assert "knative.dev/docs/install" in caught.value.resolution


@pytest.mark.parametrize(
    "change,told",
    [
        (lambda knative: knative.configure("config-network", {"ingress-class": "mine.example"}), "mine.example"),
        (
            lambda knative: knative.configure(
                "config-network", {"ingress-class": "contour.ingress.networking.knative.dev"}
            ),
            "contour-external/envoy is not there",
        ),
        (lambda knative: knative.configure("config-network", {}), "istio-system/istio-ingressgateway is not there"),
        (
            lambda knative: knative.stub.add(
                "services", {"metadata": {"name": "kourier"}, "spec": {"ports": [{"port": 80}]}}, "kourier-system"
            ),
            "no address that this host could ask",
        ),
    ],
)
def test_an_ingress_that_cannot_be_asked_is_told_with_the_option(
    make: Make, knative: KnativeCluster, change: Callable[[KnativeCluster], None], told: str
) -> None:
    change(knative)
    with pytest.raises(DriverUnavailable, match=re.escape(told)) as caught:
        make().info()
    assert "knative-ingress=HOST:PORT" in caught.value.resolution
    at = f"127.0.0.1:{knative.gateway.server_address[1]}"
    with launched(make(knative_ingress=at)) as session:
        assert str(function_of(session).endpoint) == at


def test_a_load_balancer_is_taken_on_a_foreign_cluster_only(
    make: Make, knative: KnativeCluster, stub: Any, api: Any
) -> None:
    kourier = stub.objects["services", "kourier-system", "kourier"]
    stub.add("services", {**kourier, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}, "kourier-system")
    nodes = stub.listed("nodes")
    foreign = ingress.find_ingress(api, "", nodes, own_cluster=False)
    assert foreign.endpoint == Endpoint("192.0.2.7", 80) and "192.0.2.7" in foreign.beyond
    own = ingress.find_ingress(api, "", nodes, own_cluster=True)
    assert own.endpoint == Endpoint("127.0.0.1", knative.gateway.server_address[1]) and not own.beyond


@pytest.mark.parametrize(
    "options,told",
    [
        ({"knative_window": "5"}, "knative-window=5"),
        ({"knative_window": "soon"}, "knative-window=soon"),
        ({"knative_concurrency": "-1"}, "knative-concurrency=-1"),
        ({"knative_most": "0"}, "knative-most=0"),
        ({"knative_ingress": "somewhere"}, "HOST:PORT"),
        ({"knative_ingress": "host:0"}, "HOST:PORT"),
    ],
)
def test_bad_options_are_told_on_one_line(
    make: Make, knative: KnativeCluster, options: dict[str, str], told: str
) -> None:
    with pytest.raises(BadInput) as caught:
        make(**options).info()
    assert told in str(caught.value) and "\n" not in caught.value.brief


def test_there_is_one_variant(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no variant 'deployment'"):
        KnativeDriver("deployment", Context(run_dir=tmp_path, cache_dir=tmp_path))


@pytest.mark.parametrize("changes,told", [({"environment": {"PORT": "1"}}, "PORT"), ({"port": 8012}, "8012")])
def test_what_knative_keeps_to_itself_is_refused_before_anything_is_made(
    make: Make, knative: KnativeCluster, stub: Any, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        make().prepare(spec(image="registry.example/theirs", **changes))
    assert not stub.listed(KNATIVE)


def test_labels_come_back_as_they_were_on_a_fresh_driver(make: Make, stub: Any, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        fresh = make()
        function = function_of(session)
        for wanted in ({}, {"lab.run": "r1"}, {"lab.owner": LABELS["lab.owner"]}, {"lab.target": "knative"}):
            (found,) = fresh.list_instances(wanted)
            assert found.id == function.id
            assert dict(found.labels) == dict(session.spec.labels)
            assert found.endpoint == function.endpoint
        assert fresh.list_instances({"lab.run": "another"}) == []
        assert [(one.kind, one.id) for one in fresh.leftovers({"lab.run": "r1"})] == [("namespace", "lab-r1")]
        found.delete()
        found.delete()
        assert fresh.list_instances({}) == []
        for one in fresh.leftovers({}):
            one.delete()
        assert fresh.leftovers({}) == []


def test_what_knative_makes_is_nothing_of_the_kubernetes_drivers(
    make: Make, stub: Any, knative: KnativeCluster
) -> None:
    """Its Deployment, pods and plain Services bear the lab's labels, and belong to the one Knative Service."""
    with launched(make()):
        assert {one["metadata"]["name"] for one in stub.listed("services", "lab-r1")}
        assert stub.listed("deployments")
        other = make(KubernetesDriver)
        assert other.list_instances({"lab.run": "r1"}) == []
        assert [one.kind for one in other.leftovers({"lab.run": "r1"})] == ["namespace"]


def test_it_sleeps_at_zero_and_a_call_wakes_it(make: Make, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        function = function_of(session)
        assert isinstance(function, Sleeps) and isinstance(function, Invoked)
        states = function.sleep_states()
        assert states[SleepState.ZERO] == "" and all(states[one] for one in SleepState if one is not SleepState.ZERO)
        (first,) = function.workers()
        knative.stub.logs[first.partition(" ")[0]] = b"what it wrote\n"
        assert function.logs() == b"what it wrote\n"
        knative.window_s = 0.1
        function.sleep(SleepState.ZERO, timeout_s=5)
        assert not knative.pods(function.id.partition("/")[2])
        assert function.workers() == []
        assert function.logs() == b""
        assert function.sleeps_on(SleepState.ZERO) == ()
        knative.window_s = None
        asked = len(knative.stub.requests)
        function.wake(SleepState.ZERO)
        assert len(knative.stub.requests) == asked, "a request wakes it, and nothing else"
        assert call(session) == 200
        (second,) = function.workers()
        assert first != second
        assert len(knative.activated) == 1


def test_what_drains_is_no_worker_and_is_not_waited_for(make: Make, knative: KnativeCluster) -> None:
    """A pod that Knative takes out of service stays half a minute more; it gets no call any more."""
    knative.drain_s = 30.0
    with launched(make()) as session:
        function = function_of(session)
        (pod,) = knative.pods(function.id.partition("/")[2])
        knative.terminate(pod)
        assert function.workers() == []
        began = time.monotonic()
        function.force_cold(timeout_s=5)
        assert time.monotonic() - began < 15, "half of what it would drain"
        assert not knative.pods(function.id.partition("/")[2])


def test_a_stop_kills_what_knative_would_still_have_drain(make: Make, knative: KnativeCluster) -> None:
    for drain_s, killed in ((30.0, True), (0.05, False)):
        knative.drain_s = drain_s
        with launched(make()) as session:
            function = function_of(session)
            function.stop(timeout_s=0.3 if killed else 5)
            assert function.was_killed() is killed
            assert not knative.pods(function.id.partition("/")[2])


def test_a_service_that_is_not_scaled_to_zero_is_told_so(make: Make, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        with pytest.raises(DriverError, match=r"not scaled .* to zero within 0\.3 s") as caught:
            function_of(session).force_cold(timeout_s=0.3)
        assert "scale-to-zero-grace-period" in caught.value.resolution
        with pytest.raises(Unsupported, match="paused"):
            function_of(session).sleep(SleepState.PAUSED, timeout_s=1)


def test_at_zero_there_is_nothing_to_run_a_command_in(make: Make, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        function = function_of(session)
        assert isinstance(function, Execs) and isinstance(function, OnThisHost)
        knative.window_s = 0.05
        function.force_cold(timeout_s=5)
        with pytest.raises(DriverError, match="at zero"):
            function.exec(["true"], timeout_s=1)
        assert function.host_pids() == {}


def test_calls_are_followed_as_their_pods_come(make: Make, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        function = function_of(session)
        knative.window_s = 0.05
        function.force_cold(timeout_s=5)
        knative.window_s = None
        seen: list[tuple[str, CallPhase, str]] = []
        with function.follow(lambda *told: seen.append(told)):
            assert call(session) == 200
            (worker,) = function.workers()
            deadline = time.monotonic() + 5
            while len(seen) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert seen == [(worker, CallPhase.CREATED, "event"), (worker, CallPhase.STARTED, "event")]
        assert not [one for one in threading.enumerate() if one.name == "kubernetes events"][2:]  # the driver's two


def test_a_worker_that_was_there_before_is_not_told_of(make: Make, knative: KnativeCluster) -> None:
    with launched(make()) as session:
        seen: list[object] = []
        with function_of(session).follow(lambda *told: seen.append(told)):
            assert call(session) == 200
            time.sleep(0.1)
        assert seen == []


def test_whether_calls_go_by_the_activator_is_read_and_not_assumed(
    make: Make, knative: KnativeCluster, stub: Any
) -> None:
    knative.mode = "Serve"
    with launched(make()) as session:
        function = function_of(session)
        assert function.activator() == "not in the way (ServerlessService in mode Serve)"
        stub.refuse("GET", "/serverlessservices", 403, "forbidden")
        assert function.activator() == "not told"


def test_a_slow_ingress_is_waited_for_though_it_answers_404(
    make: Make, knative: KnativeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name that it does not know yet it says 404, which of any other endpoint would not change by itself."""
    monkeypatch.setattr("lab.launch.telling.STEADY_S", 0.2)
    knative.programmed_s = 1.0
    with launched(make()) as session:
        assert session.answer is not None
        assert session.timeline.duration_s(Phase.STARTED, Phase.ENGINE_READY) > 0.9


def test_a_name_that_never_comes_fails_the_launch_and_leaves_nothing(
    make: Make, knative: KnativeCluster, stub: Any
) -> None:
    knative.programmed_s = 60.0
    with pytest.raises(LabError, match="404"), launched(make(), timeout_s=1):
        pass
    assert not stub.listed(KNATIVE) and not stub.listed("pods")


@pytest.mark.parametrize(
    "said,told",
    [
        (
            'Revision "lab-00001" failed with message: Unable to fetch image "dev.local/x": failed to resolve image.',
            "Unable to fetch image",
        ),
        ('Revision "lab-00001" failed with message: Container failed with: panic.', "Container failed with: panic."),
    ],
)
def test_a_revision_that_failed_is_told_at_once_with_knatives_words(
    make: Make, knative: KnativeCluster, stub: Any, said: str, told: str
) -> None:
    def broken(service: dict[str, Any]) -> bool:
        knative.tell(service, "False", "Unknown", reason="RevisionFailed", message=said)
        return True

    knative.broken = broken
    began = time.monotonic()
    with pytest.raises(LaunchError, match=re.escape(told)), launched(make()):
        pass
    assert time.monotonic() - began < 5
    assert not stub.listed(KNATIVE)


def test_a_revision_whose_pod_finds_no_room_is_given_time(make: Make, knative: KnativeCluster, quick: None) -> None:
    tried: list[float] = []

    def broken(service: dict[str, Any]) -> bool:
        said = "0/1 nodes are available: 1 Insufficient memory."
        tried.append(time.monotonic())
        knative.tell(service, "False", "Unknown", reason="RevisionFailed", message=said)
        return True

    knative.broken = broken
    with pytest.raises(LaunchError, match="Insufficient memory"), launched(make()):
        pass
    assert time.monotonic() - tried[0] >= 0.2


def test_a_service_that_ends_is_told_by_its_own_container_and_not_the_queue_proxys(
    make: Make, knative: KnativeCluster, stub: Any, k8s: Any, quick: None
) -> None:
    def crash(stub: Any, pod: dict[str, Any]) -> None:
        k8s.schedule(stub, pod)
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        ended = {"terminated": {"exitCode": 3, "reason": "Error"}}
        states = [{"name": "queue-proxy", "state": running}, {"name": "service", "state": ended}]
        stub.change(pod, phase="Running", podIP="10.244.0.9", containerStatuses=states)
        service = next(one for one in stub.listed(KNATIVE))
        knative.tell(service, "Unknown", "Unknown")  # an event of the Service's takes nothing back

    knative.pod = crash
    with pytest.raises(LaunchError, match="3"), launched(make()):
        pass
    assert not stub.listed(KNATIVE) and not stub.listed("pods")


@pytest.mark.parametrize(
    "after,status_code", [(False, 503), (True, 500)], ids=["refused for the moment", "carried out, and no answer"]
)
def test_a_creation_without_an_answer_makes_one_service(
    make: Make, knative: KnativeCluster, stub: Any, after: bool, status_code: int, quick: None
) -> None:
    stub.refuse("POST", "serving.knative.dev", status_code, "later", after=after)
    with launched(make()) as session:
        assert len(stub.listed(KNATIVE)) == 1
        assert call(session) == 200


def test_events_lost_in_between_leave_phases_absent(make: Make, knative: KnativeCluster, stub: Any, k8s: Any) -> None:
    def lost(stub: Any, pod: dict[str, Any]) -> None:
        k8s.schedule(stub, pod)
        time.sleep(0.05)
        watches = len(stub.watches)
        stub.drop()
        stub.await_watch(watches + 2)  # of pods and of Services: what broke is known by then
        knative.started(pod)
        time.sleep(0.05)
        stub.change(pod, conditions=[k8s.condition("Ready", "True")])

    knative.pod = lost
    with launched(make()) as session:
        assert Phase.STARTED not in session.timeline
        assert Phase.READY in session.timeline


def test_what_cannot_be_removed_is_told(
    make: Make, knative: KnativeCluster, monkeypatch: pytest.MonkeyPatch, stub: Any
) -> None:
    monkeypatch.setattr("drivers.kubernetes.knative.instance.GONE_TIMEOUT_S", 0.3)
    with launched(make()) as session:
        function = function_of(session)
        really, knative.deleted = knative.deleted, lambda _: None  # type: ignore[method-assign]
        with pytest.raises(CleanupError, match="still lists services"):
            function.delete()
        knative.deleted = really  # type: ignore[method-assign]


def test_a_service_over_tls_alone_is_refused(make: Make, knative: KnativeCluster, stub: Any) -> None:
    really = knative.tell

    def over_tls(*arguments: Any, url: str = "", **more: Any) -> None:
        really(*arguments, url=url.replace("http:", "https:"), **more)

    knative.tell = over_tls  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match="over TLS only"), launched(make()):
        pass
    assert not stub.listed(KNATIVE)


def test_what_its_status_says() -> None:
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "metadata": {"generation": 2},
        "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert status.phases(service) == [], "of an earlier generation"
    service["status"]["observedGeneration"] = 2  # type: ignore[index]
    assert status.phases(service) == [Phase.ENGINE_READY]
    assert status.host_of(service) == ("", False)
    service["status"]["conditions"] = [{"type": "Ready", "status": "False", "reason": "Other"}]  # type: ignore[index]
    verdict = status.verdict(service)
    assert verdict is not None and not verdict.final and "Other" in verdict.brief


def test_a_user_of_one_namespace_alone_finds_what_is_theirs(
    make: Make, knative: KnativeCluster, api: Any, stub: Any
) -> None:
    """Whoever may not list everywhere is asked for what is in the namespaces that the context names."""
    with launched(make()) as session:
        fresh = make()
        fresh.info()
        object.__setattr__(fresh._found.ground, "namespaces", frozenset({"lab-r1"}))
        stub.refuse("GET", r"serving\.knative\.dev/v1/services", 403, "forbidden")
        (found,) = fresh.list_instances({})
        assert found.id == function_of(session).id
