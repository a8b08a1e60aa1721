"""Networks that instances of a run call one another on, and on which networks a container is: by what the engine keeps.

A network bears the run's labels from the creating call on, and goes with the run: it outlives its instances.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from drivers.dockerapi.errors import translated
from lab.errors import LaunchError
from lab.features import Place
from lab.launch import peers
from lab.spec import Endpoint, Spec, peer_name

BRIDGE, PUBLISHED, NAMED, OVERLAY = "bridge", "published port", "named network", "overlay dnsrr"
_PEERS = "lab.peers"
_TARGET = "lab.target"
_DEFAULT_BRIDGE = "bridge"
_MAKING = threading.Lock()
"""Instances that are launched at the same time have one network."""


def provide(api: Any, spec: Spec, *, driver: str, **settings: Any) -> str:
    """The id of the run's network called `spec.peers`, of that network driver, made unless it is there. Raises
    LaunchError."""
    target = spec.labels.get(_TARGET, "").partition(":")[0]
    of_run = {key: value for key, value in spec.labels.items() if key != "lab.launch"}
    labels = {**of_run, _TARGET: target, _PEERS: spec.peers}
    wanted = {"label": [f"{key}={labels[key]}" for key in ("lab.run", _TARGET, _PEERS) if key in labels]}
    with _MAKING, translated("make the network of an instance's peers", LaunchError):
        if found := api.networks(filters=wanted):
            return str(found[0]["Id"])
        name = f"lab-{labels.get('lab.run', 'unlabelled')}-{target}-{spec.peers}"
        return str(api.create_network(name, driver=driver, labels=labels, check_duplicate=True, **settings)["Id"])


def join(api: Any, container: str, network: str, spec: Spec) -> None:
    """Put a container on `network`, whose DNS knows it by its peers' name for it. Raises LaunchError."""
    with translated("join the network of an instance's peers", LaunchError):
        api.connect_container_to_network(container, network, aliases=names(spec))


def places(told: Mapping[str, Any], labels: Mapping[str, str], endpoint: Endpoint | None, named: str) -> list[Place]:
    """Where a container is found, of what an inspection `told`; `named` is the way by a network's own DNS."""
    if told["HostConfig"]["NetworkMode"] == "host":
        return list(peers.host_places(labels, endpoint))
    environment = dict(entry.partition("=")[::2] for entry in told["Config"].get("Env") or ())
    port = int(environment["LAB_PORT"]) if environment.get("LAB_PORT", "").isdigit() else 0
    found = []
    for name, network in _networks(told).items():
        identity = network["NetworkID"]
        if name == _DEFAULT_BRIDGE:
            found.append(Place(path=BRIDGE, network=identity, host=network["IPAddress"], port=port, from_host=True))
        else:
            found.append(Place(path=named, network=identity, name=peer_name(labels), port=port))
    if endpoint is not None and endpoint.host == "127.0.0.1":
        found.append(peers.on_host(PUBLISHED, endpoint))
    return found


def reach(told: Mapping[str, Any], place: Place) -> Place | str:
    """`place` as a container calls it, of what an inspection `told`; or why it is out of reach."""
    if told["HostConfig"]["NetworkMode"] == "host":
        return peers.reach_from_host(place)
    on = {network["NetworkID"]: _said(name) for name, network in _networks(told).items()}
    return peers.reach_from_network(place, on)


def _said(name: str) -> str:
    return "the engine's default bridge" if name == _DEFAULT_BRIDGE else "a network of its peers"


def _networks(told: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return {
        name: network
        for name, network in (told["NetworkSettings"].get("Networks") or {}).items()
        if network.get("IPAddress") and network.get("NetworkID")
    }


def names(spec: Spec) -> list[str]:
    """What an instance is called on its peers' network."""
    return [peer_name(spec.labels), *([spec.alias] if spec.alias else [])]


def of_services(network: str, spec: Spec) -> Sequence[Mapping[str, Any]]:
    """The networks of a service's tasks: the default bridge, by which this host reaches them, and `network`."""
    aliases = {"Aliases": [spec.alias]} if spec.alias else {}
    return [{"Target": _DEFAULT_BRIDGE}, {"Target": network, **aliases}]
