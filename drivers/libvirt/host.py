"""What this host can do for guests: which QEMU, whether by KVM, and whether CPU quotas hold."""

from __future__ import annotations

import grp
import platform
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from drivers.libvirt import kernel as kernels
from drivers.libvirt.engine import SYSTEM_URI, Emulator, find_emulator
from drivers.libvirt.kernels.architecture import X86_64
from drivers.libvirt.kvm import Proof, device_shut, prove
from lab.errors import BadInput, DriverUnavailable
from lab.host.cgroup import hierarchies

if TYPE_CHECKING:
    import libvirt

ACCELS = ("kvm", "tcg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`accel` is how guests run; `proof` why so; `tsc_khz` the rate of the host's time stamp counter, if known."""

    emulator: Emulator
    accel: str
    proof: Proof
    cpu_quota: bool
    tsc_khz: int | None


def ask_host(
    connection: libvirt.virConnect, machine: str, *, accel: str, wanted: kernels.Wanted, cache_dir: Path
) -> Host:
    """Find out, proving KVM where this boot of the host has not seen the proof.

    Raises DriverUnavailable where QEMU is missing or the forced `accel` cannot be had, BadInput for an unknown one.
    """
    if platform.machine() != "x86_64":
        raise DriverUnavailable(
            f"libvirt's guests are made for x86-64 hosts, and this one is {platform.machine()}",
            resolution="choose another target; see `lab targets`",
        )
    if accel and accel not in ACCELS:
        raise BadInput(f"'{accel}' is no accelerator", resolution="give -o accel=kvm, -o accel=tcg, or neither")
    architecture = wanted.architecture
    emulator = find_emulator(connection, machine, architecture)
    if architecture is X86_64:
        proof = _proof(emulator, wanted, cache_dir, again=accel == "kvm")
    else:
        proof = Proof(
            False, f"{architecture.debian} is another machine than this host's: its instructions are emulated"
        )
    if accel == "kvm" and not proof.proven:
        raise DriverUnavailable(
            f"KVM is not proven on this host: {proof.told()}", resolution="leave -o accel=kvm out, for emulation"
        )
    return Host(
        emulator=emulator,
        accel=accel or ("kvm" if proof.proven else "tcg"),
        proof=proof,
        cpu_quota=urlsplit(connection.getURI()).path == urlsplit(SYSTEM_URI).path and _has_cpu_controller(),
        tsc_khz=tsc_khz(Path("/proc/cpuinfo").read_text()),
    )


def slow_launch(connection: libvirt.virConnect) -> Mapping[str, str | float]:
    """`why` each launch waits, the `remedy`, and what is `usual_s` without, where the system's libvirt keeps nothing of
    what it found out of QEMU: its QEMU runs as a user who cannot open /dev/kvm, while libvirt itself can (seen with
    9.0: 43 to 52 s a launch, and 0.4 s with the device open to both). Empty where nothing is known to be slow."""
    if urlsplit(connection.getURI()).path != urlsplit(SYSTEM_URI).path or not _shut_to_group_kvm():
        return {}
    return {
        "why": "libvirt looks at QEMU anew, since QEMU's user cannot open /dev/kvm",
        "remedy": "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm, then restart libvirtd",
        "usual_s": 0.4,
    }


def _shut_to_group_kvm(device: Path = Path("/dev/kvm")) -> bool:
    """Whether a member of group kvm, as libvirt's QEMU is by default, may not read and write the device."""
    try:
        found = device.stat()
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return False  # none to look at, or a group without a name: nothing is known to be slow
    mode = stat.S_IMODE(found.st_mode)
    return mode & 0o006 != 0o006 and not (group == "kvm" and mode & 0o060 == 0o060)


def tsc_khz(cpuinfo: str) -> int | None:
    """The rate that /proc/cpuinfo tells: the nominal one in the model's name, else the current one of the first CPU.

    Under TCG a guest's counter is the host's (QEMU, cpu_get_host_ticks).
    """
    nominal = re.search(r"@ ([0-9.]+)GHz", cpuinfo)
    if nominal:
        return round(float(nominal[1]) * 1_000_000)
    current = re.search(r"^cpu MHz\s*: ([0-9.]+)", cpuinfo, re.MULTILINE)
    return round(float(current[1]) * 1000) if current else None


def _proof(emulator: Emulator, wanted: kernels.Wanted, cache_dir: Path, *, again: bool = False) -> Proof:
    if not emulator.kvm:
        return Proof(False, device_shut() or "libvirt offers no KVM on this host")
    found = kernels.find(wanted, cache_dir)
    return prove(
        cache_dir,
        emulator=emulator.path,
        qemu_version=emulator.version,
        kernel=found.image if found else None,
        again=again,
    )


def _has_cpu_controller() -> bool:
    return any("cpu" in hierarchy.controllers for hierarchy in hierarchies())


USER_MODE = "user-mode"
