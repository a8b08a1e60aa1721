"""Podman's API, served by a process of the lab's own: Podman has no daemon that anybody else would have started.

The service is `podman system service` at a Unix socket in a folder of this driver's alone. It is ended with the driver,
and ends by itself ten seconds after the lab died, since it then has no connection left; containers live on without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from drivers.podman.errors import INSTALL, refusal
from lab.errors import CleanupError, DriverUnavailable
from lab.host import procs
from lab.host.ownership import Owner
from lab.host.procs import Process
from lab.store.place import labels_in, remove_tree

LABELS = "LAB_PODMAN_SERVICE"
"""The variable of the service's environment that bears its run's labels, as JSON."""
IDLE_S = 10
"""The service ends when nobody has been connected for so long."""
_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0
_LOOK_S = 0.005
_REMOTE = ("CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINER_SSHKEY", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET")
"""What would make the program a client of another machine's Podman, or of a manager of services."""


class Service:
    """One `podman system service`, with containers by the OCI runtime `runtime`, "" for Podman's own choice."""

    def __init__(self, run_dir: Path, runtime: str) -> None:
        """Starts it; returns when it listens. Raises DriverUnavailable with what it said."""
        program = shutil.which("podman")
        if program is None:
            raise DriverUnavailable("there is no 'podman' on this host", resolution=INSTALL)
        self.folder = Path(tempfile.mkdtemp(prefix="podman-", dir=run_dir))  # mode 0700
        self.socket = self.folder / "api"
        self._hold: socket.socket | None = None
        self._log = self.folder / "log"
        arguments = [program, *(["--runtime", runtime] if runtime else []), "system", "service"]
        environment = {key: value for key, value in os.environ.items() if key not in _REMOTE}
        environment[LABELS] = json.dumps(labels_in(run_dir))
        try:
            with self._log.open("wb") as log:
                self._process = _start([*arguments, f"--time={IDLE_S}", f"unix://{self.socket}"], environment, log)
            self._hold = self._connect()
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Of the process that the lab started; where Podman is not root's, the one that serves is its child."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it, and remove its folder. Idempotent."""
        if self._hold is not None:
            self._hold.close()
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        remove_tree(self.folder)

    def _connect(self) -> socket.socket:
        """A connection that has asked something and stays: while one does, the service does not end by itself
        (podman, pkg/api/server/idle/tracker.go)."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            if self._process.poll() is not None:
                said = self._log.read_text(errors="replace").strip().removeprefix("Error: ")
                brief, resolution = refusal(said or f"it ended with code {self._process.returncode}", "serve its API")
                raise DriverUnavailable(brief, details=said, resolution=resolution)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(_START_TIMEOUT_S)
                connection.connect(str(self.socket))
                connection.sendall(b"GET /libpod/_ping HTTP/1.1\r\nHost: podman\r\n\r\n")
                if connection.recv(4096):
                    return connection
            except OSError:
                pass
            connection.close()
            if time.monotonic() > deadline:
                raise DriverUnavailable(
                    f"Podman did not serve its API within {_START_TIMEOUT_S:g} s",
                    details=self._log.read_text(errors="replace"),
                )
            time.sleep(_LOOK_S)


class LeftService:
    """A service whose lab is dead, and which has not ended yet; `id` is its pid and when it started."""

    kind = "podman service"

    def __init__(self, process: Process, labels: Mapping[str, str]) -> None:
        self.id = f"{process.pid}-{process.started_ticks}"
        self.labels = labels
        self._process = process

    def delete(self) -> None:
        """End it. Raises CleanupError."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                self._process.send(number)
            except PermissionError as error:
                raise CleanupError(
                    f"process {self._process.pid} is another user's", resolution=f"sudo kill {self._process.pid}"
                ) from error
            if self._process.wait(_END_TIMEOUT_S):
                return
        raise CleanupError(f"process {self._process.pid} does not end, though it was killed")


def left_services() -> Sequence[LeftService]:
    """The lab's services that are not this process's own."""
    own = str(Owner.current())
    found = []
    for pid, entry in procs.table().items():
        if entry.name == "podman" and "service" in procs.arguments(pid):
            labels = _labels(Path(f"/proc/{pid}/environ"))
            if "lab.run" in labels and labels.get("lab.owner") != own:
                found.append(LeftService(entry.process, labels))
    return found


def _labels(environ: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for pair in environ.read_bytes().split(b"\0"):
            name, _, value = pair.partition(b"=")
            if name == LABELS.encode():
                return {str(key): str(one) for key, one in json.loads(value).items()}
    return {}


def _start(argv: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), start_new_session=True
        )
    except OSError as error:
        raise DriverUnavailable(f"{argv[0]} cannot be run: {error.strerror}", details=str(error)) from error
