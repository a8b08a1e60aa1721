"""What this host's kernel shows of processes and listeners, for the contract's tests: files alone, nothing is asked."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.host import limits, procs
from lab.host.limits import Held, Limit
from lab.host.procfs import Mount, read_fields, read_link, read_mounts, read_text
from lab.host.procs import Entry

_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class HostView:
    """The host below `root`: `/`, or where a model shows what it holds its processes by."""

    root: Path = Path("/")

    def held(self, limit: Limit, pids: Collection[int], own: Collection[int]) -> Held | str:
        """The limit that holds `pids`, in cgroups where only `own` are; words where there is none."""
        return limits.held(limit, pids, own, proc=self.root / "proc")

    def status(self, pid: int) -> dict[str, str]:
        """The fields of /proc/PID/status."""
        return read_fields(self.root / f"proc/{pid}/status")

    def namespace(self, pid: int | str, kind: str) -> str:
        """As `pid:[4026531836]`; empty where it is gone."""
        return read_link(self.root / f"proc/{pid}/ns/{kind}") or ""

    def mounts(self, pid: int) -> dict[str, Mount]:
        """What `pid` has mounted, by mount point: the last one where several lie on each other."""
        return {mount.point: mount for mount in read_mounts(self.root, pid)}

    def disks(self, pid: int) -> set[str]:
        """The names in the /dev of `pid` that are block devices of the host."""
        known = {path.name for path in (self.root / "sys/class/block").iterdir()}
        return known & {path.name for path in (self.root / f"proc/{pid}/root/dev").iterdir()}


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket of this network namespace."""

    host: str
    port: int
    inode: str

    @property
    def beyond_loopback(self) -> bool:
        """Whether others than this host reach it."""
        address = ipaddress.ip_address(self.host)
        mapped = getattr(address, "ipv4_mapped", None) or address
        return not mapped.is_loopback


def listeners() -> set[Listener]:
    """Every one (proc_net_tcp in the kernel's documentation, Documentation/networking)."""
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in (read_text(Path("/proc/net") / table) or "").splitlines()[1:]:
            words = line.split()
            host, port = words[1].split(":")
            if words[3] == _LISTEN:
                packed = b"".join(struct.pack("=I", int(host[at : at + 8], 16)) for at in range(0, len(host), 8))
                found.add(Listener(socket.inet_ntop(family, packed), int(port, 16), words[9]))
    return found


def sockets_of(pids: Iterable[int]) -> set[str]:
    """The inodes of the sockets that `pids` have open, as far as this user may look."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{pid}/fd").iterdir():
                target = read_link(path) or ""
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there is at one time: of this process its threads and descriptors, and the files below its run's folder."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[str]
    files: frozenset[Path]

    @classmethod
    def take(cls, run_dir: Path) -> Snapshot:
        """Now."""
        targets = (read_link(path) for path in Path("/proc/self/fd").iterdir())
        return cls(
            frozenset(threading.enumerate()),
            frozenset(target for target in targets if target and not target.startswith("/proc/")),
            frozenset(run_dir.rglob("*")),
        )


def born_since(
    before: dict[int, Entry], ours: Collection[int], workload: Collection[int], words: Collection[str], port: int
) -> dict[int, Entry]:
    """Processes that were not there `before` and exist because of `ours`: their descendants and this process's, what
    shares a cgroup with the `workload`, and what bears one of `words` or the published `port` among its arguments."""
    now = procs.table()
    here = {os.getpid(), *ours}
    shared = {path for pid in workload for path in _cgroups(pid)} - _cgroups(os.getpid())
    found = {}
    for pid, entry in now.items():
        if pid in before and before[pid].process == entry.process:
            continue
        said = procs.arguments(pid)
        named = any(word in one for one in said for word in words)
        publishes = any(one == str(port) or one.endswith(f":{port}") for one in said)
        if named or publishes or _ancestors(now, pid) & here or _cgroups(pid) & shared:
            found[pid] = entry
    return found


def _ancestors(table: dict[int, Entry], pid: int) -> set[int]:
    found: set[int] = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].parent
    return found


def _cgroups(pid: int) -> set[str]:
    lines = (read_text(Path(f"/proc/{pid}/cgroup")) or "").splitlines()
    return {line for line in lines if not line.endswith(":/")}
