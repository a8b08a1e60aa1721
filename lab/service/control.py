"""The host's own health: the lab's service as its plain child, in no instance's cgroup, to be watched beside instances.

It listens on loopback, ends by its own deadline though the lab is dead (timeout(1), GNU coreutils), and bears the
lab's labels in its environment as a bare process does, so that `lab clean` finds it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.errors import LabError
from lab.host import procs
from lab.host.procs import Process
from lab.launch.waiter import reserve_port
from lab.service.build import build_service
from lab.spec import Endpoint, new_nonce
from lab.store.place import cache_dir

_LISTENS_WITHIN_S = 10.0
_ENDS_WITHIN_S = 10.0


@contextlib.contextmanager
def control(labels: Mapping[str, str], *, seconds: float, binary: Path | None = None) -> Iterator[Endpoint]:
    """A control instance that answers /healthz at the endpoint given, `seconds` at most; leaving the context ends it.

    `labels` are the run's. Raises LabError where it cannot be started or does not listen.
    """
    endpoint = Endpoint("127.0.0.1", reserve_port(None))
    child = _start(binary or build_service(cache_dir()), endpoint, labels, seconds)
    try:
        _await_listening(child)
        yield endpoint
    finally:
        _end(child)


def _start(binary: Path, endpoint: Endpoint, labels: Mapping[str, str], seconds: float) -> subprocess.Popen[bytes]:
    told = {**labels, "lab.launch": secrets.token_hex(8)}
    environment = {"LAB_HOST": endpoint.host, "LAB_PORT": str(endpoint.port), "LAB_NONCE": new_nonce()}
    try:
        return subprocess.Popen(
            ["timeout", "-s", "KILL", str(max(1, math.ceil(seconds))), str(binary)],  # 0 would be no limit
            env={"PATH": os.environ.get("PATH", os.defpath), **environment, "LAB_LABELS": json.dumps(told)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(
            f"the host's control instance cannot be started: {error.strerror}",
            resolution="install GNU coreutils, whose `timeout` bounds its life",
        ) from error


def _await_listening(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None  # noqa: S101  it was asked for
    descriptor, said = child.stdout.fileno(), b""
    deadline = time.monotonic() + _LISTENS_WITHIN_S
    while b" listening " not in said:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(descriptor, 4096) if readable else b""
        if not more:
            raise LabError("the host's control instance does not listen", details=said.decode(errors="replace"))
        said += more


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it and what it runs under: they are a session of their own."""
    members = [
        entry.process
        for entry in procs.table().values()
        if entry.session == child.pid and entry.process.pid != child.pid
    ]
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(child.pid, signal.SIGKILL)
    child.wait(timeout=_ENDS_WITHIN_S)
    for member in members:
        member.send(signal.SIGKILL)
    left = procs.all_ended(members, _ENDS_WITHIN_S)
    if child.stdout is not None:
        child.stdout.close()
    if left:
        raise LabError(f"the host's control instance does not end: {_named(left)}")


def _named(processes: list[Process]) -> str:
    return ", ".join(str(process.pid) for process in processes)
