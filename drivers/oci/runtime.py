"""The runtime's program: found, asked, and told what to do; its refusals become the lab's errors here."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from drivers import ociruntimes
from lab.errors import DriverError, DriverUnavailable
from lab.host import programs
from lab.host.programs import Ran

KNOWN = ("runc", "crun")
"""Looked for in this order where the user names none."""

_GLOBAL = {"runsc": ("--network=host",)}
"""What a runtime is told before each command. gVisor's own network stack takes the interfaces of a network namespace
of the container's own, of which there is none in the host's network, and by which nobody reaches a loopback."""
_TIMEOUT_S = 60.0
_VERSION = re.compile(r"version:? (\S+)")


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime with the command line that runc and crun share."""

    path: Path

    @property
    def name(self) -> str:
        """Its program's name."""
        return self.path.name

    @property
    def has_kernel(self) -> bool:
        """Whether its first process on this host is a kernel or VMM of the container's own."""
        return ociruntimes.has_kernel(self.name)

    def version(self) -> str:
        """What it says of itself. Raises DriverUnavailable for what is no OCI runtime."""
        told = programs.run(
            [str(self.path), "--version"],
            doing="tell its version",
            timeout_s=_TIMEOUT_S,
            check=False,
            error=DriverUnavailable,
        )
        text = told.stdout.decode(errors="replace")
        found = _VERSION.search(text)
        if told.code != 0 or found is None or "spec:" not in text:
            raise DriverUnavailable(f"{self.path} is not an OCI runtime with runc's command line", details=text)
        return found[1]

    def create(self, container: Container, output: IO[bytes] | int, *, enter: Path | None = None) -> None:
        """Make the container up to its program, which inherits `output`, and the signals that the caller ignores, as
        under nohup, unless the lab's `enter` comes between. Raises DriverError."""
        paths = ["--bundle", str(container.bundle), "--pid-file", str(container.pid_file)]
        self._run(container, ["create", *paths, container.id], output, through=[str(enter), "--"] if enter else [])

    def start(self, container: Container) -> None:
        """Let its program begin. Raises DriverError."""
        self._run(container, ["start", container.id])

    def kill(self, container: Container, number: str) -> None:
        """Signal its first process. Raises DriverError."""
        self._run(container, ["kill", container.id, number])

    def kill_inside(self, container: Container, pid: int) -> None:
        """End the process that has `pid` in the container's own kernel. Raises DriverError."""
        self._run(container, ["kill", "--pid", str(pid), container.id, "KILL"])

    def is_paused(self, container: Container) -> bool:
        """Whether the runtime says that all of it is held still. Raises DriverError."""
        argv = self._command(container, ["state", container.id])
        told = programs.run(argv, doing="tell its state", timeout_s=_TIMEOUT_S)
        return _entry(told.stdout.decode(errors="replace")).get("status") == "paused"

    def pause(self, container: Container) -> None:
        """Freeze all its processes. Raises DriverError."""
        self._run(container, ["pause", container.id])

    def resume(self, container: Container) -> None:
        """Let them go on. Raises DriverError."""
        self._run(container, ["resume", container.id])

    def checkpoint(self, container: Container, images: Path) -> None:
        """Write all of it to files in `images`, by CRIU, and end it. Raises DriverError, after which it runs on."""
        self._run(container, ["checkpoint", *_images(images), container.id])

    def restore(self, container: Container, images: Path, output: IO[bytes] | int) -> None:
        """Start what `images` hold where it was; its program writes to `output` from here on. Raises DriverError."""
        paths = ["--bundle", str(container.bundle), "--pid-file", str(container.pid_file)]
        self._run(container, ["restore", "--detach", *_images(images), *paths, container.id], output)

    def delete(self, container: Container) -> None:
        """Kill what runs and forget it; nothing happens when it is not known. Raises DriverError."""
        self._run(container, ["delete", "--force", container.id])

    def exec(
        self, container: Container, argv: Sequence[str], *, timeout_s: float, on_timeout: Callable[[], None]
    ) -> Ran:
        """Run `argv` in it. Raises DriverError, also where it does not end in time: `on_timeout` is to end it."""
        container.log.unlink(missing_ok=True)
        # Of a kernel of its own, by the pid that it has there.
        option = "--internal-pid-file" if self.has_kernel else "--pid-file"
        command = self._command(container, ["exec", option, str(container.exec_pid_file), container.id, *argv])
        doing = f"run '{argv[0]}' in the container"
        ran = programs.run(command, doing=doing, timeout_s=timeout_s, check=False, on_timeout=on_timeout)
        if problem := container.problem():
            raise DriverError(f"{self.name} could not {doing}: {problem}")
        return ran

    def _run(
        self,
        container: Container,
        arguments: Sequence[str],
        output: IO[bytes] | int | None = None,
        *,
        through: Sequence[str] = (),
    ) -> None:
        container.log.unlink(missing_ok=True)
        command, doing = [*through, *self._command(container, arguments)], f"{arguments[0]} the container"
        ran = programs.run(command, doing=doing, timeout_s=_TIMEOUT_S, check=False, output=output, cwd=container.bundle)
        if ran.code != 0:
            text = (ran.stderr + ran.stdout).decode(errors="replace")
            raise DriverError(f"{self.name} could not {doing}: {container.problem() or ran.said}", details=text)

    def _command(self, container: Container, arguments: Sequence[str]) -> list[str]:
        log = ["--log", str(container.log), "--log-format", "json"]
        more = _GLOBAL.get(ociruntimes.family(self.name), ())
        return [str(self.path), "--root", str(container.state), *log, *more, *arguments]


@dataclass(frozen=True, slots=True)
class Container:
    """One container's name and the paths in its bundle, which is also where the runtime keeps its state."""

    id: str
    bundle: Path

    @property
    def rootfs(self) -> Path:
        """Where its root file system is mounted."""
        return self.bundle / "rootfs"

    @property
    def state(self) -> Path:
        """The runtime's `--root`: one for each launch, so that no other's damage is in the way."""
        return self.bundle / "state"

    @property
    def pid_file(self) -> Path:
        """Where the runtime writes the pid of the first process."""
        return self.bundle / "pid"

    @property
    def exec_pid_file(self) -> Path:
        """Where the runtime writes the pid of what runs inside beside it."""
        return self.bundle / "exec-pid"

    @property
    def log(self) -> Path:
        """Where the runtime says what went wrong."""
        return self.bundle / "log.json"

    def problem(self) -> str:
        """The last error in the log, on one line; empty when there is none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        told = [entry for entry in map(_entry, lines) if entry.get("level") in ("error", "fatal")]
        return " ".join(str(told[-1].get("msg", "")).split()) if told else ""


def _images(folder: Path) -> list[str]:
    return ["--image-path", str(folder), "--work-path", str(folder)]


def find(name: str) -> Runtime:
    """The runtime `name`, or for `""` the first known one. Raises DriverUnavailable with the remedy."""
    for candidate in [name] if name else KNOWN:
        if path := shutil.which(candidate):
            return Runtime(Path(path))
    wanted = name or "runc"
    raise DriverUnavailable(
        f"there is no OCI runtime '{name}' on this host" if name else "there is no OCI runtime on this host",
        resolution=_remedy(wanted),
    )


def _remedy(name: str) -> str:
    if name in ociruntimes.KNOWN:
        install = ociruntimes.install_of(name)
        return install if install.startswith("sudo ") else f"put it on the PATH: {install}"
    return f"oci or oci:NAME, of {', '.join(ociruntimes.KNOWN)}"


def _entry(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {"level": "error", "msg": line}
    return value if isinstance(value, dict) else {}
