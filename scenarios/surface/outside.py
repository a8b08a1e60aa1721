"""What this host's kernel says of the processes that run an instance: the same probes for a bare process, a container
and a virtual machine monitor, in words without what differs from one launch to the next."""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.features import Role
from lab.host import capabilities
from lab.host.procfs import read_fields, read_link
from scenarios.surface.inside import NAMESPACES, NOT_TOLD, no_new_privileges, profile, seccomp
from scenarios.surface.names import collapsed

REFUSED = "not readable without root"

_ROOT = Path("/")
_IDS = re.compile(r"\bt?\d{8}-\d{6}-[0-9a-f]{4}\b|[-_.]?\b[0-9a-f]{8,}(-[0-9a-f]{4,})*\b")
_FAMILIES = ("tcp", "tcp6", "udp", "udp6", "unix", "netlink", "packet", "raw", "raw6")
_LOGS = "/dev/pts/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One process: what was read of it by what it is about, REFUSED where that takes root. `program` is its file's
    name; `files` are what it holds open, by kind: `devices`, `files`, `sockets`, `other`."""

    role: Role
    status: Mapping[str, str]
    program: str
    profile: str
    shared: str
    root: str
    cgroups: str
    files: Mapping[str, str]
    open_count: int | None


def carrier(pids: Mapping[int, Role]) -> Role:
    """The role of those that run the workload's own code, or the kernel below it: the VMM where there is one."""
    return Role.VMM if Role.VMM in pids.values() else Role.SERVICE


def look(pids: Mapping[int, Role], root: Path = _ROOT) -> list[Seen]:
    """What can be read of those of `pids` that are there still."""
    own = root / "proc/self"
    return [
        seen for pid, role in pids.items() if (seen := _look(root / "proc" / str(pid), role, own, root)) is not None
    ]


def facts(seen: Iterable[Seen], of: Role) -> Mapping[str, str]:
    """What was found, in words: of those that have the role `of` together, and of each other role in a line."""
    processes = list(seen)
    mine = [one for one in processes if one.role is of]
    said = {"host processes": ", ".join(sorted({str(one.role) for one in processes})) or "none"}
    for probe, words in _PROBES.items():
        said[f"its process: {probe}"] = _joined(words(one) for one in mine)
    for role in (Role.SHIM, Role.PROXY, Role.HELPER):
        if others := [one for one in processes if one.role is role and role is not of]:
            said[f"{role}: rights"] = _joined(_rights(one) for one in others)
    return said


def plain(path: str) -> str:
    """A path or name without the ids of a run, launch or build."""
    return _IDS.sub("*", path)


def _look(process: Path, role: Role, own: Path, root: Path) -> Seen | None:
    status = read_fields(process / "status")
    if not status or status.get("State", "").startswith(("Z", "X")):
        return None
    try:
        files, count = _open_files(process)
    except PermissionError:
        files, count = dict.fromkeys(("devices", "files", "sockets", "other"), REFUSED), None
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Seen(
        role=role,
        status=status,
        program=_read(lambda: plain((process / "exe").readlink().name)),
        # Where there is no security module, EINVAL.
        profile=_read(lambda: plain(profile((process / "attr/current").read_text())), "none"),
        shared=_read(lambda: _shared(process, own)),
        root=_read(lambda: "the host's" if (process / "root").stat()[1:3] == root.stat()[1:3] else "its own"),
        cgroups=_read(lambda: _cgroups(process, own)),
        files=files,
        open_count=count,
    )


def _read(what: Callable[[], str], otherwise: str = NOT_TOLD) -> str:
    """`otherwise` is for what is not there: the process may just have ended."""
    try:
        return what()
    except PermissionError:
        return REFUSED
    except OSError:
        return otherwise


def _shared(process: Path, own: Path) -> str:
    ours = {kind: link for kind in NAMESPACES if (link := read_link(own / "ns" / kind))}
    shared = [kind for kind, link in ours.items() if str((process / "ns" / kind).readlink()) == link]
    return "all" if len(shared) == len(ours) else ", ".join(shared) or "none"


def _cgroups(process: Path, own: Path) -> str:
    """The controllers for which it is in another group than the lab is; of version 2 there is one for all."""
    mine = _groups(own)
    others = {name for name, path in _groups(process).items() if path != mine.get(name)}
    return ", ".join(sorted(others)) or "none"


def _groups(process: Path) -> dict[str, str]:
    lines = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
    return {
        controller.removeprefix("name=") or "version 2": path
        for _, names, path in lines
        for controller in names.split(",")
    }


def _open_files(process: Path) -> tuple[dict[str, str], int]:
    """What its descriptors are of, by kind, and how many there are. Source: proc_pid_fd(5)."""
    targets = []
    for descriptor in (process / "fd").iterdir():
        try:
            targets.append(str(descriptor.readlink()))
        except (FileNotFoundError, ProcessLookupError):
            continue  # closed just now
    sockets = {target[8:-1] for target in targets if target.startswith("socket:[")}
    rest = [target for target in targets if not target.startswith("socket:[")]
    devices = {target for target in rest if target.startswith("/dev/")}
    paths = {target for target in rest if target.startswith("/")} - devices
    other = {target.partition(":")[2].strip("[]") if ":" in target else target for target in rest if target[:1] != "/"}
    other = {"pipe" if name.isdigit() else name for name in other}
    return {
        "devices": collapsed(f"pts/{name[9:]}" if name.startswith(_LOGS) else name[5:] for name in devices),
        "files": ", ".join(sorted({plain(path.removesuffix(" (deleted)")) for path in paths})) or "none",
        "sockets": ", ".join(sorted(_families(process, sockets))) or "none",
        "other": ", ".join(sorted(other)) or "none",
    }, len(targets)


def _families(process: Path, inodes: set[str]) -> set[str]:
    """Of which kinds the sockets are, by the lists of the process's own network namespace. One that is bound to
    nothing, or that its peer has just closed, is in none of them, and is told only where there is no other."""
    found, left = set(), set(inodes)
    for family in _FAMILIES:
        try:
            lines = (process / "net" / family).read_text().splitlines()[1:]
        except OSError:
            continue  # a kernel without it
        mine = left & {word for line in lines for word in line.split()}
        if mine:
            found.add(family)
            left -= mine
    return found or ({"unlisted"} if left else set())


def _user(one: Seen) -> str:
    ids = one.status.get("Uid", "").split()
    return " and ".join(_name(int(uid)) for uid in dict.fromkeys(ids)) or NOT_TOLD


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def _rights(one: Seen) -> str:
    held = capabilities.said(one.status.get("CapEff", ""))
    return f"{_user(one)}, capabilities {held}, seccomp {seccomp(one.status)}, namespaces shared {one.shared}"


def _joined(said: Iterable[str]) -> str:
    return "; ".join(sorted(set(said))) or "none"


_PROBES: Mapping[str, Callable[[Seen], str]] = {
    "program": lambda one: one.program,
    "user": _user,
    "capabilities": lambda one: capabilities.said(one.status.get("CapEff", "")),
    "seccomp": lambda one: seccomp(one.status),
    "no new privileges": lambda one: no_new_privileges(one.status),
    "security module": lambda one: one.profile,
    "namespaces shared": lambda one: one.shared,
    "root": lambda one: one.root,
    "cgroups of its own": lambda one: one.cgroups,
    "open devices": lambda one: one.files["devices"],
    "open files": lambda one: one.files["files"],
    "open sockets": lambda one: one.files["sockets"],
    "open others": lambda one: one.files["other"],
}
