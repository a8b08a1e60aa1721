"""One of Podman's containers."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers import ociruntimes
from drivers.dockerapi.streams import Frames
from drivers.ociruntimes import sandbox
from drivers.podman import processes
from drivers.podman.api import Api
from drivers.podman.errors import translated
from lab.errors import CleanupError, DriverError
from lab.features import ExecResult, Role, SleepState
from lab.host import procs
from lab.host.procs import Process
from lab.host.rlimits import Rlimits
from lab.launch.asleep import GONE, await_asleep, how_asleep, require_offered
from lab.spec import Endpoint

_LOG_BYTES = 65_536
_LOG_LINES = 1_000
_EXEC_BYTES = 16 * 1024 * 1024
_READ_BYTES = 65_536
_GONE_TIMEOUT_S = 30.0
_LOOK_S = 0.02
_STOP_S = 10
_NOTHING_RAN = re.compile(rb"Error: .*OCI (?:runtime|permission) ", re.DOTALL)
"""What Podman says for itself, among what a command writes, of one that its runtime could not run."""
_KILLED = 128 + signal.SIGKILL
_HEALTH_INTERVAL_NS = 30_000_000_000  # Podman's own, where the image names none
_NO_CHECKPOINTS = "the lab has containers saved by runc alone, not by Podman"
_NO_FREEZER = "Podman pauses by the cgroups' freezer, which this user has no part in"


@dataclass(frozen=True, slots=True)
class Engine:
    """What Podman told of itself that every launch needs: whether it is another user's than root, by which controllers
    of cgroups it sets limits, whether it can pause a container, and what it can hand on of the kernel's limits."""

    rootless: bool
    controllers: frozenset[str]
    freezes: bool
    rlimits: Rlimits


class PodmanContainer:
    """A container of the lab's."""

    def __init__(
        self,
        api: Api,
        container: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        engine: Engine,
        before_end: Callable[[], None] = lambda: None,
        on_delete: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = container
        self.labels = labels
        self.endpoint = endpoint
        self._api = api
        self._engine = engine
        self._states = {
            SleepState.PAUSED: "" if engine.freezes else _NO_FREEZER,
            SleepState.STOPPED: "",
            SleepState.SAVED: _NO_CHECKPOINTS,
        }
        self._before_end = before_end
        self._on_delete = on_delete
        self._processes: set[Process] = set()

    def logs(self) -> bytes:
        """The end of what it wrote; empty where it is gone."""
        with translated("read the container's log"):
            if self._api.inspect(self.id) is None:
                return b""
            return self._api.logs(self.id, _LOG_LINES)[-_LOG_BYTES:]

    def stop(self, *, timeout_s: float) -> None:
        """The image's stop signal (SIGTERM by default), and SIGKILL after `timeout_s`, rounded up to seconds."""
        self._before_end()
        with translated("stop the container"):
            told = self._api.inspect(self.id)
            if told is None:  # it is gone, which is more than stopped
                return
            self._note(told)
            self._thaw(told)
            self._api.stop(self.id, math.ceil(timeout_s))

    def was_killed(self) -> bool:
        """Whether Podman ended it by SIGKILL, as `stop` does after its time, and not for its memory."""
        with translated("inspect the container"):
            state = (self._api.inspect(self.id) or {}).get("State") or {}
        return state.get("ExitCode") == _KILLED and not state.get("OOMKilled")

    def delete(self) -> None:
        """Remove it with its anonymous volumes; returns when Podman knows it no more and its processes ended."""
        self._before_end()
        with translated("remove the container", CleanupError):
            told = self._api.inspect(self.id)
            if told is not None:
                self._note(told)
                self._thaw(told)
                self._api.remove(self.id)
            self._await_forgotten()
        left = procs.all_ended(self._processes, _GONE_TIMEOUT_S)
        try:
            if told is not None and self._beside(told):
                left = sandbox.end_leaked(self.id, left)
        except PermissionError as error:
            raise CleanupError(f"container {self.id[:12]} is gone, and its processes are another user's") from error
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise CleanupError(
                f"container {self.id[:12]} is gone, and its processes {pids} are not", resolution=f"sudo kill -9 {pids}"
            )
        self._on_delete()

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it, with 16 MiB of output at most; what does not end in time is killed. Raises DriverError."""
        with translated(f"run '{argv[0]}' in the container"):
            made = self._api.exec_create(self.id, argv)
            connection = self._api.exec_start(made)
            try:
                output = _read_all(connection, timeout_s)
            except TimeoutError as error:
                self._kill_exec(made)
                raise DriverError(f"'{argv[0]}' did not end in the container within {timeout_s:g} s") from error
            finally:
                connection.close()
            code = self._exit_code(made)
            self._end_monitor(made)
        if code in (126, 127) and _NOTHING_RAN.match(output[1]):
            raise DriverError(f"the container has no '{argv[0]}' to run", details=output[1].decode(errors="replace"))
        return ExecResult(code, output[0], output[1])

    def host_pids(self) -> Mapping[int, Role]:
        """Its processes, its conmon, and what makes its network; empty when it does not run."""
        with translated("inspect the container"):
            told = self._api.inspect(self.id)
        if told is None:
            return {}
        found = processes.find(
            processes.Known.of(told), procs.table(), endpoint=self.endpoint, beside=self._beside(told)
        )
        return {process.pid: role for process, role in found.items()}

    def reported(self) -> Mapping[str, str]:
        """What the image's health check has said so far, and how often it is asked; empty without one."""
        with translated("inspect the container"):
            told = self._api.inspect(self.id) or {}
        health = ((told.get("State") or {}).get("Health") or {}).get("Status")
        check = (told.get("Config") or {}).get("Healthcheck")
        if not health or not check:
            return {}
        interval_ns = int(check.get("Interval") or _HEALTH_INTERVAL_NS)
        return {"health": str(health), "health_interval_s": f"{interval_ns / 1e9:g}"}

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The image's layers, and the container's own: its writable layer and the directory of its log. Empty for one
        that is gone, or in another store than overlay."""
        with translated("inspect the container"):
            told = self._api.inspect(self.id) or {}
        data = (told.get("GraphDriver") or {}).get("Data") or {}
        if "UpperDir" not in data:
            return {}
        log = ((told.get("HostConfig") or {}).get("LogConfig") or {}).get("Path")
        return {
            "image": [Path(path) for path in data.get("LowerDir", "").split(":") if path],
            "writable": [Path(data["UpperDir"]), *([Path(log).parent] if log else [])],
        }

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Frozen, or stopped and started again."""
        return self._states

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Pause or stop it, and look that its processes are frozen or gone. Raises DriverError."""
        require_offered(self._states, state)
        before = self._workload()
        with translated(f"put the container to sleep ({state})"):
            if state is SleepState.STOPPED:  # an end that is asked for
                self._before_end()
                self._api.stop(self.id, _STOP_S)
                await_asleep(lambda: before, timeout_s=timeout_s)
            else:
                self._api.pause(self.id)
                await_asleep(self._workload, timeout_s=timeout_s)
            told = (self._api.inspect(self.id) or {}).get("State") or {}
        ended = told.get("Running") is False and how_asleep(before) == GONE
        if not (ended if state is SleepState.STOPPED else told.get("Paused")):
            raise DriverError(f"Podman does not say that container {self.id[:12]} is {state}")

    def wake(self, state: SleepState) -> None:
        """Unpause or start it again. Raises DriverError."""
        require_offered(self._states, state)
        with translated(f"wake the container ({state})"):
            if state is SleepState.STOPPED:
                self._api.start(self.id)
            else:
                self._api.unpause(self.id)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """A stopped one is kept on disk: its writable layer and its log. Raises DriverError."""
        return self.storage().get("writable", ()) if state is SleepState.STOPPED else ()

    def _workload(self) -> list[int]:
        """What of it runs on this host's kernel, which can tell how it sleeps."""
        return [pid for pid, role in self.host_pids().items() if role is Role.SERVICE]

    def _note(self, told: Mapping[str, Any]) -> None:
        self._processes.update(processes.below(processes.Known.of(told), procs.table()))

    def _thaw(self, told: Mapping[str, Any]) -> None:
        """What is frozen hears no signal, and under version 1 of cgroups not even SIGKILL."""
        if (told.get("State") or {}).get("Paused"):
            self._api.unpause(self.id)

    def _beside(self, told: Mapping[str, Any]) -> bool:
        """Whether it can have processes that are not conmon's: those of a user's network and files, or a sandbox's."""
        return self._engine.rootless or ociruntimes.has_kernel(str(told.get("OCIRuntime") or ""))

    def _await_forgotten(self) -> None:
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while self._api.inspect(self.id) is not None:
            if time.monotonic() > deadline:
                raise CleanupError(
                    f"Podman still lists container {self.id[:12]}", resolution=f"podman rm -f {self.id[:12]}"
                )
            time.sleep(_LOOK_S)

    def _exit_code(self, made: str) -> int:
        # The stream ends a moment before Podman has noted the exit.
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while (told := self._api.exec_inspect(made))["Running"]:
            if time.monotonic() > deadline:
                raise DriverError("Podman does not tell how the command ended")
            time.sleep(0.005)
        return int(told["ExitCode"])

    def _kill_exec(self, made: str) -> None:
        pid = int(self._api.exec_inspect(made).get("Pid") or 0)
        process = Process.of(pid) if pid else None
        with contextlib.suppress(PermissionError):  # deleting the container ends it at the latest
            if process is not None:
                process.send(signal.SIGKILL)
        self._end_monitor(made)

    def _end_monitor(self, made: str) -> None:
        """End the conmon of a command that has ended: it would stay for five minutes, for whoever asks how that was
        (podman, ExitCommandDelay), and be counted as the container's."""
        with contextlib.suppress(PermissionError):
            sandbox.end_leaked(made)


def endpoint_of(told: Mapping[str, Any] | None) -> Endpoint | None:
    """Where a container found again was told to answer, of what an inspection `told`."""
    for bindings in (((told or {}).get("HostConfig") or {}).get("PortBindings") or {}).values():
        for one in bindings or ():
            return Endpoint(one["HostIp"], int(one["HostPort"]))
    return None


def _read_all(connection: socket.socket, timeout_s: float) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    frames, size = Frames(), 0
    output: dict[int, bytes] = {1: b"", 2: b""}
    for data in _received(connection, deadline):
        size += len(data)
        if size > _EXEC_BYTES:
            raise DriverError(f"the command wrote more than {_EXEC_BYTES} bytes")
        for stream, payload in frames.feed(data):
            output[stream] = output.get(stream, b"") + payload
    return output[1], output[2]


def _received(connection: socket.socket, deadline: float) -> Iterable[bytes]:
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        if not (data := connection.recv(_READ_BYTES)):
            return
        yield data
