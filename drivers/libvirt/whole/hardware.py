"""What a guest that boots by itself finds: firmware, the bus that its disk is on, its network card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput, DriverUnavailable

FIRMWARES, BUSES = ("bios", "uefi"), ("virtio", "sata", "ide")
CARDS: Mapping[str, str] = {"virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e", "rtl8139": "rtl8139"}
"""By the name that `-o nic=` takes, QEMU's (`qemu-system-x86_64 -device help`)."""
_TARGETS: Mapping[str, str] = {"virtio": "vda", "sata": "sda", "ide": "hda"}
_UEFI = (
    ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"),  # Debian, Ubuntu
    ("OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"),
    ("edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"),  # Fedora
    ("edk2/x64/OVMF_CODE.4m.fd", "edk2/x64/OVMF_VARS.4m.fd"),  # Arch
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uefi:
    """OVMF's program, and the settings that a guest's own begin as."""

    code: Path
    settings: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """`uefi` is None for a BIOS (SeaBIOS). `screen`: a VGA card that nobody looks at, which boot loaders write to."""

    uefi: Uefi | None = None
    bus: str = "virtio"
    card: str = "virtio"
    screen: bool = False

    @classmethod
    def of_options(cls, options: Mapping[str, str], *, share: Path = Path("/usr/share")) -> Hardware:
        """As `-o firmware=`, `bus=` and `nic=` ask for it. Raises BadInput, DriverUnavailable where OVMF is missing."""
        firmware = _one_of(options, "firmware", FIRMWARES)
        return cls(
            uefi=_uefi(share) if firmware == "uefi" else None,
            bus=_one_of(options, "bus", BUSES),
            card=_one_of(options, "nic", tuple(CARDS)),
            screen=True,
        )

    @property
    def machine(self) -> str:
        """QEMU's: the older PC where the disk is on IDE, which the newer has not."""
        return "pc" if self.bus == "ide" else "q35"

    @property
    def disk(self) -> str:
        """The name by which libvirt tells the disk's place on its bus."""
        return _TARGETS[self.bus]

    def told(self) -> Mapping[str, str]:
        """For a reader of facts."""
        firmware = f"UEFI ({self.uefi.code})" if self.uefi else "BIOS (SeaBIOS)"
        return {"firmware": firmware, "disk_bus": self.bus, "network_card": CARDS[self.card]}


USUAL = Hardware()
"""Of a guest whose kernel the lab chose."""


def _one_of(options: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    given = options.get(name, known[0])
    if given not in known:
        raise BadInput(f"-o {name}={given}: there is no such {name}", resolution=f"choose {', '.join(known)}")
    return given


def _uefi(share: Path) -> Uefi:
    for code, settings in _UEFI:
        if (share / code).exists() and (share / settings).exists():
            return Uefi(code=share / code, settings=share / settings)
    raise DriverUnavailable("there is no UEFI firmware for guests here", resolution="sudo apt-get install ovmf")
