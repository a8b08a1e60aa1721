"""One patient client: connects until it is let in, asks once, and waits for the answer as long as that takes. No code
of the lab's, Python's standard library only.

Reads lines from stdin: `at HOST PORT` (again where the address changes) and `go`, from which on it tries every 2 ms.
Says `there` when it has begun to read, and CLOCK_MONOTONIC's ns once all of a 200 has come. What is refused, reset, or
closed without an answer is tried again after 2 ms.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

EVERY_S = 0.002
REQUEST = b"GET / HTTP/1.1\r\nHost: patient\r\nAccept: */*\r\nConnection: close\r\n\r\n"


def main() -> int:
    place: list[tuple[str, int]] = []
    go = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            words = line.split()
            if words[0] == "at":
                place.append((words[1], int(words[2])))
            else:
                go.set()

    threading.Thread(target=read, daemon=True).start()
    sys.stdout.write("there\n")
    sys.stdout.flush()
    go.wait()
    while (ended_ns := asked(place[-1]) if place else 0) == 0:
        time.sleep(EVERY_S)
    sys.stdout.write(f"{ended_ns}\n")
    return 0


def asked(place: tuple[str, int]) -> int:
    """The instant at which the answer was complete; 0 where there was none."""
    received = b""
    try:
        with socket.create_connection(place) as connection:
            connection.sendall(REQUEST)
            while data := connection.recv(65536):
                received += data
                if complete(received):
                    return time.monotonic_ns()
    except OSError:
        pass
    return 0


def complete(received: bytes) -> bool:
    head, ended, body = received.partition(b"\r\n\r\n")
    if not ended or not head.startswith(b"HTTP/1.1 200"):
        return False
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= lengths[0]


if __name__ == "__main__":
    sys.exit(main())
