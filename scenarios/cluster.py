"""What does a cluster cost before it serves anything?

| metric | start | end | unit |
|---|---|---|---|
| `api_s` | just before the first call that makes the cluster | its API says for the first time that it is ready (`/readyz`) | s |
| `node_ready_s` | the same | every node is `Ready`, by the API | s |
| `first_pod_s` | the same | the event arrives that shows the first pod's container running, its image loaded and its namespace made meanwhile | s |
| `remove_s` | that event | nothing of the cluster is left | s |

The cluster is one of the run's own, beside the one that other scenarios use again, from the same node image, which is
already on this host: no download is in these times. The API and the nodes are asked every 100 ms, so that the first
two may be late by as much. Loading the image and making the namespace follow the nodes' readiness one after the other,
as a user would do it.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from lab.errors import Unsupported
from lab.features import Clustered, Feature
from lab.scenario import Bench
from lab.units import MIB

_REMOVED = "removed"
_FIRST_POD = "first_pod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Make a cluster, from nothing to its first pod, and remove it."""

    name: ClassVar[str] = "cluster"
    question: ClassVar[str] = "How long does a cluster take, from nothing to its first pod?"
    headline: ClassVar[str] = "first_pod_s"
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.CLUSTER})
    likely_s_per_round: ClassVar[float] = 120.0
    memory_bytes: ClassVar[int] = 1700 * MIB
    """What kubeadm asks for on a control-plane node (`ControlPlaneMem` of its preflight checks)."""
    changes: ClassVar[str] = "makes a cluster of its own in each round, beside any that is there, and removes it"

    def measure(self, bench: Bench) -> None:
        driver = bench.driver
        if not isinstance(driver, Clustered):
            raise Unsupported(f"{driver.name} has no cluster that the lab could make")
        seen_ns: dict[str, int] = {}

        def seen(step: str) -> None:
            seen_ns.setdefault(step, bench.clock.now_ns())

        requested_ns = bench.clock.now_ns()
        driver.cluster_cost(bench.spec, seen)
        removed_ns = seen_ns.pop(_REMOVED)
        for step, ns in seen_ns.items():
            bench.emit(f"{step}_s", (ns - requested_ns) / 1e9, "s")
        bench.emit("remove_s", (removed_ns - seen_ns[_FIRST_POD]) / 1e9, "s")
