"""One container, and what is left of the lab's beside containers."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers import ociruntimes
from drivers.dockerapi import networks
from drivers.dockerapi import sleep as sleeping
from drivers.dockerapi.errors import translated
from drivers.dockerapi.streams import Connection, Frames
from drivers.ociruntimes import sandbox
from lab.errors import CleanupError, DriverError
from lab.features import ExecResult, Place, Role, SleepState
from lab.host import procs
from lab.host.procs import Process
from lab.spec import Endpoint

if TYPE_CHECKING:
    from docker import APIClient

_LOG_BYTES = 65_536
_SHIMS = ("containerd-shim", "conmon")  # Docker's, and Podman's
_LOG_LINES = 1_000
_HEALTH_INTERVAL_NS = 30_000_000_000  # the engine's own, where the image names none
_EXEC_BYTES = 16 * 1024 * 1024
_GONE_TIMEOUT_S = 30.0
_KILLED = 128 + signal.SIGKILL


class Container:
    """A container of the lab's. `local` says that its processes are this host's."""

    def __init__(
        self,
        api: APIClient,
        container: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        local: bool,
        before_end: Callable[[], None] = lambda: None,
        on_delete: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = container
        self.labels = labels
        self.endpoint = endpoint
        self._api = api
        self._local = local
        self._before_end = before_end
        self._on_delete = on_delete
        self._processes: set[Process] = set()

    def logs(self) -> bytes:
        """The end of what it wrote."""
        import docker.errors

        with translated("read the container's log"):
            try:
                return bytes(self._api.logs(self.id, stdout=True, stderr=True, tail=_LOG_LINES))[-_LOG_BYTES:]
            except docker.errors.NotFound:
                return b""

    def stop(self, *, timeout_s: float) -> None:
        """The image's stop signal (SIGTERM by default), and SIGKILL after `timeout_s`, rounded up to seconds."""
        import docker.errors

        self._before_end()
        with translated("stop the container"):
            self.note_processes()
            with contextlib.suppress(docker.errors.NotFound):  # it is gone, which is more than stopped
                self._api.stop(self.id, timeout=math.ceil(timeout_s))

    def was_killed(self) -> bool:
        """Whether the engine ended it by SIGKILL, as `stop` does after its time, and not for its memory."""
        with translated("inspect the container"):
            state = (self._inspect() or {}).get("State") or {}
        return state.get("ExitCode") == _KILLED and not state.get("OOMKilled")

    def delete(self) -> None:
        """Remove it with its anonymous volumes; returns when the engine knows it no more and its processes ended."""
        import docker.errors

        self._before_end()
        with translated("remove the container", CleanupError):
            sandboxed = self._local and _is_sandboxed(self._inspect())
            self.note_processes()
            try:
                self._api.remove_container(self.id, v=True, force=True)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                if error.status_code != 409:  # its removal is already in progress
                    raise
        if sandboxed:
            self._end_sandbox()
        self.await_gone()
        self._on_delete()

    def _end_sandbox(self) -> None:
        """End what a failed start of gVisor's leaves: shim, gofer and sandbox, of which the engine knows nothing."""
        try:
            left = sandbox.end_leaked(self.id)
        except PermissionError as error:
            raise CleanupError(f"processes of container {self.id[:12]} are another user's") from error
        if left:
            pids = ", ".join(str(one.pid) for one in left)
            raise CleanupError(f"container {self.id[:12]} leaves processes {pids}", resolution=f"sudo kill -9 {pids}")

    def note_processes(self) -> None:
        """Remember the processes that it has now: those whose end `await_gone` waits for. Raises the SDK's errors."""
        if self._local:
            self._processes.update(self._find_processes())

    def await_gone(self) -> None:
        """Return when the engine knows it no more and the processes that it had have ended. Raises CleanupError."""
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        with translated("inspect the container", CleanupError):
            while self._inspect() is not None:
                if time.monotonic() > deadline:
                    raise CleanupError(
                        f"Docker still lists container {self.id[:12]}", resolution=f"docker rm -f {self.id[:12]}"
                    )
                time.sleep(0.02)
        if left := procs.all_ended(self._processes, _GONE_TIMEOUT_S):
            pids = ", ".join(str(process.pid) for process in left)
            raise CleanupError(
                f"container {self.id[:12]} is gone, and its processes {pids} are not", resolution=f"sudo kill -9 {pids}"
            )

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in it, with 16 MiB of output at most; what does not end in time is killed where it is this
        host's process. Raises DriverError."""
        with translated(f"run '{argv[0]}' in the container"):
            made = self._api.exec_create(self.id, list(argv), stdout=True, stderr=True)["Id"]
            connection = Connection(self._api.exec_start(made, socket=True))
            try:
                output = _read_all(connection, timeout_s)
            except TimeoutError as error:
                self._kill_exec(made)
                raise DriverError(f"'{argv[0]}' did not end in the container within {timeout_s:g} s") from error
            finally:
                connection.close()
                connection.release()
            code = self._exit_code(made)
        if code in (126, 127) and not output[1]:  # the OCI runtime's own codes: it found nothing that it could run
            raise DriverError(f"the container has no '{argv[0]}' to run", details=output[0].decode(errors="replace"))
        return ExecResult(code, output[0], output[1])

    def host_pids(self) -> Mapping[int, Role]:
        """The container's processes, its shim, and the proxy of its port; empty when it does not run."""
        with translated("inspect the container"):
            return {process.pid: role for process, role in self._find_processes().items()}

    def places(self) -> Sequence[Place]:
        """Its address on the default bridge, its name on its peers' network, and its published port; in the host's
        network what a process has. Raises DriverError."""
        return networks.places(self._known(), self.labels, self.endpoint, networks.NAMED)

    def reach(self, place: Place) -> Place | str:
        """What is on a network that it is on. Raises DriverError."""
        return networks.reach(self._known(), place)

    def reported(self) -> Mapping[str, str]:
        """What the image's health check has said so far, and how often it is asked; empty without one."""
        with translated("inspect the container"):
            told = self._inspect() or {}
        health = ((told.get("State") or {}).get("Health") or {}).get("Status") or "none"
        if health == "none":
            return {}
        check = (told.get("Config") or {}).get("Healthcheck") or {}
        interval_ns = int(check.get("Interval") or _HEALTH_INTERVAL_NS)
        return {"health": str(health), "health_interval_s": f"{interval_ns / 1e9:g}"}

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """The image's layers, and the container's own: its writable layer, what the engine puts below that, and the
        directory of its log. Empty for one that is gone, or in another store than overlay2."""
        with translated("inspect the container"):
            told = self._inspect() or {}
        data = (told.get("GraphDriver") or {}).get("Data") or {}
        if "UpperDir" not in data:
            return {}
        lower = [Path(path) for path in data.get("LowerDir", "").split(":") if path]
        # overlay2 makes one layer of its own for each container, with the mount points of /etc/hosts and the like.
        made = [path for path in lower if path.parent.name.endswith("-init")]
        own = [Path(data["UpperDir"]), *made, *([Path(told["LogPath"]).parent] if told.get("LogPath") else [])]
        return {"image": [path for path in lower if path not in made], "writable": own}

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Frozen, or stopped and started again; an engine's checkpoints are out of reach."""
        return sleeping.states(self._api)

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Pause or stop it, and look that its processes are frozen or gone. Raises DriverError."""
        if state is SleepState.STOPPED:  # an end that is asked for
            self._before_end()
        sleeping.put_to_sleep(self._api, self.id, state, self._workload, timeout_s=timeout_s)

    def wake(self, state: SleepState) -> None:
        """Unpause or start it again. Raises DriverError."""
        sleeping.wake(self._api, self.id, state)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:
        """A stopped one is kept on disk: its writable layer and its log. Raises DriverError."""
        return self.storage().get("writable", ()) if state is SleepState.STOPPED else ()

    def _workload(self) -> list[int]:
        """What of it runs on this host's kernel, which can tell how it sleeps."""
        if not self._local:
            return []
        return [one.pid for one, role in self._find_processes().items() if role is Role.SERVICE]

    def _find_processes(self) -> dict[Process, Role]:
        state = self._inspect()
        pid = int(state["State"]["Pid"]) if state else 0
        entries = procs.table() if self._local and pid else {}
        if pid not in entries:
            return {}
        shim = entries.get(entries[pid].parent)
        root = shim if shim is not None and shim.name.startswith(_SHIMS) else entries[pid]
        found = sandbox.roles([root, *procs.descendants(entries, root.process.pid)])
        if root is shim:
            found[root.process] = Role.SHIM
        if _is_sandboxed(state):
            found = sandbox.bearing(self.id, entries) | found
        if self.endpoint is not None:
            for entry in entries.values():
                if entry.name == "docker-proxy" and _serves(entry.process.pid, self.endpoint):
                    found[entry.process] = Role.PROXY
        return found

    def _known(self) -> Mapping[str, Any]:
        with translated("inspect the container"):
            told = self._inspect()
        if told is None:
            raise DriverError(f"the engine knows no container {self.id[:12]}")
        return told

    def _inspect(self) -> dict[str, Any] | None:
        import docker.errors

        try:
            found: dict[str, Any] = self._api.inspect_container(self.id)
        except docker.errors.NotFound:
            return None
        return found

    def _exit_code(self, made: str) -> int:
        # The stream ends a moment before the engine has noted the exit.
        deadline = time.monotonic() + _GONE_TIMEOUT_S
        while (told := self._api.exec_inspect(made))["Running"] or told["ExitCode"] is None:
            if time.monotonic() > deadline:
                raise DriverError("Docker does not tell how the command ended")
            time.sleep(0.005)
        return int(told["ExitCode"])

    def _kill_exec(self, made: str) -> None:
        pid = int(self._api.exec_inspect(made)["Pid"])
        process = Process.of(pid) if self._local and pid else None
        if process is not None:
            with contextlib.suppress(PermissionError):  # only root may; deleting the container ends it at the latest
                process.send(signal.SIGKILL)


class Remnant:
    """An image, a network or a volume of the lab's."""

    def __init__(self, kind: str, identity: str, labels: Mapping[str, str], remove: Callable[[str], object]) -> None:
        self.kind = kind
        self.id = identity
        self.labels = labels
        self._remove = remove

    def delete(self) -> None:
        """Remove it; the engine answers when it is gone."""
        import docker.errors

        with translated(f"remove the {self.kind} {self.id}", CleanupError), contextlib.suppress(docker.errors.NotFound):
            self._remove(self.id)


def _is_sandboxed(told: Mapping[str, Any] | None) -> bool:
    """Whether a container that an inspection `told` of has a kernel of its own, by its runtime."""
    return ociruntimes.has_kernel(str(((told or {}).get("HostConfig") or {}).get("Runtime") or ""))


def _serves(pid: int, endpoint: Endpoint) -> bool:
    argv = procs.arguments(pid)
    told = dict(itertools.pairwise(argv))
    return told.get("-host-ip") == endpoint.host and told.get("-host-port") == str(endpoint.port)


def _read_all(connection: Connection, timeout_s: float) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    frames, output, size = Frames(), {1: b"", 2: b""}, 0
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        data = connection.receive()
        if not data:
            return output[1], output[2]
        size += len(data)
        if size > _EXEC_BYTES:
            raise DriverError(f"the command wrote more than {_EXEC_BYTES} bytes")
        for stream, payload in frames.feed(data):
            output[stream] = output.get(stream, b"") + payload
