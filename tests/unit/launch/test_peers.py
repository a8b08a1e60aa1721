"""Which places who reaches: by the network namespaces that they are in, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lab.features import HOST_NETWORK, Place
from lab.launch.peers import (
    LOOPBACK,
    UNIX,
    host_places,
    host_vsock,
    reach_by_nat,
    reach_from_host,
    reach_from_network,
    vsock_environment,
)
from lab.spec import Endpoint, Spec, peer_name

LABELS = {"lab.launch": "0123456789abcdef"}
BRIDGE = Place(path="bridge", network="b1", host="172.17.0.2", port=8080, from_host=True)
NAMED = Place(path="named network", network="n1", name="lab-x", port=8080)
SHUT = Place(path="vsock", network="", why="this host has no /dev/vhost-vsock")


def test_a_service_in_the_hosts_network_has_loopback_and_a_unix_socket_of_its_launch() -> None:
    loopback, unix = host_places(LABELS, Endpoint("127.0.0.1", 41000))
    assert (loopback.path, loopback.host, loopback.port) == (LOOPBACK, "127.0.0.1", 41000)
    assert (unix.path, unix.unix) == (UNIX, "lab-0123456789abcdef")
    assert {loopback.network, unix.network} == {HOST_NETWORK}
    assert host_places(LABELS, None) == ()


def test_the_service_listens_at_that_name_when_it_has_peers_alone() -> None:
    spec = Spec(labels=LABELS, nonce="n")
    assert "LAB_UNIX" not in spec.service_environment(host="127.0.0.1", port=1)
    told = replace(spec, peers="talk").service_environment(host="127.0.0.1", port=1)
    assert told["LAB_UNIX"] == peer_name(LABELS)


def test_a_process_reaches_what_this_host_does() -> None:
    assert reach_from_host(BRIDGE) is BRIDGE
    assert reach_from_host(NAMED) == "the host is not on that network"
    assert reach_from_host(SHUT) == SHUT.why


def test_a_container_reaches_what_is_on_its_networks() -> None:
    loopback, unix = host_places(LABELS, Endpoint("127.0.0.1", 41000))
    on = {"b1": "the engine's default bridge"}
    assert reach_from_network(BRIDGE, on) is BRIDGE
    assert "not on that network, but on the engine's default bridge" in str(reach_from_network(NAMED, on))
    assert "the host's loopback" in str(reach_from_network(loopback, on))
    assert "Unix socket" in str(reach_from_network(unix, on))
    assert reach_from_network(SHUT, on) == SHUT.why


def test_a_guest_reaches_the_hosts_loopback_by_its_gateway_and_other_addresses_as_they_are() -> None:
    loopback, unix = host_places(LABELS, Endpoint("127.0.0.1", 41000))
    found = reach_by_nat(loopback, "10.0.2.2")
    assert isinstance(found, Place)
    assert (found.host, found.port) == ("10.0.2.2", 41000)
    assert reach_by_nat(BRIDGE, "10.0.2.2") is BRIDGE
    assert "Unix socket" in str(reach_by_nat(unix, "10.0.2.2"))
    assert "not on that network" in str(reach_by_nat(NAMED, "10.0.2.2"))


def test_a_hosts_vsock_is_there_where_the_kernel_has_it_and_is_called_by_guests_alone(tmp_path: Path) -> None:
    device, endpoint = tmp_path / "vhost-vsock", Endpoint("127.0.0.1", 41000)
    assert host_vsock(endpoint, device=device) == ()
    assert vsock_environment(device=device) == {}
    device.touch()
    assert vsock_environment(device=device) == {"LAB_VSOCK": "host"}
    (host,) = host_vsock(endpoint, device=device)
    assert (host.vsock, host.port) == (2, 41000)
    assert "called by its guests" in str(reach_from_host(host))
    guest = replace(host, vsock=7, from_host=True)
    assert reach_from_host(guest) is guest
    assert "the caller is neither" in str(reach_from_network(guest, {"b1": "a bridge"}))
    assert "no vsock" in str(reach_by_nat(guest, "10.0.2.2"))
