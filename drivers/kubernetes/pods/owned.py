"""An instance whose pods another object of the API makes: a Job, and what a Deployment has in common with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.connection.streams import run_in_pod
from drivers.kubernetes.nodes import pods_by_node
from drivers.kubernetes.objects.manifests import CONTAINER, INSTANCE
from drivers.kubernetes.objects.vmi import GROUP, PLURAL, VERSION
from drivers.kubernetes.pods import peers, processes
from drivers.kubernetes.pods.instance import (
    GONE_TIMEOUT_S,
    Place,
    await_gone,
    logs_of,
    pause,
    remove,
    remove_services,
    require_ended,
)
from lab.errors import CleanupError, DriverError
from lab.features import ExecResult, Role
from lab.features import Place as Address
from lab.host.procs import Process
from lab.spec import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One kind of object that makes pods: what it is called, the client's methods that create, read and delete one, and
    how it is asked to have no pod (`halt`)."""

    kind: str
    create: Callable[..., Any]
    read: Callable[..., Any]
    remove: Callable[..., Any]
    halt: Callable[[Place], None]


def deployment(api: Api) -> Owner:
    """Halted, it has no replicas."""

    def halt(place: Place) -> None:
        patch = api.apps.patch_namespaced_deployment_scale
        api.call(patch, place.name, place.namespace, {"spec": {"replicas": 0}})

    apps = api.apps
    return Owner(
        kind="deployment",
        create=apps.create_namespaced_deployment,
        read=apps.read_namespaced_deployment,
        remove=apps.delete_namespaced_deployment,
        halt=halt,
    )


def job(api: Api) -> Owner:
    """Halted, it is suspended, and its controller ends its pods (Kubernetes 1.24, `spec.suspend`)."""

    def halt(place: Place) -> None:
        api.call(api.batch.patch_namespaced_job, place.name, place.namespace, {"spec": {"suspend": True}})

    batch = api.batch
    return Owner(
        kind="job",
        create=batch.create_namespaced_job,
        read=batch.read_namespaced_job,
        remove=batch.delete_namespaced_job,
        halt=halt,
    )


def vmi(api: Api) -> Owner:
    """Halted, it is deleted, as KubeVirt asks its guest to power off."""
    custom = api.custom

    def create(namespace: str, body: Json, **options: Any) -> Any:
        return custom.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, body, **options)

    def read(name: str, namespace: str, **options: Any) -> Any:
        return custom.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, **options)

    def take(name: str, namespace: str, **options: Any) -> Any:
        return custom.delete_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, **options)

    def halt(place: Place) -> None:
        remove(place.api, take, place.name, place.namespace)

    return Owner(kind="virtual machine", create=create, read=read, remove=take, halt=halt)


class Owned:
    """An object of `owner`'s kind, with its pods and its Service."""

    def __init__(self, place: Place, owner: Owner, *, labels: Mapping[str, str], endpoint: Endpoint | None) -> None:
        self.id = f"{place.namespace}/{place.name}"
        self.labels = labels
        self.endpoint = endpoint
        self._place = place
        self._owner = owner
        self._processes: set[Process] = set()

    def logs(self) -> bytes:
        """The end of what its newest pod wrote; where none has run, what the cluster says of it."""
        with translated("read the pods' log"):
            told = ((str(pod["metadata"].get("creationTimestamp", "")), pod["metadata"]["name"]) for pod in self.pods())
            _, newest = max(told, default=("", ""))
            return logs_of(self._place.api, self._place.namespace, newest) if newest else b""

    def stop(self, *, timeout_s: float) -> None:
        """Have it have no pod, and wait until its pods ended; those that take longer than `timeout_s` are killed."""
        place = self._place
        with translated(f"stop the {self._owner.kind}"):
            self._note_processes()
            if place.api.found(self._owner.read, place.name, place.namespace) is None:
                return
            self._owner.halt(place)
            if not self.await_none(timeout_s):
                self._kill_pods()
                await_gone(f"pods of {self.id}", self.has_pods, place.follower, GONE_TIMEOUT_S)

    def delete(self) -> None:
        """Remove it with its pods and its Service; returns when the API knows none of them and the processes ended."""
        place, api, owner = self._place, self._place.api, self._owner
        with translated(f"remove the {owner.kind}", CleanupError):
            self._note_processes()
            remove(api, owner.remove, place.name, place.namespace, propagation_policy="Foreground")
            remove_services(place)

            def there() -> bool:
                found = api.found(owner.read, place.name, place.namespace) is not None
                pods = self.has_pods()
                if pods and not found:
                    self._kill_pods()  # somebody else has removed it and left them
                return found or pods

            await_gone(f"{owner.kind} {self.id}", there, place.follower, GONE_TIMEOUT_S)
        require_ended(self.id, self._processes)
        place.on_delete()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in the first of its pods. Raises DriverError."""
        with translated("list the pods"):
            pods = self.pods(1)
        if not pods:
            raise DriverError(f"the {self._owner.kind} {self.id} has no pod")
        return run_in_pod(
            self._place.api, self._place.namespace, pods[0]["metadata"]["name"], CONTAINER, argv, timeout_s=timeout_s
        )

    def places(self) -> Sequence[Address]:
        """The address of its first pod, and its Service's name. Raises DriverError."""
        place = self._place
        with translated("list the pods"):
            return peers.places(place.api, place.namespace, self.pods(), place.name * place.has_service)

    def reach(self, place: Address) -> Address | str:
        """All of its cluster."""
        return peers.reach(place)

    def on_nodes(self) -> Mapping[str, int]:
        """How many of its pods each has."""
        with translated("list the pods"):
            return pods_by_node(self.pods())

    def drain(self) -> Callable[[], None]:
        """Its node is cordoned, on the lab's own cluster, and it is evicted. Raises DriverError."""
        with translated("list the pods"):
            pods = list(self.pods())
        return self._place.losing_of(self.id).drain(pods)

    def stop_node(self) -> Callable[[], None]:
        """Its node ends at once. Raises DriverError, Unsupported."""
        with translated("list the pods"):
            pods = list(self.pods())
        return self._place.losing_of(self.id).stop_node(pods)

    def host_pids(self) -> Mapping[int, Role]:
        """As a pod's, of all its pods."""
        return {process.pid: role for process, role in self.find_processes().items()}

    def settle(self, *, timeout_s: float) -> None:
        """Return when the events have told of all phases of the first pod, or after `timeout_s`."""
        if self._place.follower is not None:
            self._place.follower.settle(timeout_s)

    def reported(self) -> Mapping[str, str]:
        """The pod's own times, to the second; empty where this is not the launch's instance."""
        return self._place.follower.reported() if self._place.follower is not None else {}

    def pods(self, most: int = 0) -> Sequence[Json]:
        """Its pods, or `most` of them."""
        place, listing = self._place, self._place.api.core.list_namespaced_pod
        selector = f"{INSTANCE}={place.name}"
        if most:
            found = place.api.call(listing, place.namespace, label_selector=selector, limit=most)
            return list(found.get("items") or ())
        return list(place.api.each(listing, place.namespace, label_selector=selector))

    def has_pods(self) -> bool:
        """Whether any is left."""
        return bool(self.pods(1))

    def _kill_pods(self) -> None:
        api = self._place.api
        for pod in self.pods():
            name = pod["metadata"]["name"]
            remove(api, api.core.delete_namespaced_pod, name, self._place.namespace, grace_period_seconds=1)

    def await_none(self, timeout_s: float) -> bool:
        """Whether it has no pod within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while self.has_pods():
            if time.monotonic() > deadline:
                return False
            pause(self._place.follower)
        return True

    def _note_processes(self) -> None:
        self._processes |= set(self.find_processes())

    def find_processes(self) -> dict[Process, Role]:
        """Of this host, with what each does. Raises DriverError."""
        if not self._place.local:
            return {}
        with translated("list the pods"):
            uids = [pod["metadata"]["uid"] for pod in self.pods()]
        return processes.of_pods(uids) if uids else {}
