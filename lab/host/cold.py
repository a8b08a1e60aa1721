"""Making a launch cold: nothing of the files that it reads is left in memory (docs/method.md, rule 7).

Cold is proven, not assumed: after sync and a drop of the caches, every file has at most 1 % of its pages resident, as
mincore(2) counts them. Since Linux 5.2 (commit 134fca9063ad) it tells the truth only of files that the caller owns or
may write to, and calls all others wholly resident: without the right, a file is seen too warm, never too cold.

Sources: drop_caches in Documentation/admin-guide/sysctl/vm.rst (clean pages only: hence the sync; pages that a process
has mapped stay); posix_fadvise(2), POSIX_FADV_DONTNEED; proc_pid_maps(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import BadInput, MeasurementError, Unsupported
from lab.host.procfs import read_mounts, read_text

RESIDENT_LIMIT = 0.01
ROOT = Path("/")

_CHUNK_BYTES = 1 << 30  # a whole number of pages of every size; its vector takes 256 KiB with pages of 4 KiB
_RETRY_AFTER_S = 0.05
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Residency:
    """How many of a file's pages are in memory."""

    path: Path
    resident_pages: int
    total_pages: int

    @property
    def cold(self) -> bool:
        """At most 1 % of the pages are resident; of a file below 100 pages, none."""
        return self.resident_pages <= self.total_pages * RESIDENT_LIMIT


@dataclass(frozen=True, slots=True)
class KeptMapped:
    """A file that a running process has mapped, whose pages therefore stay, and that process."""

    path: Path
    pid: int
    comm: str


@dataclass(frozen=True, slots=True)
class ColdReport:
    """What `make_cold` reached: every file that it looked at, and the processes that keep some of the warm ones."""

    files: tuple[Residency, ...]
    kept_mapped_by: tuple[KeptMapped, ...]

    def to_json(self) -> dict[str, Any]:
        """Totals in pages of `page_bytes`, the files that stayed warm, and who keeps them."""
        return {
            "page_bytes": mmap.PAGESIZE,
            "files": len(self.files),
            "total_pages": sum(file.total_pages for file in self.files),
            "resident_pages": sum(file.resident_pages for file in self.files),
            "warm": [{**asdict(file), "path": str(file.path)} for file in self.files if not file.cold],
            "kept_mapped_by": [{**asdict(kept), "path": str(kept.path)} for kept in self.kept_mapped_by],
        }


def cold_label(facts: Mapping[str, Any]) -> str:
    """What a cold launch is called on the host with these facts: `cold` where it is known to be a physical machine,
    else `cold-guest-cache`, as the hypervisor may still hold the files in its own memory."""
    physical = (facts.get("virtualization") or {}).get("hypervisor") is False
    return "cold" if physical else "cold-guest-cache"


def require_cold(root: Path = ROOT) -> None:
    """Find out, without dropping anything, whether this process may drop caches.

    Raises BadInput without the right, Unsupported where this system does not offer it.
    """
    os.close(_open_drop_caches(root))


def make_cold(paths: Iterable[Path], *, attempts: int = 5, root: Path = ROOT) -> ColdReport:
    """Sync, drop the caches, and see to it that no file in `paths` (directories: all that lies below, links not
    followed) has more than 1 % of its pages in memory, but for those that running processes keep mapped.

    All caches of this host are dropped, once before and once after the look at the files, since the look reads inodes
    and directories again. Raises BadInput without the right or for a path that is not there; Unsupported where caches
    cannot be dropped; MeasurementError when a file that nobody has mapped is still warm after `attempts`.
    """
    files = list(_expand(paths))
    _drop_caches(root)
    reached = {path: residency(path) for path in files}
    for attempt in range(attempts + 1):
        warm = [path for path, told in reached.items() if told and not told.cold]
        kept = _mapped(warm, root)
        left = [path for path in warm if path not in {each.path for each in kept}]
        if not left:
            break
        if attempt == attempts:
            raise _still_warm([told for path in left if (told := reached[path])], root)
        time.sleep(_RETRY_AFTER_S * attempt)  # for writeback, or a reader that is just ending
        os.sync()
        for path in left:
            _forget(path)
            reached[path] = residency(path)
    _drop_caches(root)
    return ColdReport(tuple(told for told in reached.values() if told), tuple(kept))


def evict(paths: Iterable[Path], *, attempts: int = 5) -> None:
    """See to it that no file in `paths` has more than 1 % of its pages in memory, and leave all other caches alone:
    for files that the lab itself had written. Raises BadInput for a path that is not there, MeasurementError for one
    that stays warm."""
    warm = list(_expand(paths))
    for attempt in range(attempts):
        time.sleep(_RETRY_AFTER_S * attempt)
        os.sync()  # what is dirty stays
        for path in warm:
            _forget(path)
        warm = [path for path in warm if (told := residency(path)) and not told.cold]
        if not warm:
            return
    raise _still_warm([told for path in warm if (told := residency(path))], ROOT)


def residency(path: Path) -> Residency | None:
    """How much of the file is in memory; None when it is gone. Reads none of its pages. Raises MeasurementError."""
    try:
        with _opened(path) as descriptor:
            size = os.fstat(descriptor).st_size
            resident = sum(
                _resident_pages(descriptor, offset, min(_CHUNK_BYTES, size - offset))
                for offset in range(0, size, _CHUNK_BYTES)
            )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MeasurementError(f"it cannot be told whether {path} is in memory: {error.strerror}") from error
    return Residency(path, resident, -(-size // mmap.PAGESIZE))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,  # off_t: as wide as this in every 64-bit ABI
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_MAP_FAILED = ctypes.c_void_p(-1).value


def _resident_pages(descriptor: int, offset: int, length: int) -> int:
    """mincore(2) over a mapping of our own, of which no page is touched; Python's mmap hides the address of a
    read-only one."""
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, offset)
    if address == _MAP_FAILED:
        raise _last_error("mmap")
    try:
        vector = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        if _libc.mincore(address, length, vector) != 0:
            raise _last_error("mincore")
        return vector.raw.translate(_LOWEST_BIT).count(1)
    finally:
        _libc.munmap(address, length)


_LOWEST_BIT = bytes(value & 1 for value in range(256))


def _last_error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def _expand(paths: Iterable[Path]) -> Iterator[Path]:
    """Every regular file that is not empty, each once however many names it has. Raises BadInput."""
    seen: set[tuple[int, int]] = set()
    for path in paths:
        try:
            start = path.resolve(strict=True)
        except FileNotFoundError:
            raise BadInput(f"'{path}' is not there, and cannot be made cold") from None
        below = (Path(place) / name for place, _, names in os.walk(start, onerror=_unless_gone) for name in names)
        for file in [start] if not start.is_dir() else below:
            try:
                found = file.lstat()
            except FileNotFoundError:
                continue  # a file of a living directory: gone between the listing and the look
            identity = (found.st_dev, found.st_ino)
            if stat.S_ISREG(found.st_mode) and found.st_size and identity not in seen:
                seen.add(identity)
                yield file


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _forget(path: Path) -> None:
    """Ask the kernel to drop this one file's pages; what is mapped or dirty stays."""
    with contextlib.suppress(FileNotFoundError), _opened(path) as descriptor:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _drop_caches(root: Path) -> None:
    """Page cache, directory entries and inodes: the value 3."""
    descriptor = _open_drop_caches(root)
    try:
        os.sync()
        os.write(descriptor, b"3\n")
    finally:
        os.close(descriptor)


def _open_drop_caches(root: Path) -> int:
    try:
        return os.open(root / "proc/sys/vm/drop_caches", os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        raise BadInput("a cold launch needs root, to drop the caches", resolution="run it with sudo") from None
    except OSError as error:
        raise Unsupported(
            f"caches cannot be dropped here: {error.strerror}",
            details=f"/proc/sys/vm/drop_caches: {error}",
            resolution="leave --cold out, or run the lab outside of its container",
        ) from error


def _mapped(paths: Iterable[Path], root: Path) -> list[KeptMapped]:
    """Who has which of `paths` mapped. A file is known by device and inode, and by path: some filesystems (btrfs,
    overlay) show other numbers in a process's maps than stat(2) does."""
    by_inode: dict[tuple[int, int], Path] = {}
    by_path = {str(path): path for path in paths}
    if not by_path:
        return []
    for path in by_path.values():
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        by_inode[found.st_dev, found.st_ino] = path
    kept = set()
    for place in (root / "proc").glob("[0-9]*"):
        for line in (read_text(place / "maps") or "").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) < 6 or fields[4] == "0":
                continue
            major, _, minor = fields[3].partition(":")
            device = os.makedev(int(major, 16), int(minor, 16))
            path_kept = by_inode.get((device, int(fields[4]))) or by_path.get(fields[5])
            if path_kept:
                kept.add(KeptMapped(path_kept, int(place.name), read_text(place / "comm") or ""))
    return sorted(kept, key=lambda each: (each.path, each.pid))


def _still_warm(files: list[Residency], root: Path) -> MeasurementError:
    filesystems = {mount.device: mount.type for mount in read_mounts(root)}
    lines, in_memory = [], set()
    for file in files:
        device = file.path.lstat().st_dev
        filesystem = filesystems.get(f"{os.major(device)}:{os.minor(device)}", "unknown filesystem")
        lines.append(f"{file.path}: {file.resident_pages} of {file.total_pages} pages resident ({filesystem})")
        in_memory |= {filesystem} & set(_IN_MEMORY)
    return MeasurementError(
        f"not cold: {files[0].path} stays in memory" + (f", and {len(files) - 1} more" if len(files) > 1 else ""),
        details="\n".join(lines),
        resolution=f"move what lies in {' and '.join(sorted(in_memory))} to a disk"
        if in_memory
        else "end what reads these files, and try again",
    )
