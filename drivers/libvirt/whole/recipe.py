"""What a guest image is made of, all in one place: packages, files, what is switched on, what is taken out.

An image that was built by another recipe than this one is told as such and built anew (`digest`).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import BadInput

SUITES: Mapping[str, str] = {"bookworm": "Debian 12", "trixie": "Debian 13"}
LABEL = "lab-root"
"""Of the root file system."""
ROOT = f"LABEL={LABEL}"
DISK_BYTES = 4 * 1024**3
"""What the guest sees; on the host it takes what was written to it."""

MKE2FS = ("mke2fs", "-q", "-F", "-t", "ext4", "-L", LABEL, "-m", "1", "-E", "root_owner=0:0,lazy_itable_init=0")

PACKAGES = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev", "kmod",
    "linux-image-cloud-amd64", "initramfs-tools",
    "openssh-server", "cloud-init",
    "e2fsprogs",  # or cloud-init 25 says `error`, though the guest serves
    "iproute2", "netbase", "procps", "ca-certificates",
)  # fmt: skip

FILES: Mapping[str, str] = {
    # Of an initramfs for any PC, most of what is unpacked at each boot is drivers of machines that QEMU does not have.
    "etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_mmio\nvirtio_blk\nvirtio_net\nvirtio_rng\next4\n",
    "etc/fstab": f"{ROOT} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "lab-guest\n",
    "etc/hosts": "127.0.0.1 localhost lab-guest\n::1 localhost\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",  # qemu-system(1), -netdev user
    "etc/systemd/network/80-lab.network": (
        "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv4\nIPv6AcceptRA=no\n\n"
        "[DHCPv4]\nClientIdentifier=mac\n"
    ),
    "etc/cloud/cloud.cfg.d/90-lab.cfg": "datasource_list: [NoCloud, None]\n",
}
"""By the path in the guest; there before any package is, so that the kernel's hook finds what it is to do."""

ENABLED = ("systemd-networkd.service", "ssh.service")
DISABLED = (
    # They would work on the disk in the background of what is measured.
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer",
)  # fmt: skip

TAKEN_OUT = ("etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/log/*.log")
"""What no two guests may share, and what building wrote."""
EMPTIED = ("etc/machine-id",)
"""Empty, each boot makes one of its own; without the file, systemd would take it for a first boot and set up anew."""

VERSIONS: Mapping[str, str] = {"systemd": "systemd", "openssh": "openssh-server", "cloud-init": "cloud-init"}
"""The facts that are told of an image, by the package whose version they are."""


def known(suite: str) -> None:
    """Raises BadInput for a suite that there is no recipe for."""
    if suite not in SUITES:
        raise BadInput(f"there is no guest image of '{suite}'", resolution=f"choose one of {', '.join(SUITES)}")


def digest(suite: str) -> str:
    """Changes whenever what `suite` is made of does."""
    said = [suite, DISK_BYTES, MKE2FS, mmdebstrap(files=Path("FILES")), sorted(FILES.items()), TAKEN_OUT, EMPTIED]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def mmdebstrap(*, files: Path) -> list[str]:
    """Its command, but for the archive, the suite and the tree; `FILES` lie in `files` by then."""
    on, off = " ".join(ENABLED), " ".join(DISABLED)
    return [
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", f"--include={','.join(PACKAGES)}",
        f'--setup-hook=cp -R --no-preserve=ownership {shlex.quote(str(files))}/. "$1"',
        f'--customize-hook=chroot "$1" systemctl enable {on}',
        f'--customize-hook=chroot "$1" systemctl mask {off}',
    ]  # fmt: skip


def facts(told: Mapping[str, Any]) -> dict[str, str]:
    """The versions that are told of an image, from what building it told."""
    packages, system = told["packages"], told["os"]
    name = system.get("NAME", "unknown").removesuffix(" GNU/Linux")
    version = system.get("DEBIAN_VERSION", system.get("VERSION_ID", ""))
    found = {"distribution": f"{name} {version}".rstrip(), "kernel": told["kernel"].removeprefix("vmlinuz-")}
    return found | {name: packages[package] for name, package in VERSIONS.items() if package in packages}
