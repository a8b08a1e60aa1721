"""What host processes hold, from /proc/PID/smaps_rollup, and what that file cannot see (docs/method.md, rule 14).

PSS counts a page that n processes map as 1/n in each, so that a sum over processes counts it once; USS counts only what
a process maps alone; RSS counts shared pages in every mapper. None of the three sees page tables, other kernel memory,
huge pages of hugetlbfs, or what lies in a tmpfs without being mapped: `Holding` has these beside them.

Sources: Documentation/filesystems/proc.rst of Linux (smaps_rollup, smaps, status), proc_pid_ns(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import MeasurementError
from lab.features import Role
from lab.host import procs
from lab.host.procfs import read_int, read_link, read_meminfo
from lab.host.procs import Process

TB_CACHE = "vmm-tb-cache"
"""The part of an emulator's memory that holds translated code: beside the roles, because no VM with KVM has it."""

_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}  # asm/unistd_64.h; asm-generic/unistd.h
_KCMP_VM = 1  # linux/kcmp.h
_libc = ctypes.CDLL(None, use_errno=True)
_PROC = Path("/proc")
_KSM = Path("/sys/kernel/mm/ksm")
_REFRESH = Path("/proc/sys/vm/stat_refresh")
_TRIES = 3
_WORKS = frozenset({Role.SERVICE, Role.VMM})
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)\s*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one process holds, in bytes. `shmem_bytes` is the part of `pss_bytes` that lies in a tmpfs or in shared
    anonymous memory; `hugetlb_bytes` counts a shared huge page in every mapper, as the kernel offers no share of it;
    `tb_cache_bytes` is the part of `pss_bytes` that is anonymous, writable and executable: translated code."""

    pss_bytes: int
    uss_bytes: int
    rss_bytes: int
    shmem_bytes: int
    swap_bytes: int
    page_table_bytes: int
    hugetlb_bytes: int
    tb_cache_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One line of a process's address space; `inode` is 0 for anonymous memory."""

    size_bytes: int
    permissions: str
    inode: int
    name: str
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What the processes of one instance hold together; `netns` counts network namespaces that are not the lab's."""

    by_pid: Mapping[int, tuple[Role, Holding]]
    netns: int

    @property
    def pss_bytes(self) -> int:
        return self._sum(lambda one: one.pss_bytes)

    @property
    def uss_bytes(self) -> int:
        return self._sum(lambda one: one.uss_bytes)

    @property
    def rss_bytes(self) -> int:
        return self._sum(lambda one: one.rss_bytes)

    @property
    def shmem_bytes(self) -> int:
        return self._sum(lambda one: one.shmem_bytes)

    @property
    def swap_bytes(self) -> int:
        return self._sum(lambda one: one.swap_bytes)

    @property
    def page_table_bytes(self) -> int:
        return self._sum(lambda one: one.page_table_bytes)

    @property
    def hugetlb_bytes(self) -> int:
        return self._sum(lambda one: one.hugetlb_bytes)

    def pss_by_role(self) -> dict[str, int]:
        """PSS by role, in the order of `Role`; what an emulator keeps of translated code is a part of its own."""
        found: dict[str, int] = {}
        for role in Role:
            mine = [holding for owner, holding in self.by_pid.values() if owner is role]
            if mine:
                found[role.value] = sum(one.pss_bytes - one.tb_cache_bytes for one in mine)
        if cache := self._sum(lambda one: one.tb_cache_bytes):
            found[TB_CACHE] = cache
        return found

    def _sum(self, part: Callable[[Holding], int]) -> int:
        return sum(part(holding) for _, holding in self.by_pid.values())


def account(pids: Callable[[], Mapping[int, Role]], *, emulated: bool = False) -> Account:
    """What the processes that `pids` names hold now. One that ends while it is looked at is left out (a probe, a helper
    that passes by); where what serves did, they are listed again. With `emulated`, a VMM's translated code is told
    apart.

    Raises MeasurementError where this user may not look, or where what serves keeps ending.
    """
    for _ in range(_TRIES):
        listed = pids()
        if not listed:
            raise MeasurementError("the instance has no process on this host to look at")
        roles = each_memory_once(procs.present(listed))
        emulators = {one for one, role in roles.items() if emulated and role is Role.VMM}
        held = standing(roles, emulators=emulators)
        found = {one.pid: (roles[one], holding) for one, holding in held.items()}
        if found and _works(listed.values()) == _works(role for role, _ in found.values()):
            return Account(by_pid=found, netns=_network_namespaces(found))
    raise MeasurementError("the instance's processes end faster than they can be looked at")


def each_memory_once(roles: Mapping[Process, Role]) -> dict[Process, Role]:
    """`roles` without processes whose address space is that of another of the same role, as gVisor's are in which a
    service's threads run: each of them shows all of it as its own share. Where the kernel does not tell, all stay."""
    found: dict[Process, Role] = {}
    for process in sorted(roles):
        role = roles[process]
        if not any(has is role and _one_memory(process.pid, other.pid) for other, has in found.items()):
            found[process] = role
    return found


def standing(processes: Iterable[Process], *, emulators: Collection[Process] = ()) -> dict[Process, Holding]:
    """What each of `processes` holds that is there before and after it is looked at; those of `emulators` are looked
    through for translated code. Raises MeasurementError where this user may not look."""
    found: dict[Process, Holding] = {}
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            holding = read_holding(process.pid, emulator=process in emulators)
            if process.alive():
                found[process] = holding
    return found


def read_holding(pid: int, *, emulator: bool = False) -> Holding:
    """What `pid` holds; with `emulator`, translated code is looked for. Raises ProcessLookupError where it ended,
    MeasurementError where this user may not look."""
    rollup = _sizes(_read(pid, "smaps_rollup").splitlines()[1:])
    status = _sizes(_read(pid, "status").splitlines())
    if "Pss" not in rollup:
        raise ProcessLookupError(f"process {pid} has no memory any more")
    return Holding(
        pss_bytes=rollup["Pss"],
        uss_bytes=rollup["Private_Clean"] + rollup["Private_Dirty"],
        rss_bytes=rollup["Rss"],
        shmem_bytes=rollup.get("Pss_Shmem", 0),
        swap_bytes=rollup.get("SwapPss", 0),
        page_table_bytes=status.get("VmPTE", 0),
        hugetlb_bytes=rollup.get("Private_Hugetlb", 0) + rollup.get("Shared_Hugetlb", 0),
        tb_cache_bytes=sum(one.pss_bytes for one in mappings(pid) if _translated(one)) if emulator else 0,
    )


def mappings(pid: int) -> Iterator[Region]:
    """The address space of `pid`, line by line. Raises ProcessLookupError, MeasurementError."""
    blocks: list[tuple[re.Match[str], list[str]]] = []
    for line in _read(pid, "smaps").splitlines():
        found = _MAPPING.fullmatch(line)
        if found:
            blocks.append((found, []))
        elif blocks:
            blocks[-1][1].append(line)
    for found, lines in blocks:
        sizes = _sizes(lines)
        yield Region(
            size_bytes=int(found[2], 16) - int(found[1], 16),
            permissions=found[3],
            inode=int(found[4]),
            name=found[5],
            rss_bytes=sizes.get("Rss", 0),
            pss_bytes=sizes.get("Pss", 0),
        )


def touched_bytes(pid: int, declared_bytes: int) -> int | None:
    """How much of a guest's memory of `declared_bytes` the VMM `pid` holds: the resident part of its smallest mapping
    that has room for all of it. None where there is none, as with memory in several pieces. Raises as `mappings`."""
    large = [one for one in mappings(pid) if one.size_bytes >= declared_bytes and "w" in one.permissions]
    return min(large, key=lambda one: one.size_bytes).rss_bytes if large else None


def available_bytes() -> int:
    """MemAvailable: what could be had without swapping, free memory and the page cache that would give way. Raises
    MeasurementError where this kernel does not tell."""
    found = read_meminfo(Path("/")).get("MemAvailable")
    if found is None:
        raise MeasurementError("this kernel does not tell how much memory is available")
    return found


def total_bytes() -> int:
    """MemTotal of this machine."""
    return read_meminfo(Path("/")).get("MemTotal", 0)


def refresh_counters() -> None:
    """Have every CPU hand in its counters, which the kernel otherwise does once a second; only root can.

    Source: Documentation/admin-guide/sysctl/vm.rst, stat_refresh.
    """
    if os.access(_REFRESH, os.W_OK):
        _REFRESH.write_text("1")


def ksm_saved_bytes() -> int | None:
    """What same-page merging saves on this machine now; None where the kernel has none. Source: mm/ksm.rst."""
    pages = read_int(_KSM / "pages_sharing")
    return None if pages is None else pages * os.sysconf("SC_PAGESIZE")


def held_on_disk(paths: Iterable[Path]) -> int:
    """What `paths` and all below them really take of the disk: blocks, not lengths, each inode once. What is gone by
    now counts nothing. Raises MeasurementError where this user may not look."""
    seen: set[tuple[int, int]] = set()
    total = 0
    try:
        for path in paths:
            for found in _below(path):
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512  # the unit of st_blocks whatever the file system's (stat(2))
    except PermissionError as error:
        raise MeasurementError(
            f"this user may not look into {error.filename}", resolution="run the lab with sudo"
        ) from error
    except (OSError, RecursionError) as error:  # such as thousands of directories in one another
        raise MeasurementError(f"what an instance holds on disk cannot be counted: {error}") from error
    return total


def _below(path: Path) -> Iterator[os.stat_result]:
    """`path` and all below it, each looked up in the directory that the walk holds open: what a service puts in the
    place of one meanwhile, such as a link, leads nowhere else."""
    with contextlib.suppress(FileNotFoundError):
        yield path.lstat()
    if path.is_dir() and not path.is_symlink():
        for _, folders, files, descriptor in os.fwalk(path, onerror=_refuse):
            for name in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):
                    yield os.stat(name, dir_fd=descriptor, follow_symlinks=False)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):  # gone or another thing by now
        raise error


def _one_memory(one: int, other: int) -> bool:
    """Whether two processes have one address space (kcmp(2)); False where this user or this kernel does not tell."""
    number = _KCMP.get(platform.machine())
    return number is not None and _libc.syscall(number, one, other, _KCMP_VM, 0, 0) == 0


def _translated(one: Region) -> bool:
    """QEMU maps its buffer of translated code anonymous, writable and executable (tcg/region.c), as nothing else."""
    return one.inode == 0 and not one.name and one.permissions.startswith("rwx")


def _works(roles: Iterable[Role]) -> frozenset[Role]:
    return _WORKS & frozenset(roles)


def _network_namespaces(pids: Iterable[int]) -> int:
    own = read_link(_PROC / "self/ns/net")
    found = {read_link(_PROC / str(pid) / "ns/net") for pid in pids}
    return len(found - {own, None})


def _read(pid: int, name: str) -> str:
    try:
        text = (_PROC / str(pid) / name).read_text(errors="replace")
    except FileNotFoundError as error:
        raise ProcessLookupError(f"process {pid} has ended") from error
    except PermissionError as error:
        raise MeasurementError(
            f"this user may not look into the memory of process {pid}", resolution="run the lab with sudo"
        ) from error
    if not text:
        raise ProcessLookupError(f"process {pid} has no memory any more")
    return text


def _sizes(lines: Iterable[str]) -> dict[str, int]:
    """The lines `Name: N kB`, in bytes."""
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if unit == "kB" and number.isdigit():
            found[name] = int(number) * 1024
    return found
