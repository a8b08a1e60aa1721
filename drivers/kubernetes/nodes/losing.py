"""How an instance loses its node: by draining, as maintenance does, and by the node's own end.

Only a node of the lab's own cluster is cordoned or stopped. Of any cluster it is the lab's own pods alone that are
evicted, by the eviction API, which heeds PodDisruptionBudgets, as `kubectl drain` does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.cluster.kind import Kind
from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.objects.status import condition
from lab.errors import CleanupError, DriverError, Unsupported

_READY_TIMEOUT_S = 180.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Losing:
    """Of one cluster. `own` says that it is the lab's; `entrance` is the node by which this host reaches it."""

    api: Api
    own: bool
    entrance: str = ""

    def drain(self, pods: Sequence[Json]) -> Callable[[], None]:
        """Cordon the nodes of `pods`, where they are the lab's own cluster's, and evict the pods; returns what gives
        the nodes back. Raises DriverError, after giving them back."""
        with contextlib.ExitStack() as undo:
            if self.own:
                for node in sorted({str(pod["spec"].get("nodeName") or "") for pod in pods} - {""}):
                    self._cordon(node, True)
                    undo.callback(self._cordon, node, False)
            for pod in pods:
                metadata = pod["metadata"]
                body = {
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
                }
                with translated("evict a pod"):
                    self.api.found(
                        self.api.core.create_namespaced_pod_eviction, metadata["name"], metadata["namespace"], body
                    )
            return undo.pop_all().close
        raise AssertionError("it returns or raises")

    def stop_node(self, pods: Sequence[Json]) -> Callable[[], None]:
        """End the node that `pods` are on, at once; returns what starts it again and waits until it is ready. Raises
        Unsupported where it is not the lab's own, or the way in; DriverError."""
        nodes = sorted({str(pod["spec"].get("nodeName") or "") for pod in pods} - {""})
        if not self.own:
            raise Unsupported("a node of somebody else's cluster is not stopped", resolution="drain it: -p by=drain")
        if len(nodes) != 1:
            raise DriverError(f"the instance is on {len(nodes)} nodes, and one is to be stopped")
        node = nodes[0]
        if node == self.entrance:
            raise Unsupported(
                f"the node {node} is this host's only way into the cluster, and the instance is on it",
                resolution="give the cluster two workers: lab cluster down, then lab cluster up --workers 2",
            )
        kind = Kind.find()
        kind.stop_node(node)

        def start() -> None:
            try:
                kind.start_node(node)
                self._await_ready(node)
            except DriverError as error:
                raise CleanupError(error.brief, details=error.details, resolution=f"docker start {node}") from error

        return start

    def _cordon(self, node: str, cordoned: bool) -> None:
        doing = f"{'cordon' if cordoned else 'uncordon'} the node {node}"
        with translated(doing, DriverError if cordoned else CleanupError):
            patch: Any = self.api.core.patch_node
            self.api.call(patch, node, {"spec": {"unschedulable": cordoned or None}})

    def _await_ready(self, node: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            with translated("read the node"):
                found = self.api.found(self.api.core.read_node, node)
            if found is not None and condition(found, "Ready") == "True":
                return
            if time.monotonic() > deadline:
                raise DriverError(f"the node {node} is not ready {_READY_TIMEOUT_S:g} s after it was started again")
            time.sleep(_LOOK_EVERY_S)
