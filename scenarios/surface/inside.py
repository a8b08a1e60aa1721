"""What the workload shares with its host and can touch, as it was seen from inside: asked of the lab's own service,
and put into words that are equal where what they tell of is. No pids, addresses or ids of one launch are in them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.host import capabilities
from lab.host.facts import boot_id
from lab.host.procfs import read_link
from lab.launch.kernels import is_this_hosts
from lab.launch.session import Session
from lab.service import ask
from scenarios.surface.names import collapsed, listed

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
"""The kinds of namespaces there are; namespaces(7)."""

NOT_TOLD = "not told"

_GROUPS = ("self", "places", "paths", "kernel")
_TIMEOUT_S = 45.0  # beyond the service's own deadline for a group
_FEW_PATHS = 12
_PROFILE = re.compile(r"[^:]+:[^:]+:([^:]+):.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What this host is to its own processes: what is found inside is compared with it."""

    boot_id: str
    release: str
    hostname: str
    namespaces: Mapping[str, str]

    @classmethod
    def here(cls) -> Host:
        """This host, by the lab's own process; with the kinds of namespaces that its kernel has."""
        links = {kind: read_link(Path("/proc/self/ns") / kind) for kind in NAMESPACES}
        there = {kind: link for kind, link in links.items() if link}
        return cls(boot_id=boot_id(), release=os.uname().release, hostname=os.uname().nodename, namespaces=there)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What the probes found, by their names: an object each, or a word for why there is none (`timed out`).

    `dropped` says that they looked without privileges, since the workload shares every namespace of `host`; `seen` that
    the host sees the very process that told, which so has no kernel of its own, whatever boot id it is shown.
    """

    found: Mapping[str, Mapping[str, Any] | str]
    host: Host
    dropped: bool
    seen: bool = False

    @property
    def own_kernel(self) -> bool:
        """Whether the kernel inside is another than the host's: another boot, or where it does not tell, release."""
        if self.seen:
            return False
        kernel = self.found.get("kernel", {})
        told = kernel if isinstance(kernel, Mapping) else {}
        if told.get("boot_id"):
            return bool(told["boot_id"] != self.host.boot_id)
        return bool(told) and told.get("release") != self.host.release

    def shared(self) -> list[str] | None:
        """The kinds of namespaces that are the host's; None where one cannot be told."""
        told = self.found.get("namespaces", {})
        if self.own_kernel:
            return []  # the first ones of every kernel have the same numbers
        if not isinstance(told, Mapping) or not all(told.get(kind) for kind in self.host.namespaces):
            return None
        return [kind for kind, link in self.host.namespaces.items() if told[kind] == link]


def look(session: Session, host: Host) -> Inside:
    """Ask the service of `session` for all that it can see; without privileges where it shares every namespace of the
    host, whose whole surface root would have. Raises Unsupported, DriverError."""
    first = look_at_itself(session, host)
    dropped = first.shared() == list(host.namespaces)
    groups = [_asked(session, group, "&drop=1" if dropped else "") for group in _GROUPS]
    found = {name: told for group in groups for name, told in group.items()}
    return Inside(found=found, host=host, dropped=dropped, seen=first.seen)


def look_at_itself(session: Session, host: Host) -> Inside:
    """Ask the service of `session` for what it is alone: its kernel and its namespaces among it. Raises as `look`."""
    found = _asked(session, "self", "")
    spaces = found.get("namespaces", {})
    told = {"pid_namespace": spaces.get("pid", "") if isinstance(spaces, Mapping) else ""}
    return Inside(found=found, host=host, dropped=False, seen=is_this_hosts(told, session.instance))


def facts(inside: Inside) -> Mapping[str, str]:
    """What each probe found, in words."""
    said = {}
    for probe, (source, words) in _PROBES.items():
        told = inside.found.get(source, NOT_TOLD)
        said[probe] = told if isinstance(told, str) else words(inside, told)
    return said


def counts(inside: Inside) -> Mapping[str, int | str]:
    """The counted figures by metric; a text where there is none, which says why."""
    counted: dict[str, int | str] = {}
    for metric, source, count in _COUNTS:
        told = inside.found.get(source, NOT_TOLD)
        found = told if isinstance(told, str) else count(inside, told)
        before = counted.get(metric, 0)
        # Of what has two parts, both; where one of them could not be counted, its reason.
        counted[metric] = before if isinstance(before, str) else found if isinstance(found, str) else before + found
    return counted


def error_name(number: int) -> str:
    """`refused (EPERM)`, or `not there`."""
    if number == errno.ENOENT:
        return "not there"
    return f"refused ({errno.errorcode.get(number, str(number))})"


def _asked(session: Session, group: str, more: str) -> Mapping[str, Any]:
    return ask.get(session, f"/surface/facts?group={group}{more}", timeout_s=_TIMEOUT_S)


def _boot(inside: Inside, told: Mapping[str, Any]) -> str:
    if not told.get("boot_id"):
        return NOT_TOLD
    return "the host's" if told["boot_id"] == inside.host.boot_id else "its own"


def _generation(_: Inside, told: Mapping[str, Any]) -> str:
    """By a virtual machine generation ID: without it, two copies of one saved machine draw the same random numbers."""
    if "generation_driver" not in told:
        return NOT_TOLD
    if told["generation_device"]:
        return "yes: its machine has a generation id"
    return f"no: its {'machine has no' if told['generation_driver'] else 'kernel knows of no'} generation id"


def _hostname(inside: Inside, told: Mapping[str, Any]) -> str:
    return "the host's" if told["hostname"] == inside.host.hostname else "its own"


def _shared(inside: Inside, _: Mapping[str, Any]) -> str:
    shared = inside.shared()
    if shared is None:
        return NOT_TOLD
    if inside.own_kernel:
        return "none: its kernel is its own"
    return "all" if shared == list(inside.host.namespaces) else listed(shared)


def _for_children(_: Inside, told: Mapping[str, Any]) -> str:
    kinds = [kind for kind in ("pid", "time") if told.get(f"{kind}_for_children")]
    other = [kind for kind in kinds if told[f"{kind}_for_children"] != told.get(kind)]
    return f"others: {listed(other)}" if other else "as its own" if kinds else NOT_TOLD


def _of_first(inside: Inside, told: Mapping[str, Any]) -> str:
    seen = {kind: told[kind] for kind in NAMESPACES if told.get(kind)}
    if not seen:
        return "not readable"
    own = inside.found.get("namespaces", {})
    same = isinstance(own, Mapping) and all(own.get(kind) == link for kind, link in seen.items())
    return "readable, and the same as its own" if same else "readable, and others than its own"


def _processes(inside: Inside, told: Mapping[str, Any]) -> str:
    if inside.own_kernel:
        whose = "those of its own kernel"
    elif "pid" in (inside.shared() or []):
        whose = "the host's"
    elif inside.shared() is None:
        return NOT_TOLD
    else:
        whose = "those of its pid namespace only"
    return f"{whose}, kernel threads too" if told["kernel_threads"] else whose


def _ids(_: Inside, told: Mapping[str, Any]) -> str:
    each = {name: told.get(key, "").split() for name, key in (("uid", "Uid"), ("gid", "Gid"))}
    said = [f"{name} {' '.join(dict.fromkeys(ids)) or NOT_TOLD}" for name, ids in each.items()]
    return f"{', '.join(said)}, groups {' '.join(told.get('Groups', '').split()) or 'none'}"


def _id_map(inside: Inside, told: Mapping[str, Any]) -> str:
    lines = [line.split() for line in told["uid"].splitlines()]
    if lines == [["0", "0", "4294967295"]]:
        return f"none: uid 0 is {'its own kernel' if inside.own_kernel else 'the host'}'s root"
    return "; ".join(f"{line[0]} is {line[1]} outside ({line[2]} ids)" for line in lines if len(line) == 3) or NOT_TOLD


def _capabilities(key: str) -> Callable[[Inside, Mapping[str, Any]], str]:
    return lambda _, told: capabilities.said(told.get(key, ""))


def seccomp(status: Mapping[str, str]) -> str:
    """Mode and number of filters, of the fields of a /proc/PID/status."""
    mode, filters = status.get("Seccomp", ""), status.get("Seccomp_filters", "")
    words = {"0": "none", "1": "strict", "2": f"a filter ({filters} of them)" if filters else "a filter"}
    return words.get(mode, NOT_TOLD)


def no_new_privileges(status: Mapping[str, str]) -> str:
    """Whether it is barred from gaining privileges by running a program, of the fields of a /proc/PID/status."""
    return {"0": "no", "1": "yes"}.get(status.get("NoNewPrivs", ""), NOT_TOLD)


def profile(label: str) -> str:
    """A security module's label without what differs from one launch to the next: of SELinux's, the type alone."""
    label = label.strip("\0\n ")
    selinux = _PROFILE.fullmatch(label)
    return f"SELinux type {selinux[1]}" if selinux else label or "none"


def _security_module(_: Inside, told: Mapping[str, Any]) -> str:
    return profile(told.get("apparmor") or told.get("current") or "")


def _devices(may: str = "", kind: str = "") -> Callable[[Inside, Mapping[str, Any]], str]:
    def words(_: Inside, told: Mapping[str, Any]) -> str:
        if not told["readable"]:
            return "no /dev"
        of_kind = [one for one in told["listed"] if one[1].startswith(kind)]
        allowed = [one for one in of_kind if may in one[2]]
        if may and of_kind and allowed == of_kind:
            return "all of them"
        return collapsed(one[0] for one in allowed) + _and_more(told)

    return words


def _and_more(told: Mapping[str, Any]) -> str:
    """Where the answer had no room for all."""
    return ", and more" if told["seen"] > len(told["listed"]) else ""


def _root_mount(_: Inside, told: Mapping[str, Any]) -> str:
    roots = [mount for mount in told["listed"] if mount[0] == "/"]
    return ", ".join(roots[-1][1:]) if roots else NOT_TOLD  # the last one lies on top


def _mount_column(column: int) -> Callable[[Inside, Mapping[str, Any]], str]:
    return lambda _, told: listed({mount[column] for mount in told["listed"]}) + _and_more(told)


def _covered(_: Inside, told: Mapping[str, Any]) -> str:
    points = {
        point
        for point, kind, access, _ in told["listed"]
        if point.startswith(("/proc", "/sys")) and (access == "ro" or (kind in _COVERS and point.startswith("/proc")))
    }
    return listed(point for point in points if not point.startswith("/sys/fs/cgroup/")) + _and_more(told)


def _reach(may: str, paths: Sequence[str] = ()) -> Callable[[Inside, Mapping[str, Any]], str]:
    def words(_: Inside, told: Mapping[str, Any]) -> str:
        of = paths or sorted(told)
        if may == "hidden":
            return listed(path for path in of if told.get(path) == may)
        return listed(path for path in of if may in told.get(path, "") and told[path] not in ("hidden", "absent"))

    return words


def _writable(_: Inside, told: Mapping[str, Any]) -> str:
    if told["writable"] > _FEW_PATHS:
        return f"more than {_FEW_PATHS}"
    return listed(told["named"]) + (" in what could be walked" if told["bounded"] else "")


def _kallsyms(_: Inside, told: Mapping[str, Any]) -> str:
    if told["read"]:
        return error_name(told["read"])
    return "readable" if told["addresses"] else "names only: all addresses are zero" if told["bytes"] else "empty"


def _tried(key: str, done: str) -> Callable[[Inside, Mapping[str, Any]], str]:
    return lambda _, told: error_name(told[key]) if told[key] else done


def _user_namespace(_: Inside, told: Mapping[str, Any]) -> str:
    if told["unshare"]:
        return error_name(told["unshare"])
    return f"it may make one, and use of it is {error_name(told['use'])}" if told["use"] else "it may make and use one"


def _kcore(_: Inside, told: Mapping[str, Any]) -> str:
    if told["read"]:
        return error_name(told["read"])
    return "readable" if told["bytes"] else "hidden"


def _setting(key: str) -> Callable[[Inside, Mapping[str, Any]], str]:
    return lambda _, told: told.get(key) or "not there"


def _user_namespaces_at_most(_: Inside, told: Mapping[str, Any]) -> str:
    number = told.get("user/max_user_namespaces")
    return ("0" if number == "0" else "more than 0") if number else "not there"


def _cgroup_place(inside: Inside, told: Mapping[str, Any]) -> str:
    paths = {line.split(":", 2)[2] for line in told["path"].splitlines() if line.count(":") >= 2}
    if not paths:
        return "in none"
    whose = "its own kernel's" if inside.own_kernel else "the host's"
    return "the root of what it sees" if paths == {"/"} else f"its path in {whose} tree is seen"


def _cgroup_files(_: Inside, told: Mapping[str, Any]) -> str:
    return ("writable" if told["writable"] else "not writable") if told["mounted"] else "not mounted"


_COVERS = ("tmpfs", "devtmpfs")
"""An empty directory, or a null device: the container's own, or, where it may make none, the host's."""

_SECRETS = (
    *("/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/kpageflags", "/proc/modules", "/proc/slabinfo"),
    *("/proc/timer_list", "/proc/vmallocinfo", "/sys/kernel/vmcoreinfo"),
)
"""Of the declared files, those whose content tells of the kernel or of others on it."""

_SETTINGS = (
    *("perf_event_paranoid", "unprivileged_bpf_disabled", "kptr_restrict", "dmesg_restrict", "modules_disabled"),
    *("unprivileged_userns_clone", "apparmor_restrict_unprivileged_userns", "yama/ptrace_scope"),
)

_Words = Callable[[Inside, Mapping[str, Any]], str]
_PROBES: Mapping[str, tuple[str, _Words]] = {
    "kernel: boot id": ("kernel", _boot),
    "kernel: release": ("kernel", lambda _, told: str(told["release"])),
    "kernel: machine": ("kernel", lambda _, told: told.get("machine") or NOT_TOLD),
    "kernel: /proc/version": ("kernel", lambda _, told: told.get("version", "").strip() or NOT_TOLD),
    "kernel: learns that it was copied": ("kernel", _generation),
    "host name": ("kernel", _hostname),
    "namespaces: shared with the host": ("namespaces", _shared),
    "namespaces: for its children": ("namespaces", _for_children),
    "namespaces: of process 1": ("namespaces_of_first", _of_first),
    "processes in sight": ("processes", _processes),
    "user: ids": ("status", _ids),
    "user: id map": ("id_maps", _id_map),
    "capabilities: effective": ("status", _capabilities("CapEff")),
    "capabilities: permitted": ("status", _capabilities("CapPrm")),
    "capabilities: inheritable": ("status", _capabilities("CapInh")),
    "capabilities: bounding": ("status", _capabilities("CapBnd")),
    "capabilities: ambient": ("status", _capabilities("CapAmb")),
    "seccomp": ("status", lambda _, told: seccomp(told)),
    "no new privileges": ("status", lambda _, told: no_new_privileges(told)),
    "security module": ("security_module", _security_module),
    "devices": ("devices", _devices()),
    "devices: it may read": ("devices", _devices("r")),
    "devices: it may write": ("devices", _devices("w")),
    "devices: of blocks": ("devices", _devices("", "b")),
    "mounts: root": ("mounts", _root_mount),
    "mounts: file systems": ("mounts", _mount_column(1)),
    "mounts: propagation": ("mounts", _mount_column(3)),
    "mounts: covering /proc and /sys": ("mounts", _covered),
    "kernel files: it may write": ("reach", _reach("w")),
    "kernel files: it may read": ("reach", _reach("r", _SECRETS)),
    "kernel files: hidden": ("reach", _reach("hidden")),
    "writable: in /proc": ("proc", _writable),
    "writable: in /sys": ("sys", _writable),
    "kernel addresses": ("kallsyms", _kallsyms),
    "kernel log: syslog(2)": ("kernel_log", _tried("syslog", "readable")),
    "kernel log: /dev/kmsg": ("kernel_log", _tried("kmsg", "opened")),
    "kernel memory": ("kcore", _kcore),
    **{f"settings: {name.rpartition('/')[2]}": ("settings", _setting(f"kernel/{name}")) for name in _SETTINGS},
    "settings: max_user_namespaces": ("settings", _user_namespaces_at_most),
    "user namespaces": ("user_namespace", _user_namespace),
    "bpf": ("bpf", _tried("map_create", "it may make a map")),
    "cgroup: place": ("cgroups", _cgroup_place),
    "cgroup: files": ("cgroups", _cgroup_files),
}


def _own(inside: Inside, _: Mapping[str, Any]) -> int | str:
    shared = inside.shared()
    return NOT_TOLD if shared is None else len(inside.host.namespaces) - len(shared)


def _effective(_: Inside, told: Mapping[str, Any]) -> int | str:
    return len(capabilities.names(told["CapEff"])) if told.get("CapEff") else NOT_TOLD


def _of_the_host(inside: Inside, told: Mapping[str, Any]) -> int | str:
    shared = inside.shared()
    return NOT_TOLD if shared is None else int(told["others"]) if "pid" in shared else 0


def _walked(_: Inside, told: Mapping[str, Any]) -> int | str:
    return f"at least {told['writable']}: not all could be walked" if told["bounded"] else int(told["writable"])


_COUNTS: Sequence[tuple[str, str, Callable[[Inside, Mapping[str, Any]], int | str]]] = (
    ("namespaces_own", "namespaces", _own),
    ("capabilities_effective", "status", _effective),
    ("devices_seen", "devices", lambda _, told: int(told["seen"])),
    ("mounts_seen", "mounts", lambda _, told: int(told["seen"])),
    ("host_processes_seen", "processes", _of_the_host),
    ("writable_paths", "proc", _walked),
    ("writable_paths", "sys", _walked),
)
