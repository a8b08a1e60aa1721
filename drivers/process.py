"""The control: the lab's service as a bare process, limited by its own cgroup where this user may make one."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from drivers.barehost.child import Child
from drivers.barehost.labelled import LABELS, instances
from drivers.barehost.limited import empty_groups, make_group
from drivers.barehost.members import Members
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature, Place, Role, SleepState
from lab.host import cgroup
from lab.host.cgroup_memory import killed_in
from lab.host.pinning import cpu_list
from lab.host.procfs import read_link, read_text
from lab.host.procs import Process
from lab.host.rlimits import granted, numbered
from lab.image.process import surroundings
from lab.launch import peers
from lab.launch.asleep import await_asleep, require_offered
from lab.service.build import build_enter, build_service
from lab.spec import Endpoint, Spec
from lab.store.place import require_exec
from lab.timeline import Phase, Source

_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.HOST_PIDS, Feature.COLD, Feature.ENGINE_PIDS, Feature.STORAGE}
    | {Feature.PINNING, Feature.SLEEP, Feature.PEERS}
)


class ProcessDriver:
    """Starts the service with fork and exec. What it makes is found again by the process's environment and by the
    cgroup's name, both of which the kernel holds from the creating call on."""

    name = "process"

    def __init__(self, variant: str, context: Context) -> None:
        if variant:
            raise BadInput(f"'process' has no variant '{variant}'", resolution="write 'process'")
        self._context = context
        self._programs: tuple[Path, Path] | None = None
        self._rlimits = granted()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The one there is."""
        return {"": "the service as a bare process in its own cgroup: the control"}

    def info(self) -> Info:
        """What this host's kernel is, and which limits it lets this user set. Raises DriverUnavailable."""
        if platform.system() != "Linux":
            raise DriverUnavailable(f"this is {platform.system()}, and the lab needs Linux's /proc")
        require_exec(self._context.cache_dir)
        return Info(
            engine="Linux",
            version=platform.release(),
            isolation="none (a process among the host's)",
            features=_FEATURES,
            facts={
                "limits": dict(self._places.limits),
                "surroundings": surroundings(
                    rlimits=self._rlimits,
                    seccomp="no filter",
                    names="the host's",
                    init="the host's: the service is a child of the lab",
                    oom_score_adj=read_text(Path("/proc/self/oom_score_adj")) or "not known",
                    tmp="not limited: the host's own",
                ),
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Build the service and its launcher. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        self._built()

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Make the cgroup, then fork and exec into it. `started` is marked when exec has succeeded. Raises
        Unsupported, LaunchError."""
        _require_own_service(spec)
        if endpoint is None:
            raise LaunchError("a process needs an endpoint to listen at")
        service, enter = self._built()
        group = make_group(spec, self._places)
        entrances = [str(path) for path in group.entrances]
        # By sched_setaffinity(2), which every user may call; the service and all that it starts inherit it.
        held = [f"cpus={cpu_list(spec.cpuset)}"] if spec.cpuset else []
        held += [f"rlimit={text}" for text in numbered(self._rlimits)]
        environment = spec.service_environment(host=endpoint.host, port=endpoint.port)
        if spec.builtin and spec.peers:
            environment |= peers.vsock_environment()
        try:
            started = subprocess.Popen(
                [str(enter), *held, *entrances, "--", str(service), *(spec.command or ())],
                env={**environment, LABELS: json.dumps(dict(spec.labels))},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                close_fds=True,
            )
        except BaseException as error:
            group.remove()
            if isinstance(error, OSError):
                raise LaunchError(f"the service cannot be started: {error.strerror}", details=str(error)) from error
            raise
        mark(Phase.STARTED, source=Source.RETURN)
        child = Child(started, mark, memory_bytes=spec.memory_bytes, killed_for_memory=lambda: killed_in(group))
        return ProcessInstance(labels=spec.labels, endpoint=endpoint, group=group, child=child)

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Those whose processes say so in their environment, where this user may read it, or by their cgroup."""
        found = instances(self.name, self._places)
        return [
            ProcessInstance(labels=one.labels, endpoint=one.endpoint, group=group)
            for one, group in found.values()
            if bears(one.labels, labels)
        ]

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Cgroups in which no process is, and to which no instance's processes belong."""
        return empty_groups(self.name, self._places, labels)

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The service and its launcher. Raises Unsupported for any other image; LabError."""
        _require_own_service(spec)
        return self._built()

    def others_running(self) -> Sequence[str]:
        """None: every other process of the host runs without this driver."""
        return ()

    def engine_pids(self) -> Mapping[int, str]:
        """None: the kernel alone runs a bare process."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""

    @cached_property
    def _places(self) -> cgroup.Places:
        return cgroup.places()

    def _built(self) -> tuple[Path, Path]:
        if self._programs is None:
            cache = self._context.cache_dir
            self._programs = (build_service(cache), build_enter(cache))
        return self._programs


class ProcessInstance:
    """One service: all processes of one launch, told by its label or its cgroup; `id` is the label."""

    def __init__(
        self,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        group: cgroup.Group,
        child: Child | None = None,
    ) -> None:
        self.labels = labels
        self.endpoint = endpoint
        self._group = group
        self._child = child
        self._killed = False
        self._stopped: set[Process] = set()
        self.id = labels.get("lab.launch", "")
        self._members = Members(f"process {self.id}", self.id, group, child.process if child else None)

    def logs(self) -> bytes:
        """What the service wrote; empty where another lab launched it, whose pipe it was."""
        return self._child.tail() if self._child else b""

    def host_pids(self) -> Mapping[int, Role]:
        """The service and its children."""
        return {member.pid: Role.SERVICE for member in self._members.all()}

    def places(self) -> Sequence[Place]:
        """The host's loopback, a Unix socket, and, where this host has one for its guests, its vsock."""
        return [*peers.host_places(self.labels, self.endpoint), *peers.host_vsock(self.endpoint)]

    def reach(self, place: Place) -> Place | str:
        """All that this host reaches."""
        return peers.reach_from_host(place)

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The service's program: what it writes is not told apart from the host's own files."""
        links = (Path(f"/proc/{member.pid}/exe") for member in self._members.all())
        return {"image": sorted({Path(found) for link in links if (found := read_link(link))})}

    def stop(self, *, timeout_s: float) -> None:
        """SIGTERM to the service, and after `timeout_s`, or once it has ended, SIGKILL to all that is left."""
        self._expect_end()
        main = self._child.process if self._child else min(self._members.all(), default=None)
        try:
            if main is not None:
                main.send(signal.SIGTERM)
                if self._stopped:  # by this lab: it would not hear of it in its sleep
                    main.send(signal.SIGCONT)
                self._killed = not main.wait(timeout_s)
            self._kill()
            if self._child is not None:
                self._child.await_output()
        except PermissionError as error:
            raise DriverError(
                f"process {self.id} is another user's process",
                resolution="run the command with sudo",
                details=str(error),
            ) from error

    def was_killed(self) -> bool:
        """Whether SIGTERM had not ended it in time."""
        return self._killed

    def sleep_states(self) -> Mapping[SleepState, str]:
        """A process can be stopped by a signal; one that has ended is another process when it comes back."""
        return {SleepState.PAUSED: ""}

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """SIGSTOP to all its processes, also to those that they make meanwhile."""
        require_offered(self.sleep_states(), state)

        def stop() -> Iterable[int]:
            self._stopped = self._signalled(self._members.all(), signal.SIGSTOP)
            if not self._stopped:
                raise DriverError(f"process {self.id} has ended, and cannot sleep")
            return [member.pid for member in self._stopped]

        await_asleep(stop, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """SIGCONT, to those that were stopped: to look for them again would be time of the lab's own."""
        require_offered(self.sleep_states(), state)
        self._signalled(self._stopped or self._members.all(), signal.SIGCONT)
        self._stopped = set()

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  it stays in memory
        """None."""
        return ()

    def delete(self) -> None:
        """Kill what runs, and remove the cgroup."""
        self._expect_end()
        try:
            self._kill()
        except PermissionError as error:
            raise CleanupError(
                f"process {self.id} is another user's process", resolution="run the command with sudo"
            ) from error
        except CleanupError:
            raise
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        if self._child:
            self._child.close()
        self._group.remove()

    def _signalled(self, members: set[Process], number: signal.Signals) -> set[Process]:
        """`members`, each of which was sent the signal. Raises DriverError."""
        try:
            for member in members:
                member.send(number)
        except PermissionError as error:
            raise DriverError(
                f"process {self.id} is another user's process", resolution="run the command with sudo"
            ) from error
        return members

    def _expect_end(self) -> None:
        if self._child:
            self._child.expect_end()

    def _kill(self) -> None:
        self._members.kill()
        if self._child:
            self._child.reap()


def _require_own_service(spec: Spec) -> None:
    if not spec.builtin:
        raise Unsupported(
            f"a bare process cannot run the image '{spec.image}': it has no root filesystem of its own",
            resolution="leave 'process' out of --targets, or leave out --image",
        )
