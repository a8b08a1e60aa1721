"""The processes of this host that run a Docker engine: its daemon and containerd."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lab.host import procs
from lab.host.procs import Entry

if TYPE_CHECKING:
    from docker import APIClient

_DAEMON, _RUNTIME, _PODMAN = "dockerd", "containerd", "podman"
_CREDENTIALS = struct.Struct("iII")  # struct ucred, unix(7)


def engine_pids(api: APIClient) -> Mapping[int, str]:
    """The daemon that `api` talks to and the containerd that serves it, by pid, each with its name; of Podman the
    process that serves its API, without which its containers run on."""
    entries, pid = procs.table(), listener(api)
    if pid in entries and entries[pid].name == _PODMAN:
        return {pid: _PODMAN}
    return choose(entries, pid)


def choose(entries: Mapping[int, Entry], listener: int | None) -> dict[int, str]:
    """Of `entries` the daemon `listener` and its containerd. Where another process made the socket (systemd) every
    daemon counts, and where no containerd is below a daemon, every one that is below none."""
    daemons = {pid for pid, entry in entries.items() if entry.name == _DAEMON}
    ours = {pid for pid in daemons if pid == listener} or daemons
    below = {
        entry.process.pid: pid
        for pid in daemons
        for entry in procs.descendants(dict(entries), pid)
        if entry.name == _RUNTIME
    }
    own = {pid for pid, daemon in below.items() if daemon in ours}
    free = {pid for pid, entry in entries.items() if entry.name == _RUNTIME and pid not in below}
    return dict.fromkeys(sorted(ours), _DAEMON) | dict.fromkeys(sorted(own or free), _RUNTIME)


def listener(api: APIClient) -> int | None:
    """The process that listens at the engine's Unix socket; None where that is not told."""
    path = getattr(api.get_adapter(api.base_url), "socket_path", None) or urlsplit(api.base_url).path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:  # reached in another way: by TCP or SSH
            return None
    return int(_CREDENTIALS.unpack(credentials)[0])
