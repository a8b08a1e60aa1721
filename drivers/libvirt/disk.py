"""Disk images for guests: a writable, discarded layer over a shared root."""

from __future__ import annotations

import struct
from pathlib import Path

_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_HEADER_BYTES = 72


def write_overlay(backing: Path, overlay: Path) -> Path:
    """Write an empty qcow2 (version 2) over raw `backing` to `overlay` and return it: what `qemu-img create -b` makes.

    Written here since a launch should not wait for a program of its own. The layout is docs/interop/qcow2.txt of
    QEMU: header, L1 table, refcount table, refcount block, a cluster each.
    """
    size = backing.stat().st_size
    name = str(backing).encode()
    l2_covers = _CLUSTER * (_CLUSTER // 8)
    l1_entries = -(-size // l2_covers)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb", 2, _HEADER_BYTES, len(name), _CLUSTER_BITS, size, 0, l1_entries, _CLUSTER, 2 * _CLUSTER, 1, 0, 0,
    )  # fmt: skip
    if l1_entries > _CLUSTER // 8 or len(name) > 1023:
        raise ValueError("the root disk is too large, or its path too long, for this layout")
    image = bytearray(4 * _CLUSTER)
    image[: len(header)] = header
    image[_HEADER_BYTES : _HEADER_BYTES + len(name)] = name
    struct.pack_into(">Q", image, 2 * _CLUSTER, 3 * _CLUSTER)
    struct.pack_into(">4H", image, 3 * _CLUSTER, 1, 1, 1, 1)
    overlay.touch(mode=0o600)  # what the guest writes is not for all
    overlay.write_bytes(image)
    return overlay
