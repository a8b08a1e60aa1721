"""The service's own binary as a child of a test, for what needs no engine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

_ENDS_WITHIN_S = 20.0


@contextlib.contextmanager
def started(*command: str | Path, nonce: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `command`, which ends in the service's binary; gives it and its port once it listens, and kills it after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"LAB_PORT": str(port), "LAB_NONCE": nonce, **environment}
    process = subprocess.Popen([str(word) for word in command], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert [process.stdout.readline().split()[2] for _ in range(2)] == [b"main", b"listening"]
        yield process, port
    finally:
        process.kill()
        process.wait(_ENDS_WITHIN_S)
        process.stdout.close()
