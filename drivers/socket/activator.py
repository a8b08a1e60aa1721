"""Functions behind the lab's own activator, a small static program (lab/service/src/activation): it keeps the listening
socket, starts the service at the first connection, and anew after that has ended. No connection is lost in between."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.barehost.labelled import ENDPOINT, LABELS
from drivers.barehost.members import Members
from drivers.socket.workers import KeptSocket, Seen, name_of, role_of, workers_among
from lab.driver import Mark
from lab.errors import CleanupError, DriverError, LaunchError
from lab.features import CallPhase, Role
from lab.host import cgroup, procs
from lab.host.cgroup_memory import killed_in
from lab.host.pinning import cpu_list
from lab.host.procfs import read_link
from lab.host.procs import Process
from lab.host.rlimits import Rlimits, numbered
from lab.launch.ends import ChildWatch, Ending
from lab.launch.output import Output
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source

_BACKLOG = 1024  # as the service's own
_REAP_S = 10.0
_REST_S = 0.05
_LOOK_S = 0.002
_PHASES = {"created": CallPhase.CREATED, "started": CallPhase.STARTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """What a launch runs; `proxy` is None where the service itself takes the socket."""

    service: Path
    enter: Path
    activator: Path
    proxy: Path | None = None


def start(
    programs: Programs,
    spec: Spec,
    endpoint: Endpoint,
    mark: Mark,
    *,
    group: cgroup.Group,
    rlimits: Rlimits,
    keep_alive_s: float,
) -> ActivatedInstance:
    """Listen at `endpoint`, and hand the socket to an activator in `group`. Marks `created` when it runs. Raises
    LaunchError; the group is the caller's to remove then."""
    listener = _listen(endpoint)
    told_out, told_in = os.pipe()
    words = _words(programs, spec, endpoint, keep_alive_s, [str(listener.fileno()), str(told_in)])
    environment = {**words.environment, LABELS: json.dumps(dict(spec.labels))}
    # By sched_setaffinity(2), as for the bare process: what the service starts inherits it.
    held = [f"cpus={cpu_list(spec.cpuset)}"] if spec.cpuset else []
    held += [f"rlimit={text}" for text in numbered(rlimits)]
    entrances = [str(path) for path in group.entrances]
    try:
        child = subprocess.Popen(
            [str(programs.enter), *held, *entrances, "--", *words.command],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
            pass_fds=(listener.fileno(), told_in),
        )
    except OSError as error:
        os.close(told_out)
        raise LaunchError(f"the activator cannot be started: {error.strerror}", details=str(error)) from error
    except BaseException:
        os.close(told_out)
        raise
    finally:
        listener.close()
        os.close(told_in)
    mark(Phase.CREATED, source=Source.RETURN)
    return ActivatedInstance(
        labels=spec.labels, endpoint=endpoint, group=group, keeper=_Keeper(child, told_out, mark, group, spec)
    )


class ActivatedInstance(KeptSocket):
    """One function: the activator, and the worker that it started, if any. `keeper` is the lab's own child, None for
    one that was found by its labels."""

    def __init__(
        self,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        group: cgroup.Group,
        keeper: _Keeper | None = None,
    ) -> None:
        self.labels = labels
        self.endpoint = endpoint
        self.id = labels.get("lab.launch", "")
        self._group = group
        self._keeper = keeper
        self._killed = False
        self._members = Members(f"function {self.id}", self.id, group, keeper.process if keeper else None)

    def logs(self) -> bytes:
        """What the activator and its workers wrote; empty where another lab launched it, whose pipe it was."""
        return self._keeper.tail() if self._keeper else b""

    def host_pids(self) -> Mapping[int, Role]:
        """The activator (SHIM), a proxy before the service, and the worker with its children."""
        return {member.pid: role_of(member) for member in self._members.all()}

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The lab's programs that run: what the service writes is not told apart from the host's own files."""
        own = (member for member in self._members.all() if role_of(member) is not Role.PROXY)
        links = (Path(f"/proc/{member.pid}/exe") for member in own)
        return {"image": sorted({Path(found) for link in links if (found := read_link(link))})}

    def workers(self) -> Sequence[str]:
        """The service's process, by its pid and start; none at zero."""
        return [name_of(worker) for worker in workers_among(self._members.all())]

    def settle(self, *, timeout_s: float) -> None:
        """Return when the activator's word of the first worker is in, which may come after that worker's answer."""
        if self._keeper is not None:
            self._keeper.told_of_start.wait(timeout_s)

    def force_cold(self, *, timeout_s: float) -> None:
        """SIGTERM to the worker, and after `timeout_s` SIGKILL to all but the activator."""
        keepers = self._keepers()
        deadline = time.monotonic() + timeout_s
        with self._as_root_may(), self._keeper.expecting() if self._keeper else contextlib.nullcontext():
            while others := self._members.all() - keepers:
                for worker in workers_among(others):
                    worker.send(signal.SIGTERM)
                procs.all_ended(others, deadline - time.monotonic())
                if time.monotonic() >= deadline:
                    self._members.kill_but(keepers)
        if not any(keeper.alive() for keeper in keepers):
            raise DriverError(f"nobody listens for function {self.id} any more: its activator has ended")

    def initialize(self, *, timeout_s: float) -> None:
        """A connection without a byte starts the worker; it is closed once the worker listens."""
        if self._keeper is None or self.endpoint is None:
            raise DriverError(f"function {self.id} was launched by another lab, which follows what it writes")
        if self.workers():
            raise DriverError(f"function {self.id} has a worker, and one serves all calls")
        deadline = time.monotonic() + timeout_s
        before = self._keeper.listened
        with socket.create_connection((self.endpoint.host, self.endpoint.port), timeout_s):
            while self._keeper.listened == before:
                if time.monotonic() > deadline:
                    raise DriverError(f"no worker of function {self.id} listened within {timeout_s:g} s")
                time.sleep(_LOOK_S)

    @contextlib.contextmanager
    def follow(self, seen: Seen) -> Iterator[None]:
        """The activator's word of each worker, as it comes."""
        if self._keeper is None:
            raise DriverError(f"function {self.id} was launched by another lab, whom its activator tells")
        self._keeper.seen.append(seen)
        try:
            yield
        finally:
            self._keeper.seen.remove(seen)

    def stop(self, *, timeout_s: float) -> None:
        """SIGTERM to the activator, which closes the socket and ends the worker; after `timeout_s`, or once it has
        ended, SIGKILL to all that is left."""
        self._expect_end()
        with self._as_root_may():
            for keeper in self._keepers():
                keeper.send(signal.SIGTERM)
                self._killed |= not keeper.wait(timeout_s)
            self._kill()
        if self._keeper:
            self._keeper.await_output()

    def was_killed(self) -> bool:
        """Whether SIGTERM had not ended it in time."""
        return self._killed

    def delete(self) -> None:
        """Kill what runs, and remove the cgroup."""
        self._expect_end()
        try:
            with self._as_root_may():
                self._kill()
        except CleanupError:
            raise
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        if self._keeper:
            self._keeper.close()
        self._group.remove()

    def _keepers(self) -> set[Process]:
        """The activator: found by its program, it is the one that leads its session, and not what it is just about to
        make a worker of."""
        if self._keeper:
            return {self._keeper.process}
        entries = procs.table()
        return {
            member
            for member in self._members.all()
            if role_of(member) is Role.SHIM and member.pid in entries and entries[member.pid].session == member.pid
        }

    def _expect_end(self) -> None:
        if self._keeper:
            self._keeper.expect_end()

    def _kill(self) -> None:
        self._members.kill()
        if self._keeper:
            self._keeper.reap()

    @contextlib.contextmanager
    def _as_root_may(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise DriverError(
                f"function {self.id} is another user's", resolution="run the command with sudo", details=str(error)
            ) from error


class _Keeper:
    """The activator as a child of this lab: what it tells, what is written, and its end."""

    def __init__(self, child: subprocess.Popen[bytes], told: int, mark: Mark, group: cgroup.Group, spec: Spec) -> None:
        self.process = Process.of(child.pid) or Process(0, child.pid)
        self.seen: list[Seen] = []
        self.listened = 0
        self.told_of_start = threading.Event()
        self._child = child
        self._mark = mark
        self._spec = spec
        self._group = group
        self._expected = self._forcing = False
        assert child.stdout is not None  # noqa: S101  it was asked for
        descriptor = os.dup(child.stdout.fileno())
        child.stdout.close()
        self._output = Output(descriptor, _Written(self, mark), name=str(child.pid))
        self._watch = ChildWatch(
            child.pid,
            mark,
            output=self._output,
            memory_bytes=spec.memory_bytes,
            killed_for_memory=lambda: killed_in(group),
            reap=False,  # until `reap` its number is its own
        )
        self._told = Output(told, _Told(self, mark), name=f"activator {child.pid}", source=Source.EVENT)

    def tail(self) -> bytes:
        return self._output.tail()

    def expect_end(self) -> None:
        self._expected = True
        self._watch.expect()

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """The end of a worker is no failure meanwhile."""
        self._forcing = True
        try:
            yield
        finally:
            self._forcing = False

    def reap(self) -> None:
        self._child.wait(timeout=_REAP_S)

    def await_output(self) -> None:
        self._output.await_end()

    def close(self) -> None:
        """The writers are dead, so that both pipes have an end, and their threads with it."""
        self._told.close()
        self._output.close()

    def hear(self, line: bytes, mark: Mark) -> None:
        """One event of the activator's: `created program 12 345`, `ended program 12 345 killed 9`."""
        event, what, pid, ticks, *how = line.decode(errors="replace").split()
        if what != "program":
            return
        if event in _PHASES:
            if event == "started":
                mark(Phase.STARTED, source=Source.EVENT)
                self.told_of_start.set()
            for seen in list(self.seen):
                seen(f"{pid}-{ticks}", _PHASES[event], Source.EVENT)
        elif how != ["exited", "0"] and self._spec.restart is not Restart.BEST and not self._asked_for():
            self._watch.expect()  # the activator's own end, should it give up, has this one for its cause
            time.sleep(_REST_S)  # what it wrote last may still be on its way
            self._mark.failed(self._ending(how).error(memory_bytes=self._spec.memory_bytes, output=self.tail()))

    def _asked_for(self) -> bool:
        return self._expected or self._forcing

    def _ending(self, how: Sequence[str]) -> Ending:
        number = int(how[1])
        out_of_memory = killed_in(self._group)
        if how[0] == "killed":
            return Ending(signal=number, out_of_memory=out_of_memory)
        return Ending(status=number, out_of_memory=out_of_memory)


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """A Mark that hands the service's lines on, and counts the workers that listen."""

    keeper: _Keeper
    mark: Mark

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.mark(phase, source=source)

    def line(self, text: bytes, *, source: Source) -> None:
        self.mark.line(text, source=source)
        if text.startswith(b"lab ") and text.split()[2:3] == [b"listening"]:
            self.keeper.listened += 1

    def moment(self) -> Mark:
        return _Written(self.keeper, self.mark.moment())

    def failed(self, error: DriverError) -> None:
        self.mark.failed(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Told:
    """A Mark whose lines are the activator's events."""

    keeper: _Keeper
    mark: Mark

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.mark(phase, source=source)

    def line(self, text: bytes, *, source: Source) -> None:  # noqa: ARG002  there is one
        self.keeper.hear(text, self.mark)

    def moment(self) -> Mark:
        return _Told(self.keeper, self.mark.moment())

    def failed(self, error: DriverError) -> None:
        self.mark.failed(error)


@dataclass(frozen=True, slots=True)
class _Words:
    command: list[str]
    environment: Mapping[str, str]


def _words(
    programs: Programs, spec: Spec, endpoint: Endpoint, keep_alive_s: float, descriptors: Sequence[str]
) -> _Words:
    """The activator's command, and the environment that it and the service share."""
    command = [str(programs.activator), *descriptors]
    service = [str(programs.service), *(spec.command or ())]
    if programs.proxy is None:
        environment = spec.service_environment(host=endpoint.host, port=endpoint.port)
        return _Words([*command, *service], {**environment, "LAB_IDLE_MS": f"{keep_alive_s * 1000:.0f}"})
    backend = Endpoint("127.0.0.1", reserve_port())
    environment = {**spec.service_environment(host=backend.host, port=backend.port), ENDPOINT: str(endpoint)}
    proxy = [str(programs.proxy), f"--exit-idle-time={keep_alive_s:g}s", str(backend)]
    return _Words([*command, f"backend={backend}", *proxy, "--", *service], environment)


def _listen(endpoint: Endpoint) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((endpoint.host, endpoint.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise LaunchError(f"the socket cannot listen at {endpoint}: {error.strerror}", details=str(error)) from error
    return listener
