"""Marks from events: in order, out of order, lost, late, forgotten, and of pods that come to nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.events import watch
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.manifests import Form
from lab.errors import DriverError, LaunchError
from lab.spec import Spec
from lab.timeline import ENGINE_CHAIN, Clock, MarkRecord, Phase, Source, Timeline

NAMESPACE = "lab-r1"
ALL = [Phase.CREATED, Phase.SCHEDULED, Phase.POD_IP, Phase.STARTED, Phase.ENGINE_READY]


@dataclass
class Marks:
    """A Mark that keeps what it is given."""

    timeline: Timeline = field(default_factory=Timeline)
    failures: list[LaunchError] = field(default_factory=list)

    def __call__(self, phase: Phase, *, source: Source) -> None:
        ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self.timeline.add(MarkRecord(phase=phase, ns=ns, clock=Clock.HOST, source=source))

    def line(self, text: bytes, *, source: Source) -> None: ...

    def moment(self) -> Any:
        ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return lambda phase, *, source: self.timeline.add(
            MarkRecord(phase=phase, ns=ns, clock=Clock.HOST, source=source)
        )

    def failed(self, error: DriverError) -> None:
        assert isinstance(error, LaunchError)
        self.failures.append(error)

    def events(self) -> list[Phase]:
        return [mark.phase for mark in self.timeline if mark.source is Source.EVENT]


@dataclass
class Rig:
    """A watcher on the stub, and launches by it."""

    stub: Any
    api: Api
    watcher: Watcher

    def launch(self, kubelet: Callable[..., None]) -> tuple[Marks, Follower]:
        """Make a pod, of which `kubelet` makes what it likes."""
        self.stub.kubelet = kubelet
        spec = Spec(labels={"lab.run": "r1", "lab.owner": "a:b:1:2"}).for_launch()
        marks = Marks()
        follower = Follower(marks, on_verdict=marks.failed)
        self.watcher.follow(spec.labels["lab.launch"], follower)
        body = manifests.pod(spec, Form(image="docker.io/x:1", pull_policy="Never", security={}))
        self.api.call(self.api.core.create_namespaced_pod, NAMESPACE, body)
        follower.returned()
        return marks, follower


@pytest.fixture
def rig(stub: Any, api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(watch, "_PAUSES_S", (0.0, 0.02))
    stub.add("namespaces", {"metadata": {"name": NAMESPACE}})
    watcher = Watcher(api, NAMESPACE)
    watcher.connect()
    stub.await_watch()
    yield Rig(stub, api, watcher)
    watcher.close()


def test_each_phase_is_the_arrival_of_the_event_that_first_shows_it(rig: Rig, k8s: Any) -> None:
    marks, follower = rig.launch(k8s.run_pod)
    follower.await_scheduled(5, lambda: None)
    follower.settle(5)
    assert marks.events() == ALL
    assert marks.timeline.mark(Phase.CREATED).source is Source.RETURN
    steps = marks.timeline.steps(ENGINE_CHAIN)
    # The address and the start came by one event: one instant, and no interval between them.
    assert marks.timeline.duration_s(Phase.POD_IP, Phase.STARTED) == 0.0
    assert [(start, end) for start, end, _ in steps] == [
        (Phase.CREATED, Phase.SCHEDULED),
        (Phase.SCHEDULED, Phase.POD_IP),
        (Phase.STARTED, Phase.ENGINE_READY),
    ]
    assert sum(seconds for _, _, seconds in steps) >= 0.05 and min(seconds for _, _, seconds in steps) > 0.001


def test_condition_timestamps_are_not_read(rig: Rig, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        stub.change(
            pod,
            spec={"nodeName": "n"},
            startTime="1999-01-01T00:00:00Z",
            conditions=[k8s.condition("PodScheduled", "True", lastTransitionTime="1999-01-01T00:00:00Z")],
        )

    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    marks, follower = rig.launch(kubelet)
    follower.await_scheduled(5, lambda: None)
    assert marks.timeline.mark(Phase.SCHEDULED).ns > before


def test_a_phase_shown_after_a_later_one_stays_absent(rig: Rig, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        stub.change(pod, containerStatuses=[{"name": "service", "state": {"running": {}}}])
        stub.change(pod, podIP="10.0.0.9")
        stub.change(pod, conditions=[k8s.condition("Ready", "True")])

    marks, follower = rig.launch(kubelet)
    follower.settle(5)
    assert marks.events() == [Phase.CREATED, Phase.SCHEDULED, Phase.STARTED, Phase.ENGINE_READY]
    assert follower.await_address(1) == "10.0.0.9"
    marks.timeline.steps(ENGINE_CHAIN)


def test_a_return_that_comes_after_later_events_is_not_marked() -> None:
    marks = Marks()
    follower = Follower(marks, on_verdict=marks.failed)
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {}}
    follower.event("ADDED", pod)
    follower.returned()
    assert marks.timeline.mark(Phase.CREATED).source is Source.EVENT
    marks.timeline.steps(ENGINE_CHAIN)


def test_events_of_a_deployments_pods_do_not_mark_created() -> None:
    marks = Marks()
    follower = Follower(marks, expects_created=False, on_verdict=marks.failed)
    follower.returned()
    follower.event("ADDED", {"metadata": {"name": "p"}, "spec": {}, "status": {}})
    follower.event("MODIFIED", {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {}})
    assert [(mark.phase, mark.source) for mark in marks.timeline] == [
        (Phase.CREATED, Source.RETURN),
        (Phase.SCHEDULED, Source.EVENT),
    ]


def test_a_broken_watch_costs_the_launch_its_instants_and_nothing_else(rig: Rig, k8s: Any) -> None:
    mended = threading.Event()

    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        mended.wait(5)
        k8s.start(stub, pod)

    marks, follower = rig.launch(kubelet)
    follower.await_scheduled(5, lambda: None)
    rig.stub.drop()
    rig.stub.await_watch(2)
    follower.settle(5)
    mended.set()
    follower.await_phase(Phase.STARTED, 5)
    assert marks.events() == [Phase.CREATED, Phase.SCHEDULED]
    again, next_follower = rig.launch(k8s.run_pod)
    next_follower.settle(5)
    assert again.events() == ALL


def test_a_watch_goes_on_from_the_last_version_seen(rig: Rig, k8s: Any) -> None:
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "4711"}}
    rig.stub.version = 4711
    rig.stub.send("BOOKMARK", bookmark)
    time.sleep(0.1)
    rig.stub.drop()
    rig.stub.await_watch(2)
    assert rig.stub.watches[1]["resourceVersion"] == "4711"
    assert rig.stub.watches[1]["allowWatchBookmarks"].lower() == "true"
    assert len(rig.stub.asked("GET", "/pods\\?(?!.*watch)")) == 1  # no listing but the first


@pytest.mark.parametrize("how", ["status", "event"])
def test_a_version_that_the_api_has_forgotten_is_listed_anew(rig: Rig, k8s: Any, how: str) -> None:
    scheduled = threading.Event()

    def kubelet(stub: Any, pod: Any) -> None:
        scheduled.wait(5)
        with stub.changed:
            stub.drop()
            k8s.schedule(stub, pod)
            if how == "status":
                stub.forget()
                stub.oldest = stub.version
            else:
                stub.events.clear()
                stub.send("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})

    marks, follower = rig.launch(kubelet)
    follower.await_phase(Phase.CREATED, 5)
    scheduled.set()
    follower.await_scheduled(5, lambda: None)
    assert marks.events() == [Phase.CREATED]
    rig.stub.await_watch(2)
    rig.stub.events.clear()
    again, next_follower = rig.launch(k8s.run_pod)
    next_follower.settle(5)
    assert again.events()[-1:] == [Phase.ENGINE_READY]


def test_what_is_no_event_breaks_the_watch_and_not_the_watcher(rig: Rig, k8s: Any) -> None:
    rig.stub.send("", "{ this is no JSON")  # type: ignore[arg-type]
    rig.stub.await_watch(2)
    rig.stub.events.clear()
    marks, follower = rig.launch(k8s.run_pod)
    follower.settle(5)
    assert Phase.ENGINE_READY in marks.events()


def test_a_refused_reconnection_is_tried_again(rig: Rig, k8s: Any) -> None:
    rig.stub.refuse("GET", "watch=", 500, "etcd has no leader", times=3)
    rig.stub.drop()
    rig.stub.await_watch(2)
    marks, follower = rig.launch(k8s.run_pod)
    follower.settle(5)
    assert Phase.ENGINE_READY in marks.events()


def test_an_api_that_ends_every_watch_at_once_is_not_asked_in_a_hurry(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_PAUSES_S", (0.0, 0.2))
    rig.stub.refuse("GET", "watch=", 200, "", times=1000)
    rig.stub.drop()
    time.sleep(1.0)
    assert len(rig.stub.asked("GET", "watch=")) < 12


def test_a_first_connection_that_is_forbidden_says_so(stub: Any, api: Api) -> None:
    stub.refuse("GET", "watch=", 403, 'pods is forbidden: User "u" cannot watch resource "pods"')
    with pytest.raises(DriverError) as raised:
        Watcher(api, NAMESPACE).connect()
    assert "forbids" in raised.value.brief and "cannot watch" in raised.value.brief and raised.value.resolution


def test_an_unschedulable_pod_fails_with_the_schedulers_reason(rig: Rig, k8s: Any, quick: None) -> None:
    said = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available"

    def kubelet(stub: Any, pod: Any) -> None:
        stub.change(pod, conditions=[k8s.condition("PodScheduled", "False", reason="Unschedulable", message=said)])

    _, follower = rig.launch(kubelet)
    with pytest.raises(LaunchError) as raised:
        follower.await_scheduled(10, lambda: None)
    assert "1 Insufficient memory" in raised.value.brief and "\n" not in raised.value.brief
    assert raised.value.resolution


def test_a_pod_that_is_unschedulable_for_a_moment_is_waited_for(rig: Rig, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        stub.change(pod, conditions=[k8s.condition("PodScheduled", "False", reason="Unschedulable", message="full")])
        time.sleep(0.3)
        k8s.schedule(stub, pod)

    _, follower = rig.launch(kubelet)
    follower.await_scheduled(10, lambda: None)


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        ("ErrImageNeverPull", 'Container image "x" is not present with pull policy of Never', "missing on the node"),
        ("ImagePullBackOff", 'Back-off pulling image "x"', "cannot be pulled"),
        ("InvalidImageName", "couldn't parse image", "cannot be pulled"),
        ("CreateContainerError", "exec: not found", "does not start"),
        ("CrashLoopBackOff", "back-off 10s restarting failed container", "does not start"),
    ],
)
def test_a_container_that_will_not_run_is_told_at_once(
    rig: Rig, k8s: Any, reason: str, message: str, told: str
) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        k8s.wait_for(stub, pod, reason, message)

    marks, follower = rig.launch(kubelet)
    follower.await_scheduled(5, lambda: None)
    follower.accepted()
    follower.settle(5)
    assert told in marks.failures[0].brief and message in marks.failures[0].brief and marks.failures[0].resolution
    assert Phase.STARTED not in marks.timeline


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ({"exitCode": 3, "reason": "Error"}, "the service ended with exit status 3"),
        ({"exitCode": 0, "reason": "Completed"}, "the service ended with exit status 0"),
        ({"exitCode": 137, "reason": "Error"}, "the service was ended by signal SIGKILL (9)"),
        (
            {"exitCode": 137, "reason": "OOMKilled"},
            "the service was killed: it wanted more than the 128 MiB of --memory",
        ),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_service_that_ends_before_it_is_ready_is_told_though_the_kubelet_starts_it_again(
    rig: Rig, k8s: Any, ended: dict[str, Any], told: str, again: bool
) -> None:
    state = {"terminated": ended}
    status = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": state} if again else {"state": state}

    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        stub.change(pod, containerStatuses=[{"name": "service", **status}])

    marks, follower = rig.launch(kubelet)
    follower.await_scheduled(5, lambda: None)
    follower.accepted()
    follower.settle(5)
    assert marks.failures[0].brief == told and marks.failures[0].resolution


def test_a_failed_pod_is_told_with_the_reason(rig: Rig, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        stub.change(pod, phase="Failed", reason="Evicted", message="The node was low on resource: memory.")

    marks, follower = rig.launch(kubelet)
    follower.await_scheduled(5, lambda: None)
    follower.settle(5)
    assert not marks.failures  # not before the launch was accepted, whose own error it would be
    follower.accepted()
    assert "Evicted The node was low on resource: memory." in marks.failures[0].brief


def test_a_pull_that_failed_once_is_not_the_end(rig: Rig, k8s: Any) -> None:
    def kubelet(stub: Any, pod: Any) -> None:
        k8s.schedule(stub, pod)
        k8s.wait_for(stub, pod, "ErrImagePull", "timeout")
        time.sleep(0.1)
        k8s.start(stub, pod)
        stub.change(pod, conditions=[k8s.condition("Ready", "True")])

    marks, follower = rig.launch(kubelet)
    follower.accepted()
    follower.settle(5)
    assert not marks.failures and Phase.STARTED in marks.timeline


def test_a_closed_watcher_ends_its_thread_while_nothing_happens(stub: Any, api: Api) -> None:
    watcher = Watcher(api, NAMESPACE)
    watcher.connect()
    stub.await_watch()
    time.sleep(0.05)
    watcher.close()
    watcher.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "kubernetes events"]


def test_the_clusters_own_times_are_facts_of_the_last_pod_told_of_and_make_no_mark() -> None:
    marks = Marks()
    follower = Follower(marks, on_verdict=marks.failed)
    pod = {
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"},
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:01Z"},
            ],
            "containerStatuses": [{"name": "service", "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}}}],
        },
    }
    follower.seen(pod)
    assert follower.reported() == {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "condition PodScheduled": "2026-01-01T00:00:01Z",
        "container service startedAt": "2026-01-01T00:00:02Z",
    }
    assert not list(marks.timeline)
