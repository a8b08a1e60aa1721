"""A Deployment of the lab's: what it has in common with other owners of pods, and its replicas, updates and sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.manifests import GRACE_S, Form
from drivers.kubernetes.pods.instance import Place
from drivers.kubernetes.pods.owned import Owned, deployment
from lab.errors import DriverError
from lab.features import ExecResult, Role, SleepState
from lab.features import Place as Address
from lab.host import procs
from lab.launch.asleep import require_offered
from lab.spec import Endpoint, Spec

_STATES = {SleepState.ZERO: ""}


class Deployment:
    """A deployment of the lab's, with its pods and its Service."""

    def __init__(self, place: Place, *, labels: Mapping[str, str], endpoint: Endpoint | None, form: Form) -> None:
        self._owned = Owned(place, deployment(place.api), labels=labels, endpoint=endpoint)
        self.id = self._owned.id
        self.labels = labels
        self.endpoint = endpoint
        self._place = place
        self._form = form
        # What it has as any owner of pods has it.
        self.logs: Callable[[], bytes] = self._owned.logs
        self.delete: Callable[[], None] = self._owned.delete
        self.places: Callable[[], Sequence[Address]] = self._owned.places
        self.reach: Callable[[Address], Address | str] = self._owned.reach
        self.on_nodes: Callable[[], Mapping[str, int]] = self._owned.on_nodes
        self.drain: Callable[[], Callable[[], None]] = self._owned.drain
        self.stop_node: Callable[[], Callable[[], None]] = self._owned.stop_node
        self.host_pids: Callable[[], Mapping[int, Role]] = self._owned.host_pids
        self.reported: Callable[[], Mapping[str, str]] = self._owned.reported

    def stop(self, *, timeout_s: float) -> None:
        """As any owner of pods."""
        self._owned.stop(timeout_s=timeout_s)

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """As any owner of pods."""
        return self._owned.exec(argv, timeout_s=timeout_s)

    def settle(self, *, timeout_s: float) -> None:
        """As any owner of pods."""
        self._owned.settle(timeout_s=timeout_s)

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

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Scaled to nothing: Kubernetes holds no pod still, and keeps none that has ended."""
        return _STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Scale it to nothing; returns when it has no pod, and the processes of this host that they had are gone.
        Raises DriverError."""
        require_offered(_STATES, state)
        with translated("scale the deployment to zero"):
            before = set(self._owned.find_processes())
            self.scale(0)
            deadline = time.monotonic() + timeout_s
            if not self._owned.await_none(timeout_s):
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
