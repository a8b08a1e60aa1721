"""How this host reaches a pod; each way costs something else, so that figures of two never share a row.

| route | the way | on |
|---|---|---|
| host-port | a port of 127.0.0.1, mapped to the node's, which the node's CNI leads to the pod before it starts | kind |
| node-port | a port of every node, which kube-proxy leads to the pod once it knows; on kind through 127.0.0.1 | any |
| port-forward | a port of 127.0.0.1, carried through the API and the kubelet by the lab itself | any, pods only |
| pod-address | the pod's own address, known when an event brings it | where the network leads there, pods only |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.cluster.clusters import Cluster
from drivers.kubernetes.cluster.kind import Kind
from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.nodes import usable
from drivers.kubernetes.pods.ports import Pool
from lab.errors import BadInput, DriverError, Unsupported
from lab.spec import Endpoint

HOST_PORT, NODE_PORT, PORT_FORWARD, POD_ADDRESS = "host-port", "node-port", "port-forward", "pod-address"
LOOPBACK = "127.0.0.1"

_ROUTES = (HOST_PORT, NODE_PORT, PORT_FORWARD, POD_ADDRESS)
_NOT_WAITED = "the route does not wait for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The chosen way, and why. `host` is the address of a NodePort, empty where no node may be looked at: then it is
    that of the pod's own node. `readiness` says whether the way waits for it."""

    name: str
    why: str
    host: str = LOOPBACK
    readiness: str = _NOT_WAITED


def choose_route(
    wanted: str, cluster: Cluster | None, nodes: Sequence[Mapping[str, Any]], *, deployed: bool, machine: bool = False
) -> Route:
    """The route of one target: the `wanted` one, or the shortest that its cluster has.

    A deployment is reached through its Service, as people have it; a virtual `machine` has no port of its node. Raises
    BadInput, Unsupported.
    """
    if wanted and wanted not in _ROUTES:
        raise BadInput(f"there is no route '{wanted}'", resolution=f"there are: {', '.join(_ROUTES)}")
    if deployed:
        if wanted not in ("", NODE_PORT):
            raise Unsupported(f"a deployment is reached by node-port, not by {wanted}", resolution="leave out route")
        waits = "the Service waits for it, as people have it"
        return Route(name=NODE_PORT, why="a deployment has a Service", host=_host(cluster, nodes), readiness=waits)
    if machine and wanted == HOST_PORT:
        raise Unsupported("a virtual machine has no host-port", resolution="leave out route")
    if cluster is None:
        if wanted == HOST_PORT:
            raise Unsupported("a host-port is only mapped on the lab's own cluster", resolution="leave out route")
        name = wanted or NODE_PORT
        return Route(name=name, why="asked for" if wanted else "a foreign cluster", host=_host(None, nodes))
    if wanted:
        return Route(name=wanted, why="asked for")
    if machine:
        return Route(name=NODE_PORT, why="a virtual machine has a Service")
    takers = usable(nodes)
    if len(takers) > 1:
        return Route(name=NODE_PORT, why=f"{len(takers)} nodes take pods, and this host's ports are mapped to one")
    mapped, why = _maps_host_ports(nodes)
    return Route(name=HOST_PORT if mapped else NODE_PORT, why=why)


def addresses(api: Api, pool: Pool | None, route: Route, namespace: str, name: str) -> Endpoint | None:
    """Where an instance that was found again answers; None where it is gone, or nothing leads there any more.

    Raises the client's exceptions.
    """
    service = api.found(api.core.read_namespaced_service, name, namespace)
    if service is not None:
        port = int(service["spec"]["ports"][0].get("nodePort") or 0)
        found = node_port_endpoint(pool, route, port)
        return found if found is not None and found.host else None
    pod = api.found(api.core.read_namespaced_pod, name, namespace)
    for port in (pod["spec"]["containers"][0].get("ports") or ()) if pod else ():
        if port.get("hostPort"):
            return node_port_endpoint(pool, route, int(port["hostPort"]))
    return None


def node_port_endpoint(pool: Pool | None, route: Route, port: int) -> Endpoint | None:
    """Where this host reaches the node's `port`; None where nothing leads there."""
    if pool is None:
        return Endpoint(route.host, port) if port else None  # of an unknown host: see `Route.host`
    host_port = pool.host_port(port)
    return Endpoint(LOOPBACK, host_port) if host_port else None


def _maps_host_ports(nodes: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether the cluster's CNI honours a pod's hostPort: its configuration names the plugin `portmap` (CNI's own)."""
    try:
        text = "\n".join(Kind.find().network_config(str(node["metadata"]["name"])) for node in nodes[:1])
    except DriverError as error:
        return False, f"it is not known whether the node's CNI maps host ports: {error.brief}"
    if '"portmap"' in text:
        return True, "the node's CNI has the plugin portmap"
    return False, "the node's CNI has no plugin portmap"


def _host(cluster: Cluster | None, nodes: Sequence[Mapping[str, Any]]) -> str:
    if cluster is not None:
        return LOOPBACK
    for node in nodes:
        for address in (node.get("status") or {}).get("addresses") or ():
            if address.get("type") == "InternalIP":
                return str(address["address"])
    return ""
