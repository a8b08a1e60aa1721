"""Where a cluster's Knative answers: the one address of its ingress, which tells services apart by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from lab.errors import BadInput, DriverUnavailable
from lab.spec import Endpoint

SYSTEM = "knative-serving"

_CLASSES: Mapping[str, tuple[str, str]] = {
    "kourier.ingress.networking.knative.dev": ("kourier-system", "kourier"),
    "contour.ingress.networking.knative.dev": ("contour-external", "envoy"),
    "istio.ingress.networking.knative.dev": ("istio-system", "istio-ingressgateway"),
}
"""The Service by which each of Knative's ingresses takes requests from outside, as its own release installs it
(knative/serving, third_party/)."""
_DEFAULT_CLASS = "istio.ingress.networking.knative.dev"
_KEYS = ("ingress-class", "ingress.class")  # the latter before Knative 0.26
_HTTP = 80
_OPTION = "or name where it answers: -o knative-ingress=HOST:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingress:
    """Where this host reaches it: `name` is one word for a row, `why` how it was found; `beyond` says where others than
    this host reach it as well, empty where none do."""

    endpoint: Endpoint
    name: str
    why: str
    beyond: str = ""


def find_ingress(api: Api, asked: str, nodes: Sequence[Json], *, own_cluster: bool) -> Ingress:
    """The ingress that Knative is configured for, or the address that was `asked` for. `own_cluster` is one whose nodes
    only this host reaches. Raises BadInput, DriverUnavailable."""
    if asked:
        return Ingress(endpoint=_parsed(asked), name="given", why="asked for", beyond="the address that was given")
    with translated("read Knative's network settings", DriverUnavailable):
        try:
            settings = api.found(api.core.read_namespaced_config_map, "config-network", SYSTEM)
        except Exception as error:
            if status_of(error) != 403:
                raise
            raise DriverUnavailable(
                "this user may not read by which ingress Knative answers", resolution=_OPTION.removeprefix("or ")
            ) from error
        data = (settings or {}).get("data") or {}
        kind = next((str(data[key]) for key in _KEYS if data.get(key)), _DEFAULT_CLASS)
        if kind not in _CLASSES:
            raise DriverUnavailable(
                f"Knative answers by '{kind}', of which the lab does not know where that is",
                resolution=_OPTION.removeprefix("or "),
            )
        namespace, name = _CLASSES[kind]
        service = api.found(api.core.read_namespaced_service, name, namespace)
    if service is None:
        raise DriverUnavailable(
            f"Knative is set to answer by '{kind}', whose Service {namespace}/{name} is not there",
            resolution=f"install that ingress (https://knative.dev/docs/install/installing-knative); {_OPTION}",
        )
    short = kind.partition(".")[0]
    found = None if own_cluster else _balanced(service)
    if found is not None:
        return Ingress(
            endpoint=found, name=short, why=f"the load balancer of {namespace}/{name}", beyond=f"{found}, its ingress"
        )
    found = _by_node(service, nodes)
    if found is None:
        raise DriverUnavailable(
            f"the Service {namespace}/{name} of Knative's ingress has no address that this host could ask",
            resolution=f"give it a NodePort or a load balancer; {_OPTION}",
        )
    beyond = "" if own_cluster else f"port {found.port} of every node of the cluster, its ingress"
    return Ingress(endpoint=found, name=short, why=f"a node's port of {namespace}/{name}", beyond=beyond)


def _parsed(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise BadInput(f"knative-ingress={text} is no address", resolution="write HOST:PORT, such as 127.0.0.1:8080")
    return Endpoint(host.removeprefix("[").removesuffix("]"), int(port))


def _balanced(service: Mapping[str, Any]) -> Endpoint | None:
    """Where a load balancer leads to its plain HTTP."""
    given = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    for one in given:
        if host := one.get("ip") or one.get("hostname"):
            return Endpoint(str(host), _HTTP)
    return None


def _by_node(service: Mapping[str, Any], nodes: Sequence[Json]) -> Endpoint | None:
    """A node's own address, and its port that leads to the ingress's plain HTTP."""
    ports = [one for one in (service.get("spec") or {}).get("ports") or () if one.get("port") == _HTTP]
    port = next((int(one["nodePort"]) for one in ports if one.get("nodePort")), 0)
    for node in nodes if port else ():
        for address in (node.get("status") or {}).get("addresses") or ():
            if address.get("type") == "InternalIP":
                return Endpoint(str(address["address"]), port)
    return None
