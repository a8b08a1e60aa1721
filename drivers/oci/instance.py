"""One container of a bare runtime, found again by its bundle; and the cgroups that a dead launch may leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from drivers.barehost.groups import Groups
from drivers.barehost.overlay import unmount
from drivers.barehost.relay import Relay
from drivers.oci import sleep as sleeping
from drivers.oci.runtime import Container, Runtime
from drivers.ociruntimes import sandbox
from lab.errors import CleanupError, DriverError
from lab.features import ExecResult, Place, Role, SleepState
from lab.host import cgroup, procs
from lab.host.procfs import read_mounts, read_text
from lab.host.procs import Process
from lab.launch import peers
from lab.launch.asleep import await_asleep, require_offered
from lab.launch.ends import ChildWatch
from lab.launch.output import Output
from lab.spec import Endpoint
from lab.store.place import remove_tree

CGROUPS = Groups("stratalab-oci")
"""The cgroup of each hierarchy in which the containers' own lie: not that of bare processes."""

_RECORD = "lab.json"
_GONE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the lab must know again of a launch after it died; it lies in the bundle. `scratch` is the directory of
    the container's own writable layer."""

    labels: Mapping[str, str]
    runtime: str
    scratch: str
    host: str
    port: int
    stop_signal: int = 15

    def write(self, bundle: Path) -> None:
        """Keep it in `bundle`. Raises OSError."""
        (bundle / _RECORD).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, bundle: Path) -> Record:
        """What `bundle` holds; where a launch died before it was written, what the directory's name tells."""
        try:
            return cls(**json.loads((bundle / _RECORD).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return cls(labels=cgroup.labels_of(bundle.name), runtime="", scratch="", host="", port=0)


class OciContainer:
    """A container whose bundle is at `bundle`; `id` is the runtime's name for it."""

    def __init__(
        self,
        bundle: Path,
        record: Record,
        *,
        output: Output | None = None,
        relay: Relay | None = None,
        watch: ChildWatch | None = None,
    ) -> None:
        self.labels = record.labels
        self.endpoint = Endpoint(record.host, record.port) if record.host else None
        self.id = container_id(record.labels)
        self._container = Container(self.id, bundle)
        self._record = record
        self._output = output
        self._relay = relay
        self._watch = watch
        self._group = CGROUPS.of(bundle.name)
        self._killed = False
        self._children: set[Process] = set()
        self._saved = sleeping.Saved(Path(record.scratch) / "saved")
        self._offered: Mapping[SleepState, str] | None = None

    def note_children(self) -> None:
        """Remember what of a sandbox this process is to reap, whenever it ends."""
        self._children = self._members()

    def logs(self) -> bytes:
        """What the service wrote; empty where another lab launched it, whose pipe it was."""
        return self._output.tail() if self._output else b""

    def host_pids(self) -> Mapping[int, Role]:
        """The container's processes: nothing of the runtime's own stays, but for a kernel that is in user space."""
        members = {process.pid for process in self._members()}
        runtime = self._runtime()
        if runtime is None or not runtime.has_kernel:
            return dict.fromkeys(members, Role.SERVICE)
        of_sandbox = sandbox.roles(entry for pid, entry in procs.table().items() if pid in members)
        return {process.pid: role for process, role in of_sandbox.items()}

    def places(self) -> Sequence[Place]:
        """The host's loopback and a Unix socket: the lab's own service runs in the host's network."""
        return peers.host_places(self.labels, self.endpoint)

    def reach(self, place: Place) -> Place | str:
        """All that this host reaches."""
        return peers.reach_from_host(place)

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The unpacked image, which a run's launches share, and the container's writable layer and bundle."""
        mounts = [mount for mount in read_mounts(Path("/")) if mount.point == str(self._container.rootfs)]
        options = [option for mount in mounts for option in mount.super_options.split(",")]
        image = [Path(option.partition("=")[2]) for option in options if option.startswith("lowerdir=")]
        own = [Path(self._record.scratch), *self._own_files()]
        return {"image": image, "writable": own}

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it, with 16 MiB of output at most; what does not end in time is killed. Raises DriverError."""
        ran = self._required_runtime().exec(self._container, argv, timeout_s=timeout_s, on_timeout=self._kill_exec)
        return ExecResult(ran.code, ran.stdout, ran.stderr)

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Frozen by its cgroup, or saved by CRIU; the runtime starts no container twice. Asked of this host once."""
        if self._offered is None:
            runtime = self._runtime()
            name = runtime.name if runtime is not None else ""
            self._offered = sleeping.states(name, own_network=self._relay is not None)
        return self._offered

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Have the runtime pause or save it, and look that all its processes are frozen or gone. Raises DriverError."""
        require_offered(self.sleep_states(), state)
        runtime, members = self._required_runtime(), self._group.pids()
        if state is SleepState.PAUSED:
            runtime.pause(self._container)
            await_asleep(self._workload, timeout_s=timeout_s)
            if not runtime.is_paused(self._container):
                raise DriverError(f"{runtime.name} does not say that container {self.id} is paused")
            return
        main = _process_in(self._container.pid_file, self._group)
        if main is None:
            raise DriverError(f"container {self.id} has ended, and cannot sleep")
        self._expect_end()
        self._saved.save(runtime, self._container, main.pid)
        await_asleep(lambda: members, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """Have the runtime resume or restore it. Raises DriverError."""
        require_offered(self.sleep_states(), state)
        if state is SleepState.PAUSED:
            self._required_runtime().resume(self._container)
        else:
            self._saved.restore(self._required_runtime(), self._container)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """CRIU's images."""
        return [self._saved.folder] if state is SleepState.SAVED and self._saved.folder.exists() else ()

    def stop(self, *, timeout_s: float) -> None:
        """The image's stop signal to the first process; after `timeout_s` SIGKILL, which ends all in it."""
        self._expect_end()
        self._thaw()  # what is frozen hears no signal
        main, runtime = _process_in(self._container.pid_file, self._group), self._runtime()
        members = self._members()
        if main is not None and main.alive():
            if runtime is not None:
                try:
                    runtime.kill(self._container, str(self._record.stop_signal))
                except DriverError:
                    if main.alive():  # else it has ended by itself just now
                        raise
            self._killed = not main.wait(timeout_s)
        self._kill()
        _reap(members | self._children)
        if self._output is not None:
            self._output.await_end()

    def was_killed(self) -> bool:
        """Whether the image's stop signal had not ended it in time."""
        return self._killed

    def delete(self) -> None:
        """Have the runtime remove it, then see that processes, cgroups and files are gone, and remove what is not."""
        self._expect_end()
        self._thaw()
        problems = ""
        runtime, members = self._runtime(), self._members()
        if runtime is not None and runtime.has_kernel:
            # gVisor's waits five seconds for its gofer to be gone, which stays a zombie until its parent looks.
            with contextlib.suppress(DriverError, PermissionError):  # told below
                self._kill()
            _reap(members | self._children)
        if runtime is not None and self._container.state.exists():
            try:
                runtime.delete(self._container)
            except DriverError as error:  # a launch that died half-way: what follows does without the runtime
                problems = str(error)
        try:
            self._kill()
            _reap(members | self._children)
            self._group.remove(timeout_s=_GONE_TIMEOUT_S)
            unmount(self._container.rootfs)
        except (OSError, DriverError) as error:
            raise CleanupError(
                f"container {self.id} cannot be removed: {error}",
                details=problems,
                resolution="run the command with sudo",
            ) from error
        if self._relay is not None:
            self._relay.close()
        if self._record.scratch:
            self._saved.forget()
        if self._output is not None:
            self._output.close()
        CGROUPS.remove_folders()
        for directory in filter(None, [self._record.scratch, str(self._container.bundle)]):
            remove_tree(Path(directory))
            if Path(directory).exists():
                raise CleanupError(f"{directory} cannot be removed", resolution=f"sudo rm -r '{directory}'")

    def _thaw(self) -> None:
        """Let go on what a runtime has frozen: under version 1 of cgroups not even SIGKILL ends it (freezer-subsystem
        of the kernel's documentation)."""
        for freezer in {one for pid in self._group.pids() for one in cgroup.freezers_of(pid)}:
            if self._group.name in freezer.path.parts and freezer.frozen():
                with contextlib.suppress(PermissionError):  # another user's, as whose removal is then refused
                    freezer.thaw()

    def _workload(self) -> list[int]:
        """What of it runs on this host's kernel, which can tell how it sleeps: a kernel in user space holds its
        processes still itself."""
        return [pid for pid, role in self.host_pids().items() if role is Role.SERVICE]

    def _expect_end(self) -> None:
        if self._watch is not None:
            self._watch.expect()

    def _own_files(self) -> list[Path]:
        """What lies in the bundle but for the mounted root file system."""
        return [path for path in self._container.bundle.iterdir() if path != self._container.rootfs]

    def _runtime(self) -> Runtime | None:
        path = Path(self._record.runtime)
        return Runtime(path) if self._record.runtime and path.exists() else None

    def _required_runtime(self) -> Runtime:
        if (runtime := self._runtime()) is None:
            raise DriverError(f"the runtime of container {self.id} is not known")
        return runtime

    def _kill_exec(self) -> None:
        runtime, told = self._runtime(), read_text(self._container.exec_pid_file) or ""
        if runtime is not None and runtime.has_kernel:
            if told.strip().isdigit():
                with contextlib.suppress(
                    DriverError
                ):  # it has just ended; deleting the container ends it at the latest
                    runtime.kill_inside(self._container, int(told))
            return
        process = _process_in(self._container.exec_pid_file, self._group)
        if process is not None:
            process.send(signal.SIGKILL)
            process.wait(_GONE_TIMEOUT_S)

    def _kill(self) -> None:
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while members := self._members():
            for member in members:
                member.send(signal.SIGKILL)
            if procs.all_ended(members, deadline - time.monotonic()):
                raise DriverError(f"container {self.id} does not end, though it was killed")

    def _members(self) -> set[Process]:
        return {process for pid in self._group.pids() if (process := Process.of(pid)) is not None}


def container_id(labels: Mapping[str, str]) -> str:
    """The runtime's name for the launch that `labels` tell."""
    return f"lab-{labels.get('lab.launch', 'unlabelled')}"


def _reap(processes: Iterable[Process]) -> None:
    """Let go of those that ended as this process's children: beside a container's first one, which `ChildWatch` waits
    for, a sandbox has others."""
    for process in processes:
        with contextlib.suppress(ChildProcessError):  # another's, or reaped already
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)


def _process_in(pid_file: Path, group: cgroup.Group) -> Process | None:
    """The process that `pid_file` names, if it is one of the container's, which a later one with its pid is not."""
    text = read_text(pid_file) or ""
    if not text.isdigit() or int(text) not in group.pids():
        return None
    return Process.of(int(text))
