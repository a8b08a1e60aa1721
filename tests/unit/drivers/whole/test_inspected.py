"""Disk images that somebody else made: what is refused, before QEMU sees it, and what QEMU says of the others."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from drivers.libvirt.whole.bringing.inspected import Looked, look
from lab.errors import BadInput
from lab.units import MIB

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def header(
    *,
    version: int = 3,
    backing_at: int = 0,
    backing_length: int = 0,
    size: int = MIB,
    crypt: int = 0,
    features: int = 0,
) -> bytes:
    """A qcow2 header (docs/interop/qcow2.txt), which nothing stands behind."""
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing_at, backing_length, 16, size, crypt)
    return (head + b"\0" * (72 - len(head)) + features.to_bytes(8, "big")).ljust(65536, b"\0")


def bootable(size: int = MIB) -> bytes:
    return (b"\0" * 510 + b"\x55\xaa").ljust(size, b"\0")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (header(backing_at=112, backing_length=11), "stands on another file"),
        (header(version=2, backing_at=72, backing_length=11), "stands on another file"),
        (header(backing_length=11), "stands on another file"),
        (header(features=1 << 2), "has its data in another file"),
        (header(crypt=2), "is encrypted"),
        (header(version=4), "qcow2 of version 4"),
        (header(size=0), "a disk of 0 bytes"),
        (header(size=1 << 60), "a disk of 1152921504606846976 bytes"),
        (b"QFI\xfb\0\0", "ends within its header"),
        (gzip.compress(bootable()), "packed by gzip"),
        (b"\xfd7zXZ\0" + bootable(), "packed by xz"),
        (b"KDMV" + bootable(), "another kind, VMDK"),
        (b"vhdxfile" + bootable(), "another kind, VHDX"),
        ((b"\0" * 64 + b"\x7f\x10\xda\xbe").ljust(512, b"\0"), "another kind, VDI"),
        (b"<html>Not Found</html>".ljust(1024), "neither qcow2 nor a raw disk with a boot sector"),
        (bootable() + b"more", "neither qcow2 nor a raw disk with a boot sector"),
        (b"", "neither qcow2 nor a raw disk with a boot sector"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "image",
)
def test_what_is_no_whole_disk_is_refused_on_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(content)
    with pytest.raises(BadInput) as refused:
        look(image, told="mine.qcow2")
    assert refused.value.brief.startswith("mine.qcow2 ") and told in refused.value.brief
    assert "\n" not in refused.value.brief and refused.value.resolution


def qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@needs_qemu_img
@pytest.mark.parametrize("options", ["compat=1.1", "compat=0.10"])
def test_a_qcow2_of_qemus_own_is_taken(tmp_path: Path, options: str) -> None:
    image = tmp_path / "disk"
    qemu_img("create", "-f", "qcow2", "-o", options, str(image), "3M")
    assert look(image, told="it") == Looked(kind="qcow2", virtual_bytes=3 * MIB)


@needs_qemu_img
def test_a_raw_disk_is_known_by_its_boot_sector(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bootable())
    assert look(image, told="it") == Looked(kind="raw", virtual_bytes=MIB)


@needs_qemu_img
@pytest.mark.parametrize("how", ["backing", "data"])
def test_what_qemu_itself_makes_on_another_file_is_refused_and_that_file_left_alone(tmp_path: Path, how: str) -> None:
    other, image = tmp_path / "secret", tmp_path / "disk"
    other.write_bytes(bootable())
    if how == "backing":
        qemu_img("create", "-f", "qcow2", "-b", str(other), "-F", "raw", str(image))
    else:
        qemu_img("create", "-f", "qcow2", "-o", f"data_file={other},data_file_raw=on", str(image), "1M")
    other.unlink()
    os.mkfifo(other)  # whoever opened it would wait for ever
    with pytest.raises(BadInput, match="is not whole"):
        look(image, told="it")


@needs_qemu_img
def test_what_only_looks_like_qcow2_is_refused_by_what_qemu_says(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(header(size=64 * MIB)[:200])
    with pytest.raises(BadInput, match="is no image that QEMU reads: ") as refused:
        look(image, told="it")
    assert "\n" not in refused.value.brief
