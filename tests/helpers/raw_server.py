"""A TCP server on loopback whose every connection is handed to a function, in a thread each or one after the other."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from lab.spec import Endpoint


@contextlib.contextmanager
def serving(
    handle: Callable[[socket.socket], None], *, host: str = "127.0.0.1", port: int = 0, workers: int = 0
) -> Iterator[Endpoint]:
    """Where it listens; with `workers`, so many threads take one connection each at a time."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if workers:
                one(connection)
            else:
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    for _ in range(workers or 1):
        threading.Thread(target=accept, daemon=True).start()
    try:
        yield Endpoint(host, listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def reset(connection: socket.socket) -> None:
    """End it by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
