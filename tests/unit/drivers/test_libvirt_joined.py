"""How guests are joined: what their domain and their init are told of a bridge and a vsock, and who reaches whom."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from lxml import etree

from drivers.libvirt.domain import command_line, domain_xml, service_port_of
from drivers.libvirt.joined import (
    ALONE,
    Joined,
    cid_of,
    joined_of,
    next_address,
    places,
    reach,
    why_no_vsock,
)
from drivers.libvirt.joined.network import network_xml, provide
from drivers.libvirt.labels import LABELS_URI
from drivers.libvirt.variants import VARIANTS
from lab.errors import DriverError
from lab.features import HOST_NETWORK, Place
from lab.spec import Spec
from tests.unit.drivers.test_libvirt_domain import plan

BOTH = Joined(network="lab-r", mac="52:54:00:1a:01:02", address="169.254.1.2", vsock=True)


def tree(joined: Joined, machine: str) -> etree._Element:
    line = command_line(VARIANTS[machine], "tcg", Spec(port=80, peers="talk"), disk=False, joined=joined)
    return etree.fromstring(domain_xml(plan(machine, joined=joined, command_line=line)))


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_a_guest_is_told_of_its_second_interface_by_mac_and_has_it_beside_the_first(machine: str) -> None:
    root = tree(BOTH, machine)
    interface = root.find("devices/interface")
    assert interface is not None
    assert (interface.get("type"), interface.find("source").get("network")) == ("network", "lab-r")  # type: ignore[union-attr]
    assert interface.find("mac").get("address") == BOTH.mac  # type: ignore[union-attr]
    # libvirt refuses a device's ROM where that is on no PCI bus.
    assert (interface.find("rom") is None) == (machine == "microvm")
    words = (root.findtext("os/cmdline") or "").split()
    assert {"lab.peers=169.254.1.2/16", "lab.peersmac=52:54:00:1a:01:02", "lab.vsock=any"} <= set(words)
    assert root.find("devices/vsock/cid").get("auto") == "yes"  # type: ignore[union-attr]


def test_what_a_domain_has_is_read_back_from_its_xml() -> None:
    text = etree.tostring(tree(BOTH, "q35"), encoding="unicode")
    found = joined_of(text)
    assert (found.network, found.mac, found.address, found.vsock) == ("lab-r", BOTH.mac, BOTH.address, True)
    assert service_port_of(text) == 80
    assert cid_of(text) == 0  # until libvirt has chosen
    assert cid_of("<domain><devices><vsock><cid auto='yes' address='7'/></vsock></devices></domain>") == 7
    alone = joined_of(etree.tostring(tree(ALONE, "q35"), encoding="unicode"))
    assert (alone.network, alone.vsock) == ("", False)


def test_addresses_of_one_process_differ() -> None:
    given = [next_address() for _ in range(600)]
    assert len({mac for mac, _ in given}) == len({address for _, address in given}) == 600
    assert all(
        address.startswith("169.254.") and not address.startswith(("169.254.0.", "169.254.255."))
        for _, address in given
    )


def test_guests_reach_one_another_on_their_bridge_and_their_host_by_vsock() -> None:
    bridge, vsock = places(BOTH, 80, 7)
    assert (bridge.host, bridge.port, bridge.from_host) == ("169.254.1.2", 80, False)
    assert (vsock.vsock, vsock.network, vsock.from_host) == (7, HOST_NETWORK, True)
    assert reach(BOTH, bridge) is bridge
    assert "no guest to another" in str(reach(BOTH, vsock))
    host = Place(path="vsock", network=HOST_NETWORK, vsock=2, port=41000)
    assert reach(BOTH, host) is host
    without = Joined(why_no_vsock="this host has no /dev/vhost-vsock")
    assert reach(without, host) == without.why_no_vsock
    assert reach(without, bridge) is None  # then it is for the user-mode network to say
    assert [place.why for place in places(Joined(why_no_bridge="x", why_no_vsock="y"), 80, 0)] == ["x", "y"]


def test_what_a_vsock_lacks_is_named(tmp_path: Path) -> None:
    assert "this host has no" in why_no_vsock(tmp_path / "none", has_module=True)
    device = tmp_path / "vhost-vsock"
    device.touch()
    assert "vmw_vsock_virtio_transport" in why_no_vsock(device, has_module=False)
    assert why_no_vsock(device, has_module=True) == ""


def test_the_network_is_isolated_has_no_address_and_bears_its_labels() -> None:
    root = etree.fromstring(network_xml("lab-20261201-000000-abcd", {"lab.run": "20261201-000000-abcd"}))
    assert root.find("forward") is None
    assert root.find("ip") is None
    assert root.find("dns").get("enable") == "no"  # type: ignore[union-attr]
    assert len(root.find("bridge").get("name")) <= 15  # type: ignore[union-attr,arg-type]
    assert root.find(f"metadata/{{{LABELS_URI}}}labels/{{{LABELS_URI}}}label").get("name") == "lab.run"  # type: ignore[union-attr]


def test_a_user_without_privileges_is_told_why_there_is_no_bridge() -> None:
    session = SimpleNamespace(getURI=lambda: "qemu:///session")
    with pytest.raises(DriverError, match="may make no bridge"):
        provide(cast("Any", session), {"lab.run": "r"})
