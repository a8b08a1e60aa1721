"""The guest's initramfs, written as a cpio archive in memory: owners and device nodes need no privilege."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of an archive, owned by root. `mode` includes the file's type; `device` is (major, minor)."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path=path, mode=stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path=path, mode=stat.S_IFREG | mode, data=data)


def initramfs(init: bytes, modules: Iterable[tuple[str, bytes]], files: Iterable[Entry]) -> bytes:
    """The archive with `init` as /init, `modules` under /lab with their order in /lab/modules, and `files`.

    It is not compressed: unpacking would cost the guest more than reading the larger file costs QEMU.
    """
    named = list(modules)
    order = "".join(f"/lab/{name}\n" for name, _ in named)
    return cpio(
        [
            *(directory(path) for path in ("dev", "proc", "sys", "lab", "root")),
            directory("tmp", 0o1777),
            Entry(path="dev/console", mode=stat.S_IFCHR | 0o600, device=(5, 1)),
            Entry(path="dev/null", mode=stat.S_IFCHR | 0o666, device=(1, 3)),
            file("init", init, 0o755),
            *(file(f"lab/{name}", data) for name, data in named),
            file("lab/modules", order.encode()),
            *files,
        ]
    )


def cpio(entries: Iterable[Entry]) -> bytes:
    """A `newc` archive (Documentation/driver-api/early-userspace/buffer-format.rst), the same for the same entries."""
    out = bytearray()
    for number, entry in enumerate(entries, start=1):
        out += _record(number, entry)
    out += _record(0, Entry(path="TRAILER!!!", mode=0))
    return bytes(out)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    return _padded(header) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
