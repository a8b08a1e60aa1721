"""What the kernel charges to a cgroup's memory, with page cache and kernel memory split out, versions 1 and 2.

Sources: Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst of Linux. The figures are the whole subtree's.
Charges are made in batches per CPU, so that the total may be 256 KiB per CPU above the sum of its parts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.host import cgroup
from lab.host.procfs import read_int, read_text

_INNER = re.compile(r"libvirt|emulator|vcpu\d+|iothread\d+")
"""What libvirt makes inside a domain's own cgroup (https://libvirt.org/cgroups.html): the memory is the outer one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupMemory:
    """What one cgroup is charged, in bytes; None is what its version does not tell.

    `cache_bytes` is page cache without `shmem_bytes`, which is tmpfs and shared anonymous memory. `slab_bytes` and
    `page_table_bytes` are within `kernel_bytes`. `socket_bytes` is what sockets' buffers hold.
    """

    version: int
    total_bytes: int
    anonymous_bytes: int
    cache_bytes: int
    shmem_bytes: int
    kernel_bytes: int | None = None
    slab_bytes: int | None = None
    page_table_bytes: int | None = None
    socket_bytes: int | None = None
    swap_bytes: int | None = None

    def parts(self) -> dict[str, int]:
        """The parts that are told, by the name that tables have for them."""
        told = {
            "total": self.total_bytes,
            "anonymous": self.anonymous_bytes,
            "page-cache": self.cache_bytes,
            "tmpfs": self.shmem_bytes,
            "kernel": self.kernel_bytes,
            "slab": self.slab_bytes,
            "page-tables": self.page_table_bytes,
            "sockets": self.socket_bytes,
        }
        return {name: value for name, value in told.items() if value is not None}


def memory_of(pids: Iterable[int]) -> CgroupMemory | None:
    """What the memory cgroups that hold `pids`, and nothing else, are charged together; None where there is none.

    A process that shares its cgroup with others (a proxy in its daemon's) is left out: the figure would be theirs.
    """
    wanted = set(pids)
    groups: dict[Path, cgroup.Directory] = {}
    for pid in wanted:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended: what it held is not there any more
            directory = _outer(cgroup.of_process(pid))
            if directory is not None and cgroup.Group("", (directory,)).pids() <= wanted:
                groups[directory.path] = directory
    # One within another is in that one's figure.
    topmost = [one for one in groups.values() if not any(parent in groups for parent in one.path.parents)]
    found = [memory for one in topmost if (memory := read(one.path, one.version)) is not None]
    return _sum(found) if found else None


def read(path: Path, version: int) -> CgroupMemory | None:
    """What the cgroup at `path` is charged; None where it has no memory controller, or is gone."""
    total = read_int(path / ("memory.usage_in_bytes" if version == 1 else "memory.current"))
    told = _stat(path / "memory.stat")
    if total is None or not told:
        return None
    if version == 2:
        return CgroupMemory(
            version=2,
            total_bytes=total,
            anonymous_bytes=told["anon"],
            cache_bytes=told["file"] - told["shmem"],
            shmem_bytes=told["shmem"],
            kernel_bytes=told.get("kernel"),  # since Linux 5.18
            slab_bytes=told.get("slab"),
            page_table_bytes=told.get("pagetables"),
            socket_bytes=told.get("sock"),
            swap_bytes=read_int(path / "memory.swap.current"),
        )
    return CgroupMemory(
        version=1,
        total_bytes=total,
        anonymous_bytes=told["total_rss"],
        cache_bytes=told["total_cache"] - told.get("total_shmem", 0),
        shmem_bytes=told.get("total_shmem", 0),
        kernel_bytes=read_int(path / "memory.kmem.usage_in_bytes"),
        socket_bytes=read_int(path / "memory.kmem.tcp.usage_in_bytes"),
        swap_bytes=told.get("total_swap"),
    )


def killed_in(group: cgroup.Group) -> bool:
    """Whether the kernel has killed a process of `group` for its limit of memory; False where it counts no such thing,
    or the group is gone."""
    found = (
        _stat(one.path / ("memory.oom_control" if one.version == 1 else "memory.events")) for one in group.directories
    )
    return any(told.get("oom_kill", 0) > 0 for told in found)


def _outer(group: cgroup.Group) -> cgroup.Directory | None:
    """The directory of `group` that counts memory, without what libvirt makes inside it; None for a hierarchy's root,
    which counts the whole machine."""
    found = next((one for one in group.directories if "memory" in one.controllers), None)
    if found is None:
        return None
    path = found.path
    while _INNER.fullmatch(path.name):
        path = path.parent
    return None if _is_root(path) else cgroup.Directory(path, found.version, found.controllers)


def _is_root(path: Path) -> bool:
    return any(path == hierarchy.mount for hierarchy in cgroup.hierarchies())


def _stat(path: Path) -> dict[str, int]:
    words = (line.split() for line in (read_text(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2}


def _sum(found: list[CgroupMemory]) -> CgroupMemory:
    def total(name: str) -> int | None:
        values = [getattr(one, name) for one in found]
        return None if any(value is None for value in values) else sum(values)

    names = [name for name in CgroupMemory.__dataclass_fields__ if name != "version"]
    return CgroupMemory(version=found[0].version, **{name: total(name) for name in names})  # type: ignore[arg-type]
