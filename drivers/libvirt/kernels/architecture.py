"""The machines that guests can have: what differs between them for a kernel, an emulator and a domain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """`name` is `uname -m`'s, `debian` dpkg's, `qemu_package` what brings its emulator. `console` is the device of the
    first serial port, `early` what the kernel writes there before it has a driver for it, `cpu` the model that it is
    emulated with (empty: QEMU's default), `suites` Debian's suites that have its kernels, the preferred first (empty:
    the host's own)."""

    name: str
    debian: str
    qemu_package: str
    console: str
    early: str
    cpu: str = ""
    suites: tuple[str, ...] = ()

    @property
    def emulator(self) -> str:
        """QEMU's program."""
        return f"qemu-system-{self.name}"


X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    qemu_package="qemu-system-x86",
    console="ttyS0",
    early="earlyprintk=serial,ttyS0,115200",
)
AARCH64 = Architecture(
    name="aarch64",
    debian="arm64",
    qemu_package="qemu-system-arm",
    console="ttyAMA0",
    early="earlycon",
    # `max` has extensions whose emulation is dear (pointer authentication): 13.9 s to the first answer for 3.8 s.
    cpu="cortex-a57",
)
RISCV64 = Architecture(
    name="riscv64",
    debian="riscv64",
    qemu_package="qemu-system-misc",
    console="ttyS0",
    early="earlycon=sbi",
    suites=("trixie",),  # the first that has the port
)
