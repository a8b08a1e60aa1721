"""LXC: a system container from the same image, by lxc-start, with the configuration that LXC's own templates include.

Each container has a folder of the lab's own (never /var/lib/lxc) with its configuration, and cgroups of its own in a
folder of the lab's, to which LXC gives the limits. lxc-start stays beside it as its monitor, in the foreground
(`--foreground`), so that what the service writes reaches the lab.

| variant | network |
|---|---|
| | one of its own, as LXC's containers have, reached through the lab's relay: a bridge is the host's to make |
| `host` | the host's (`lxc.net.0.type = none`), for the lab's own service |
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from drivers.barehost import boxed
from drivers.barehost.boxed import INSIDE, Boxed, Room, Rooms
from drivers.barehost.child import Child
from drivers.barehost.groups import EngineGroup, Groups
from drivers.barehost.relay import ADDRESS, Relay
from drivers.barehost.unpacked import Images, Unpacked
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature
from lab.host import cgroup, programs
from lab.host.cgroup_memory import killed_in
from lab.host.pinning import cpu_list
from lab.host.rlimits import granted
from lab.image.process import NO_NAMES, RESOLV_CONF, TMP, hosts_file, surroundings
from lab.launch.ends import Ending
from lab.service.build import build_enter, build_inside
from lab.spec import Endpoint, Spec
from lab.store.place import remove_tree, require_exec
from lab.timeline import Phase, Source

ROOMS = Rooms(Path("/run/stratalab-lxc"))
"""Where the containers' root file systems are mounted, and their configurations lie."""
CGROUPS = Groups("stratalab-lxc")
"""The cgroup of each hierarchy in which LXC makes the containers' own."""
PROGRAM = "lxc-start"

_VARIANTS = {
    "": "a container by LXC, in a network of its own",
    "host": "a container by LXC, in the host's network",
}
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.COLD, Feature.ENGINE_PIDS}
    | {Feature.STORAGE, Feature.SLEEP}
)
_ASK_S = 10.0
_PROVE_S = 30.0
_COMMON = Path("/usr/share/lxc/config/common.conf")
_DROPPED = 1 << 33 | 1 << 32 | 1 << 25 | 1 << 16 | 1 << 17
"""mac_admin, mac_override, sys_time, sys_module and sys_rawio: what `_COMMON` has dropped, of all that there are."""
_STARTED = re.compile(rb'post_start:\d+ - Started .* with pid "(\d+)"')
_ENDED = re.compile(rb"Child <\d+> ended on (error|signal)[^(\n]*\((\d+)\)")
_LOG_BYTES = 262_144
_SAID = re.compile(r" (?:ERROR|WARN) +\S+ - \S+ - (.*)$")


class LxcDriver:
    """LXC's own programs, found in PATH; as root. Another user's containers need ranges of ids (subuid(5)) and a cgroup
    that is delegated, which the lab does not set up."""

    name = "lxc"
    apart = frozenset({"host"})

    def __init__(self, variant: str, context: Context) -> None:
        if variant not in _VARIANTS:
            raise BadInput(f"'lxc' has no variant '{variant}'", resolution="write lxc, or lxc:host")
        self._host = variant == "host"
        self._context = context
        self._images = Images(context, "lxc", places=_PLACES, programs=lambda: {INSIDE: self._programs[1]})
        self._rlimits = granted()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """What a user of LXC has by default, and one in the host's network."""
        return _VARIANTS

    def info(self) -> Info:
        """What LXC is, after it has made a container here. Raises DriverUnavailable with the reason."""
        if not _there():
            raise DriverUnavailable("there is no LXC on this host", resolution="sudo apt-get install lxc")
        require_exec(self._context.cache_dir)
        if os.geteuid() != 0:
            raise DriverUnavailable(
                "LXC without root needs ranges of ids (/etc/subuid) and a delegated cgroup, which the lab sets not up",
                resolution="run the lab with sudo",
            )
        told = programs.run(
            [str(_there()[0]), "--version"], doing="tell its version", timeout_s=_ASK_S, error=DriverUnavailable
        ).stdout.decode(errors="replace")
        self._prove()
        limits = dict(self._places.limits)
        return Info(
            engine="LXC",
            version=told.strip(),
            isolation="namespaces (LXC, no daemon)",
            features=_FEATURES
            | ({Feature.PEERS} if self._host else set())
            | ({Feature.PINNING} if cgroup.offers("cpuset") else set()),
            facts={
                "isolates": "namespaces of mounts, processes, IPC, host name, cgroups"
                + ("" if self._host else " and network")
                + ", and no user namespace (a privileged container, as root's are by default)",
                "network": "the host's" if self._host else "its own, through a relay",
                "configuration": str(_COMMON) if _COMMON.exists() else "LXC's built-in defaults",
                "capabilities_more": boxed.more_capabilities(~(_DROPPED if _COMMON.exists() else 0) & (1 << 64) - 1),
                "boot id": "a random one of each container's own, though the kernel is the host's",
                "exec": "by lxc-attach",
                "mandatory_access_control": "LXC's generated AppArmor profile, where the host has AppArmor on",
                "storage": "overlay over one copy of the image's files for each run",
                "limits": limits,
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="LXC's common list of refused calls" if _COMMON.exists() else "no filter",
                    names=NO_NAMES,
                ),
            },
            qualifiers={"network": "host network" if self._host else "own network"},
        )

    def prepare(self, spec: Spec) -> None:
        """Unpack the image's files once for the run. Raises Unsupported, BadInput, DriverError."""
        self._require(spec)
        self._images.of(spec)

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Mount its root, write its configuration and start it; return once LXC has said that it runs. Raises
        LaunchError."""
        self._require(spec)
        if endpoint is None:
            raise LaunchError("a container needs an endpoint on this host to answer at")
        image = self._images.of(spec)
        name = _name(spec.labels)
        scratch = self._images.folder() / name
        room = ROOMS.make(spec, endpoint, files=image.files, scratch=scratch, stop_signal=image.process.stop_signal)
        instance, output = self._instance(room), b""
        enter, _ = self._programs
        port = endpoint.port if self._host else spec.port
        own = spec.service_environment(host=endpoint.host if self._host else "0.0.0.0", port=port)  # noqa: S104  its own network
        environment = {**image.process.environment_on(name), **own}
        try:
            self._configure(spec, image, room)
            log = _Log(room.folder / "log")
            instance = self._instance(room, log=log)
            started = boxed.started(
                [
                    *boxed.command(enter, spec, self._rlimits, None),
                    *(*map(str, _there()), "--foreground", "-P", str(room.folder), "-n", name),
                    *("-o", str(room.folder / "log"), "-l", "INFO", "--", INSIDE),
                ],
                spec,
                endpoint,
                boxed.described(image.process, environment, self._rlimits),
            )
            group = CGROUPS.of(room.folder.name)
            child = Child(
                started,
                mark,
                memory_bytes=spec.memory_bytes,
                killed_for_memory=lambda: killed_in(_payload(group)),
                told_by=log.ending,
            )
            instance = self._instance(room, child=child, log=log)
            try:
                pid = _await_started(log, child, mark)
            except BaseException:
                child.expect_end()
                child.await_output()
                output = child.tail()
                raise
            if not self._host:
                relay = boxed.relay_to(endpoint, pid, port)
                instance = self._instance(room, child=child, relay=relay, log=log)
        except BaseException as error:
            boxed.undo(instance, error, output)
            if isinstance(error, OSError):
                raise LaunchError(
                    f"the container cannot be configured: {error.strerror}", details=str(error)
                ) from error
            raise
        return instance

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those that have a room, in whatever state."""
        return [self._instance(room) for room in ROOMS.all() if bears(room.record.labels, labels)]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups that no room tells of."""
        gone = sorted(CGROUPS.names() - {room.folder.name for room in ROOMS.all()})
        return [EngineGroup(CGROUPS, name) for name in gone if bears(cgroup.labels_of(name), labels)]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The image's files and the tool. Raises DriverError."""
        return [self._images.of(spec).files, *_there()]

    def others_running(self) -> Sequence[str]:
        """The containers in LXC's usual place that run, by their monitors' cgroups."""
        top = Path("/sys/fs/cgroup")
        found = [*top.glob("lxc.monitor.*"), *top.glob("*/lxc.monitor.*")]  # of version 2, and of version 1
        return sorted({path.name.removeprefix("lxc.monitor.") for path in found})

    def engine_pids(self) -> Mapping[int, str]:
        """None: each container has a monitor of its own."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _places(self) -> cgroup.Places:
        return cgroup.places()

    @cached_property
    def _programs(self) -> tuple[Path, Path]:
        return build_enter(self._context.cache_dir), build_inside(self._context.cache_dir)

    def _require(self, spec: Spec) -> None:
        if self._host and not spec.builtin:
            raise Unsupported(
                f"the image '{spec.image}' may listen on every address, and would in the host's network",
                resolution="write 'lxc', whose containers have a network of their own",
            )

    def _configure(self, spec: Spec, image: Unpacked, room: Room) -> None:
        name = _name(spec.labels)
        scratch = Path(room.record.scratch)
        files = {"hosts": hosts_file(name, "127.0.0.1" if self._host else ADDRESS), "hostname": f"{name}\n"}
        if not self._host:
            files["resolv.conf"] = RESOLV_CONF
        for file, text in files.items():
            (scratch / file).write_text(text)
            (scratch / file).chmod(0o644)  # whatever the umask says
        mounts = [f"{scratch / file} etc/{file} none bind,ro,create=file 0 0" for file in files]
        if not image.process.own_tmp:
            size = max(spec.scratch_bytes, 4096)  # 0 is no limit
            mounts.append(f"tmpfs {TMP[1:]} tmpfs nosuid,nodev,mode=1777,size={size} 0 0")
        lines = [
            *_configuration(room.root, name, host=self._host),
            *(f"lxc.cgroup.dir.{part} = {CGROUPS.name}/{room.folder.name}/{place}" for part, place in _CGROUP_DIRS),
            *_limits(spec, self._places.limits),
            *(f"lxc.mount.entry = {mount}" for mount in mounts),
        ]
        folder = room.folder / name
        folder.mkdir(mode=0o700)
        (folder / "config").write_text("\n".join(lines) + "\n")

    def _instance(
        self, room: Room, *, child: Child | None = None, relay: Relay | None = None, log: _Log | None = None
    ) -> Boxed:
        name = _name(room.record.labels)

        def forget() -> None:
            CGROUPS.remove_folders()
            if log is not None:
                log.close()

        return Boxed(
            instance_id=name,
            what=f"container {name}",
            tool=PROGRAM,
            labels=room.record.labels,
            endpoint=room.endpoint,
            group=CGROUPS.of(room.folder.name),
            way_in=lambda _: [*_attach(), "-P", str(room.folder), "-n", name, "--clear-env", "--", *_BESIDE],
            room=room,
            child=child,
            relay=relay,
            on_deleted=forget,
        )

    def _prove(self) -> None:
        """Have LXC make a container of an empty tree: what it cannot find there is told last, once all the rest was
        done. Raises DriverUnavailable."""
        name = f"lab-probe-{os.getpid()}-{threading.get_native_id()}"
        folder = self._context.run_dir / name
        root = folder / "rootfs"
        for place in _PLACES:
            (root / place[1:]).mkdir(parents=True, exist_ok=True)
        try:
            (folder / name).mkdir()
            dirs = (f"lxc.cgroup.dir.{part} = {CGROUPS.name}/{name}/{place}" for part, place in _CGROUP_DIRS)
            lines = [*_configuration(root, name, host=self._host), *dirs]
            (folder / name / "config").write_text("\n".join(lines) + "\n")
            log = folder / "log"
            argv = [*map(str, _there()), "--foreground", "-P", str(folder), "-n", name]
            ran = programs.run(
                [*argv, "-o", str(log), "-l", "NOTICE", "--", "/probe"],
                doing="make a container",
                timeout_s=_PROVE_S,
                check=False,
                error=DriverUnavailable,
            )
            said = log.read_text(errors="replace") if log.exists() else ran.said
        finally:
            remove_tree(folder)
            with contextlib.suppress(DriverError):
                CGROUPS.of(name).remove()
            CGROUPS.remove_folders()
        if "/probe" not in said:
            raise DriverUnavailable(f"LXC makes no container on this host: {_first_error(said)}", details=said)


_PLACES = ("/dev", "/proc", "/sys")
"""Where LXC mounts what a system container has."""
_CGROUP_DIRS = (("container", "payload"), ("monitor", "monitor"), ("monitor.pivot", "pivot"))
_BESIDE = (INSIDE, "beside", "1", "--")


def _configuration(root: Path, name: str, *, host: bool) -> list[str]:
    """lxc.container.conf(5), but for what only a launch knows."""
    return [
        *([f"lxc.include = {_COMMON}"] if _COMMON.exists() else ["lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed"]),
        *(["lxc.apparmor.profile = generated"] if Path("/sys/kernel/security/apparmor").exists() else []),
        f"lxc.rootfs.path = dir:{root}",
        f"lxc.uts.name = {name}",
        *(["lxc.net.0.type = none"] if host else ["lxc.net.0.type = empty", "lxc.net.0.flags = up"]),
        "lxc.console.path = none",
        "lxc.tty.max = 0",
    ]


def _limits(spec: Spec, how: Mapping[str, str]) -> Iterator[str]:
    """The spec's limits, by the version of cgroups in which each can be set here."""
    wanted = {
        "memory": {
            1: {"memory.limit_in_bytes": str(spec.memory_bytes)},
            2: {"memory.max": str(spec.memory_bytes)},
        },
        "swap": {1: {"memory.memsw.limit_in_bytes": str(spec.memory_bytes)}, 2: {"memory.swap.max": "0"}},
        "cpus": {
            1: {
                "cpu.cfs_period_us": str(cgroup.PERIOD_US),
                "cpu.cfs_quota_us": str(round(spec.cpus * cgroup.PERIOD_US)),
            },
            2: {"cpu.max": f"{round(spec.cpus * cgroup.PERIOD_US)} {cgroup.PERIOD_US}"},
        },
        "pids": {1: {"pids.max": str(spec.pids)}, 2: {"pids.max": str(spec.pids)}},
    }
    versions = {limit: int(text[-1]) for limit, text in how.items() if text in ("cgroup v1", "cgroup v2")}
    for limit, each in wanted.items():
        version = versions.get(limit)
        for key, value in each.get(version or 0, {}).items():
            yield f"lxc.{'cgroup2' if version == 2 else 'cgroup'}.{key} = {value}"
    if spec.cpuset:
        prefix = "cgroup2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "cgroup"
        yield f"lxc.{prefix}.cpuset.cpus = {cpu_list(spec.cpuset)}"


def _payload(group: cgroup.Group) -> cgroup.Group:
    inner = (cgroup.Directory(one.path / "payload", one.version, one.controllers) for one in group.directories)
    return cgroup.Group(group.name, tuple(inner), group.labels)


class _Log:
    """What LXC writes to its log, a FIFO at `path`, as it comes."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.text = b""
        self._reading = threading.Lock()  # who waits for the start, and who is told of the end

    def more(self, within_s: float) -> bool:
        """Whether there was any."""
        if self._descriptor < 0 or not select.select([self._descriptor], [], [], within_s)[0]:
            return False
        with self._reading:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:  # the other has just read it
                return True
            self.text = (self.text + data)[-_LOG_BYTES:]
        return bool(data)

    def ending(self, ending: Ending) -> Ending:
        """How the service ended, which lxc-start tells in its log and by no status of its own."""
        with contextlib.suppress(OSError):  # it was deleted meanwhile
            while self.more(0):
                pass
        if found := _ENDED.search(self.read()):
            number = int(found[2])
            return Ending(signal=number) if found[1] == b"signal" else Ending(status=number)
        return ending

    def read(self) -> bytes:
        """All that was read so far, by whomever."""
        with self._reading:
            return self.text

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _await_started(log: _Log, child: Child, mark: Mark) -> int:
    """The pid of the container's first process, once LXC tells in its log that it has started it. Raises LaunchError
    where it ends, or takes too long."""
    deadline = time.monotonic() + boxed.START_TIMEOUT_S
    while time.monotonic() < deadline:
        alive = child.process.alive()
        more = log.more(0.1)
        if found := _STARTED.search(log.read()):  # also where who is told of the end has read it
            mark(Phase.STARTED, source=Source.EVENT)
            return int(found[1])
        if more:
            continue
        if not alive:
            said = log.read().decode(errors="replace")
            raise LaunchError(f"LXC started no container: {_first_error(said)}", details=said)
        time.sleep(0.002)  # a FIFO without a writer is at its end, and readable
    raise LaunchError(f"{PROGRAM} did not say within {boxed.START_TIMEOUT_S:g} s that the container runs")


def _first_error(log: str) -> str:
    """What went wrong first, of LXC's log, on one line."""
    errors = [found[1] for line in log.splitlines() if (found := _SAID.search(line))]
    return errors[0] if errors else "it told no reason"


def _there() -> list[Path]:
    """lxc-start; none where it is not installed."""
    found = shutil.which(PROGRAM)
    return [Path(found)] if found else []


def _attach() -> list[str]:
    return [str(_there()[0].with_name("lxc-attach"))] if _there() else ["lxc-attach"]


def _name(labels: Mapping[str, str]) -> str:
    """The container's name."""
    return f"lab-{labels.get('lab.launch', 'unlabelled')}"
