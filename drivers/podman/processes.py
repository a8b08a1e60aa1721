"""Which processes of this host are there because of one of Podman's containers.

There is no daemon: conmon is the container's monitor, and waits for it as its parent. Root's network needs no process
(netavark and CNI set the kernel's up and end); another user's is a process for each container, pasta or slirp4netns,
whose ports rootlessport passes on; and a file system in user space has one, where the kernel's cannot be used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from drivers.ociruntimes import sandbox
from lab.features import Role
from lab.host import procs
from lab.host.procfs import read_link, read_text
from lab.host.procs import Entry, Process
from lab.spec import Endpoint

NETWORKS = ("pasta", "slirp4netns")
"""The programs that make the network of a user's container, one process each."""
_PORTS = "rootlessport"
_FUSE = "fuse-overlayfs"
_LISTEN = "0A"

Arguments = Callable[[int], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What Podman tells of a container: its id, its first process and its monitor (0 where there is none), its network
    namespace's file, and where its root file system is mounted."""

    id: str
    pid: int
    monitor: int
    netns: str
    merged: str

    @classmethod
    def of(cls, told: Mapping[str, object]) -> Known:
        """Of what an inspection `told`."""
        state, network, graph = (_dict(told.get(key)) for key in ("State", "NetworkSettings", "GraphDriver"))
        return cls(
            id=str(told.get("Id") or ""),
            pid=int(str(state.get("Pid") or 0)),
            monitor=int(str(state.get("ConmonPid") or 0)),
            netns=str(network.get("SandboxKey") or ""),
            merged=str(_dict(graph.get("Data")).get("MergedDir") or ""),
        )


def below(known: Known, entries: Mapping[int, Entry], arguments: Arguments = procs.arguments) -> dict[Process, Role]:
    """Of `entries` its conmon and all that came of that, by role; empty where it does not run."""
    if known.pid not in entries:
        return {}
    table = dict(entries)
    own = {pid: table[pid] for pid in (known.pid, known.monitor) if pid in table}
    for root in list(own):
        own |= {entry.process.pid: entry for entry in procs.descendants(table, root)}
    return sandbox.roles(own.values(), arguments)


def find(
    known: Known,
    entries: Mapping[int, Entry],
    *,
    endpoint: Endpoint | None,
    beside: bool,
    arguments: Arguments = procs.arguments,
    listeners: Callable[[Endpoint], frozenset[int]] | None = None,
) -> dict[Process, Role]:
    """Of `entries` those of the container, by role; empty where it does not run. With `beside` also those that are not
    conmon's: a user's network and file system, and a sandbox. `listeners` says who listens at an endpoint."""
    found = below(known, entries, arguments)
    if not found or not beside:
        return found
    found = sandbox.bearing(known.id, entries, arguments) | found
    table = dict(entries)
    for pid, entry in entries.items():
        if entry.process not in found and (role := _network_or_files(known, arguments(pid))) is not None:
            found[entry.process] = role
    if endpoint is not None:
        for pid in (listeners or listeners_at)(endpoint):
            if pid in entries and entries[pid].process not in found and _is_ports(arguments(pid)):
                found[entries[pid].process] = Role.PROXY
                for one in (*procs.descendants(table, pid), *_parent(table, pid)):
                    if _is_ports(arguments(one.process.pid)):
                        found[one.process] = Role.PROXY
    return found


def listeners_at(endpoint: Endpoint) -> frozenset[int]:
    """The processes that have a socket open which listens at `endpoint`, as far as this user may look."""
    wanted = {
        f"socket:[{words[9]}]"
        for line in (read_text(Path("/proc/net/tcp")) or "").splitlines()[1:]
        if (words := line.split())[3] == _LISTEN and int(words[1].split(":")[1], 16) == endpoint.port
    }
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any((read_link(path) or "") in wanted for path in folder.iterdir()):
                found.add(int(folder.parent.name))
    return frozenset(found)


def _network_or_files(known: Known, argv: Sequence[str]) -> Role | None:
    name = PurePath(argv[0]).name if argv else ""
    if known.netns and name.startswith(NETWORKS) and known.netns in argv:
        return Role.PROXY if name.startswith("pasta") else Role.HELPER
    if known.merged and name == _FUSE and known.merged in argv:
        return Role.HELPER
    return None


def _is_ports(argv: Sequence[str]) -> bool:
    return bool(argv) and _PORTS in argv[0]


def _parent(entries: Mapping[int, Entry], pid: int) -> list[Entry]:
    parent = entries[pid].parent
    return [entries[parent]] if parent in entries else []


def _dict(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
