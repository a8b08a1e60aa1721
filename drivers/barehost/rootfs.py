"""An image's files, unpacked to a directory with their owners, modes, times and extended attributes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from lab.image import ImageArchive
from lab.image.layers import Entry, Kind
from lab.image.tree import Tree


def unpack(image: ImageArchive, root: Path) -> None:
    """Write the image's files under `root`, which must be empty; needs root. Raises OSError."""
    names: dict[int, str] = {}
    entries = list(image.entries())
    with Tree(root) as tree:
        for entry in entries:
            with tree.at(entry.path) as path:
                if entry.inode in names:
                    with tree.at(names[entry.inode]) as first:
                        os.link(first, path, follow_symlinks=False)
                    continue
                if entry.kind is not Kind.DIRECTORY and entry.inode:
                    names[entry.inode] = entry.path
                _make(image, entry, path)
                os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
                if entry.kind is not Kind.SYMLINK:
                    path.chmod(entry.mode)  # after chown, which takes set-id bits away
                for name, value in entry.xattrs.items():
                    _set_xattr(path, name, value)
        for entry in reversed(entries):  # a directory after what is in it
            with tree.at(entry.path) as path:
                os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _set_xattr(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        # Left out where the file system or the kind of file has none, as Docker does (moby, archive.go).
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _make(image: ImageArchive, entry: Entry, path: Path) -> None:
    match entry.kind:
        case Kind.DIRECTORY:
            path.mkdir()
        case Kind.FILE:
            with image.open(entry) as source, path.open("xb") as target:
                shutil.copyfileobj(source, target)
        case Kind.SYMLINK:
            path.symlink_to(entry.target)
        case Kind.FIFO:
            os.mkfifo(path)
        case Kind.CHARACTER | Kind.BLOCK:
            kind = 0o020000 if entry.kind is Kind.CHARACTER else 0o060000  # S_IFCHR, S_IFBLK
            os.mknod(path, kind | entry.mode, os.makedev(*entry.device))
