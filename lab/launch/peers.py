"""How instances in this host's own network namespace reach others, and are reached: the same for every driver's."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lab.features import HOST_NETWORK, VSOCK_HOST, Place
from lab.spec import Endpoint, peer_name

LOOPBACK, UNIX, VSOCK = "loopback", "unix socket", "vsock"
VHOST_VSOCK = Path("/dev/vhost-vsock")
"""Where this host can be called by its guests, and call them, by vsock(7)."""


def host_places(labels: Mapping[str, str], endpoint: Endpoint | None) -> Sequence[Place]:
    """Where a service is found that listens on the host's loopback, and at its own name among abstract sockets."""
    if endpoint is None:
        return ()
    return (
        on_host(LOOPBACK, endpoint),
        Place(path=UNIX, network=HOST_NETWORK, unix=peer_name(labels), from_host=True),
    )


def host_vsock(endpoint: Endpoint | None, *, device: Path = VHOST_VSOCK) -> Sequence[Place]:
    """Where guests of this host find a process of its own that was told `vsock_environment`, if they can."""
    if endpoint is None or not device.exists():
        return ()
    return (Place(path=VSOCK, network=HOST_NETWORK, vsock=VSOCK_HOST, port=endpoint.port),)


def vsock_environment(*, device: Path = VHOST_VSOCK) -> Mapping[str, str]:
    """What has the lab's own service listen for this host's guests, where it can have any."""
    return {"LAB_VSOCK": "host"} if device.exists() else {}


def on_host(path: str, endpoint: Endpoint) -> Place:
    """`endpoint`, of this host's loopback, as a place."""
    return Place(path=path, network=HOST_NETWORK, host=endpoint.host, port=endpoint.port, from_host=True)


def reach_from_host(place: Place) -> Place | str:
    """What a process in the host's network namespace can call: what says so, and has an address rather than a name."""
    if place.why:
        return place.why
    if place.vsock == VSOCK_HOST:
        return "the host's vsock is called by its guests"
    if not place.from_host:
        return "the host is not on that network"
    return place


def reach_from_network(place: Place, networks: Mapping[str, str]) -> Place | str:
    """What an instance can call that is on `networks` alone, each with its name for a reader, by their identity."""
    if place.why:
        return place.why
    if place.network in networks:
        return place
    if place.vsock:
        return "vsock joins a guest to its host: the caller is neither"
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
    if found.vsock:
        return "the guest has no vsock"
    if not found.host:
        return "a Unix socket is not reached through a guest's network"
    loopback = ipaddress.ip_address(found.host).is_loopback
    return replace(found, host=gateway) if loopback else found
