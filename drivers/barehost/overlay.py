"""A container's root file system: its own writable layer over the image's files, as Docker's overlay2 has it."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

_MNT_DETACH = 2  # sys/mount.h
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """`lower` are the image's files, shared and never written to; `upper` and `work` are one container's own."""

    lower: Path
    upper: Path
    work: Path

    def mount(self, target: Path) -> None:
        """Mount it at `target`. Raises OSError."""
        data = f"lowerdir={self.lower},upperdir={self.upper},workdir={self.work}"
        if _libc.mount(b"overlay", os.fsencode(target), b"overlay", ctypes.c_ulong(0), os.fsencode(data)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"overlay: {os.strerror(number)}", str(target))


def unmount(target: Path) -> None:
    """Unmount whatever is mounted at `target`; nothing happens where nothing is. Raises OSError."""
    while _libc.umount2(os.fsencode(target), _MNT_DETACH) == 0:
        pass
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):  # no mount point, no such directory
        raise OSError(number, os.strerror(number), str(target))
