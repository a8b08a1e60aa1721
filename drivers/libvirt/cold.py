"""What a cold launch by libvirt is about: the files that it reads, and which other domains run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.libvirt.engine import is_missing, sdk, translate, translated
from drivers.libvirt.labels import LABELS_URI
from lab.host import programs

if TYPE_CHECKING:
    import libvirt


def launch_files(boots_from: Sequence[Path], emulator: Path) -> Sequence[Path]:
    """`boots_from`, a guest's kernel, initramfs and root disk; QEMU's program, and the folders of its firmware
    (`-L help` names them).

    Raises DriverError where QEMU does not run.
    """
    told = programs.run([str(emulator), "-L", "help"], doing="tell where its firmware is", timeout_s=60)
    lines = told.stdout.decode(errors="replace").splitlines()
    firmware = [Path(line) for line in lines if line.startswith("/") and Path(line).is_dir()]
    return [*boots_from, emulator, *firmware]


def others_running(connection: libvirt.virConnect) -> Sequence[str]:
    """The names of running domains that bear no label of the lab's. Raises DriverError."""
    with translated("list the domains"):
        running = connection.listAllDomains(sdk().VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    return [domain.name() for domain in running if not _is_the_labs(domain)]


def _is_the_labs(domain: libvirt.virDomain) -> bool:
    try:
        domain.metadata(sdk().VIR_DOMAIN_METADATA_ELEMENT, LABELS_URI, 0)
    except sdk().libvirtError as error:
        if not is_missing(error):
            raise translate(error, "read a domain's labels") from error
        return False
    return True
