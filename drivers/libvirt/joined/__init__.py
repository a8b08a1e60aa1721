"""How guests that call their peers are joined: to one another by their run's own bridge, and to this host by vsock.

Both stand beside the user-mode network that every guest has. Where one cannot be had here, there is the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt.xml import element, parsed
from lab.features import HOST_NETWORK, VSOCK_HOST, Place
from lab.launch.peers import VHOST_VSOCK, VSOCK

if TYPE_CHECKING:
    from lxml import etree

BRIDGE = "bridge"
MODULE = "vmw_vsock_virtio_transport"
"""The guest kernel's driver of a virtio vsock device."""
BITS = 16
_NETWORK = "169.254"
"""IPv4's link-local addresses (RFC 3927): no router leads to them, the host has none on the bridge, and a guest's
way to a cloud's metadata, which is at such an address, ends on it."""
_PER_OCTET = 254
_MAC = "52:54:00:1a"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What one guest has beside its user-mode network: a second interface with that `mac` and `address`, on libvirt's
    `network`; a vsock device with `vsock`. Where it has not, `why_no_bridge` and `why_no_vsock` say why."""

    network: str = ""
    mac: str = ""
    address: str = ""
    vsock: bool = False
    why_no_bridge: str = "it was launched to call no peers"
    why_no_vsock: str = "it was launched to call no peers"

    def words(self) -> Iterator[str]:
        """What the guest's init is told of it, on the kernel's command line."""
        if self.network:
            yield f"lab.peers={self.address}/{BITS}"
            yield f"lab.peersmac={self.mac}"
        if self.vsock:
            yield "lab.vsock=any"

    def interface(self, address: etree._Element) -> Iterator[etree._Element]:
        """Its second interface, at that `address` of its machine (https://libvirt.org/formatdomain.html)."""
        if self.network:
            yield element(
                "interface",
                element("mac", address=self.mac),
                element("source", network=self.network),
                element("model", type="virtio"),
                *([element("rom", enabled="no")] if address.get("type") == "pci" else []),
                address,
                type="network",
            )

    def socket(self, address: etree._Element) -> Iterator[etree._Element]:
        """Its vsock device, whose CID libvirt chooses: one that no other guest of this host has."""
        if self.vsock:
            yield element("vsock", element("cid", auto="yes"), address, model="virtio")


ALONE = Joined()


def next_address() -> tuple[str, str]:
    """A MAC and an IPv4 address, both others than this process's 64,515 before gave: of one run, one process makes all
    guests."""
    high, low = divmod(next(_numbers) % (_PER_OCTET * _PER_OCTET), _PER_OCTET)
    return f"{_MAC}:{high + 1:02x}:{low + 1:02x}", f"{_NETWORK}.{high + 1}.{low + 1}"


def joined_of(xml: str) -> Joined:
    """What a domain's XML has of it, as `interface` and `socket` write it."""
    root = parsed(xml)
    words = dict(word.partition("=")[::2] for word in (root.findtext("os/cmdline") or "").split())
    network = root.find("devices/interface[@type='network']/source")
    has_vsock = root.find("devices/vsock") is not None
    if network is None or "lab.peers" not in words:
        return Joined(vsock=has_vsock)
    return Joined(
        network=network.get("network", ""),
        mac=words.get("lab.peersmac", ""),
        address=words["lab.peers"].partition("/")[0],
        vsock=has_vsock,
    )


def cid_of(live: str) -> int:
    """The CID that libvirt chose, of a running domain's XML; 0 where it has none."""
    found = parsed(live).find("devices/vsock/cid")
    return int(found.get("address", "0")) if found is not None else 0


def places(joined: Joined, port: int, cid: int) -> Iterator[Place]:
    """Where a guest is found by both, its service listening at `port`; or why not. Guests of one bridge reach one
    another and nobody else there, and by vsock it is this host's processes that reach a guest."""
    if joined.network:
        yield Place(path=BRIDGE, network=joined.network, host=joined.address, port=port)
    else:
        yield Place(path=BRIDGE, network="", why=joined.why_no_bridge)
    if joined.vsock and cid:
        yield Place(path=VSOCK, network=HOST_NETWORK, vsock=cid, port=port, from_host=True)
    else:
        yield Place(path=VSOCK, network="", why=joined.why_no_vsock)


def reach(joined: Joined, place: Place) -> Place | str | None:
    """`place` as a guest reaches it by one of both, or why not; None where it is a place on neither."""
    if place.why:
        return place.why
    if place.vsock:
        # vsock(7): a guest's peers are its host and itself. VMADDR_FLAG_TO_HOST, for a sibling, is Nitro's alone.
        if place.vsock != VSOCK_HOST:
            return "the kernel's vhost-vsock joins a guest to its host, and no guest to another"
        return place if joined.vsock else joined.why_no_vsock
    if joined.network and place.network == joined.network:
        return place
    return None


def why_no_vsock(device: Path = VHOST_VSOCK, *, has_module: bool) -> str:
    """Why a guest has no vsock device here; empty where it has. (A daemon opens the device and hands it to QEMU.)"""
    if not device.exists():
        return f"this host has no {device}: its kernel has no vhost_vsock, or that is not loaded"
    if not has_module:
        return f"the guest's kernel has no module {MODULE}"
    return ""
