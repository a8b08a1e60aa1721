"""Paths that an image, a guest or a service shapes, resolved inside a tree of their own, whatever links stand in it.

Root follows an absolute symbolic link in an image's tree to the host's file of that name. Whoever unpacks, adds to or
reads such a tree goes through `Tree`, for which its directory is `/`, as after chroot(2): links and `..` end inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS
_SYS_OPENAT2 = 437  # on every architecture that Debian has (asm/unistd.h)
_RESOLVE_NO_MAGICLINKS = 0x02  # these two: linux/openat2.h
_RESOLVE_IN_ROOT = 0x10
_TRIES = 100
"""The kernel gives EAGAIN where something was renamed while it resolved a `..` (openat2(2))."""
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Tree:
    """The directory `root`, which must be no link itself, as `/` of every path given; open until `close`.

    Its methods raise OSError as open(2) does: FileNotFoundError for what is not there, ELOOP for links in a circle.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _DIRECTORY | os.O_NOFOLLOW)

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        """A descriptor of what `path` leads to, every link followed inside the tree."""
        if kernel_resolves():
            return _openat2(self._root, path, flags, mode)
        directory, name = self._walk(path)
        try:
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
        finally:
            os.close(directory)

    @contextlib.contextmanager
    def at(self, path: str) -> Iterator[Path]:
        """The last name of `path` in the directory that it really lies in, held open meanwhile.

        Links on the way are followed inside the tree; the name itself is as it stands, and may be free. For calls
        that do not follow a last name which is a link: mkdir, mknod, link, symlink, unlink, rename, lchown, lutimes.
        Raises ValueError for a path that names no entry: the root itself, `..`.
        """
        directories, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise ValueError(f"'{path}' names nothing inside the tree")
        directory = self.open(directories or "/", _DIRECTORY)
        try:
            yield _through(directory, name)
        finally:
            os.close(directory)

    def read(self, path: str, *, limit_bytes: int) -> bytes:
        """The content of the regular file that `path` leads to. Raises OSError also for what is no file, or larger."""
        # A device is not opened, which may act on it, nor a FIFO, which may wait for a writer.
        descriptor = self.open(path, os.O_PATH)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            with Path(f"/proc/self/fd/{descriptor}").open("rb") as file:
                content = file.read(limit_bytes + 1)
        finally:
            os.close(descriptor)
        if len(content) > limit_bytes:
            raise OSError(errno.EFBIG, f"larger than {limit_bytes} bytes", path)
        return content

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Make a file of `content` where `path` leads, its links followed; missing directories are made.

        What stood there is replaced and never written into, since it may be a device, or have other names.
        """
        directory, name = self._walk(path, make=0o755)
        try:
            own = f".lab-{secrets.token_hex(8)}"
            descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, not a path
                    file.write(content)
                    os.fchmod(file.fileno(), mode)
                os.rename(own, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(own, dir_fd=directory)
                raise
        finally:
            os.close(directory)

    def make_directory(self, path: str, *, mode: int = 0o755) -> bool:
        """Have a directory where `path` leads, made with those above it that are missing; whether it was made."""
        directory, name = self._walk(path, make=0o755)
        try:
            _make_directory(directory, name, mode)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                raise
            return False
        finally:
            os.close(directory)
        return True

    def close(self) -> None:
        """Let go of the root."""
        os.close(self._root)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _walk(self, path: str, *, make: int | None = None) -> tuple[int, str]:
        """The directory in which lies what `path` leads to, as a descriptor, and its name there, which is no link.

        The name is `.` for the root and for what ends in `..`. With `make`, missing directories get that mode.
        """
        held = [os.dup(self._root)]
        rest = _parts(path)[::-1]
        followed = 0
        try:
            while rest:
                part = rest.pop()
                if part == "..":
                    if len(held) > 1:  # above the root is the root
                        os.close(held.pop())
                    continue
                target = _link(held[-1], part)
                if target is not None:
                    followed += 1
                    if followed > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    if target.startswith("/"):
                        while len(held) > 1:
                            os.close(held.pop())
                    rest.extend(_parts(target)[::-1])
                elif rest:
                    held.append(_step(held[-1], part, make))
                else:
                    return os.dup(held[-1]), part
            return os.dup(held[-1]), "."
        finally:
            for descriptor in held:
                os.close(descriptor)


@functools.cache
def kernel_resolves() -> bool:
    """Whether the kernel has openat2 (Linux 5.6) and no filter refuses it; else `Tree` walks by itself."""
    root = os.open("/", _DIRECTORY)
    try:
        os.close(_openat2(root, ".", _DIRECTORY, 0))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _openat2(root: int, path: str, flags: int, mode: int) -> int:
    how = _How(
        flags=flags | os.O_CLOEXEC,
        mode=mode if flags & os.O_CREAT else 0,
        resolve=_RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS,
    )
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    for _ in range(_TRIES):
        found = int(_libc.syscall(_SYS_OPENAT2, root, name, ctypes.byref(how), ctypes.sizeof(how)))
        if found >= 0:
            return found
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def _step(directory: int, name: str, make: int | None) -> int:
    """The directory `name` in `directory`, made where it is missing and `make` is its mode."""
    if make is not None:
        with contextlib.suppress(FileExistsError):
            _make_directory(directory, name, make)
    return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


def _make_directory(parent: int, name: str, mode: int) -> None:
    os.mkdir(name, 0o700, dir_fd=parent)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fchmod(made, mode)  # whatever the umask says
    finally:
        os.close(made)


def _link(directory: int, name: str) -> str | None:
    """The text of the link `name`; None for anything else, and for what is not there."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _through(directory: int, name: str) -> Path:
    """`name` in the directory that is held open, as a path: the one component that is left to be resolved."""
    return Path(f"/proc/self/fd/{directory}") / name


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
