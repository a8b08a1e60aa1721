"""Reads kernels of other machines than x86: which they are for, their release, and the plain image inside of one that
unpacks itself (Documentation/arch/arm64/booting.rst, Documentation/arch/riscv/boot-image-header.rst)."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from drivers.libvirt.bzimage import read_release as read_x86_release
from drivers.libvirt.bzimage import unzstd
from drivers.libvirt.kernels.architecture import X86_64, Architecture
from lab.errors import Unsupported

_MAGIC = {"aarch64": (0x38, b"ARM\x64"), "riscv64": (0x38, b"RSC\x05")}
_BANNER = re.compile(rb"Linux version (\d[0-9A-Za-z.+~_-]{2,120}) ")
_ZBOOT = struct.Struct("<2sxx4sII8x32s")


def read_release(image: Path, architecture: Architecture) -> str:
    """The release (`uname -r`) of the kernel in `image`. Raises Unsupported where it is none for `architecture`, and
    OSError."""
    data = image.read_bytes()
    if architecture is X86_64:
        return read_x86_release(data, str(image))
    at, magic = _MAGIC[architecture.name]
    plain = plain_image(data)
    found = _BANNER.search(plain) if plain[at : at + len(magic)] == magic else None
    if found is None:
        raise Unsupported(
            f"{image} is no {architecture.debian} Linux kernel", resolution="leave --kernel out for this target"
        )
    return found[1].decode()


def plain_image(data: bytes) -> bytes:
    """The image that QEMU's `-kernel` boots: what a gzip, or a kernel that is a program of EFI (CONFIG_EFI_ZBOOT), has
    inside; anything else as it is. Raises Unsupported where it is packed in another way."""
    if data[:2] == b"\x1f\x8b":
        return zlib.decompressobj(wbits=31).decompress(data)
    if len(data) < _ZBOOT.size:
        return data
    start, kind, offset, size, packed = _ZBOOT.unpack_from(data)
    if start != b"MZ" or kind != b"zimg":
        return data
    payload, how = data[offset : offset + size], packed.rstrip(b"\0")
    if how == b"gzip":
        return zlib.decompressobj(wbits=31).decompress(payload)
    unpacked = unzstd(payload) if how.startswith(b"zstd") else None
    if unpacked is None:
        raise Unsupported(
            f"this kernel is packed by {how.decode('ascii', 'replace') or 'nothing known'}, and not unpacked here",
            resolution="sudo apt-get install zstd, or choose another kernel",
        )
    return unpacked
