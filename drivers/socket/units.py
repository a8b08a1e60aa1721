"""Functions behind systemd's own socket activation: a transient .socket and .service unit for each, made by systemd-run
and looked at by systemctl, with the system's systemd for root and with the session's for any other user.

The units' names and the socket's description, which bears the labels, are given in the call that makes both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.socket.workers import KeptSocket, Seen, name_of
from lab.driver import Mark
from lab.errors import CleanupError, DriverError, DriverUnavailable, LaunchError
from lab.features import Role
from lab.host import cgroup
from lab.host.pinning import cpu_list
from lab.host.procfs import read_link
from lab.host.procs import Process
from lab.host.programs import run
from lab.host.rlimits import UNLIMITED, Rlimits
from lab.launch.ends import Ending
from lab.launch.output import KEPT_BYTES
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source

PREFIX = "stratalab-"
_CALL_S = 60.0
_STOP_S = 10.0
_LOOK_S = 0.25
_SOON_S = 0.01
_CGROUPS = Path("/sys/fs/cgroup")
_HIERARCHIES = (_CGROUPS, _CGROUPS / "unified", _CGROUPS / "systemd")  # version 2, hybrid, version 1
_SYSTEM = Path("/run/systemd/system")  # sd_booted(3)
_INSTEAD = "write socket:activator, which needs none"
_LIMITS = {"memory": "memory", "swap": "memory", "cpus": "cpu", "pids": "pids"}


@dataclass(frozen=True, slots=True)
class Manager:
    """A systemd that answers: the `scope` by which its programs are told which, and their environment."""

    scope: str
    environment: Mapping[str, str]

    def call(self, program: str, *words: str, doing: str, error: type[DriverError] = DriverError) -> str:
        """What the program says. Raises `error`, DriverUnavailable."""
        argv = [program, self.scope, *words]
        ran = run(argv, doing=doing, timeout_s=_CALL_S, environment=self.environment, error=error)
        return ran.stdout.decode(errors="replace")

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """These properties of `unit`; of the manager itself for an empty name. Raises DriverError."""
        wanted = [f"--property={name}" for name in properties]
        said = self.call("systemctl", "show", *wanted, *([unit] if unit else []), doing=f"show {unit or 'itself'}")
        return {name: value for name, _, value in (line.partition("=") for line in said.splitlines())}

    def version(self) -> str:
        """As it tells it. Raises DriverError."""
        return self.show("", "Version").get("Version", "")

    def pids(self) -> dict[int, str]:
        """Its own process, where it can be told. Raises DriverError."""
        if self.scope == "--system":
            return {1: "systemd"}
        with contextlib.suppress(OSError):
            text = (_CGROUPS / self._cgroup() / "init.scope" / "cgroup.procs").read_text()
            return dict.fromkeys(map(int, text.split()), "systemd --user")
        return {}

    def limits(self) -> dict[str, str]:
        """How each limit is set, or why not. Raises DriverError."""
        unified = (_CGROUPS / "cgroup.controllers").exists()
        version, refused = ("v2" if unified else "v1"), "not set: this systemd has no such cgroup controller"
        if unified:
            had = set((_CGROUPS / self._cgroup() / "cgroup.controllers").read_text().split())
        else:
            had = {name for one in cgroup.hierarchies() if one.version == 1 for name in one.controllers}
        told = {limit: f"cgroup {version}, by systemd" if name in had else refused for limit, name in _LIMITS.items()}
        return told if unified else {**told, "swap": "not set: systemd sets none on cgroup v1"}

    def _cgroup(self) -> str:
        return self.show("", "ControlGroup").get("ControlGroup", "").lstrip("/")


def manages() -> bool:
    """Whether a systemd is there for this user; by files alone."""
    return _SYSTEM.is_dir() and (os.geteuid() == 0 or (_runtime_dir() / "systemd" / "private").is_socket())


def manager() -> Manager:
    """Raises DriverUnavailable where there is none for this user."""
    for program in ("systemd-run", "systemctl"):
        if shutil.which(program) is None:
            raise DriverUnavailable(f"there is no {program}", resolution=f"apt-get install systemd, or {_INSTEAD}")
    if not _SYSTEM.is_dir():
        raise DriverUnavailable("systemd does not manage this host (it is not PID 1)", resolution=_INSTEAD)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": ""}
    if os.geteuid() == 0:
        return Manager("--system", environment)
    if not manages():
        raise DriverUnavailable(
            f"no systemd manages a session of user {os.geteuid()}",
            resolution=f"sudo loginctl enable-linger $USER, or {_INSTEAD}",
        )
    return Manager("--user", {**environment, "XDG_RUNTIME_DIR": str(_runtime_dir())})


def start(
    where: Manager,
    program: Path,
    spec: Spec,
    endpoint: Endpoint,
    mark: Mark,
    *,
    run_dir: Path,
    rlimits: Rlimits,
    keep_alive_s: float,
) -> UnitInstance:
    """Have systemd listen at `endpoint`; nothing of the service runs yet. Marks `created` when it does. Raises
    LaunchError, after removing what it had made."""
    name = f"{PREFIX}{spec.labels['lab.launch']}"
    files = _Files.of(run_dir, name)
    given = spec.service_environment(host=endpoint.host, port=endpoint.port)
    files.write({**given, "LAB_IDLE_MS": f"{keep_alive_s * 1000:.0f}"})
    instance = UnitInstance(where, name, labels=spec.labels, endpoint=endpoint, files=files)
    words = _words(name, program, spec, endpoint, files=files, rlimits=rlimits)
    try:
        where.call("systemd-run", *words, doing=f"listen at {endpoint}", error=LaunchError)
    except BaseException:
        with contextlib.suppress(DriverError):  # the first error is the one to tell; what stays is found by its labels
            instance.delete()
        raise
    mark(Phase.CREATED, source=Source.RETURN)
    instance.watch(mark, spec)
    return instance


def found(where: Manager) -> list[UnitInstance]:
    """Every function of the lab's whose socket or service this systemd knows. Raises DriverError."""
    said = where.call(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", f"{PREFIX}*", doing="list its units"
    )
    names = dict.fromkeys(line.split()[0].rpartition(".")[0] for line in said.splitlines() if line.strip())
    instances = []
    for name in names:
        told = where.show(f"{name}.socket", "Description", "Listen")
        labels = _labels(told.get("Description", "")) or _labels(
            where.show(f"{name}.service", "Description").get("Description", "")
        )
        host, _, port = told.get("Listen", "").partition(" ")[0].rpartition(":")
        endpoint = Endpoint(host.strip("[]"), int(port)) if host and port.isdigit() else None
        if labels:
            instances.append(UnitInstance(where, name, labels=labels, endpoint=endpoint))
    return instances


class UnitInstance(KeptSocket):
    """One function: its two units, and what runs in the service's cgroup."""

    def __init__(
        self,
        where: Manager,
        name: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        files: _Files | None = None,
    ) -> None:
        self.labels = labels
        self.endpoint = endpoint
        self.id = labels.get("lab.launch", "")
        self._where = where
        self._name = name
        self._files = files
        self._killed = False
        self._watch: _Watch | None = None

    def watch(self, mark: Mark, spec: Spec) -> None:
        """Tell `mark` how the first worker ends, if not by itself when nobody calls."""
        self._watch = _Watch(self, mark, spec)

    def logs(self) -> bytes:
        """What its workers wrote; empty where another lab launched it."""
        return self._files.tail() if self._files else b""

    def host_pids(self) -> Mapping[int, Role]:
        """The worker and its children; systemd itself is every unit's."""
        return {member.pid: Role.SERVICE for member in self._members()}

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The service's program, while it runs: what it writes is not told apart from the host's own files."""
        links = (Path(f"/proc/{member.pid}/exe") for member in self._members())
        return {"image": sorted({Path(found) for link in links if (found := read_link(link))})}

    def workers(self) -> Sequence[str]:
        """The service's main process, by its pid and start; none at zero."""
        main = self.main()
        return [name_of(main)] if main else []

    def main(self) -> Process | None:
        """The main process that systemd names. Raises DriverError."""
        pid = int(self._where.show(f"{self._name}.service", "MainPID").get("MainPID") or 0)
        return Process.of(pid) if pid else None

    def outcome(self) -> dict[str, str]:
        """What systemd tells of the last worker's end. Raises DriverError."""
        return self._where.show(f"{self._name}.service", "Result", "ExecMainCode", "ExecMainStatus")

    def force_cold(self, *, timeout_s: float) -> None:
        """systemd stops the service, and keeps the socket."""
        with self._watch.expecting() if self._watch else contextlib.nullcontext():
            self._stop(f"{self._name}.service", timeout_s=timeout_s)
        if self._where.show(f"{self._name}.socket", "ActiveState").get("ActiveState") != "active":
            raise DriverError(f"nobody listens for function {self.id} any more: its socket unit has ended")

    def initialize(self, *, timeout_s: float) -> None:
        """A connection without a byte starts the worker; it is closed once the worker listens."""
        if self._files is None or self.endpoint is None:
            raise DriverError(f"function {self.id} was launched by another lab, which follows what it writes")
        if self.workers():
            raise DriverError(f"function {self.id} has a worker, and one serves all calls")
        deadline = time.monotonic() + timeout_s
        before = self._files.listened()
        with socket.create_connection((self.endpoint.host, self.endpoint.port), timeout_s):
            while self._files.listened() == before:
                if time.monotonic() > deadline:
                    raise DriverError(f"no worker of function {self.id} listened within {timeout_s:g} s")
                time.sleep(_SOON_S)

    @contextlib.contextmanager
    def follow(self, seen: Seen) -> Iterator[None]:  # noqa: ARG002  systemd signals units only to who subscribes
        """Nothing is shown: its signals take a client of D-Bus, and asking again and again would disturb the call."""
        yield

    def stop(self, *, timeout_s: float) -> None:
        """systemd closes the socket and ends the worker by SIGTERM; after `timeout_s` by SIGKILL."""
        if self._watch:
            self._watch.expect()
        self._stop(f"{self._name}.socket", f"{self._name}.service", timeout_s=timeout_s)

    def was_killed(self) -> bool:
        """Whether SIGTERM had not ended it in time."""
        return self._killed

    def delete(self) -> None:
        """Kill what runs, and have systemd forget both units."""
        units = (f"{self._name}.socket", f"{self._name}.service")
        if self._watch:
            self._watch.expect()
        try:
            self._stop(*units, timeout_s=0)
            self._forget(units)
        except CleanupError:
            raise
        except DriverError as error:
            raise CleanupError(error.brief, details=error.details, resolution=error.resolution) from error
        if self._watch:
            self._watch.close()
        if self._files:
            self._files.remove()

    def _forget(self, units: Sequence[str]) -> None:
        deadline = time.monotonic() + _STOP_S
        while True:
            left = [unit for unit in units if self._where.show(unit, "LoadState").get("LoadState") != "not-found"]
            if not left:
                return
            if time.monotonic() > deadline:
                raise CleanupError(
                    f"systemd keeps {' and '.join(left)}", resolution=f"systemctl {self._where.scope} stop {left[0]}"
                )
            with contextlib.suppress(DriverError):  # one that has not failed is no error of ours
                self._where.call("systemctl", "reset-failed", *left, doing="forget a failed unit")
            time.sleep(_SOON_S)

    def _stop(self, *units: str, timeout_s: float) -> None:
        """Raises DriverError."""
        members = self._members()
        refused: DriverError | None = None
        for unit in units:
            try:
                self._where.call("systemctl", "stop", "--no-block", unit, doing="stop the function")
            except DriverError as error:  # it is gone already, or is not stopped: which of them, its state tells
                refused = error
        if not _ended(members, timeout_s):
            self._killed = timeout_s > 0
            with contextlib.suppress(DriverError):  # it has ended just now
                self._where.call(
                    "systemctl", "kill", "--signal=SIGKILL", f"{self._name}.service", doing="kill the function"
                )
        deadline = time.monotonic() + _STOP_S
        while any(self._where.show(unit, "ActiveState").get("ActiveState") not in _DOWN for unit in units):
            if time.monotonic() > deadline:
                raise refused or DriverError(f"function {self.id} does not end, though systemd was asked to stop it")
            time.sleep(_SOON_S)

    def _members(self) -> list[Process]:
        told = self._where.show(f"{self._name}.service", "MainPID", "ControlGroup")
        pids = {int(told.get("MainPID") or 0)} - {0}
        if own := told.get("ControlGroup", "").lstrip("/"):
            for place in _HIERARCHIES:
                with contextlib.suppress(OSError):  # it ended just now, or that hierarchy is not systemd's
                    pids |= set(map(int, (place / own / "cgroup.procs").read_text().split()))
        return [process for pid in sorted(pids) if (process := Process.of(pid)) is not None]


_DOWN = ("inactive", "failed", "")


class _Watch:
    """Waits for the end of the first worker, and tells of it as a failure, unless it ended since nobody called, or as
    asked."""

    def __init__(self, instance: UnitInstance, mark: Mark, spec: Spec) -> None:
        self._instance = instance
        self._mark = mark
        self._spec = spec
        self._asked = threading.Event()
        self._forcing = False
        self._thread = threading.Thread(target=self._run, name=f"end of {instance.id}", daemon=True)
        self._thread.start()

    def expect(self) -> None:
        self._asked.set()

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """The end of a worker is no failure meanwhile, nor later on."""
        self._forcing = True
        yield

    def close(self) -> None:
        self._asked.set()
        self._thread.join(_CALL_S)

    def _run(self) -> None:
        with contextlib.suppress(DriverError):  # systemd has gone, which whoever asks it next is told
            told = self._await()
            if told and not self._asked.is_set() and not self._forcing and self._spec.restart is not Restart.BEST:
                error = _ending(told).error(memory_bytes=self._spec.memory_bytes, output=self._instance.logs())
                self._mark.failed(error)

    def _await(self) -> dict[str, str]:
        """What systemd tells of a bad end; empty where there was none."""
        while not self._asked.wait(_LOOK_S):
            main = self._instance.main()
            while main is not None and not self._asked.is_set() and not main.wait(_LOOK_S):
                pass
            told = self._instance.outcome()
            if told.get("Result", "success") != "success":
                return told
            if main is not None or self._forcing:
                return {}
        return {}


@dataclass(frozen=True, slots=True)
class _Files:
    """Of one function: its environment, which systemd reads at each start, and what its workers write."""

    environment: Path
    log: Path

    @classmethod
    def of(cls, run_dir: Path, name: str) -> _Files:
        return cls(run_dir / f"{name}.environment", run_dir / f"{name}.log")

    def write(self, environment: Mapping[str, str]) -> None:
        """For this user alone: values may be secrets, and systemd shows to everybody what a unit itself says."""
        for path in (self.environment, self.log):
            path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        self.environment.write_text("".join(f"{key}={_quoted(value)}\n" for key, value in environment.items()))

    def tail(self) -> bytes:
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - KEPT_BYTES))
                return log.read(KEPT_BYTES)
        except FileNotFoundError:
            return b""

    def listened(self) -> int:
        """How many workers have said that they listen."""
        try:
            return self.log.read_bytes().count(b" listening ")
        except FileNotFoundError:
            return 0

    def remove(self) -> None:
        for path in (self.environment, self.log):
            path.unlink(missing_ok=True)


def _words(name: str, program: Path, spec: Spec, endpoint: Endpoint, *, files: _Files, rlimits: Rlimits) -> list[str]:
    """What systemd-run is told."""
    of_socket = {
        "ListenStream": str(endpoint),
        # One that fails at each connection is given up; one that is ended and called again quickly is not.
        "TriggerLimitIntervalSec": "2",
        "TriggerLimitBurst": "40",
    }
    of_service = {
        "EnvironmentFile": str(files.environment),
        "StandardOutput": f"append:{files.log}",
        "StandardError": f"append:{files.log}",
        "WorkingDirectory": "/",
        "StartLimitIntervalSec": "0",
        "TimeoutStopSec": f"{_STOP_S:g}",
        "MemoryMax": str(spec.memory_bytes),
        "MemorySwapMax": "0",
        "CPUQuota": f"{spec.cpus * 100:g}%",
        "TasksMax": str(spec.pids),
    }
    of_service |= {f"Limit{key.upper()}": ":".join(map(_limit, pair)) for key, pair in rlimits.items()}
    of_service |= {"CPUAffinity": cpu_list(spec.cpuset)} if spec.cpuset else {}
    return [
        "--quiet",
        "--collect",
        f"--unit={name}",
        f"--description={json.dumps(dict(spec.labels))}",
        "--service-type=exec",
        *(f"--socket-property={key}={value}" for key, value in of_socket.items()),
        *(f"--property={key}={value}" for key, value in of_service.items()),
        "--",
        str(program),
        *(spec.command or ()),
    ]


def _limit(value: int) -> str:
    return "infinity" if value == UNLIMITED else str(value)


def _quoted(value: str) -> str:
    """As systemd.exec(5) reads a value in double quotes."""
    escaped = "".join(f"\\{one}" if one in '"\\$`' else one for one in value)
    return f'"{escaped}"'


def _labels(description: str) -> dict[str, str]:
    with contextlib.suppress(ValueError):
        told = json.loads(description)
        if isinstance(told, dict) and "lab.run" in told:
            return {str(key): str(value) for key, value in told.items()}
    return {}


def _ending(told: Mapping[str, str]) -> Ending:
    number = int(told.get("ExecMainStatus") or 0)
    out_of_memory = told.get("Result") == "oom-kill"
    if told.get("ExecMainCode") == "1":  # CLD_EXITED
        return Ending(status=number, out_of_memory=out_of_memory)
    return Ending(signal=number, out_of_memory=out_of_memory) if number else Ending(out_of_memory=out_of_memory)


def _ended(members: Sequence[Process], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    return all(member.wait(deadline - time.monotonic()) for member in members)


def _runtime_dir() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
