"""One Knative Service of the lab's: a function whose pods come with calls and go without them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.connection.streams import run_in_pod
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.knative import status
from drivers.kubernetes.knative.manifests import PLURAL, where
from drivers.kubernetes.objects.labels import OF_KNATIVE
from drivers.kubernetes.objects.manifests import CONTAINER
from drivers.kubernetes.objects.status import reached
from drivers.kubernetes.pods import processes
from drivers.kubernetes.pods.instance import GONE_TIMEOUT_S, await_gone, logs_of, pause, remove, require_ended
from lab.errors import CleanupError, DriverError, Unsupported
from lab.features import CallPhase, ExecResult, Role, SleepState
from lab.host import procs
from lab.host.procs import Process
from lab.spec import Endpoint
from lab.timeline import Phase, Source

_INTERNAL = ("networking.internal.knative.dev", "v1alpha1")
_NOT_TOLD = "not told"
_QUEUE_PROXY = "/ko-app/queue"  # the program of the container that Knative puts beside the service's
_NOT_HERE = {
    SleepState.PAUSED: "Kubernetes has no way to freeze a pod",
    SleepState.STOPPED: "a pod is not stopped and kept: it is removed",
    SleepState.SAVED: "Kubernetes does not save a pod's memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a function is. `local` says that its processes are this host's."""

    api: Api
    namespace: str
    name: str
    local: bool
    follower: Follower | None = None
    on_delete: Callable[[], None] = lambda: None


class Function:
    """A Knative Service with all that Knative made for it. Its workers are its pods."""

    def __init__(self, place: Place, *, labels: Mapping[str, str], endpoint: Endpoint | None) -> None:
        self.id = f"{place.namespace}/{place.name}"
        self.labels = labels
        self.endpoint = endpoint
        self._place = place
        self._processes: set[Process] = set()
        self._killed = False

    def logs(self) -> bytes:
        """The end of what its newest pod wrote; where there is none, what Knative says of it."""
        api, namespace = self._place.api, self._place.namespace
        with translated("read the pods' log"):
            pods = sorted(self._pods(), key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
            if pods:
                return logs_of(api, namespace, str(pods[-1]["metadata"]["name"]))
            service = self._service()
        verdict = status.verdict(service) if service else None
        return verdict.brief.encode() if verdict else b""

    def stop(self, *, timeout_s: float) -> None:
        """Delete it, which is how Knative ends one. Knative has each pod drain for half a minute before the service in
        it gets SIGTERM; what is still there after `timeout_s` is killed."""
        with translated("stop the Knative Service"):
            self._remove()
            deadline = time.monotonic() + timeout_s
            while self._pods() and time.monotonic() < deadline:
                pause(self._place.follower)
            self._killed = bool(self._pods())
            self._await_gone()

    def was_killed(self) -> bool:
        """Whether `stop` did not wait until Knative had drained it."""
        return self._killed

    def delete(self) -> None:
        """Remove it with all that Knative made for it; returns when the API knows none of its pods and their processes
        ended. Pods are not given the half minute for which Knative has them drain."""
        with translated("remove the Knative Service", CleanupError):
            self._remove()
            self._await_gone()
        require_ended(self.id, self._processes)
        self._place.on_delete()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in one of its pods. Raises DriverError, also where there is none now."""
        with translated("list the pods"):
            pods = self._serving()
        if not pods:
            raise DriverError(
                f"{self.id} is at zero: there is no pod to run '{argv[0]}' in", resolution="call it first"
            )
        name = str(pods[0]["metadata"]["name"])
        return run_in_pod(self._place.api, self._place.namespace, name, CONTAINER, argv, timeout_s=timeout_s)

    def host_pids(self) -> Mapping[int, Role]:
        """The processes of its pods, Knative's queue-proxy as PROXY; empty where they are not this host's, and at
        zero."""
        return {process.pid: role for process, role in self._find_processes().items()}

    def settle(self, *, timeout_s: float) -> None:
        """Return when Knative has told that the Service is ready, or after `timeout_s`."""
        if self._place.follower is not None:
            self._place.follower.settle(timeout_s)

    def reported(self) -> Mapping[str, str]:
        """Knative's and the pod's own times, to the second, and by what way requests go now, where that is told."""
        told = self._place.follower.reported() if self._place.follower is not None else {}
        way = self.activator()
        return told if way == _NOT_TOLD else {**told, "activator": way}

    def activator(self) -> str:
        """Whether requests go by Knative's activator, which keeps them while there is no pod: by the mode of the
        revision's ServerlessService. Raises DriverError."""
        place, api = self._place, self._place.api
        with translated("read how requests are led"):
            try:
                listed = api.call(
                    api.custom.list_namespaced_custom_object,
                    *_INTERNAL,
                    place.namespace,
                    "serverlessservices",
                    label_selector=f"{OF_KNATIVE}={place.name}",
                )
            except Exception as error:
                if status_of(error) not in (403, 404):
                    raise
                return _NOT_TOLD
        modes = {str((one.get("spec") or {}).get("mode", "")) for one in listed.get("items") or ()}
        if modes == {"Serve"}:
            return "not in the way (ServerlessService in mode Serve)"
        return "in the way (ServerlessService in mode Proxy)" if "Proxy" in modes else _NOT_TOLD

    def sleep_states(self) -> Mapping[SleepState, str]:
        """It goes to zero by itself, and knows nothing else."""
        return {SleepState.ZERO: "", **_NOT_HERE}

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Wait until Knative has scaled it to zero, which only time does; returns when its pods and their processes are
        gone. What it has taken out of service is not given the half minute to drain."""
        if state is not SleepState.ZERO:
            raise Unsupported(f"{self.id} cannot be {state}: {_NOT_HERE[state]}", resolution="ask for zero")
        deadline = time.monotonic() + timeout_s
        with translated("wait for zero"):
            self._note_processes()
            while self._serving():
                if time.monotonic() > deadline:
                    raise DriverError(
                        f"Knative has not scaled {self.id} to zero within {timeout_s:g} s",
                        resolution="nobody may call it meanwhile; it takes the autoscaler's window and up to "
                        "scale-to-zero-grace-period (ConfigMap config-autoscaler), which has enable-scale-to-zero, too",
                    )
                pause(self._place.follower)
            self._end_pods()
            await_gone(f"pods of {self.id}", lambda: bool(self._pods()), self._place.follower, GONE_TIMEOUT_S)
        require_ended(self.id, self._processes)

    def wake(self, state: SleepState) -> None:
        """A request wakes it: nothing is asked of Knative."""
        if state is not SleepState.ZERO:
            raise Unsupported(f"{self.id} is never {state}", resolution="ask for zero")

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  the same for all
        """Nothing on this host holds what is at zero."""
        return ()

    def workers(self) -> Sequence[str]:
        """Its pods that are not on their way out, each with its uid."""
        with translated("list the pods"):
            return [_worker(pod) for pod in self._serving()]

    def force_cold(self, *, timeout_s: float) -> None:
        """Wait for zero: a pod that is removed instead is replaced before anybody calls."""
        self.sleep(SleepState.ZERO, timeout_s=timeout_s)

    @contextlib.contextmanager
    def follow(self, seen: Callable[[str, CallPhase, str], None]) -> Iterator[None]:
        """Tell of pods as events bring them: that one is there, and that its service's container runs. Nothing shows
        when a pod asks for its first call."""
        watcher = Watcher(self._place.api, self._place.namespace)
        try:
            watcher.follow(self.labels.get("lab.launch", ""), _Calls(seen))
            yield
        finally:
            watcher.close()

    def _service(self) -> Json | None:
        place, api = self._place, self._place.api
        return api.found(api.custom.get_namespaced_custom_object, *where(place.namespace), place.name)

    def _pods(self) -> list[Json]:
        place, api = self._place, self._place.api
        selector = f"{OF_KNATIVE}={place.name}"
        found = api.call(api.core.list_namespaced_pod, place.namespace, label_selector=selector)
        return list(found.get("items") or ())

    def _serving(self) -> list[Json]:
        return [pod for pod in self._pods() if not pod["metadata"].get("deletionTimestamp")]

    def _remove(self) -> None:
        place, api = self._place, self._place.api
        self._note_processes()
        delete = api.custom.delete_namespaced_custom_object
        remove(api, delete, *where(place.namespace), place.name, propagation_policy="Foreground")

    def _await_gone(self) -> None:
        """Return when the API knows neither the Service nor a pod of it; what still runs is killed."""

        def there() -> bool:
            self._end_pods()
            return bool(self._pods()) or self._service() is not None

        await_gone(f"{PLURAL} {self.id}", there, self._place.follower, GONE_TIMEOUT_S)

    def _end_pods(self) -> None:
        """Have the pods end within a second."""
        api = self._place.api
        for pod in self._pods():
            delete = api.core.delete_namespaced_pod
            remove(api, delete, str(pod["metadata"]["name"]), self._place.namespace, grace_period_seconds=1)

    def _note_processes(self) -> None:
        self._processes |= set(self._find_processes())

    def _find_processes(self) -> dict[Process, Role]:
        if not self._place.local:
            return {}
        with translated("list the pods"):
            uids = [str(pod["metadata"]["uid"]) for pod in self._pods()]
        found = processes.of_pods(uids) if uids else {}
        return {process: _role(process, role) for process, role in found.items()}


class _Calls:
    """What of a function's pods is told to whoever follows its calls."""

    def __init__(self, seen: Callable[[str, CallPhase, str], None]) -> None:
        self._seen = seen
        self._told: set[tuple[str, CallPhase]] = set()

    def event(self, kind: str, pod: Mapping[str, Any], /) -> None:
        worker = _worker(pod)
        if kind == "ADDED":
            self._tell(worker, CallPhase.CREATED)
        if Phase.STARTED in reached(pod):
            self._tell(worker, CallPhase.STARTED)

    def seen(self, pod: Mapping[str, Any], /) -> None:
        """It was there before: nothing is known of when."""
        phases = {CallPhase.CREATED} | ({CallPhase.STARTED} if Phase.STARTED in reached(pod) else set())
        self._told |= {(_worker(pod), phase) for phase in phases}

    def missed(self) -> None:
        """What the listing after it shows is told of as seen before, and so never."""

    def _tell(self, worker: str, phase: CallPhase) -> None:
        if (worker, phase) not in self._told:
            self._told.add((worker, phase))
            self._seen(worker, phase, Source.EVENT.value)


def _worker(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['name']} {pod['metadata'].get('uid', '')}".strip()


def _role(process: Process, role: Role) -> Role:
    if role is not Role.SERVICE:
        return role
    return Role.PROXY if procs.arguments(process.pid)[:1] == [_QUEUE_PROXY] else role
