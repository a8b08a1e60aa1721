"""Whether an engine's ports are this host's: what is concluded from what is seen."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.dockerapi import ports
from drivers.dockerapi.ports import Ports
from lab.errors import DriverUnavailable

FRESH = {"Name": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}, "Options": {}}


class Engine:
    """What an engine tells of its networks."""

    def __init__(self, *networks: dict[str, Any]) -> None:
        self._networks = networks

    def networks(self, names: list[str]) -> list[dict[str, Any]]:
        return [one for one in self._networks if one["Name"] in names]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What this host shows: interfaces by name, and whether the daemon's network is the lab's."""
    found = SimpleNamespace(interfaces={}, same=None)
    address = SimpleNamespace(family=socket.AF_INET, address="172.17.0.1")
    found.docker0 = {"docker0": [address]}
    monkeypatch.setattr(ports.psutil, "net_if_addrs", lambda: found.interfaces)
    monkeypatch.setattr(ports, "_same_network", lambda _: found.same)
    monkeypatch.setattr(ports, "is_podman", lambda _: False)
    return found


def look(*networks: dict[str, Any], rootless: bool = False, local: bool = True, bridged: bool = True) -> Ports:
    told = {"SecurityOptions": ["name=rootless"] if rootless else None}
    return ports.look(Engine(*networks), told, local=local, bridged=bridged)  # type: ignore[arg-type]


def test_an_engine_whose_bridge_is_in_sight_publishes_here_also_before_it_tells_its_gateway(
    seen: SimpleNamespace,
) -> None:
    seen.interfaces = seen.docker0
    assert look(FRESH) is Ports.HERE


def test_a_bridge_of_that_name_in_another_range_is_another_engines(seen: SimpleNamespace) -> None:
    seen.interfaces = seen.docker0
    other = {**FRESH, "IPAM": {"Config": [{"Subnet": "192.168.9.0/24"}]}}
    assert look(other) is Ports.UNPROVEN


def test_a_bridge_that_is_gone_is_named_where_the_network_is_the_same(seen: SimpleNamespace) -> None:
    seen.same = True
    with pytest.raises(DriverUnavailable, match="the bridge docker0 of this Docker engine is gone"):
        look(FRESH)
    assert look(FRESH, bridged=False) is Ports.HERE  # the host's network needs none


def test_another_network_is_told(seen: SimpleNamespace) -> None:
    seen.same = False
    with pytest.raises(DriverUnavailable, match="in another network namespace"):
        look(FRESH)


def test_what_the_kernel_does_not_tell_is_tried(seen: SimpleNamespace) -> None:
    assert look(FRESH) is Ports.UNPROVEN
    assert look(FRESH, rootless=True, local=False) is Ports.UNPROVEN
    assert look(FRESH, rootless=True) is Ports.HERE  # forwarded by rootlesskit


def test_an_engine_without_a_bridge_is_told(seen: SimpleNamespace) -> None:
    with pytest.raises(DriverUnavailable, match="has no default bridge"):
        look()
