"""A disk that boots by itself and answers HTTP: Debian as `lab guest build` made it, with a boot loader of its own.

One FAT partition has kernel and initramfs, SYSLINUX for a BIOS and systemd-boot for UEFI; the other is the guest's root
file system, with a unit that serves. Made without root, loop devices or mounts.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

from drivers.libvirt.whole.images import GuestImage

_MIB = 1024 * 1024
_FAT_AT, _FAT_BYTES = 1 * _MIB, 64 * _MIB
_ROOT_AT = _FAT_AT + _FAT_BYTES
_SECTOR = 512
_MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_UEFI_LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
_WORDS = "root=LABEL=lab-root console=ttyS0 cloud-init=disabled loglevel=6 systemd.mask=ssh.service"
"""Its sshd has no host key, and would be started again and again for want of one."""
_SYSLINUX = f"DEFAULT lab\nPROMPT 0\nLABEL lab\n  LINUX kernel\n  INITRD initrd\n  APPEND {_WORDS}\n"
_LOADER = f"title lab\nlinux /kernel\ninitrd /initrd\noptions {_WORDS}\n"
_UNIT = """[Unit]
Description=Answers HTTP
After=network-online.target
Wants=network-online.target
[Service]
ExecStart=/usr/bin/python3 -m http.server 8080 --directory /etc/answer
[Install]
WantedBy=multi-user.target
"""
NEEDS = ("syslinux", "mcopy", "mkfs.fat", "debugfs", "qemu-img")
ANSWER = b"this disk booted by itself\n"


def missing() -> list[str]:
    """What of the programs that make it is not here."""
    absent = [name for name in NEEDS if shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") is None]
    return absent + [str(path) for path in (_MBR_CODE, _UEFI_LOADER) if not path.exists()]


def write_bootable(image: GuestImage, disk: Path) -> None:
    """Write the disk to `disk`, as qcow2, by way of files beside it."""
    work = disk.with_name(f"{disk.name}.work")
    work.mkdir()
    root = work / "root"
    _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image.disk), str(root))
    _give_a_service(root, work)
    fat = work / "fat"
    with fat.open("wb") as file:
        file.truncate(_FAT_BYTES)
    # Before the partition there are so many sectors, which the boot sector's code must know.
    _run("mkfs.fat", "-F", "16", "-h", str(_FAT_AT // _SECTOR), "-n", "BOOT", str(fat))
    files = {"syslinux.cfg": _SYSLINUX.encode(), "loader.conf": b"default lab.conf\n", "lab.conf": _LOADER.encode()}
    for name, content in files.items():
        (work / name).write_bytes(content)
    for folder in ("EFI", "EFI/BOOT", "loader", "loader/entries"):
        _run("mmd", "-i", str(fat), f"::{folder}")
    copies = {
        str(image.kernel): "kernel",
        str(image.initramfs): "initrd",
        str(work / "syslinux.cfg"): "syslinux.cfg",
        str(_UEFI_LOADER): "EFI/BOOT/BOOTX64.EFI",
        str(work / "loader.conf"): "loader/loader.conf",
        str(work / "lab.conf"): "loader/entries/lab.conf",
    }
    for source, target in copies.items():
        _run("mcopy", "-i", str(fat), source, f"::{target}")
    _run("syslinux", "--install", str(fat))
    _assemble(work / "disk", fat, root)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(work / "disk"), str(disk))
    shutil.rmtree(work)


def _give_a_service(root: Path, work: Path) -> None:
    (work / "unit").write_text(_UNIT)
    (work / "answer").write_bytes(ANSWER)
    commands = [
        "mkdir /etc/answer",
        "cd /etc/answer",
        f"write {work / 'answer'} index.html",
        "cd /etc/systemd/system",
        f"write {work / 'unit'} answer.service",
        "cd /etc/systemd/system/multi-user.target.wants",
        "symlink answer.service /etc/systemd/system/answer.service",
    ]
    (work / "commands").write_text("\n".join(commands) + "\n")
    _run("debugfs", "-w", "-f", str(work / "commands"), str(root))


def _assemble(disk: Path, fat: Path, root: Path) -> None:
    """The partition table and both partitions, the holes of the second left as they are."""
    table = bytearray(_SECTOR)
    code = _MBR_CODE.read_bytes()
    table[: len(code)] = code
    root_bytes = root.stat().st_size
    for number, (active, kind, at, size) in enumerate(
        ((0x80, 0xEF, _FAT_AT, _FAT_BYTES), (0, 0x83, _ROOT_AT, root_bytes))
    ):
        lba = b"\xfe\xff\xff"  # by sectors alone
        entry = bytes([active]) + lba + bytes([kind]) + lba + struct.pack("<II", at // _SECTOR, size // _SECTOR)
        table[446 + 16 * number : 462 + 16 * number] = entry
    table[510:] = b"\x55\xaa"
    with disk.open("wb") as file:
        file.write(table)
        file.seek(_FAT_AT)
        file.write(fat.read_bytes())
        file.truncate(_ROOT_AT + root_bytes)
    _copy_data(root, disk, at=_ROOT_AT)


def _copy_data(source: Path, target: Path, *, at: int) -> None:
    """Copy what is no hole (lseek(2), SEEK_DATA)."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        begin = 0
        while True:
            try:
                begin = os.lseek(reader.fileno(), begin, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return
            end = os.lseek(reader.fileno(), begin, os.SEEK_HOLE)
            while begin < end:
                begin += os.copy_file_range(reader.fileno(), writer.fileno(), end - begin, begin, at + begin)


def _run(*argv: str) -> None:
    path = "/usr/bin:/bin:/usr/sbin:/sbin"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path, "LC_ALL": "C"})
    assert done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
