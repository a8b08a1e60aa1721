"""Who listens where: inside an instance's own network, and at the port of this host at which it is asked.

Read from /proc/PID/net/tcp and tcp6 (proc_net(5)), which show the network namespace that the process is in, and from
the sockets among /proc/PID/fd. Every look is made once per launch, after `ready` or after a wait in vain.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from lab.driver import Instance
from lab.errors import DriverError
from lab.features import OnThisHost, Role
from lab.host import procs
from lab.host.procfs import read_link
from lab.spec import Endpoint

_PROC = Path("/proc")
_LISTEN = "0A"  # net/tcp_states.h


@dataclass(frozen=True, slots=True, order=True)
class Listening:
    """A listening TCP socket: its address and its inode."""

    host: str
    port: int
    inode: int

    @property
    def on_loopback(self) -> bool:
        """Whether only the same network's own processes reach it."""
        return ip_address(self.host).is_loopback

    def serves(self, endpoint: Endpoint) -> bool:
        """Whether a connection to `endpoint` comes to it."""
        address = ip_address(self.host)
        return self.port == endpoint.port and (address.is_unspecified or self.host == endpoint.host)


def listening(pid: int | str) -> list[Listening]:
    """The listening sockets of the network that process `pid` is in; none where it is gone or may not be looked at."""
    return sorted(one for one, state in _sockets(pid) if state == _LISTEN)


def taken_by_a_forwarder(instance: Instance | None, port: int) -> bool:
    """Whether a connection to `port` of the instance was taken by somebody before it: in its own network no socket has
    that port, neither one that listens nor one that was accepted. False where that network cannot be looked at."""
    pid = _service_pid(instance)
    found = _sockets(pid) if pid is not None else []
    return pid is not None and not any(one.port == port and not one.on_loopback for one, _ in found)


def inside(instance: Instance | None, port: int) -> str:
    """Why `port` of the instance does not answer, by who listens in its network; empty where that tells nothing: the
    port is listened at on other addresses than loopback, or the network cannot be looked at or is the host's own."""
    pid = _service_pid(instance)
    if pid is None:
        return ""
    found = listening(pid)
    own = [one for one in found if one.port == port]
    if any(not one.on_loopback for one in own):
        return ""
    if own:
        places = " and ".join(sorted({str(Endpoint(one.host, one.port)) for one in own}))
        return f"inside, it listens at {places} alone, which nobody outside reaches: have it listen on all addresses"
    others = sorted({one.port for one in found if not one.on_loopback})
    if others:
        named = ", ".join(map(str, others[:8]))
        return f"inside, it listens at {'port' if len(others) == 1 else 'ports'} {named}: give --port {others[0]}"
    return f"inside, nothing listens at port {port}"


def stranger(endpoint: Endpoint, own: Collection[int], engine: Mapping[int, str]) -> str:
    """The process that listens at `endpoint` of this host and is neither of the instance's `own`, nor of its
    `engine`, nor a parent of those, nor the lab itself; empty where it is one of them, or cannot be told.

    It cannot be told where nothing in this network listens there (the engine leads the port on in the kernel), or where
    the sockets of other users' processes may not be looked at.
    """
    inodes = {one.inode for one in listening("self") if one.serves(endpoint)}
    if not inodes:
        return ""
    entries = procs.table()
    parents = {pid: entry.parent for pid, entry in entries.items()}
    known = {os.getpid(), *own, *engine}
    for pid in (*own, *engine):  # rootless engines have their ports held by a parent of the daemon
        above = pid
        while (above := parents.get(above, 0)) > 1:
            known.add(above)
    if any(_holds(pid, inodes) for pid in known):
        return ""
    for pid, entry in entries.items():
        if pid not in known and _holds(pid, inodes):
            return f"{entry.name} (process {pid})"
    return ""


def _service_pid(instance: Instance | None) -> int | None:
    """A process of the instance's that is in a network of its own."""
    if not isinstance(instance, OnThisHost):
        return None
    try:
        pids = [pid for pid, role in instance.host_pids().items() if role is Role.SERVICE]
    except DriverError:  # the engine has gone: what is being told already says more
        return None
    host = read_link(_PROC / "self" / "ns" / "net")
    networks = ((pid, read_link(_PROC / str(pid) / "ns" / "net")) for pid in sorted(pids))
    return next((pid for pid, network in networks if network is not None and network != host), None)


def _sockets(pid: int | str) -> list[tuple[Listening, str]]:
    """Every TCP socket of the network that `pid` is in, by its own address, and its state."""
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "net" / name).read_text().splitlines()[1:]:
                fields = line.split()
                if len(fields) > 9:
                    found.append((Listening(*_address(fields[1]), int(fields[9])), fields[3]))
    return found


def _holds(pid: int, inodes: Iterable[int]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        with os.scandir(_PROC / str(pid) / "fd") as entries:
            return any(read_link(Path(entry.path)) in wanted for entry in entries)
    except OSError:  # gone, or another user's
        return False


def _address(text: str) -> tuple[str, int]:
    """The kernel writes the address as 32-bit words in the host's byte order."""
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    if len(raw) == 4:
        return socket.inet_ntoa(raw), int(port, 16)
    v6 = IPv6Address(raw)
    return str(v6.ipv4_mapped or v6), int(port, 16)
