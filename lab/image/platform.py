"""Which machine an image is for, by its config and by its program's ELF header, and what this host makes of that.

Matching and preference are containerd's (github.com/containerd/platforms, compare.go and defaults.go).
"""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import BadInput
from lab.host.procfs import read_fields

_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386",
    "loongarch64": "loong64",
}  # fmt: skip
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
_QEMU = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "loong64": "loongarch64"}
"""Those whose name with binfmt_misc is not the architecture's (qemu-binfmt-conf.sh)."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# linux/elf-em.h, and for those with two, the class or the byte order that tells them apart.
_MACHINES = {
    (3, 1, 1): "386", (62, 2, 1): "amd64", (62, 1, 1): "amd64", (40, 1, 1): "arm", (183, 2, 1): "arm64",
    (243, 2, 1): "riscv64", (22, 2, 2): "s390x", (21, 2, 1): "ppc64le", (21, 2, 2): "ppc64", (258, 2, 1): "loong64",
    (8, 2, 1): "mips64le", (8, 2, 2): "mips64", (8, 1, 1): "mipsle", (8, 1, 2): "mips",
}  # fmt: skip
_X86_LEVELS = (
    {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
    {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
)
"""/proc/cpuinfo's flags of x86-64-v2, v3 and v4 (System V ABI, AMD64 supplement, 3.1.1)."""

EMULATION = "qemu-user"


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is for, normalized: `linux/amd64`, `linux/arm/v7`."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Platform:
        """The platform in a config or a descriptor; what is left out is this host's, as old builders meant it."""
        architecture = str(told.get("architecture") or "").lower() or machine_architecture()
        architecture = _ALIASES.get(architecture, architecture)
        variant = str(told.get("variant") or "").lower()
        variant = f"v{variant}" if variant[:1].isdigit() else variant
        if (architecture, variant) in (("amd64", "v1"), ("arm64", "v8"), ("arm64", "v8.0")):
            variant = ""
        elif (architecture, variant) == ("arm", ""):
            variant = "v7"
        return cls(str(told.get("os") or "linux").lower(), architecture, variant)

    def __str__(self) -> str:
        return "/".join(filter(None, [self.os, self.architecture, self.variant]))

    @property
    def short(self) -> str:
        """Without the usual system."""
        return str(self).removeprefix("linux/")


def machine_architecture() -> str:
    """This machine's architecture as images name it: `amd64`, `arm64`, ..."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


@functools.cache
def host_platforms() -> tuple[Platform, ...]:
    """What this host's kernel and CPU run by themselves, the preferred one first: the plain architecture, as every
    engine takes it, and only where an image has no such the richer variants that this CPU has."""
    here = machine_architecture()
    names = [(here, "")]
    if here == "amd64":
        names += [("amd64", f"v{level}") for level in range(x86_level(), 1, -1)] + [("386", "")]
    elif here == "arm64":
        names += [("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")]
    elif here == "arm":
        newest = 7 if platform.machine() == "armv7l" else 6
        names = [("arm", f"v{version}") for version in range(newest, 4, -1)]
    return tuple(Platform("linux", *name) for name in names)


def x86_level(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """The microarchitecture level of this host's CPU, 1 to 4."""
    flags = set(read_fields(cpuinfo).get("flags", "").split())
    level = 1
    for needed in _X86_LEVELS:
        if not needed <= flags:
            break
        level += 1
    return level


def rank(wanted: Platform) -> int | None:
    """How well this host serves `wanted`, 0 at best; None where it does not."""
    return host_platforms().index(wanted) if wanted in host_platforms() else None


def elf_architecture(head: bytes) -> str:
    """The architecture that a program's first 20 bytes tell; "" for what is no ELF file, `unknown` for a rare one."""
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return ""
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return _MACHINES.get((machine, head[4], head[5]), "unknown")


def emulator_of(architecture: str, folder: Path = _BINFMT) -> str:
    """The program by which this kernel runs programs of another `architecture` (binfmt_misc); "" where there is none
    that works inside a container, which needs its flag F."""
    name = _QEMU.get(architecture, architecture)
    try:
        told = (folder / f"qemu-{name}").read_text().splitlines()
    except OSError:
        return ""
    fields = dict(line.partition(" ")[::2] for line in told)
    fixed = "F" in fields.get("flags:", "")
    return fields.get("interpreter", "") if "enabled" in fields and fixed else ""


def require_runnable(wanted: Platform, name: str) -> str:
    """Whether this host runs an image for `wanted`: "" by itself, `qemu-user` by an emulator that its kernel calls.

    Raises BadInput where it does not.
    """
    if rank(wanted) is not None:
        return ""
    if wanted.os == "linux":
        if wanted.architecture in {one.architecture for one in host_platforms()} and re.fullmatch(
            r"v[1-4]", wanted.variant
        ):
            here = f"{machine_architecture()}/v{x86_level()}" if wanted.architecture == "amd64" else "less"
            raise BadInput(
                f"the image {name} is for {wanted.short}, this host's CPU is {here}",
                resolution=f"give an image for {machine_architecture()}",
            )
        if emulator_of(wanted.architecture):
            return EMULATION
    raise BadInput(
        f"the image {name} is for {wanted.short}, this host is {machine_architecture()}",
        resolution=f"give an image for {host_platforms()[0]}",
    )
