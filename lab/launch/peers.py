"""How instances in this host's own network namespace reach others, and are reached: the same for every driver's."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.features import HOST_NETWORK, Place
from lab.spec import Endpoint, peer_name

LOOPBACK, UNIX = "loopback", "unix socket"


def host_places(labels: Mapping[str, str], endpoint: Endpoint | None) -> Sequence[Place]:
    """Where a service is found that listens on the host's loopback, and at its own name among abstract sockets."""
    if endpoint is None:
        return ()
    return (
        on_host(LOOPBACK, endpoint),
        Place(path=UNIX, network=HOST_NETWORK, unix=peer_name(labels), from_host=True),
    )


def on_host(path: str, endpoint: Endpoint) -> Place:
    """`endpoint`, of this host's loopback, as a place."""
    return Place(path=path, network=HOST_NETWORK, host=endpoint.host, port=endpoint.port, from_host=True)


def reach_from_host(place: Place) -> Place | str:
    """What a process in the host's network namespace can call: what says so, and has an address rather than a name."""
    if place.why:
        return place.why
    if not place.from_host:
        return "the host is not on that network"
    return place


def reach_from_network(place: Place, networks: Mapping[str, str]) -> Place | str:
    """What an instance can call that is on `networks` alone, each with its name for a reader, by their identity."""
    if place.why:
        return place.why
    if place.network in networks:
        return place
    if place.network == HOST_NETWORK:
        what = "listens on the host's loopback" if place.host else "has a Unix socket in the host's network namespace"
        return f"it {what}, and the caller has a network namespace of its own"
    return f"the caller is not on that network, but on {' and '.join(networks.values()) or 'none'}"


def reach_by_nat(place: Place, gateway: str) -> Place | str:
    """What a guest behind QEMU's user-mode network can call: all that its QEMU can, an address of the host's loopback
    by `gateway` (qemu-system(1), -netdev user); no Unix socket."""
    found = reach_from_host(place)
    if isinstance(found, str):
        return found
    if not found.host:
        return "a Unix socket is not reached through a guest's network"
    loopback = ipaddress.ip_address(found.host).is_loopback
    return replace(found, host=gateway) if loopback else found
