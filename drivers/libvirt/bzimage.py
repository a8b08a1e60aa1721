"""Reads a Linux bzImage: its release, and the uncompressed kernel inside (Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from lab.errors import Unsupported

_SETUP_SECTS, _HEADER_MAGIC, _VERSION_POINTER, _PAYLOAD_OFFSET = 0x1F1, 0x202, 0x20E, 0x248
_XEN_ELFNOTE_PHYS32_ENTRY = 18
_PT_NOTE = 4


def read_release(image: bytes, name: str) -> str:
    """The kernel release (`uname -r`) that a bzImage's header names. Raises Unsupported for any other file."""
    if len(image) < 0x250 or image[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        raise Unsupported(
            f"{name} is no x86 Linux kernel (bzImage)", resolution="give one with --kernel /boot/vmlinuz-RELEASE"
        )
    start = int(struct.unpack_from("<H", image, _VERSION_POINTER)[0]) + 0x200
    return image[start : start + 128].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace")


def uncompressed(image: bytes) -> bytes | None:
    """The ELF kernel inside a bzImage where it can be unpacked here and boots by PVH; None where not.

    QEMU enters such a kernel directly: the guest need not unpack itself.
    """
    sectors = image[_SETUP_SECTS] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_OFFSET)
    payload = image[(sectors + 1) * 512 + offset :][:length]
    elf = _decompress(payload)
    return elf if elf is not None and elf[:4] == b"\x7fELF" and _boots_by_pvh(elf) else None


def _decompress(payload: bytes) -> bytes | None:
    """Unpack by magic; the kernel's build appends the unpacked size (4 bytes) to most formats."""
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(wbits=31).decompress(payload)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:4] == b"\x02\x21\x4c\x18":
        return unlz4_legacy(payload[:-4])
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return unzstd(payload[:-4])
    return None


def unzstd(data: bytes) -> bytes | None:
    """Unpack zstd data with the `zstd` program (the standard library has none before 3.14); None without it."""
    if not shutil.which("zstd"):
        return None
    done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else None


def unlz4_legacy(data: bytes) -> bytes:
    """Unpack the legacy LZ4 frame that `lz4 -l` writes for kernels. Raises ValueError when it is cut off."""
    unpacked: list[bytes] = []
    at = 4
    while at + 4 <= len(data):
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            raise ValueError("LZ4 data ends in the middle of a block")
        unpacked.append(_unlz4_block(data[at + 4 : at + 4 + size]))
        at += 4 + size
    return b"".join(unpacked)


def _unlz4_block(block: bytes) -> bytes:
    """One block: a token, literals, and a match in what was unpacked before (lz4_Block_format.md)."""
    out = bytearray()
    at, end = 0, len(block)
    while at < end:
        token = block[at]
        at += 1
        literals = token >> 4
        if literals == 15:
            while True:
                literals += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        out += block[at : at + literals]
        at += literals
        if at >= end:
            break
        distance = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            while True:
                length += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        length += 4
        start = len(out) - distance
        if distance >= length:
            out += out[start : start + length]
        else:  # the match overlaps what it writes: its bytes repeat
            piece = bytes(out[start:])
            out += (piece * (length // distance + 1))[:length]
    return bytes(out)


def _boots_by_pvh(elf: bytes) -> bool:
    """Whether a note of the ELF names the PVH entry point (QEMU's x86 `-kernel` looks for the same)."""
    (table,) = struct.unpack_from("<Q", elf, 32)
    entry_size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        kind, _flags, offset, _virtual, _physical, size = struct.unpack_from("<IIQQQQ", elf, table + index * entry_size)
        if kind == _PT_NOTE and _has_entry_note(elf[offset : offset + size]):
            return True
    return False


def _has_entry_note(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, description_size, kind = struct.unpack_from("<III", notes, at)
        if kind == _XEN_ELFNOTE_PHYS32_ENTRY and notes[at + 12 : at + 12 + name_size] == b"Xen\0":
            return True
        at += 12 + _aligned(name_size) + _aligned(description_size)
    return False


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def write_uncompressed(source: Path, target: Path) -> bool:
    """Write the PVH kernel inside bzImage `source` to `target`; False where there is none to write."""
    elf = uncompressed(source.read_bytes())
    if elf is None:
        return False
    target.write_bytes(elf)
    return True
