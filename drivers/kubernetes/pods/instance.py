"""One launched pod or deployment, and what is left of the lab's beside them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.connection.streams import run_in_pod
from drivers.kubernetes.connection.telling import telling
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.nodes import pods_by_node
from drivers.kubernetes.nodes.losing import Losing
from drivers.kubernetes.objects.manifests import CONTAINER
from drivers.kubernetes.objects.status import pod_verdict
from drivers.kubernetes.pods import peers, processes
from lab.errors import CleanupError, Unsupported
from lab.features import ExecResult, Role, SleepState
from lab.features import Place as Address
from lab.host import procs
from lab.host.procs import Process
from lab.spec import Endpoint

LOG_BYTES = 65_536
GONE_TIMEOUT_S = 60.0

_LOOK_EVERY_S = 0.1
_STATES = {SleepState.ZERO: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an instance is, and what goes with it. `local` says that its processes are this host's; `alias` is the name
    of the Service by which peers find it, empty where it has none."""

    api: Api
    namespace: str
    name: str
    local: bool
    has_service: bool
    alias: str = ""
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
            remove_services(place)
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


def remove_services(place: Place) -> None:
    """Remove the Service that leads to an instance from outside, and that by which its peers find it. Raises the
    client's exceptions."""
    for name in [*([place.name] if place.has_service else []), *([place.alias] if place.alias else [])]:
        remove(place.api, place.api.core.delete_namespaced_service, name, place.namespace)


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
