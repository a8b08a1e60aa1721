"""The processes of runtimes with a kernel of their own, which an engine does not know by their parents.

gVisor's sentry and gofer are sessions of their own, and their names say nothing; Kata's machine is a VMM with a daemon
that serves files. All bear the container's id among their arguments, or are in its cgroup: by these they are found.
A start that failed leaves them, with the shim, when the engine knows the container no more.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePath

from lab.features import Role
from lab.host import procs
from lab.host.procs import Entry, Process

_VMMS = ("qemu-system-", "cloud-hypervisor", "firecracker", "dragonball", "stratovirt")
_SHIMS = ("containerd-shim", "conmon")
_KILL_TIMEOUT_S = 10.0
_SHORT = 12
"""Of an id, so many digits at least make it one container's (Docker shows as many)."""

Arguments = Callable[[int], Sequence[str]]


def role_of(argv: Sequence[str]) -> Role:
    """What a process of a container does, by its command line: the service, unless it is known to be a sandbox's."""
    name = PurePath(argv[0]).name if argv else ""
    if name.startswith("runsc"):
        return Role.VMM if "boot" in argv and "gofer" not in argv else Role.HELPER
    if name.startswith(_VMMS):
        return Role.VMM
    if name.startswith("virtiofsd"):
        return Role.HELPER
    return Role.SHIM if name.startswith(_SHIMS) else Role.SERVICE


def roles(entries: Iterable[Entry], arguments: Arguments = procs.arguments) -> dict[Process, Role]:
    """What each of a container's processes does. The sentry has the service's code run in processes without any command
    line of their own, below it (systrap's stubs): they are of that kernel, as a VMM's virtual CPUs are."""
    table = {entry.process.pid: entry for entry in entries}
    argv = {pid: arguments(pid) for pid in table}
    found = {pid: role_of(argv[pid]) for pid in table}
    while stubs := [
        pid
        for pid, entry in table.items()
        if not argv[pid] and found[pid] is Role.SERVICE and found.get(entry.parent) is Role.VMM
    ]:
        found |= dict.fromkeys(stubs, Role.VMM)
    return {table[pid].process: role for pid, role in found.items()}


def is_sandbox(argv: Sequence[str]) -> bool:
    """Whether a command line is that of a sandbox's part, or of a shim."""
    return role_of(argv) is not Role.SERVICE


def bearing(
    container: str, entries: Mapping[int, Entry], arguments: Arguments = procs.arguments
) -> dict[Process, Role]:
    """The processes of sandboxes and shims whose arguments bear the id `container`: as a word, or in a path."""
    if len(container) < _SHORT:
        return {}
    found = {}
    for pid, entry in entries.items():
        argv = arguments(pid)
        # What containerd starts to clean up after a shim that died, `containerd-shim-… delete`, is about to end.
        if any(container in word for word in argv[1:]) and is_sandbox(argv) and argv[-1] != "delete":
            found[entry.process] = role_of(argv)
    return found


def end_leaked(container: str, known: Collection[Process] = ()) -> list[Process]:
    """End what still bears the id `container` once the engine knows it no more, and what of `known` is a sandbox's: of
    a failed start that is a shim, a gofer and a sandbox. Returns those that do not end. Raises PermissionError."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    left = {one for one in known if one.alive() and is_sandbox(procs.arguments(one.pid))}
    # Again and again, since what is killed may just have forked.
    while left := left | set(bearing(container, procs.table())):
        for process in left:
            process.send(signal.SIGKILL)
        if alive := procs.all_ended(left, deadline - time.monotonic()):
            return alive
        left = set()
    return [one for one in known if one.alive()]
