"""How pods call one another: by a pod's own address, and by a Service's name, which kube-proxy leads to a pod."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.kubernetes.connection.client import Api, Json
from lab.features import Place
from lab.launch.peers import reach_from_network

POD, SERVICE = "pod address", "service"
_NETWORK = "the cluster's pods"
_DOMAIN = "cluster.local"
"""Of a cluster's names where its maker chose no other (kubelet's --cluster-domain has no default of its own; kubeadm's
is this one)."""


def places(api: Api, namespace: str, pods: Sequence[Json], service: str) -> list[Place]:
    """Where `pods`, all of one instance, are found: the address of the first that has one, and the name of the Service
    called `service`; empty where it has none. Raises the client's exceptions."""
    found = []
    for pod in pods:
        if address := str((pod.get("status") or {}).get("podIP") or ""):
            port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
            found.append(Place(path=POD, network=_NETWORK, host=address, port=int(port)))
            break
    told = api.found(api.core.read_namespaced_service, service, namespace) if service else None
    if told is None:
        why = "a pod alone has no Service: kubernetes:deployment has one"
        return [*found, Place(path=SERVICE, network=_NETWORK, why=why)]
    name, port = f"{service}.{namespace}.svc.{_DOMAIN}", told["spec"]["ports"][0]["port"]
    return [*found, Place(path=SERVICE, network=_NETWORK, name=name, port=int(port))]


def reach(place: Place) -> Place | str:
    """What a pod can call: every pod and Service of its cluster."""
    return reach_from_network(place, {_NETWORK: _NETWORK})
