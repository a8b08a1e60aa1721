"""How a domain sleeps: its virtual CPUs held still, or all of it in a file, by libvirt's own save and restore.

A saved domain is one that libvirt knows no more: what is left of it is the file, in the launch's own folder of the
run's directory, and its console's FIFOs beside it, which QEMU opens anew. libvirt keeps QEMU's own arguments in the
file, so that the forwarding from loopback comes back with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt.engine import sdk, translated
from lab.errors import DriverError
from lab.features import SleepState

if TYPE_CHECKING:
    import libvirt

STATES: Mapping[SleepState, str] = {
    SleepState.PAUSED: "",
    SleepState.STOPPED: "a transient domain is gone once its machine is off, and what came next would be another",
    SleepState.SAVED: "",
}
_SPARSE_SINCE = (11_002_000, 9_000_000)
"""libvirt's `image_format` of one save, and QEMU's `mapped-ram` (both NEWS)."""
_LOOK_S = 0.005


def pause(domain: libvirt.virDomain, *, timeout_s: float) -> None:
    """Hold its virtual CPUs still; returns when libvirt, which asks QEMU, says that they are. Raises DriverError."""
    with translated("suspend the domain"):
        domain.suspend()
        _await_state(domain, sdk().VIR_DOMAIN_PAUSED, timeout_s)


def resume(domain: libvirt.virDomain) -> None:
    """Let its virtual CPUs go on. Raises DriverError."""
    with translated("resume the domain"):
        domain.resume()


def save_format(connection: libvirt.virConnect) -> str:
    """The form of the file that libvirt is asked for: `sparse`, guest memory at fixed places of it (`mapped-ram` of
    QEMU's), where libvirt and QEMU have that; else empty, for libvirt's own choice (qemu.conf, save_image_format).
    Raises DriverError."""
    with translated("ask for its version"):
        versions = connection.getLibVersion(), connection.getVersion()
    known = hasattr(sdk(), "VIR_DOMAIN_SAVE_PARAM_IMAGE_FORMAT")
    return "sparse" if known and versions[0] >= _SPARSE_SINCE[0] and versions[1] >= _SPARSE_SINCE[1] else ""


def save(domain: libvirt.virDomain, path: Path, *, image_format: str = "") -> None:
    """Write all of it to `path` and end its QEMU. Raises DriverError."""
    library = sdk()
    with translated("save the domain"):
        if image_format:
            wanted = {
                library.VIR_DOMAIN_SAVE_PARAM_FILE: str(path),
                library.VIR_DOMAIN_SAVE_PARAM_IMAGE_FORMAT: image_format,
            }
            domain.saveParams(wanted, 0)
        else:
            domain.save(str(path))


def restore(connection: libvirt.virConnect, path: Path, name: str) -> libvirt.virDomain:
    """Start the domain that `path` holds where it was. Raises DriverError; the file stays as it is either way."""
    with translated("restore the domain"):
        connection.restore(str(path))
        domain = connection.lookupByName(name)
        # One that was not running when it was saved comes back as it was.
        if domain.state()[0] == sdk().VIR_DOMAIN_PAUSED:
            domain.resume()
        return domain


def _await_state(domain: libvirt.virDomain, wanted: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while domain.state()[0] != wanted:
        if time.monotonic() > deadline:
            raise DriverError(f"libvirt does not say within {timeout_s:g} s that domain {domain.name()} is paused")
        time.sleep(_LOOK_S)
