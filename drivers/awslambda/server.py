"""The lab's own endpoint: one MiniStack server for each run and size of instance, on loopback, found again by its
environment, which the kernel holds from the creating call on."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from drivers.awslambda.emulator import MINISTACK, install
from lab.driver import Context, bears
from lab.errors import CleanupError, DriverError, DriverUnavailable
from lab.host import procs
from lab.host.procs import Process
from lab.image.engine import engine_address
from lab.launch.ends import last_lines
from lab.launch.waiter import reserve_port
from lab.spec import Spec

PRODUCT = f"MiniStack {MINISTACK}"
HOST = "127.0.0.1"
_LABELS = "LAB_LAMBDA_SERVER"
_FLAGS = "LAMBDA_DOCKER_FLAGS"
_LEAST_WORKERS, _MOST_WORKERS = 4, 1000
_UP_TIMEOUT_S = 60.0
_POLL_S = 0.05
_END_TIMEOUT_S = 20.0
_children: dict[int, subprocess.Popen[bytes]] = {}  # of this process, to be reaped


@dataclass(frozen=True, slots=True)
class Server:
    """A MiniStack server: where it answers, whose it is, and what flags its containers get."""

    process: Process
    port: int
    labels: Mapping[str, str]
    flags: str

    kind = "server"

    @property
    def id(self) -> str:
        return f"ministack:{self.process.pid}"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def await_answer(self) -> bool:
        """Whether it answers; one that has only just been started is waited for, and one that has ended never will.
        Raises DriverUnavailable where it runs and does not answer."""
        deadline = time.monotonic() + _UP_TIMEOUT_S
        while self.process.alive():
            if _answers(self.port):
                return True
            if time.monotonic() > deadline:
                raise DriverUnavailable(
                    f"MiniStack (process {self.process.pid}) does not answer at {self.url}",
                    resolution=f"sudo kill -9 {self.process.pid}",
                )
            time.sleep(_POLL_S)
        return False

    def delete(self) -> None:
        """End it, and wait for its end. Its containers are instances, and not ended here. Raises CleanupError."""
        try:
            self.process.send(signal.SIGTERM)
            if not self.process.wait(_END_TIMEOUT_S):
                self.process.send(signal.SIGKILL)
                if not self.process.wait(_END_TIMEOUT_S):
                    raise CleanupError(f"MiniStack (process {self.process.pid}) does not end, though it was killed")
        except PermissionError as error:
            raise CleanupError(
                f"MiniStack (process {self.process.pid}) is another user's", resolution="run the command with sudo"
            ) from error
        if (child := _children.pop(self.process.pid, None)) is not None:
            child.wait(_END_TIMEOUT_S)


def flags_of(spec: Spec) -> str:
    """What MiniStack hands Docker for each container; it drops what it does not know without a word, such as `--cpus`,
    `--pids-limit`, `--memory-swap` and `--label`."""
    tmp = f"/tmp:exec,size={max(spec.scratch_bytes, 4096)},mode=1777"  # noqa: S108  a path of the instance's
    return shlex.join(["-m", str(spec.memory_bytes), "--tmpfs", tmp])


def most_workers(spec: Spec) -> int:
    """How many calls there may be at a time, over all functions of a server: what half of this host's memory has room
    for, and no more than AWS's own default."""
    return max(_LEAST_WORKERS, min(_MOST_WORKERS, psutil.virtual_memory().total // 2 // spec.memory_bytes))


def servers(labels: Mapping[str, str]) -> Sequence[Server]:
    """Every server of the lab's that runs and bears `labels`, as far as this user may read its environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            text = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"{_LABELS}=".encode() not in text:
            continue
        environment = dict(entry.partition("=")[::2] for entry in text.decode(errors="replace").split("\0"))
        process, own = Process.of(int(path.parent.name)), _parse(environment.get(_LABELS, ""))
        port = environment.get("GATEWAY_PORT", "")
        if process is not None and port.isdigit() and bears(own, labels) and _is_server(process.pid):
            found.append(Server(process, int(port), own, environment.get(_FLAGS, "")))
    return sorted(found, key=lambda one: one.process)


def provide(context: Context, spec: Spec, keep_alive_s: int) -> Server:
    """The run's server for instances of this size: one that runs, or a new one that answers. Raises DriverUnavailable,
    DriverError."""
    labels = {key: value for key, value in spec.labels.items() if key not in ("lab.target", "lab.launch")}
    flags = flags_of(spec)
    for server in servers(labels):
        if server.flags == flags and dict(server.labels) == labels:
            return server
    program = install(context)
    folder = context.run_dir / f"ministack-{os.urandom(4).hex()}"
    for part in ("tmp", "state"):
        (folder / part).mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    port = reserve_port()
    own = {
        "LAMBDA_WARM_TTL_SECONDS": str(keep_alive_s),
        "LAMBDA_ACCOUNT_CONCURRENCY": str(most_workers(spec)),
        _FLAGS: flags,
        _LABELS: json.dumps(labels),
    }
    environment = _environment(context, folder, port, own)
    log = folder / "log"
    try:
        with log.open("wb") as output:
            child = subprocess.Popen(
                [str(program), "-m", "ministack"],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal is the lab's to handle
            )
    except OSError as error:
        raise DriverError(f"MiniStack cannot be started: {error.strerror}") from error
    _children[child.pid] = child
    process = Process.of(child.pid)
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while process is not None and child.poll() is None and time.monotonic() < deadline:
        if _answers(port):
            return Server(process, port, labels, flags)
        time.sleep(_POLL_S)
    said = last_lines(log.read_bytes())
    ended = child.poll()
    if process is not None:
        Server(process, port, labels, flags).delete()
    shutil.rmtree(folder, ignore_errors=True)
    how = f"ended with exit status {ended}" if ended is not None else f"gave no answer within {_UP_TIMEOUT_S:g} s"
    raise DriverError(f"{PRODUCT} {how}", details=said)


def engine_pids(labels: Mapping[str, str]) -> dict[int, str]:
    """The servers that bear `labels`, and what they have started, by pid."""
    table = procs.table()
    pids = {}
    for server in servers(labels):
        pids[server.process.pid] = "ministack"
        pids |= {one.process.pid: "ministack" for one in procs.descendants(table, server.process.pid)}
    return pids


def _environment(context: Context, folder: Path, port: int, own: Mapping[str, str]) -> dict[str, str]:
    docker = engine_address(context.options)
    of_docker = {"DOCKER_HOST": docker.host}
    if docker.tls is not None:
        of_docker |= {"DOCKER_CERT_PATH": str(docker.tls), "DOCKER_TLS_VERIFY": "1" if docker.verify else ""}
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "BIND_HOST": HOST,  # its default is every address of the host
        "GATEWAY_PORT": str(port),
        "LAMBDA_EXECUTOR": "docker",
        "LAMBDA_STRICT": "1",  # never in a process of its own instead
        "IOT_MTLS_ENABLED": "0",  # which would listen as well
        "SFTP_ENABLED": "0",
        "TMPDIR": str(folder / "tmp"),
        "STATE_DIR": str(folder / "state"),
        **of_docker,
        **own,
    }


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _is_server(pid: int) -> bool:
    """What it starts inherits its environment."""
    return procs.arguments(pid)[-2:] == ["-m", "ministack"]


def _parse(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(one) for key, one in value.items()} if isinstance(value, dict) else {}
