"""Tasks that the service runs in children of its own: troubles that it makes, and antagonists that disturb others.

Each is bounded in amount, and carries its own deadline within the instance (docs/method.md, rule 18;
src/tasks/task.h). Whether the instance's limits are in place is for who starts one to prove first.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.errors import MeasurementError, Unsupported
from lab.features import OnThisHost, Role
from lab.host.procfs import read_link
from lab.launch.session import Session
from lab.service import ask

MAX_SECONDS = 120
GRACE_S = 2.0
"""After its deadline an antagonist that has not ended by itself is killed (lab/service/src/tasks/lifecycle.c)."""


class Trouble(StrEnum):
    """Harm, made until its amount and then held until it is ended; amounts are caps, in the units named here."""

    MEMORY = "memory"  # MiB touched
    FORKS = "forks"  # processes
    FILES = "files"  # the task's own limit on open files, lowered first
    DISK = "disk"  # MiB that the tmpfs at /tmp may have at most; it is filled
    CPU = "cpu"  # processes; as many as CPUs unless given
    KILL = "kill"  # SIGKILL of the service; no amount
    PANIC = "panic"  # of a guest's kernel (`Spec.guest_panic`); no amount


class Antagonist(StrEnum):
    """Load that ends by itself at its deadline; amounts are caps, in the units named here."""

    BUSY = "busy"  # processes
    BANDWIDTH = "bandwidth"  # MiB, one half of them copied to the other
    CACHE = "cache"  # MiB written at random; as many as the last-level cache has unless given
    FSYNC = "fsync"  # MiB of the file that is appended to
    NETWORK = "network"  # TCP connections over the instance's own loopback
    EXECS = "execs"  # processes that start others


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """The service's last task; `kind` is empty where there was none. Instants are ns of the service's CLOCK_MONOTONIC;
    `ended_ns`, `exit_code` and `signal` are None while it runs, and of the latter two one is.

    `made` counts processes, files or signals, `refused` what the kernel refused and `errno` the last such answer;
    `bytes` and `operations` count as they are done, so that they also tell how far one came that was killed.
    """

    kind: str
    running: bool
    pid: int
    amount: int
    started_ns: int
    ended_ns: int | None
    deadline_ns: int
    exit_code: int | None
    signal: int | None
    made: int
    refused: int
    errno: int
    bytes: int
    operations: int


def start_task(
    session: Session, kind: Trouble | Antagonist, *, seconds: int, amount: int | None = None
) -> Mapping[str, Any]:
    """Have the service begin `kind` for `seconds` (1 to 120), and return as it begins: `pid`, `amount`, `started_ns`,
    `deadline_ns`, and `cache_bytes`, its last-level cache (0: unknown). Raises Unsupported in the service's own words
    where it refuses, and for a disk to fill that is the host's; ask.Refused for arguments that it does not take;
    DriverError."""
    if kind is Trouble.DISK and _mounts_are_the_hosts(session):
        raise Unsupported("the instance has the host's own mounts, and so no /tmp but the host's")
    query = f"kind={kind}&seconds={seconds}" + ("" if amount is None else f"&amount={amount}")
    try:
        return ask.post(session, f"/task/start?{query}")
    except ask.Refused as error:
        if error.status != http.client.CONFLICT:
            raise
        raise Unsupported(f"the service refuses the task '{kind}': {_words(error)}", details=error.details) from error


def task(session: Session) -> TaskState:
    """What the service tells of its last task. Raises DriverError, MeasurementError where that is not whole."""
    return parse(ask.get(session, "/task"))


def parse(told: Mapping[str, Any]) -> TaskState:
    """The state in the service's answer to GET /task. Raises MeasurementError where it is not whole."""
    kinds = {"kind": str, "running": bool}
    found: dict[str, Any] = {field.name: told.get(field.name) for field in fields(TaskState)}
    wrong = [name for name, value in found.items() if type(value) is not kinds.get(name, int)]
    if wrong:
        raise MeasurementError("what the service tells of its task is not whole", details=f"{', '.join(wrong)}: {told}")
    ended = bool(found["kind"]) and not found["running"]
    if (
        found["kind"] not in {"", *Trouble, *Antagonist}
        or any(value < 0 for name, value in found.items() if name not in kinds)
        or (ended and found["ended_ns"] < found["started_ns"])
    ):
        raise MeasurementError("what the service tells of its task contradicts itself", details=str(dict(told)))
    by_signal = ended and found["signal"] > 0
    found["ended_ns"] = found["ended_ns"] if ended else None
    found["exit_code"] = found["exit_code"] if ended and not by_signal else None
    found["signal"] = found["signal"] if by_signal else None
    return TaskState(**found)


def _mounts_are_the_hosts(session: Session) -> bool:
    """Whether it runs in this process's mount namespace, where even a /tmp of a bounded size is everybody's. A link
    that cannot be read is another user's process's, and that is no bare process of the lab's."""
    pids: Mapping[int, Role] = session.instance.host_pids() if isinstance(session.instance, OnThisHost) else {}
    own = read_link(Path("/proc/self/ns/mnt"))
    service = [read_link(Path(f"/proc/{pid}/ns/mnt")) for pid, role in pids.items() if role is Role.SERVICE]
    return own is not None and own in service


def _words(error: ask.Refused) -> str:
    try:
        return str(json.loads(error.details)["error"])
    except (ValueError, KeyError, TypeError):
        return error.brief
