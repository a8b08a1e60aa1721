"""One guest, started by QEMU itself with the arguments given; no code of the lab's, Python's standard library only.

Reads one JSON object from stdin: argv (QEMU's, with -S), monitor (the path of the socket that argv names for QMP),
console (of the pair of FIFOs that argv names), port (of 127.0.0.1, forwarded), nonce. Prints one: boot_s, from just
before QMP's `cont` is sent to the first complete 200 of this nonce; tries; cpu_s, what QEMU has used by then.

QEMU accepts connections before its guest does, so that requests, every 2 ms on new connections, begin when the
console says that the service listens.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # isolated mode leaves it out

from requests_by_hand import end_on_sigterm, first_answer

TIMEOUT_S = 60.0
START_S = 20.0


def main() -> int:
    end_on_sigterm()
    given = json.load(sys.stdin)
    fifos = [f"{given['console']}.{end}" for end in ("out", "in")]
    for fifo in fifos:
        os.mkfifo(fifo, 0o600)
    # Read-write, so that opening waits for nobody.
    output, typed = (os.open(fifo, os.O_RDWR | os.O_NONBLOCK) for fifo in fifos)
    child = subprocess.Popen(given["argv"], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        found = boot(given, output)
        found["cpu_s"] = cpu_s(child.pid)
    finally:
        child.kill()
        child.wait()
        for descriptor in (output, typed):
            os.close(descriptor)
        for path in (*fifos, given["monitor"]):
            Path(path).unlink(missing_ok=True)
    json.dump(found, sys.stdout)
    return 0


def boot(given: dict[str, Any], output: int) -> dict[str, Any]:
    with Monitor(given["monitor"]) as monitor:
        begun_ns = time.monotonic_ns()
        monitor.tell("cont")
        returned_ns = time.monotonic_ns()
        await_line(output, f"lab {given['nonce']} listening ".encode())
        never = threading.Event()
        ended_ns, tries = first_answer(given["port"], given["nonce"], timeout_s=TIMEOUT_S, failed=never)
    return {"boot_s": (ended_ns - begun_ns) / 1e9, "cont_s": (returned_ns - begun_ns) / 1e9, "tries": tries}


class Monitor:
    """QEMU's QMP: a JSON object a line (https://www.qemu.org/docs/master/interop/qmp-spec.html)."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        deadline = time.monotonic() + START_S
        while self._socket.connect_ex(path):
            if time.monotonic() > deadline:
                raise TimeoutError(f"QEMU did not open {path} within {START_S:g} s")
            time.sleep(0.01)
        self._socket.settimeout(START_S)
        self._lines = self._socket.makefile("rb")
        json.loads(self._lines.readline())  # the greeting
        self.tell("qmp_capabilities")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def tell(self, command: str) -> Any:
        self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        for line in self._lines:
            told = json.loads(line)
            if "error" in told:
                raise ValueError(f"{command}: {told['error']}")
            if "return" in told:  # anything else is an event
                return told["return"]
        raise ConnectionError("QEMU ended")


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used so far (proc(5): utime and stime, after the name in parentheses)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def await_line(output: int, wanted: bytes) -> None:
    """Read the guest's console until `wanted` stands in it. Raises TimeoutError."""
    poll, seen, deadline = select.poll(), bytearray(), time.monotonic() + TIMEOUT_S
    poll.register(output, select.POLLIN)
    while wanted not in seen:
        left_ms = (deadline - time.monotonic()) * 1e3
        if left_ms <= 0:
            raise TimeoutError(f"the guest did not say that it listens; its console: {bytes(seen[-1500:])!r}")
        if poll.poll(left_ms):
            seen += os.read(output, 65536)


if __name__ == "__main__":
    sys.exit(main())
