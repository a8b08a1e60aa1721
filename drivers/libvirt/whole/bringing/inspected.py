"""Looks at a disk image that somebody else made, by its content alone, before anything of it is used.

An image can name other files of this host as what it stands on: a backing file, or a file with its data. QEMU would
open them, so the header is read here first (QEMU, docs/interop/qcow2.txt), and such an image never reaches QEMU.
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput, DriverError, DriverUnavailable
from lab.host import programs

MOST_BYTES = 4 * 1024**4
"""Of a disk as its guest sees it: what a launch's layer over it can be as large as."""
_HEADER = struct.Struct(">4sIQIIQI")  # magic, version, backing file's offset and length, cluster bits, size, encryption
_FEATURES_AT, _EXTERNAL_DATA = 72, 1 << 2
_SECTOR = 512
_PACKED = {
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"PK\x03\x04": "zip",
    b"7z\xbc\xaf": "7z",
}  # fmt: skip
_FORMATS = {
    b"KDMV": "VMDK", b"COWD": "VMDK", b"# Disk Desc": "VMDK", b"vhdxfile": "VHDX", b"conectix": "VHD", b"QED\0": "QED",
    b"LUKS\xba\xbe": "LUKS", b"WithoutFreeSpace": "Parallels", b"WithouFreSpacExt": "Parallels",
}  # fmt: skip
_VDI_AT, _VDI = 64, b"\x7f\x10\xda\xbe"
_LIMITS = ("prlimit", f"--as={2 * 1024**3}", "--cpu=60", "--")
_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """`kind` is qcow2 or raw; `virtual_bytes` is what a guest sees of it."""

    kind: str
    virtual_bytes: int


def look(path: Path, *, told: str) -> Looked:
    """What the image at `path`, known to its user as `told`, is. Raises BadInput where it is none that can be booted
    by itself, DriverUnavailable where there is no qemu-img."""
    with path.open("rb") as file:
        head = file.read(_SECTOR)
    found = _qcow2(head, told) if head.startswith(b"QFI\xfb") else _raw(head, path.stat().st_size, told)
    _confirm(path, found, told)
    return found


def _qcow2(head: bytes, told: str) -> Looked:
    if len(head) < _HEADER.size:
        raise BadInput(f"{told} ends within its header", resolution="fetch it again")
    _, version, backing_at, backing_length, _, size, encryption = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise BadInput(f"{told} is qcow2 of version {version}, and QEMU's are 2 and 3", resolution=_CONVERT)
    if backing_at or backing_length:
        raise BadInput(f"{told} stands on another file (its backing file), and is not whole", resolution=_CONVERT)
    if encryption:
        raise BadInput(f"{told} is encrypted", resolution=_CONVERT)
    if version == 3 and int.from_bytes(head[_FEATURES_AT : _FEATURES_AT + 8], "big") & _EXTERNAL_DATA:
        raise BadInput(f"{told} has its data in another file, and is not whole", resolution=_CONVERT)
    return _sized(Looked(kind="qcow2", virtual_bytes=size), told)


def _raw(head: bytes, size: int, told: str) -> Looked:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise BadInput(
                f"{told} is packed by {name}", resolution="unpack it, and give the SHA-256 of what comes out of it"
            )
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise BadInput(f"{told} is a disk image of another kind, {name}", resolution=_CONVERT)
    if head[_VDI_AT : _VDI_AT + 4] == _VDI:
        raise BadInput(f"{told} is a disk image of another kind, VDI", resolution=_CONVERT)
    if head[510:512] != b"\x55\xaa" or size % _SECTOR:
        raise BadInput(
            f"{told} is neither qcow2 nor a raw disk with a boot sector", resolution="give a disk image that boots"
        )
    return _sized(Looked(kind="raw", virtual_bytes=size), told)


_CONVERT = "qemu-img convert -O qcow2 IMAGE disk.qcow2, and give that with its own SHA-256"


def _sized(found: Looked, told: str) -> Looked:
    if not 0 < found.virtual_bytes <= MOST_BYTES:
        raise BadInput(f"{told} is a disk of {found.virtual_bytes} bytes", resolution="a disk has up to 4 TiB")
    return found


def _confirm(path: Path, found: Looked, told: str) -> None:
    """Have QEMU's own reader say the same, without opening any other file, in bounds. Raises BadInput."""
    if shutil.which("qemu-img") is None:
        raise DriverUnavailable(
            "there is no qemu-img to look at disk images with", resolution="sudo apt-get install qemu-utils"
        )
    argv = [*_LIMITS, "qemu-img", "info", "-U", "--output=json", "-f", found.kind, str(path)]
    try:
        said = json.loads(programs.run(argv, doing=f"read {told}", timeout_s=_TIMEOUT_S).stdout)
    except DriverUnavailable:
        raise
    except (DriverError, ValueError) as error:
        why = error.brief if isinstance(error, DriverError) else "qemu-img told of it in no way that can be read"
        raise BadInput(f"{told} is no image that QEMU reads: {why}", resolution="fetch it again") from error
    data = said.get("format-specific", {}).get("data", {})
    if said.get("backing-filename") or said.get("full-backing-filename") or data.get("data-file"):
        raise BadInput(f"{told} stands on another file, and is not whole", resolution=_CONVERT)
    if said.get("encrypted") or said.get("format") != found.kind or said.get("virtual-size") != found.virtual_bytes:
        raise BadInput(f"{told} is not what its header says", details=json.dumps(said), resolution="fetch it again")
