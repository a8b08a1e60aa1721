"""One launched pod or deployment, and what is left of the lab's beside them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.connection.streams import run_in_pod
from drivers.kubernetes.connection.telling import telling
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.nodes import pods_by_node
from drivers.kubernetes.nodes.losing import Losing
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.manifests import CONTAINER, GRACE_S, INSTANCE, Form
from drivers.kubernetes.objects.status import pod_verdict
from drivers.kubernetes.pods import peers, processes
from lab.errors import CleanupError, DriverError, Unsupported
from lab.features import ExecResult, Role, SleepState
from lab.features import Place as Address
from lab.host import procs
from lab.host.procs import Process
from lab.launch.asleep import require_offered
from lab.spec import Endpoint, Spec

LOG_BYTES = 65_536
GONE_TIMEOUT_S = 60.0

_LOOK_EVERY_S = 0.1
_STATES = {SleepState.ZERO: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instance is, and what goes with it. `local` says that its processes are this host's."""

    api: Api
    namespace: str
    name: str
    local: bool
    has_service: bool
    follower: Follower | None = None
    on_delete: Callable[[], None] = lambda: None
    losing: Losing | None = None

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What the calls within the block waited for is told with the launch."""
        with telling() as waits:
            try:
                yield
            finally:
                if self.follower is not None:
                    self.follower.waited(waits)

    def losing_of(self, what: str) -> Losing:
        """How it can lose its node. Raises Unsupported."""
        if self.losing is None:
            raise Unsupported(f"nothing is known of the nodes that {what} could lose")
        return self.losing


class Pod:
    """A pod of the lab's, alone."""

    def __init__(self, place: Place, *, labels: Mapping[str, str], endpoint: Endpoint | None) -> None:
        self.id = f"{place.namespace}/{place.name}"
        self.labels = labels
        self.endpoint = endpoint
        self._place = place
        self._processes: set[Process] = set()

    def logs(self) -> bytes:
        """The end of what it wrote; where it has not run, what the cluster says of it."""
        with translated("read the pod's log"):
            return logs_of(self._place.api, self._place.namespace, self._place.name)

    def stop(self, *, timeout_s: float) -> None:
        """Delete the pod, which is how Kubernetes ends one: SIGTERM, and SIGKILL after `timeout_s`, rounded up."""
        with translated("stop the pod"):
            self._remove(math.ceil(timeout_s))

    def delete(self) -> None:
        """Remove it and its Service; returns when the API knows them no more and its processes ended."""
        place = self._place
        with translated("remove the pod", CleanupError):
            self._remove(1)  # with 0 the API would forget the pod while it still runs
            if place.has_service:
                remove(place.api, place.api.core.delete_namespaced_service, place.name, place.namespace)
        require_ended(self.id, self._processes)
        place.on_delete()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it. Raises DriverError."""
        return run_in_pod(
            self._place.api, self._place.namespace, self._place.name, CONTAINER, argv, timeout_s=timeout_s
        )

    def places(self) -> Sequence[Address]:
        """Its own address, and its Service's name, where it has one. Raises DriverError."""
        place = self._place
        with translated("read the pod"):
            pod = place.api.found(place.api.core.read_namespaced_pod, place.name, place.namespace)
            return peers.places(place.api, place.namespace, [pod] if pod else [], place.name * place.has_service)

    def reach(self, place: Address) -> Address | str:
        """All of its cluster."""
        return peers.reach(place)

    def on_nodes(self) -> Mapping[str, int]:
        """Its node."""
        with translated("list the pods"):
            return pods_by_node(self._pods())

    def drain(self) -> Callable[[], None]:
        """Its node is cordoned, on the lab's own cluster, and it is evicted. Raises DriverError."""
        with translated("list the pods"):
            pods = self._pods()
        return self._place.losing_of(self.id).drain(pods)

    def stop_node(self) -> Callable[[], None]:
        """Its node ends at once. Raises DriverError, Unsupported."""
        with translated("list the pods"):
            pods = self._pods()
        return self._place.losing_of(self.id).stop_node(pods)

    def host_pids(self) -> Mapping[int, Role]:
        """The pod's processes, its pause and its shim; empty where they are not this host's, or it does not run."""
        return {process.pid: role for process, role in self._find_processes().items()}

    def settle(self, *, timeout_s: float) -> None:
        """Return when the events have told of all phases, or after `timeout_s`."""
        if self._place.follower is not None:
            self._place.follower.settle(timeout_s)

    def reported(self) -> Mapping[str, str]:
        """The pod's own times, to the second; empty where this is not the launch's instance."""
        return self._place.follower.reported() if self._place.follower is not None else {}

    def _pods(self) -> list[Json]:
        place = self._place
        pod = place.api.found(place.api.core.read_namespaced_pod, place.name, place.namespace)
        return [pod] if pod else []

    def _remove(self, grace_s: int) -> None:
        place = self._place
        self._processes |= set(self._find_processes())
        delete = place.api.core.delete_namespaced_pod
        remove(place.api, delete, place.name, place.namespace, grace_period_seconds=max(1, grace_s))

        def there() -> bool:
            if place.follower is not None and place.follower.removed(place.name):
                return False
            return place.api.found(place.api.core.read_namespaced_pod, place.name, place.namespace) is not None

        await_gone(f"pod {self.id}", there, place.follower, GONE_TIMEOUT_S + grace_s)

    def _find_processes(self) -> dict[Process, Role]:
        place = self._place
        if not place.local:
            return {}
        with translated("read the pod"):
            pod = place.api.found(place.api.core.read_namespaced_pod, place.name, place.namespace)
        return processes.of_pods([pod["metadata"]["uid"]]) if pod else {}


class Deployment:
    """A deployment of the lab's, with its pods and its Service."""

    def __init__(self, place: Place, *, labels: Mapping[str, str], endpoint: Endpoint | None, form: Form) -> None:
        self.id = f"{place.namespace}/{place.name}"
        self.labels = labels
        self.endpoint = endpoint
        self._place = place
        self._form = form
        self._processes: set[Process] = set()

    def endpoints(self) -> Sequence[Endpoint]:
        """The one address of its Service, which spreads connections over the ready pods."""
        return [self.endpoint] if self.endpoint is not None else []

    def scale(self, replicas: int) -> None:
        """Ask for so many pods. Raises DriverError."""
        place = self._place
        patch = place.api.apps.patch_namespaced_deployment_scale
        with translated(f"scale the deployment to {replicas}"), self._place.told():
            place.api.call(patch, place.name, place.namespace, {"spec": {"replicas": replicas}})

    def update(self, spec: Spec) -> None:
        """Ask for a rolling update to `spec`, whose image must be the one launched or be a reference. Raises
        DriverError."""
        place = self._place
        container = manifests.container(spec, self._form)
        replace = [{"op": "replace", "path": "/spec/template/spec/containers/0", "value": container}]
        with translated("update the deployment"), self._place.told():
            place.api.call(place.api.apps.patch_namespaced_deployment, place.name, place.namespace, replace)

    def update_policy(self) -> Mapping[str, str]:
        """As `manifests` asks for it."""
        return {
            "order": "RollingUpdate, maxSurge 1, maxUnavailable 0: a new pod is ready before an old one ends",
            "readiness": "readinessProbe, HTTP GET every 1 s, ready after 1 success, unready after 3 failures",
            "grace": f"SIGTERM, and SIGKILL after {GRACE_S} s",
            "pre_stop": "none",
        }

    def logs(self) -> bytes:
        """The end of what its newest pod wrote; where none has run, what the cluster says of it."""
        with translated("read the pods' log"):
            told = (
                (str(pod["metadata"].get("creationTimestamp", "")), pod["metadata"]["name"]) for pod in self._pods()
            )
            _, newest = max(told, default=("", ""))
            return logs_of(self._place.api, self._place.namespace, newest) if newest else b""

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Scaled to nothing: Kubernetes holds no pod still, and keeps none that has ended."""
        return _STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Scale it to nothing; returns when it has no pod, and the processes of this host that they had are gone.
        Raises DriverError."""
        require_offered(_STATES, state)
        with translated("scale the deployment to zero"):
            before = set(self._find_processes())
            self.scale(0)
            deadline = time.monotonic() + timeout_s
            if not self._await_pods(timeout_s):
                raise DriverError(f"{self.id} still has pods {timeout_s:g} s after it was scaled to zero")
        if left := procs.all_ended(before, deadline - time.monotonic()):
            raise DriverError(f"{self.id} has no pod, and its processes {[one.pid for one in left]} run")

    def wake(self, state: SleepState) -> None:
        """Scale it to one; its Service has the same address as before. Raises DriverError."""
        require_offered(_STATES, state)
        self.scale(1)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  nothing of a pod comes back
        """None."""
        return ()

    def stop(self, *, timeout_s: float) -> None:
        """Scale it to nothing, and wait until its pods ended; those that take longer than `timeout_s` are killed."""
        place = self._place
        with translated("stop the deployment"):
            self._note_processes()
            if place.api.found(place.api.apps.read_namespaced_deployment, place.name, place.namespace) is None:
                return
            self.scale(0)
            if not self._await_pods(timeout_s):
                self._kill_pods()
                await_gone(f"pods of {self.id}", self._has_pods, place.follower, GONE_TIMEOUT_S)

    def delete(self) -> None:
        """Remove it with its pods and its Service; returns when the API knows none of them and the processes ended."""
        place, api = self._place, self._place.api
        with translated("remove the deployment", CleanupError):
            self._note_processes()
            delete = api.apps.delete_namespaced_deployment
            remove(api, delete, place.name, place.namespace, propagation_policy="Foreground")
            if place.has_service:
                remove(api, api.core.delete_namespaced_service, place.name, place.namespace)

            def there() -> bool:
                found = api.found(api.apps.read_namespaced_deployment, place.name, place.namespace) is not None
                pods = self._has_pods()
                if pods and not found:
                    self._kill_pods()  # somebody else has removed it and left them
                return found or pods

            await_gone(f"deployment {self.id}", there, place.follower, GONE_TIMEOUT_S)
        require_ended(self.id, self._processes)
        place.on_delete()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in the first of its pods. Raises DriverError."""
        with translated("list the pods"):
            pods = self._pods(1)
        if not pods:
            raise DriverError(f"the deployment {self.id} has no pod")
        return run_in_pod(
            self._place.api, self._place.namespace, pods[0]["metadata"]["name"], CONTAINER, argv, timeout_s=timeout_s
        )

    def places(self) -> Sequence[Address]:
        """The address of its first pod, and its Service's name. Raises DriverError."""
        place = self._place
        with translated("list the pods"):
            return peers.places(place.api, place.namespace, self._pods(), place.name * place.has_service)

    def reach(self, place: Address) -> Address | str:
        """All of its cluster."""
        return peers.reach(place)

    def on_nodes(self) -> Mapping[str, int]:
        """How many of its pods each has."""
        with translated("list the pods"):
            return pods_by_node(self._pods())

    def drain(self) -> Callable[[], None]:
        """Its node is cordoned, on the lab's own cluster, and it is evicted. Raises DriverError."""
        with translated("list the pods"):
            pods = list(self._pods())
        return self._place.losing_of(self.id).drain(pods)

    def stop_node(self) -> Callable[[], None]:
        """Its node ends at once. Raises DriverError, Unsupported."""
        with translated("list the pods"):
            pods = list(self._pods())
        return self._place.losing_of(self.id).stop_node(pods)

    def host_pids(self) -> Mapping[int, Role]:
        """As a pod's, of all its pods."""
        return {process.pid: role for process, role in self._find_processes().items()}

    def settle(self, *, timeout_s: float) -> None:
        """Return when the events have told of all phases of the first pod, or after `timeout_s`."""
        if self._place.follower is not None:
            self._place.follower.settle(timeout_s)

    def reported(self) -> Mapping[str, str]:
        """The pod's own times, to the second; empty where this is not the launch's instance."""
        return self._place.follower.reported() if self._place.follower is not None else {}

    def _pods(self, most: int = 0) -> Sequence[Json]:
        """Its pods, or `most` of them."""
        place, listing = self._place, self._place.api.core.list_namespaced_pod
        selector = f"{INSTANCE}={place.name}"
        if most:
            found = place.api.call(listing, place.namespace, label_selector=selector, limit=most)
            return list(found.get("items") or ())
        return list(place.api.each(listing, place.namespace, label_selector=selector))

    def _has_pods(self) -> bool:
        return bool(self._pods(1))

    def _kill_pods(self) -> None:
        api = self._place.api
        for pod in self._pods():
            name = pod["metadata"]["name"]
            remove(api, api.core.delete_namespaced_pod, name, self._place.namespace, grace_period_seconds=1)

    def _await_pods(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._has_pods():
            if time.monotonic() > deadline:
                return False
            pause(self._place.follower)
        return True

    def _note_processes(self) -> None:
        self._processes |= set(self._find_processes())

    def _find_processes(self) -> dict[Process, Role]:
        if not self._place.local:
            return {}
        with translated("list the pods"):
            uids = [pod["metadata"]["uid"] for pod in self._pods()]
        return processes.of_pods(uids) if uids else {}


class Remnant:
    """A namespace, a Service or a pod without its deployment."""

    def __init__(self, kind: str, identity: str, labels: Mapping[str, str], take: Callable[[], None]) -> None:
        self.kind = kind
        self.id = identity
        self.labels = labels
        self._take = take

    def delete(self) -> None:
        """Remove it; returns when the API knows it no more."""
        with translated(f"remove the {self.kind} {self.id}", CleanupError):
            self._take()


def remove(api: Api, delete: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Ask for the removal of an object that may be gone. Raises the client's exceptions."""
    api.found(delete, *arguments, **options)


def await_gone(what: str, there: Callable[[], bool], follower: Follower | None, timeout_s: float) -> None:
    """Return when `there` is False. Raises CleanupError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while there():
        if time.monotonic() > deadline:
            raise CleanupError(
                f"Kubernetes still lists {what} after {timeout_s:g} s",
                resolution="see whether its node is alive: kubectl get nodes",
            )
        pause(follower)


def require_ended(what: str, known: set[Process]) -> None:
    """Return when the processes `known` have ended. Raises CleanupError."""
    if left := procs.all_ended(known, GONE_TIMEOUT_S):
        pids = ", ".join(str(process.pid) for process in left)
        raise CleanupError(f"{what} is gone, and its processes {pids} are not", resolution=f"sudo kill -9 {pids}")


def pause(follower: Follower | None) -> None:
    """Until the next event, which may be the awaited one; a look now and then finds what no event tells."""
    if follower is not None:
        follower.await_event(_LOOK_EVERY_S)
    else:
        time.sleep(_LOOK_EVERY_S)


def logs_of(api: Api, namespace: str, pod_name: str) -> bytes:
    """The end of what a pod's service wrote; where it has not run, what the cluster says of the pod. Raises the
    client's exceptions."""
    try:
        read = api.core.read_namespaced_pod_log
        return api.raw(read, pod_name, namespace, container=CONTAINER, tail_lines=1000)[-LOG_BYTES:]
    except Exception as error:
        if status_of(error) not in (400, 404):  # 400: no container runs yet
            raise
    pod = api.found(api.core.read_namespaced_pod, pod_name, namespace)
    if pod is None:
        return b""
    verdict = pod_verdict(pod)
    told = [f"the pod's phase is {(pod.get('status') or {}).get('phase', 'unknown')}"]
    told += [verdict.brief] if verdict else []
    events = api.call(
        api.core.list_namespaced_event, namespace, field_selector=f"involvedObject.name={pod_name}", limit=50
    )
    told += [f"{one.get('reason')}: {' '.join(str(one.get('message')).split())}" for one in events.get("items") or ()]
    return "\n".join(told).encode()[-LOG_BYTES:]
