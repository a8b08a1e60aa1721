"""What goes over a WebSocket to a pod: commands."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import translated
from lab.errors import DriverError
from lab.features import ExecResult

_OUTPUT_BYTES = 16 * 1024 * 1024
_ERROR_CHANNEL = 3


def run_in_pod(
    api: Api, namespace: str, pod: str, container: str, argv: Sequence[str], *, timeout_s: float
) -> ExecResult:
    """Run `argv` in a container of the pod, with 16 MiB of output at most.

    Raises DriverError when it cannot be run, or does not end in time; then it may run on until the pod ends, since
    Kubernetes has no way to end it.
    """
    from kubernetes.stream import stream

    doing = f"run '{argv[0]}' in the pod"
    core = api.own_client()
    connection: Any = None
    try:
        with translated(doing):
            connection = stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=list(argv),
                stdin=False,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
                _request_timeout=timeout_s,
            )
            out, err = _read(connection, argv[0], timeout_s)
            code = _exit_code(connection.read_channel(_ERROR_CHANNEL), argv[0])
    finally:
        if connection is not None:
            connection.close(timeout=0)  # the other side is not waited for
        core.api_client.close()
    if code in (126, 127) and not out and b"exec" in err:  # the OCI runtime's own codes: it found nothing to run
        raise DriverError(f"the pod has no '{argv[0]}' to run", details=err.decode(errors="replace"))
    return ExecResult(code, out, err)


def _read(connection: Any, program: str, timeout_s: float) -> tuple[bytes, bytes]:
    import websocket

    deadline = time.monotonic() + timeout_s
    out, err = b"", b""
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise DriverError(f"'{program}' did not end in the pod within {timeout_s:g} s")
        with contextlib.suppress(websocket.WebSocketConnectionClosedException):  # what came before it still counts
            connection.update(timeout=left_s)
        # Before the output is taken: what tells the end comes after all of it.
        ended = not connection.is_open() or _peek(connection, _ERROR_CHANNEL)
        out += connection.read_channel(1) if _peek(connection, 1) else b""
        err += connection.read_channel(2) if _peek(connection, 2) else b""
        if len(out) + len(err) > _OUTPUT_BYTES:
            raise DriverError(f"the command wrote more than {_OUTPUT_BYTES} bytes")
        if ended:
            return out, err


def _peek(connection: Any, channel: int) -> bytes:
    """What has come on a channel. The client reads from the network for that, too, and once tells an end by raising."""
    import websocket

    try:
        return bytes(connection.peek_channel(channel))
    except websocket.WebSocketConnectionClosedException:
        return bytes(connection.peek_channel(channel))


def _exit_code(told: bytes, program: str) -> int:
    """The exit code in the `Status` that ends a command (Kubernetes API, `v4.channel.k8s.io`)."""
    try:
        status = json.loads(told)
    except ValueError as error:
        raise DriverError(
            "the connection to the pod ended before the command did", details=told.decode(errors="replace")
        ) from error
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    said = " ".join(str(status.get("message", "")).split())
    if "executable file not found" in said or "no such file or directory" in said:
        raise DriverError(f"the pod has no '{program}' to run", details=said)
    raise DriverError(f"Kubernetes could not run '{program}' in the pod: {said}", details=said)
