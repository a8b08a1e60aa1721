"""Control groups, versions 1 and 2 (cgroups(7)): finding, making, limiting, reading and removing them.

The lab's own lie in a directory `stratalab` at the top of each hierarchy that has a controller the lab needs: for
root the hierarchy's root, where container engines make theirs; for others the topmost cgroup delegated to them. On a
systemd host that is outside systemd's own subtrees: it leaves cgroups alone that it did not make, and it cannot turn
off a controller that a child has passed on. A cgroup's name carries its labels, so that the kernel knows its owner
from the call on that makes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from lab.errors import CleanupError

FOLDER = "stratalab"
CONTROLLERS = ("memory", "cpu", "pids")
PERIOD_US = 100_000
"""The kernel's default period of a CPU limit, which container engines use as well."""

_NAME_MAX = 255
_FIRST_LABELS = ("lab.run", "lab.owner", "lab.launch", "lab.scenario", "lab.target")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
_NO_LIMIT_BYTES = (2**63 - 1) // _PAGE_BYTES * _PAGE_BYTES  # what version 1 shows for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one cgroup; None is none. `swap_bytes` is what may be swapped, beside `memory_bytes`."""

    memory_bytes: int | None = None
    swap_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory of a hierarchy of `version`, and which of the lab's controllers limit there."""

    path: Path
    version: int
    controllers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Places:
    """Where this process may make cgroups, and for each limit ('memory', 'swap', 'cpus', 'pids') how it is set: as
    'cgroup v2', or 'not set: ' and the reason."""

    directories: tuple[Directory, ...]
    limits: Mapping[str, str]

    def can_set(self, limit: str) -> bool:
        """Whether `limit` can be set here."""
        return not self.limits[limit].startswith("not set")


@dataclass(frozen=True, slots=True)
class Group:
    """One cgroup: its directory in each hierarchy, under one name."""

    name: str
    directories: tuple[Directory, ...]
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrances(self) -> list[Path]:
        """The files that a process writes '0' to in order to enter."""
        return [directory.path / "cgroup.procs" for directory in self.directories]

    def pids(self) -> set[int]:
        """The processes in it and in cgroups below it."""
        found: set[int] = set()
        for directory in self.directories:
            for path in _tree(directory.path):
                procs = path / "cgroup.procs"
                with contextlib.suppress(FileNotFoundError, OSError):  # removed since it was listed (ENODEV or ENOENT)
                    found.update(int(pid) for pid in procs.read_text().split())
        return found

    def limits(self) -> Limits:
        """The limits as the kernel has them now."""
        memory = self._with("memory")
        cpu = self._with("cpu")
        pids = self._with("pids")
        memory_bytes, swap_bytes = _read_memory(memory) if memory else (None, None)
        return Limits(
            memory_bytes=memory_bytes,
            swap_bytes=swap_bytes,
            cpus=_read_cpus(cpu) if cpu else None,
            pids=_read_number(pids.path / "pids.max") if pids else None,
        )

    def exists(self) -> bool:
        """Whether any of its directories is there."""
        return any(directory.path.exists() for directory in self.directories)

    def remove(self, *, timeout_s: float = 10.0) -> None:
        """Remove it, and the lab's folder with the last of its cgroups. Raises CleanupError while it is occupied:
        the kernel refuses for a moment after its last process has ended, so this tries until `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        for directory in self.directories:
            for path in sorted(_tree(directory.path), reverse=True):
                _remove(path, deadline)
            with contextlib.suppress(OSError):  # another cgroup of the lab's is in it, or it is gone
                if directory.path.parent.name == FOLDER:
                    directory.path.parent.rmdir()

    def _with(self, controller: str) -> Directory | None:
        return next((found for found in self.directories if controller in found.controllers), None)


def name_of(labels: Mapping[str, str]) -> str:
    """A file name that holds `labels`, the lab's first, as many as 255 bytes have room for (see `labels_of`)."""
    keys = [key for key in _FIRST_LABELS if key in labels]
    pairs: list[tuple[str, str]] = []
    for key in [*keys, *sorted(set(labels) - set(keys))]:
        if not key.startswith("lab."):
            continue
        more = [*pairs, (key.removeprefix("lab."), labels[key])]
        if len(urlencode(more, quote_via=quote, safe="")) <= _NAME_MAX:
            pairs = more
    return urlencode(pairs, quote_via=quote, safe="")


def labels_of(name: str) -> dict[str, str]:
    """The labels that `name` holds; empty for a name that the lab did not give."""
    return {f"lab.{key}": value for key, value in parse_qsl(name)}


def places(mountinfo: Path = Path("/proc/self/mountinfo"), own: Path = Path("/proc/self/cgroup")) -> Places:
    """Where this process may make cgroups; `mountinfo` and `own` are for tests."""
    directories: list[Directory] = []
    limits = {"memory": "", "swap": "", "cpu": "", "pids": ""}
    reasons = dict.fromkeys(CONTROLLERS, "not set: this kernel offers no such cgroup controller")
    for hierarchy in hierarchies(mountinfo):
        if not hierarchy.controllers:
            continue
        base = _topmost_writable(hierarchy, own)
        if base is None:
            refused = f"not set: no cgroup (version {hierarchy.version}) is delegated to user {os.getuid()}"
            reasons.update(dict.fromkeys(hierarchy.controllers, refused))
            continue
        usable = hierarchy.controllers if hierarchy.version == 1 else _passable(base, reasons)
        directories.append(Directory(base, hierarchy.version, frozenset(usable)))
        limits.update(dict.fromkeys(usable, f"cgroup v{hierarchy.version}"))
        if "memory" in usable:
            limits["swap"] = _swap(base, hierarchy.version)
    told = {key: how or reasons.get(key, reasons["memory"]) for key, how in limits.items()}
    return Places(tuple(directories), {"cpus" if key == "cpu" else key: how for key, how in told.items()})


def make(where: Places, labels: Mapping[str, str], limits: Limits) -> Group:
    """Make a cgroup that bears `labels`, with those of `limits` that `where` says can be set. Raises OSError, after
    removing what it had made."""
    name = name_of(labels)
    made = tuple(Directory(base.path / FOLDER / name, base.version, base.controllers) for base in where.directories)
    group = Group(name, made, dict(labels))
    try:
        for base, directory in zip(where.directories, made, strict=True):
            _make_directory(base, directory.path)
            _set(directory, limits, swap=where.can_set("swap"))
    except BaseException:
        group.remove()
        raise
    return group


def groups(where: Places) -> Sequence[Group]:
    """The lab's cgroups that are there now, each with the labels that its name holds."""
    found: dict[str, list[Directory]] = {}
    for base in where.directories:
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((base.path / FOLDER).iterdir()):
                if path.is_dir() and "lab.run" in labels_of(path.name):
                    found.setdefault(path.name, []).append(Directory(path, base.version, base.controllers))
    return [Group(name, tuple(directories), labels_of(name)) for name, directories in found.items()]


def of_process(pid: int, proc: Path = Path("/proc")) -> Group:
    """The cgroup that `pid` is in, in each hierarchy with one of the lab's controllers; `proc` is for tests. Raises
    FileNotFoundError."""
    table = proc / str(pid) / "cgroup"
    found = tuple(
        Directory(path, hierarchy.version, hierarchy.controllers)
        for hierarchy in hierarchies(proc / "self/mountinfo")
        if hierarchy.controllers and (path := hierarchy.locate(table)) is not None
    )
    return Group(str(found[0].path) if found else "", found)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy and the lab's controllers in it; the mount shows what lies below `root`."""

    mount: Path
    root: str
    version: int
    controllers: frozenset[str]

    def locate(self, table: Path) -> Path | None:
        """The directory that `table`, a /proc/PID/cgroup, names in this hierarchy; None when the mount hides it."""
        for line in table.read_text().splitlines():
            number, names, path = line.split(":", 2)
            if (self.version == 2 and number == "0") or self.controllers & set(names.split(",")):
                below = os.path.relpath(path, self.root)
                return None if below.startswith("..") else self.mount / below
        return None


def hierarchies(mountinfo: Path = Path("/proc/self/mountinfo")) -> Sequence[Hierarchy]:
    """The mounted cgroup hierarchies (proc_pid_mountinfo(5)), the first mount of each."""
    found: dict[frozenset[str], Hierarchy] = {}
    for mount, root, version, offered in _mounted(mountinfo):
        controllers = frozenset(CONTROLLERS) & offered
        found.setdefault(controllers, Hierarchy(mount, root, version, controllers))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Freezer:
    """What holds still all processes of a cgroup at once (cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst)."""

    path: Path
    version: int

    def frozen(self) -> bool:
        """Whether every process in it is held still, by its own word or by that of a cgroup above it."""
        name, told = ("freezer.state", "FROZEN") if self.version == 1 else ("cgroup.events", "frozen 1")
        with contextlib.suppress(OSError):  # it has gone with its last process, or is a root, which has no such file
            return told in (self.path / name).read_text().splitlines()
        return False

    def thaw(self) -> None:
        """Let them go on; nothing happens where they do, or are gone. Raises PermissionError."""
        name, word = ("freezer.state", "THAWED") if self.version == 1 else ("cgroup.freeze", "0")
        with contextlib.suppress(FileNotFoundError):
            (self.path / name).write_text(word)


def freezers_of(pid: int, proc: Path = Path("/proc")) -> Sequence[Freezer]:
    """The freezers of the cgroups that `pid` is in: on hosts with both versions it may be held by either. Empty where
    it is gone; `proc` is for tests."""
    found = []
    for mount, root, version, offered in _mounted(proc / "self/mountinfo"):
        if version == 2 or "freezer" in offered:
            hierarchy = Hierarchy(mount, root, version, frozenset({"freezer"}))
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if (path := hierarchy.locate(proc / str(pid) / "cgroup")) is not None:
                    found.append(Freezer(path, version))
    return found


def offers(controller: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether any mounted hierarchy has `controller`, the lab's or another, such as 'cpuset'."""
    return any(controller in offered for _, _, _, offered in _mounted(mountinfo))


def _mounted(mountinfo: Path) -> Iterator[tuple[Path, str, int, set[str]]]:
    """Each mount of a hierarchy: where, what it shows of it, its version, and all controllers that it offers."""
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, mount = (_unescape(text) for text in left.split()[3:5])
            v2 = kind == "cgroup2"
            offered = _words(Path(mount) / "cgroup.controllers") if v2 else set(options.split(" ")[-1].split(","))
            yield Path(mount), root, 2 if v2 else 1, offered


def _topmost_writable(hierarchy: Hierarchy, own: Path) -> Path | None:
    """The topmost cgroup above this process in which it may make others: all above a delegated one are root's."""
    here = hierarchy.locate(own)
    if here is None:
        return None
    chain = [path for path in [*reversed(here.parents), here] if path.is_relative_to(hierarchy.mount)]
    return next((path for path in chain if _writable(path)), None)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK | os.X_OK) and os.access(path / "cgroup.procs", os.W_OK)


def _passable(base: Path, reasons: dict[str, str]) -> frozenset[str]:
    """Which controllers `base` (version 2) passes on to its children, or will when asked; tells why not the rest."""
    offered, passed = _words(base / "cgroup.controllers"), _words(base / "cgroup.subtree_control")
    # Only the real root, which has no type, may have both processes and children with controllers.
    may_enable = os.access(base / "cgroup.subtree_control", os.W_OK) and (
        not (base / "cgroup.type").exists() or not (base / "cgroup.procs").read_text().strip()
    )
    usable = passed | offered if may_enable else passed
    for name in frozenset(CONTROLLERS) - usable:
        reasons[name] = f"not set: the cgroup {base} does not pass on the controller '{name}'"
    return frozenset(CONTROLLERS) & usable


def _swap(base: Path, version: int) -> str:
    name = "memory.memsw.limit_in_bytes" if version == 1 else "memory.swap.max"
    if (base / name).exists() or any(base.glob(f"*/{name}")):
        return f"cgroup v{version}"
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        return "no swap on this host"
    return "not set: this kernel does not account swap by cgroup"


def _make_directory(base: Directory, path: Path) -> None:
    for attempt in range(3):
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o755)
        try:
            if base.version == 2:
                for parent in (base.path, path.parent):
                    _pass_on(parent, base.controllers)
            path.mkdir(mode=0o755)
        except FileNotFoundError:  # the folder went with another cgroup that was its last
            if attempt == 2:
                raise
        else:
            return


def _pass_on(parent: Path, controllers: frozenset[str]) -> None:
    missing = sorted(controllers - _words(parent / "cgroup.subtree_control"))
    if missing:
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))


def _set(directory: Directory, limits: Limits, *, swap: bool) -> None:
    path, v1 = directory.path, directory.version == 1
    if "memory" in directory.controllers and limits.memory_bytes is not None:
        (path / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(limits.memory_bytes))
        swap_file = path / ("memory.memsw.limit_in_bytes" if v1 else "memory.swap.max")
        if swap and limits.swap_bytes is not None and swap_file.exists():
            swap_file.write_text(str(limits.swap_bytes + (limits.memory_bytes if v1 else 0)))
    if "cpu" in directory.controllers and limits.cpus is not None:
        quota_us = round(limits.cpus * PERIOD_US)
        if v1:
            (path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (path / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (path / "cpu.max").write_text(f"{quota_us} {PERIOD_US}")
    if "pids" in directory.controllers and limits.pids is not None:
        (path / "pids.max").write_text(str(limits.pids))


def _read_memory(directory: Directory) -> tuple[int | None, int | None]:
    if directory.version == 2:
        return _read_number(directory.path / "memory.max"), _read_number(directory.path / "memory.swap.max")
    memory = _read_number(directory.path / "memory.limit_in_bytes")
    both = _read_number(directory.path / "memory.memsw.limit_in_bytes")
    return memory, None if both is None or memory is None else both - memory


def _read_cpus(directory: Directory) -> float | None:
    try:
        if directory.version == 2:
            quota, period = (directory.path / "cpu.max").read_text().split()
        else:
            quota = (directory.path / "cpu.cfs_quota_us").read_text().strip()
            period = (directory.path / "cpu.cfs_period_us").read_text()
    except FileNotFoundError:  # a root, or a cgroup to which the controller is not passed on
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _read_number(path: Path) -> int | None:
    """The number in `path`; None for no limit, or where this cgroup has no such file."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return None if text == "max" or int(text) >= _NO_LIMIT_BYTES else int(text)


def _tree(top: Path) -> list[Path]:
    """`top` and the cgroups below it, of which any may go meanwhile: an engine removes its own as it ends."""
    return [Path(path) for path, _, _ in os.walk(top)]


def _remove(path: Path, deadline: float) -> None:
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise CleanupError(
                    f"the cgroup {path} cannot be removed: {error.strerror}", resolution=f"rmdir '{path}'"
                ) from error
            time.sleep(0.005)
        else:
            return


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except FileNotFoundError:
        return set()


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
