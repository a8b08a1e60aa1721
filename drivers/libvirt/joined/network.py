"""The bridge of a run: a transient, isolated network of libvirt's, on which the host has no address.

libvirt makes the bridge and puts each guest's tap on it, also for a user who may not do so but is in its group; the
network bears the run's labels from the creating call on, and goes with the run. Isolated means that libvirt's own rules
let nothing pass from that bridge to any other interface: they stand in libvirt's own chains (or its own nftables table)
for as long as the network does, and nothing else of the host's firewall, addresses or routes changes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from drivers.libvirt.engine import SYSTEM_URI, sdk, translated
from drivers.libvirt.labels import LABELS_URI, labels_element, labels_of
from drivers.libvirt.xml import element, parsed, text_of
from lab.driver import bears
from lab.errors import CleanupError, DriverError

if TYPE_CHECKING:
    import libvirt

_LAUNCH_ONLY = {"lab.launch", "lab.target"}
_making = threading.Lock()


def network_xml(name: str, labels: Mapping[str, str]) -> str:
    """An isolated network without an address, DHCP, DNS or spanning tree (https://libvirt.org/formatnetwork.html)."""
    bridge = f"lab{hashlib.sha256(name.encode()).hexdigest()[:10]}"  # IFNAMSIZ: at most 15 characters
    return text_of(
        element(
            "network",
            element("name", name),
            element("metadata", labels_element(labels)),
            element("bridge", name=bridge, stp="off", delay="0"),
            element("dns", enable="no"),
        )
    )


def provide(connection: libvirt.virConnect, labels: Mapping[str, str]) -> str:
    """The name of the run's network, made unless it is there. Raises DriverError, whose brief is why there is none."""
    if urlsplit(connection.getURI()).path != urlsplit(SYSTEM_URI).path:
        raise DriverError("this is a user's own libvirt, which may make no bridge; the system's may", resolution=_JOIN)
    shared = {key: value for key, value in labels.items() if key not in _LAUNCH_ONLY}
    name = f"lab-{shared.get('lab.run', 'unlabelled')}"
    with _making:
        if all(left.id != name for left in networks(connection, {})):
            with translated("make a network for guests"):
                connection.networkCreateXML(network_xml(name, shared))
    return name


def networks(connection: libvirt.virConnect, labels: Mapping[str, str]) -> Sequence[Network]:
    """Every network of the lab's that bears all `labels`. Raises DriverError."""
    found = []
    library = sdk()
    try:
        listed = connection.listAllNetworks(library.VIR_CONNECT_LIST_NETWORKS_TRANSIENT)
    except library.libvirtError as error:
        if error.get_error_code() == library.VIR_ERR_NO_SUPPORT:
            return ()  # a libvirt without networks has none of the lab's
        raise
    for network in listed:
        try:
            root = parsed(network.XMLDesc(0))
        except library.libvirtError as error:
            if error.get_error_code() == library.VIR_ERR_NO_NETWORK:
                continue  # it went while it was looked at
            raise
        labelled = root.find(f"metadata/{{{LABELS_URI}}}labels")
        theirs = labels_of(text_of(labelled)) if labelled is not None else {}
        if bears(theirs, labels):
            bridge = root.find("bridge")
            found.append(
                Network(
                    id=network.name(),
                    labels=theirs,
                    bridge=bridge.get("name", "") if bridge is not None else "",
                    connection=connection,
                )
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A run's network, as a leftover."""

    id: str
    labels: Mapping[str, str]
    bridge: str
    connection: libvirt.virConnect
    kind: str = "network"

    def delete(self) -> None:
        """Destroy it, and with it its bridge. Raises CleanupError."""
        library = sdk()
        try:
            self.connection.networkLookupByName(self.id).destroy()
        except library.libvirtError as error:
            if error.get_error_code() != library.VIR_ERR_NO_NETWORK:
                raise CleanupError(
                    f"the network {self.id} could not be removed: {error.get_error_message()}",
                    resolution=f"virsh net-destroy {self.id}",
                ) from error
        if self.bridge and Path("/sys/class/net", self.bridge).exists():
            raise CleanupError(
                f"the bridge {self.bridge} outlives its network {self.id}",
                resolution=f"sudo ip link delete {self.bridge}",
            )


_JOIN = "sudo adduser $USER libvirt, and log in anew"
