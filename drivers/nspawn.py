"""systemd-nspawn: a container from the same image, by the tool that comes with systemd and needs no daemon.

It is called with `--register=no --keep-unit`, which works where systemd is not process 1 as well, and leaves the
container in the cgroup that the lab made for it, with its limits; otherwise systemd-machined would be asked to make a
scope of its own. What isolates is the tool's own default: its namespaces, capabilities and filter of system calls.

| variant | network |
|---|---|
| | the host's, the tool's own default, for the lab's own service; another image has one of its own |
| `private` | one of its own (`--private-network`), reached through a relay of the lab's |
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drivers.barehost import boxed
from drivers.barehost.boxed import INSIDE, Boxed, Room, Rooms
from drivers.barehost.child import Child
from drivers.barehost.limited import empty_groups, make_group
from drivers.barehost.overlay import unmount
from drivers.barehost.relay import ADDRESS, Relay
from drivers.barehost.unpacked import Images, Unpacked
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverUnavailable, LaunchError
from lab.features import Feature
from lab.host import cgroup, programs
from lab.host.cgroup_memory import killed_in
from lab.host.rlimits import granted
from lab.image.process import NO_NAMES, RESOLV_CONF, hosts_file, surroundings
from lab.launch.ends import Ending
from lab.service.build import build_enter, build_inside
from lab.spec import Endpoint, Spec
from lab.store.place import remove_tree, require_exec
from lab.timeline import Phase, Source

ROOMS = Rooms(Path("/run/stratalab-nspawn"))
"""Where the containers' root file systems are mounted."""
PROGRAM = "systemd-nspawn"

_VARIANTS = {
    "": "a container by systemd-nspawn, in the host's network",
    "private": "a container by systemd-nspawn, in a network of its own",
}
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.COLD, Feature.ENGINE_PIDS}
    | {Feature.STORAGE, Feature.SLEEP, Feature.PINNING}
)
_ASK_S = 10.0
_PROVE_S = 30.0
_OWN = Path("/run/systemd/nspawn")
_VERSION = re.compile(r"systemd (\S+)")
_LEADER = re.compile(rb"^X_NSPAWN_LEADER_PID=(\d+)$", re.MULTILINE)
_LEAVES = 0xFDECAFFF
"""The capabilities that it leaves by default (nspawn.c of systemd 252, arg_caps_retain)."""
_NET_ADMIN = 1 << 12
"""Another, with a network of its own."""


class NspawnDriver:
    """systemd-nspawn, found in PATH; needs root."""

    name = "nspawn"
    apart = frozenset({"private"})

    def __init__(self, variant: str, context: Context) -> None:
        if variant not in _VARIANTS:
            raise BadInput(f"'nspawn' has no variant '{variant}'", resolution="write nspawn, or nspawn:private")
        self._private = variant == "private"
        self._context = context
        self._images = Images(context, "nspawn", places=("/usr",), programs=lambda: {INSIDE: self._programs[1]})
        self._rlimits = granted()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The tool's own default, and one with a network of its own."""
        return _VARIANTS

    def info(self) -> Info:
        """What the tool is, after it has made a container here. Raises DriverUnavailable with the reason."""
        if not _there():
            raise DriverUnavailable(
                f"there is no {PROGRAM} on this host", resolution="sudo apt-get install systemd-container"
            )
        require_exec(self._context.cache_dir)
        if os.geteuid() != 0:
            raise DriverUnavailable(f"{PROGRAM} needs root", resolution="run the lab with sudo")
        told = programs.run(
            [str(_there()[0]), "--version"], doing="tell its version", timeout_s=_ASK_S, error=DriverUnavailable
        ).stdout.decode(errors="replace")
        self._prove()
        version = _VERSION.search(told)
        own_network = "its own, through a relay"
        return Info(
            engine="systemd-nspawn",
            version=version[1] if version else told.split("\n")[0],
            isolation="namespaces (systemd-nspawn, no daemon)",
            features=_FEATURES | (set() if self._private else {Feature.PEERS}),
            facts={
                "isolates": "namespaces of mounts, processes, IPC, host name and cgroups, and no user namespace",
                "network": own_network
                if self._private
                else f"the host's for the lab's own service; else {own_network}",
                "capabilities_more": boxed.more_capabilities(_LEAVES | (_NET_ADMIN if self._private else 0)),
                "registered": "no: systemd-machined and systemd are not asked (--register=no --keep-unit)",
                "boot id": "a random one of each container's own, though the kernel is the host's",
                "exec": "by the lab, with the service's user and capabilities, and without the filter of system calls",
                "mandatory_access_control": "no profile",
                "storage": "overlay over one copy of the image's files for each run",
                "limits": dict(self._places.limits),
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="the tool's own list of allowed calls",
                    names=NO_NAMES,
                ),
            },
            qualifiers={"network": "own network" if self._private else "host network"},
        )

    def prepare(self, spec: Spec) -> None:
        """Unpack the image's files once for the run. Raises Unsupported, BadInput, DriverError."""
        self._images.of(spec)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Mount its root, and start it; return once the tool has said that it runs. Raises LaunchError."""
        if endpoint is None:
            raise LaunchError("a container needs an endpoint on this host to answer at")
        image = self._images.of(spec)
        own_network = self._private or not spec.builtin
        scratch = self._images.folder() / _machine(spec.labels)
        room = ROOMS.make(spec, endpoint, files=image.files, scratch=scratch, stop_signal=image.process.stop_signal)
        try:
            group = make_group(spec, self._places)
        except BaseException:
            room.remove()
            raise
        return self._start(_Made(spec, endpoint, image, room, group), mark, own_network=own_network)

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those that have a room, in whatever state."""
        groups = {group.name: group for group in cgroup.groups(self._places)}
        none = cgroup.Group("", ())
        return [
            self._instance(room, groups.get(room.folder.name, none))
            for room in ROOMS.all()
            if bears(room.record.labels, labels)
        ]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups that no room tells of, and in which no process is."""
        known = {room.record.labels.get("lab.launch") for room in ROOMS.all()}
        found = empty_groups(self.name, self._places, labels)
        return [one for one in found if one.labels.get("lab.launch") not in known]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The image's files and the tool. Raises DriverError."""
        return [self._images.of(spec).files, *_there()]

    def others_running(self) -> Sequence[str]:
        """The machines that others run, by what the tool keeps of each."""
        places = _OWN / "propagate"
        names = sorted(path.name for path in places.iterdir()) if places.is_dir() else []
        return [name for name in names if not name.startswith("lab-")]

    def engine_pids(self) -> Mapping[int, str]:
        """None: each container has a process of the tool's beside it."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _places(self) -> cgroup.Places:
        return cgroup.places()

    @cached_property
    def _programs(self) -> tuple[Path, Path]:
        return build_enter(self._context.cache_dir), build_inside(self._context.cache_dir)

    def _prove(self) -> None:
        """Have the tool make a container of an empty tree: what it cannot find there is told last, once all the rest
        was done. Raises DriverUnavailable."""
        folder = self._context.run_dir / f"nspawn-probe-{os.getpid()}-{threading.get_native_id()}"
        (folder / "usr").mkdir(parents=True)
        try:
            argv = [*_arguments(folder, f"lab-probe-{os.getpid()}", private=False), "/probe"]
            ran = programs.run(argv, doing="make a container", timeout_s=_PROVE_S, check=False, error=DriverUnavailable)
        finally:
            remove_tree(folder)
        if b"/probe" not in ran.stderr:
            raise DriverUnavailable(f"{PROGRAM} makes no container on this host: {ran.said}")

    def _start(self, made: _Made, mark: Mark, *, own_network: bool) -> Boxed:
        spec, endpoint, image, room, group = made.spec, made.endpoint, made.image, made.room, made.group
        machine = _machine(spec.labels)
        scratch = Path(room.record.scratch)
        enter, _ = self._programs
        port = spec.port if own_network else endpoint.port
        own = spec.service_environment(host="0.0.0.0" if own_network else endpoint.host, port=port)  # noqa: S104  its own network
        environment = {**image.process.environment_on(machine), **own}
        argv = [
            *boxed.command(enter, spec, self._rlimits, group),
            *_arguments(room.root, machine, private=own_network),
            *_names(scratch, machine, own_network=own_network),
            *([] if image.process.own_tmp else [f"--tmpfs=/tmp:mode=1777,size={max(spec.scratch_bytes, 4096)}"]),
            INSIDE,
        ]
        instance = self._instance(room, group)
        output = b""
        try:
            with _Notified(scratch / "notify", mark) as notified:
                child = Child(
                    boxed.started(
                        argv,
                        spec,
                        endpoint,
                        boxed.described(image.process, environment, self._rlimits),
                        environment={"NOTIFY_SOCKET": str(notified.path)},
                    ),
                    mark,
                    memory_bytes=spec.memory_bytes,
                    killed_for_memory=lambda: killed_in(group),
                    told_by=_ending,
                )
                instance = self._instance(room, group, child=child)
                try:
                    leader = notified.await_ready(child)
                except BaseException:
                    child.expect_end()
                    child.await_output()
                    output = child.tail()
                    raise
            if own_network:
                instance = self._instance(room, group, child=child, relay=boxed.relay_to(endpoint, leader, port))
        except BaseException as error:
            boxed.undo(instance, error, output)
            raise
        return instance

    def _instance(
        self, room: Room, group: cgroup.Group, *, child: Child | None = None, relay: Relay | None = None
    ) -> Boxed:
        machine = _machine(room.record.labels)
        return Boxed(
            instance_id=machine,
            what=f"container {machine}",
            tool=PROGRAM,
            labels=room.record.labels,
            endpoint=room.endpoint,
            group=group,
            way_in=self._way_in,
            room=room,
            child=child,
            relay=relay,
            on_deleted=lambda: _forget(machine),
        )

    def _way_in(self, pid: int) -> Sequence[str]:
        enter, inside = self._programs
        entrances = [str(path) for path in cgroup.of_process(pid).entrances]
        return [str(enter), *entrances, "--", str(inside), "join", str(pid), "--"]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a launch has before the tool is started."""

    spec: Spec
    endpoint: Endpoint
    image: Unpacked
    room: Room
    group: cgroup.Group


class _Notified:
    """A socket at which the tool tells that the container runs, by the protocol of sd_notify(3)."""

    def __init__(self, path: Path, mark: Mark) -> None:
        self.path = path
        self._mark = mark
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __enter__(self) -> _Notified:
        self._socket.bind(str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def await_ready(self, child: Child) -> int:
        """The pid of the container's first process, as this host sees it. Raises LaunchError where the tool ends, or
        takes too long."""
        deadline, leader = time.monotonic() + boxed.START_TIMEOUT_S, 0
        self._socket.settimeout(0.2)
        while time.monotonic() < deadline:
            try:
                told = self._socket.recv(4096)
            except TimeoutError:
                if not child.process.alive():
                    raise LaunchError(f"{PROGRAM} started no container") from None
                continue
            if b"READY=1" in told.splitlines():
                self._mark(Phase.STARTED, source=Source.EVENT)
                return leader
            leader = int(found[1]) if (found := _LEADER.search(told)) else leader
        raise LaunchError(f"{PROGRAM} did not say within {boxed.START_TIMEOUT_S:g} s that the container runs")


def _names(scratch: Path, hostname: str, *, own_network: bool) -> list[str]:
    """Where the network is its own, the container's own /etc/hosts and resolv.conf, to be mounted over the image's."""
    files = {"hosts": hosts_file(hostname, ADDRESS if own_network else "127.0.0.1"), "hostname": f"{hostname}\n"}
    if own_network:
        files["resolv.conf"] = RESOLV_CONF
    for name, text in files.items():
        (scratch / name).write_text(text)
        (scratch / name).chmod(0o644)  # whatever the umask says
    return [f"--bind-ro={scratch / name}:/etc/{name}" for name in files]


def _arguments(root: Path, machine: str, *, private: bool) -> list[str]:
    """The tool's command line up to the program; nothing of it is a user's or an image's."""
    return [
        *map(str, _there()),
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        f"--machine={machine}",
        f"--directory={root}",
        *(["--private-network"] if private else []),
    ]


def _there() -> list[Path]:
    """The tool's program; none where it is not installed."""
    found = shutil.which(PROGRAM)
    return [Path(found)] if found else []


def _ending(ending: Ending) -> Ending:
    """How the service ended: its status is the tool's, but for 1, which the tool also ends with for any signal."""
    return Ending() if ending.status == 1 else ending


def _machine(labels: Mapping[str, str]) -> str:
    """The container's name."""
    return f"lab-{labels.get('lab.launch', 'unlabelled')}"


def _forget(machine: str) -> None:
    """Remove what a killed tool leaves of its own of a container of ours."""
    for kind in ("propagate", "unix-export"):
        with contextlib.suppress(OSError):
            unmount(_OWN / kind / machine)
            (_OWN / kind / machine).rmdir()
    for lock in (_OWN / "locks").glob(f"*{machine}*"):
        with contextlib.suppress(OSError):
            lock.unlink()
