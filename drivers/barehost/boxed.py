"""What a tool starts in namespaces while it stays beside it, as systemd-nspawn, lxc-start and bwrap do.

The tool is a child of the lab's, and the lab's program `inside` (lab/service/src/sandbox) the first one that it starts:
that becomes the service as it is described to it on standard input, so that neither the service's environment nor its
user pass through the tool's command line, files or own environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drivers.barehost.child import Child
from drivers.barehost.labelled import ENDPOINT, LABELS
from drivers.barehost.members import Members
from drivers.barehost.overlay import Overlay, unmount
from drivers.barehost.relay import Relay
from drivers.barehost.unpacked import open_directory
from lab.errors import CleanupError, DriverError, LaunchError
from lab.features import ExecResult, Place, Role, SleepState
from lab.host import capabilities, cgroup, programs
from lab.host.pinning import cpu_list
from lab.host.procfs import read_fields, read_link, read_text
from lab.host.procs import Process
from lab.host.rlimits import Rlimits, numbered
from lab.image import process as images
from lab.launch import peers
from lab.launch.asleep import await_asleep, require_offered
from lab.launch.ends import Ending
from lab.spec import Endpoint, Spec
from lab.store.place import remove_tree

INSIDE = "/.lab-inside"
"""Where the lab's own program lies in an instance's tree."""
START_TIMEOUT_S = 60.0
"""What a tool gets to say that what it was to start runs."""

USUAL_CAPABILITIES = 0xA80425FB
"""What container engines leave by default (moby, oci/caps/defaults.go)."""

_RECORD = "lab.json"
_FAILED = 125  # of `inside`, from which on it could not run what it was to


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the lab must know again of a launch after it died; `image` are the files of its image, `scratch` is
    the directory of its writable layer."""

    labels: Mapping[str, str]
    image: str = ""
    scratch: str = ""
    host: str = ""
    port: int = 0
    stop_signal: int = 15


@dataclass(frozen=True, slots=True)
class Room:
    """A launch's own place on this host: a folder whose name tells its labels, so that it is found whenever the lab
    dies after it was made, with its record and its root file system, an overlay on the image's files."""

    folder: Path
    record: Record

    @property
    def root(self) -> Path:
        """Where its root file system is mounted."""
        return self.folder / "rootfs"

    @property
    def endpoint(self) -> Endpoint | None:
        """Where it answers."""
        return Endpoint(self.record.host, self.record.port) if self.record.host else None

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """Its writable layer and what lies in its folder."""
        own = [path for path in self.folder.iterdir() if path != self.root]
        image = {"image": [Path(self.record.image)]} if self.record.image else {}
        return {**image, "writable": [Path(self.record.scratch), *own]}

    def remove(self) -> None:
        """Unmount and remove all of it. Raises OSError, CleanupError."""
        unmount(self.root)
        for directory in filter(None, [self.record.scratch, str(self.folder)]):
            remove_tree(Path(directory))
            if Path(directory).exists():
                raise CleanupError(f"{directory} cannot be removed", resolution=f"sudo rm -r '{directory}'")


class Rooms:
    """The rooms of one engine, in `folder`, which every later lab of this boot knows; after that they are void."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, spec: Spec, endpoint: Endpoint, *, files: Path, scratch: Path, stop_signal: int = 15) -> Room:
        """A room over the image's `files`. Raises LaunchError, after removing what was made."""
        record = Record(
            labels=dict(spec.labels),
            image=str(files),
            scratch=str(scratch),
            host=endpoint.host,
            port=endpoint.port,
            stop_signal=stop_signal,
        )
        room = Room(self._folder / cgroup.name_of(spec.labels), record)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            room.folder.mkdir(mode=0o700)
            room.root.mkdir()
            (room.folder / _RECORD).write_text(json.dumps(asdict(record)))
            for directory in (scratch, scratch / "upper", scratch / "work"):
                open_directory(directory)
            Overlay(lower=files, upper=scratch / "upper", work=scratch / "work").mount(room.root)
        except BaseException as error:
            with contextlib.suppress(OSError, CleanupError):
                room.remove()
            if isinstance(error, OSError):
                raise LaunchError(
                    f"a root file system cannot be made in {self._folder}: {error.strerror}", details=str(error)
                ) from error
            raise
        return room

    def all(self) -> list[Room]:
        """Those that are there; none where this user may not look, who then can have launched nothing."""
        try:
            folders = sorted(path for path in self._folder.iterdir() if "lab.run" in cgroup.labels_of(path.name))
        except (FileNotFoundError, PermissionError):
            return []
        return [Room(folder, _read(folder)) for folder in folders]


def _read(folder: Path) -> Record:
    """What the folder holds; where a launch died before it was written, what its name tells."""
    try:
        return Record(**json.loads((folder / _RECORD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return Record(labels=cgroup.labels_of(folder.name))


class Boxed:
    """One instance: all processes of its launch, told by its label or its cgroup. `what` names it in errors, `tool` is
    the name of the tool's program, `program` what it runs where that has no room of its own; `way_in` is the command
    line by which another program is run as its process `pid`."""

    def __init__(
        self,
        *,
        instance_id: str,
        what: str,
        tool: str,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        group: cgroup.Group,
        way_in: Callable[[int], Sequence[str]],
        room: Room | None = None,
        program: Path | None = None,
        child: Child | None = None,
        relay: Relay | None = None,
        on_deleted: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = instance_id
        self.labels = labels
        self.endpoint = endpoint
        self._what = what
        self._tool = tool
        self._group = group
        self._way_in = way_in
        self._room = room
        self._program = program
        self._child = child
        self._relay = relay
        self._on_deleted = on_deleted
        self._killed = False
        self._stopped: set[Process] = set()
        self._members = Members(what, labels.get("lab.launch", ""), group, child.process if child else None)

    def logs(self) -> bytes:
        """What the service wrote; empty where another lab launched it, whose pipe it was."""
        return self._child.tail() if self._child else b""

    def host_pids(self) -> Mapping[int, Role]:
        """The tool beside it, and what runs in its namespace of processes: the service, and an init of the tool's."""
        return {member.pid: role for member, role in self._roles().items()}

    def places(self) -> Sequence[Place]:
        """The host's loopback, and a Unix socket where it is in the host's network."""
        found = peers.host_places(self.labels, self.endpoint)
        return found if self._relay is None else found[:1]

    def reach(self, place: Place) -> Place | str:
        """All that this host reaches, unless its network is its own."""
        if self._relay is not None:
            return peers.reach_from_network(place, {})
        return peers.reach_from_host(place)

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The image's files, which a run's launches share, and what is its own."""
        if self._room is None:
            return {"image": [self._program]} if self._program is not None else {}
        return self._room.storage() if self._room.folder.exists() else {}

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it, as the service runs; what does not end in time is killed. Raises DriverError."""
        main = self._main()
        if main is None:
            raise DriverError(f"{self._what} has ended, and nothing can be run in it")
        ran = programs.run(
            [*self._way_in(main.pid), *argv],
            doing=f"run '{argv[0]}' in {self._what}",
            timeout_s=timeout_s,
            check=False,
            environment={"PATH": os.environ.get("PATH", os.defpath)},
        )
        if ran.code >= _FAILED and ran.stderr.startswith((b"inside: ", b"enter: ")):
            raise DriverError(f"'{argv[0]}' could not be run in {self._what}: {ran.said}")
        return ExecResult(ran.code, ran.stdout, ran.stderr)

    def stop(self, *, timeout_s: float) -> None:
        """The image's stop signal to the service; after `timeout_s`, or once it has ended, SIGKILL to all."""
        self._expect_end()
        main = self._main()
        number = self._room.record.stop_signal if self._room is not None else signal.SIGTERM
        try:
            if main is not None:
                main.send(signal.Signals(number))
                if self._stopped:  # by this lab: it would not hear of it in its sleep
                    self._signal(self._stopped, signal.SIGCONT)
                self._killed = not main.wait(timeout_s)
            self._kill()
        except PermissionError as error:
            raise self._anothers(DriverError) from error
        if self._child is not None:
            self._child.await_output()

    def was_killed(self) -> bool:
        """Whether the stop signal had not ended it in time."""
        return self._killed

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Its processes can be stopped by a signal; one that has ended is not started again."""
        return {SleepState.PAUSED: "", SleepState.STOPPED: "one that has ended has no process to come back"}

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """SIGSTOP to all but the tool, also to those that they make meanwhile. Raises DriverError."""
        require_offered(self.sleep_states(), state)

        def stop() -> Iterable[int]:
            self._stopped = {member for member, role in self._roles().items() if role is not Role.SHIM}
            if not self._stopped:
                raise DriverError(f"{self._what} has ended, and cannot sleep")
            self._signal(self._stopped, signal.SIGSTOP)
            return [member.pid for member in self._stopped]

        await_asleep(stop, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """SIGCONT, to those that were stopped. Raises DriverError."""
        require_offered(self.sleep_states(), state)
        self._signal(self._stopped or self._members.all(), signal.SIGCONT)
        self._stopped = set()

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  it stays in memory
        """None."""
        return ()

    def delete(self) -> None:
        """Kill what runs, and see that processes, cgroups, mounts and files are gone."""
        self._expect_end()
        try:
            self._kill()
            self._group.remove()
            if self._room is not None:
                self._room.remove()
        except PermissionError as error:
            raise self._anothers(CleanupError) from error
        except CleanupError:
            raise
        except OSError as error:
            raise CleanupError(f"{self._what} cannot be removed: {error}") from error
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        if self._relay is not None:
            self._relay.close()
        if self._child is not None:
            self._child.close()
        self._on_deleted()

    def _roles(self) -> dict[Process, Role]:
        own = read_link(Path("/proc/self/ns/pid"))
        return {member: self._role(member.pid, own) for member in self._members.all()}

    def _role(self, pid: int, own: str | None) -> Role:
        if read_link(Path(f"/proc/{pid}/ns/pid")) in (own, None):
            return Role.SHIM
        return Role.HELPER if read_text(Path(f"/proc/{pid}/comm")) == self._tool else Role.SERVICE

    def _main(self) -> Process | None:
        return min((one for one, role in self._roles().items() if role is Role.SERVICE), default=None)

    def _signal(self, members: Iterable[Process], number: signal.Signals) -> None:
        try:
            for member in members:
                member.send(number)
        except PermissionError as error:
            raise self._anothers(DriverError) from error

    def _expect_end(self) -> None:
        if self._child is not None:
            self._child.expect_end()

    def _kill(self) -> None:
        # The service first: its tool then ends by itself, and clears up what it has made.
        own = [one for one, role in self._roles().items() if role is not Role.SHIM]
        self._signal(own, signal.SIGKILL)
        for member in self._members.all():
            member.wait(_CLEAR_UP_S)
        self._members.kill()
        if self._child is not None:
            self._child.reap()

    def _anothers(self, kind: type[DriverError]) -> DriverError:
        return kind(f"{self._what} is another user's", resolution="run the command with sudo")


_CLEAR_UP_S = 3.0


def command(enter: Path, spec: Spec, rlimits: Rlimits, group: cgroup.Group | None) -> list[str]:
    """What stands before a tool's own command line: held to the spec's CPUs and the limits, in `group`."""
    held = [f"cpus={cpu_list(spec.cpuset)}"] if spec.cpuset else []
    held += [f"rlimit={text}" for text in numbered(rlimits)]
    return [str(enter), *held, *([str(path) for path in group.entrances] if group else ()), "--"]


def described(process: images.Process, environment: Mapping[str, str], rlimits: Rlimits) -> bytes:
    """`process` with its whole `environment`, for the program `inside` (see lab/service/src/sandbox/inside.c)."""
    limits = numbered(rlimits)
    variables = [f"{name}={value}" for name, value in environment.items()]
    groups = ",".join(str(group) for group in process.groups)
    words = [str(process.uid), str(process.gid), groups, process.cwd, str(len(limits)), *limits]
    return b"".join(os.fsencode(word) + b"\0" for word in [*words, str(len(variables)), *variables, *process.argv])


@contextlib.contextmanager
def _as_input(text: bytes) -> Iterator[int]:
    """A descriptor from which `text` is read."""
    descriptor = os.memfd_create("described", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def started(
    argv: Sequence[str],
    spec: Spec,
    endpoint: Endpoint,
    description: bytes,
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """The tool, started; its environment is what `environment` says and what tells whose it is. Raises LaunchError."""
    own = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    told = {LABELS: json.dumps(dict(spec.labels)), ENDPOINT: str(endpoint)}
    try:
        with _as_input(description) as text:
            return subprocess.Popen(
                list(argv),
                env={**own, **told, **(environment or {})},
                cwd="/",
                stdin=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                pass_fds=pass_fds,
            )
    except OSError as error:
        raise LaunchError(f"{argv[0]} cannot be started: {error.strerror}", details=str(error)) from error


def more_capabilities(left: int) -> list[str]:
    """Of the capabilities that a tool leaves, those that this process has to leave and container engines do not."""
    bounding = int(read_fields(Path("/proc/self/status")).get("CapBnd", "0"), 16)
    return capabilities.names(f"{left & bounding & ~USUAL_CAPABILITIES:016x}")


def relay_to(endpoint: Endpoint, pid: int, port: int) -> Relay | None:
    """A relay to `port` in the network of `pid`; None where that has ended meanwhile, of which its tool tells. Raises
    LaunchError."""
    try:
        return Relay(endpoint, pid, port)
    except FileNotFoundError:
        return None


def by_code(ending: Ending) -> Ending:
    """How the service ended, of a tool that ends with its status, or with 128 and the signal's number."""
    return ending if ending.status is None else Ending.by_code(ending.status)


def undo(instance: Boxed, error: BaseException, output: bytes) -> None:
    """Remove what a failed launch had made, and tell in its error what the tool said and what stays. Raises the error
    as LaunchError where it is the lab's."""
    problems = ""
    try:
        instance.delete()
    except DriverError as left:
        problems = f"not cleaned up: {left}"
    if isinstance(error, DriverError):
        error.details = "\n".join(filter(None, [error.details, output.decode(errors="replace"), problems]))
