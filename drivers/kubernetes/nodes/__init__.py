"""A cluster's nodes: which of them take pods, and where a pod is to go.

A pod is bound to a node by its name, as a DaemonSet's pods are, and by way of the scheduler, so that `scheduled` means
what it does for any pod.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.client import Json
from drivers.kubernetes.objects.manifests import INSTANCE, PORTS
from lab.errors import BadInput

NODES = "nodes"
"""The value of the option `spread` that has replicas go to as many nodes as there are."""
_KEEPS_AWAY = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where pods go: to that `node`, or over all of them (`spread`), or wherever the scheduler likes (neither). With
    `aside`, rather not to the node whose ports are this host's way in. `tolerate_s` is how long a pod stays bound to a
    node that is lost, the cluster's own 300 s where it is None."""

    node: str = ""
    spread: bool = False
    aside: bool = False
    tolerate_s: int | None = None

    def of_pods(self, labels: Mapping[str, str]) -> Json:
        """What a pod's spec says of it; `labels` are those by which the pods that are spread are known."""
        made: Json = {}
        affinity: Json = {}
        if self.node:
            named = {"key": "metadata.name", "operator": "In", "values": [self.node]}
            terms = {"nodeSelectorTerms": [{"matchFields": [named]}]}
            affinity["requiredDuringSchedulingIgnoredDuringExecution"] = terms
        elif self.aside:
            other = {"key": next(iter(PORTS)), "operator": "DoesNotExist"}
            affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
                {"weight": 1, "preference": {"matchExpressions": [other]}}
            ]
        if affinity:
            made["affinity"] = {"nodeAffinity": affinity}
        if self.spread and not self.node:
            made["topologySpreadConstraints"] = [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": dict(labels)},
                }
            ]
        if self.tolerate_s is not None:
            made["tolerations"] = [
                {
                    "key": f"node.kubernetes.io/{lost}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": self.tolerate_s,
                }
                for lost in ("not-ready", "unreachable")
            ]
        return made

    def told(self) -> str:
        """In words."""
        if self.node:
            return f"on the node {self.node}"
        where = "spread over all nodes, at most one more on one than on another" if self.spread else "the scheduler's"
        return where + (", rather not on the node that is this host's way in" if self.aside else "")


ANYWHERE = Placement()


def usable(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of those that take pods of anybody's: neither cordoned nor with a taint that keeps pods away."""
    return [
        str(node["metadata"]["name"])
        for node in nodes
        if not (node.get("spec") or {}).get("unschedulable")
        and not any(taint.get("effect") in _KEEPS_AWAY for taint in (node.get("spec") or {}).get("taints") or ())
    ]


def entrance(nodes: Sequence[Mapping[str, Any]]) -> str:
    """The node whose ports are mapped to this host; empty where none are."""
    for node in nodes:
        if PORTS.items() <= (node["metadata"].get("labels") or {}).items():
            return str(node["metadata"]["name"])
    return ""


def require_node(name: str, nodes: Sequence[Mapping[str, Any]] | None) -> None:
    """Raises BadInput where there is no such node that takes pods; where this user may not list them, any name may be
    one."""
    if not name or nodes is None:
        return
    there = usable(nodes)
    if name not in there:
        known = name in [str(node["metadata"]["name"]) for node in nodes]
        what = f"the node '{name}' takes no pods: it is cordoned or tainted" if known else f"there is no node '{name}'"
        raise BadInput(what, resolution=f"those that take pods: {', '.join(there) or 'none'}")


def pods_by_node(pods: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of `pods` each node has that are not on their way out."""
    found: dict[str, int] = {}
    for pod in pods:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        if node and not pod["metadata"].get("deletionTimestamp"):
            found[node] = found.get(node, 0) + 1
    return dict(sorted(found.items()))


def spread_by(own: Mapping[str, str], *, deployed: bool) -> dict[str, str]:
    """The labels by which pods that are spread over nodes know each other: those of one instance's replicas, or, of
    instances that are pods each, those of one run's on one target."""
    wanted = (INSTANCE,) if deployed else ("lab.run", "lab.target")
    return {key: own[key] for key in wanted if key in own}
