"""Requests to the lab's own service beyond the first: by its network, or from within where it has none."""

from __future__ import annotations

import http.client
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lab.errors import DriverError, Unsupported
from lab.features import Execs
from lab.launch.session import Session
from lab.spec import Endpoint
from lab.units import MIB

ALLOC_TIMEOUT_S = 60.0
SPARE_BYTES = 24 * MIB
"""What a service's memory keeps free of what it is asked to hold, so that nothing in it is killed for lack of any: a
guest's kernel and its init live there as well."""

_TIMEOUT_S = 10.0
_ANSWER_BYTES = 1 << 20
_MAX_INSIDE_S = 60  # lab/service/src/client/ask.c
_EXEC_START_S = 20.0  # what engines take to start a process in a container, on a busy machine


class Refused(DriverError):
    """The service answered with the HTTP status `status` and no success; `details` are its answer's bytes."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        super().__init__(f"the service refused {method} {path} with {status}", details=body.decode(errors="replace"))
        self.status = status


def facts(session: Session) -> Mapping[str, Any]:
    """What the service says of itself and of where it runs (GET /facts). Raises DriverError."""
    return _ask(session, "GET", "/facts", _TIMEOUT_S)


def get(session: Session, path: str, *, timeout_s: float = _TIMEOUT_S) -> Mapping[str, Any]:
    """What the service answers to GET `path`: by the network, or by `exec` where it has none. Raises Unsupported
    where there is neither; Refused where the service does not do it; DriverError."""
    return _ask(session, "GET", path, timeout_s)


def post(session: Session, path: str, *, timeout_s: float = _TIMEOUT_S) -> Mapping[str, Any]:
    """What the service answers to POST `path`, which has no body; all else as `get`."""
    return _ask(session, "POST", path, timeout_s)


def believed_bytes(told: Mapping[str, Any]) -> dict[str, int]:
    """Of `facts`, the memory that the service believes to be there: `total` (MemTotal of the kernel that it sees) and
    `limit` (that of its own cgroup, where it sees one)."""
    found = {}
    total = re.fullmatch(r"(\d+) kB", str(told.get("memory_total") or ""))
    if total:
        found["total"] = int(total[1]) * 1024
    for key in ("cgroup_v2_memory_max", "cgroup_v1_memory_limit"):
        text = str(told.get(key) or "").strip()
        if text.isdigit() and int(text) < 1 << 62:  # above that is version 1's way to say that there is none
            found.setdefault("limit", int(text))
    return found


def hold(session: Session, mib: int) -> None:
    """Have the service take and touch `mib` MiB more, and return when it has (POST /alloc). Raises Unsupported where
    that would leave it less than `SPARE_BYTES`, or it is not the lab's own; DriverError."""
    if not session.spec.builtin:
        raise Unsupported(
            f"'{session.spec.image}' cannot be asked to hold memory", resolution="leave out --image, or give hold=0"
        )
    told = facts(session)
    room = min(session.spec.memory_bytes, believed_bytes(told).get("total", session.spec.memory_bytes))
    wanted = (int(told.get("allocated_mib", 0)) + mib) * MIB + SPARE_BYTES
    if wanted > room:
        declared = session.spec.memory_bytes + wanted - room
        raise Unsupported(
            f"{mib} MiB more do not fit: of {room // MIB} MiB at least {SPARE_BYTES // MIB} stay free",
            resolution=f"give --memory {-(-declared // MIB)}M, or ask for less",
        )
    _ask(session, "POST", f"/alloc?mib={mib}", ALLOC_TIMEOUT_S)


def _ask(session: Session, method: str, path: str, timeout_s: float) -> Mapping[str, Any]:
    instance = session.instance
    if instance is not None and instance.endpoint is not None:
        status, body = _by_network(instance.endpoint, session.spec.nonce, method, path, timeout_s)
    elif isinstance(instance, Execs) and session.spec.builtin:
        status, body = _from_inside(instance, method, path, timeout_s)
    else:
        raise Unsupported("an instance with neither a network nor a way in cannot be asked for anything")
    if not 200 <= status < 300:
        raise Refused(method, path, status, body)
    try:
        told = json.loads(body)
    except ValueError as error:
        raise DriverError(f"the service answered {method} {path} with no JSON: {error}") from error
    if not isinstance(told, dict):
        raise DriverError(f"the service answered {method} {path} with no object")
    return told


def _by_network(endpoint: Endpoint, nonce: str, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout_s)
    try:
        headers = {"Host": endpoint.named, "X-Lab-Nonce": nonce, "Connection": "close"}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise DriverError(f"the service did not answer {method} {path}: {error}") from error
    finally:
        connection.close()


def _from_inside(instance: Execs, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """By the service's own `ask` mode, run beside it: it finds address and nonce in the environment that it shares."""
    limit_s = min(_MAX_INSIDE_S, math.ceil(timeout_s))
    result = instance.exec(["/service", "ask", method, path, str(limit_s)], timeout_s=limit_s + _EXEC_START_S)
    said = result.stderr.decode(errors="replace").strip()
    refused = re.search(r"^service: status: (\d{3})$", said, re.MULTILINE)
    if result.exit_code == 0:
        return http.client.OK, result.stdout
    if refused:
        return int(refused[1]), result.stdout
    raise DriverError(f"the service did not answer {method} {path}: {said or f'ask ended with {result.exit_code}'}")
