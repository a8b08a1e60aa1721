"""Separate programs that measure calls: what each of them reports, and by which factor that is compared with the lab's.

Checked against Debian 12's versions. What a newer one does otherwise is found by the part `talk`, whose ratios would
leave their goal by that factor.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import ProgramFailed

ENDING_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program: the figure that is compared, as a regular expression of what it prints; by how much that is multiplied
    to be a whole round trip; and why that one and no other."""

    name: str
    version: str
    figure: str
    factor: float
    why: str

    def seconds(self, printed: str) -> float:
        """The figure as seconds of a whole round trip. Raises ProgramFailed where it is not there."""
        found = re.search(self.figure, printed, re.MULTILINE)
        if found is None:
            raise ProgramFailed(f"{self.name} did not print what is compared: {printed[-300:]}")
        return float(found[1]) * _UNITS[(found.groupdict().get("unit") or "us")] * self.factor


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "usec": 1e-6}

WRK = Tool(
    name="wrk",
    version="4.1.0",
    figure=r"^\s*50%\s+([\d.]+)(?P<unit>us|ms|s)\s*$",
    factor=1.0,
    why="its latency is the whole round trip, from the request's first write on a connection that stands; only p50 is "
    "compared, since it makes up samples below a slow one, and leaves out what its --timeout cut off",
)
SOCKPERF = Tool(
    name="sockperf",
    version="3.7",
    figure=r"percentile 50\.000 =\s+([\d.]+)",
    factor=2.0,
    why="ping-pong reports half the round trip unless it is asked for --full-rtt",
)
TOOLS = (WRK, SOCKPERF)

_PACED = "function delay()\n  return {ms}\nend\n"
_BODY = 'wrk.method = "POST"\nwrk.body = string.rep("x", {body_bytes})\n'


def wrk(
    url: str,
    *,
    rate: int,
    seconds: int,
    script: Path,
    within: int | None = None,
    body_bytes: int = 0,
    nonce: str = "",
) -> float:
    """The median round trip in seconds of requests of `url` on one connection, each some 1/`rate` after the answer
    before: GET, or with `body_bytes` POST. In the network namespace of the process `within`, if any. Raises
    ProgramFailed."""
    body = _BODY.format(body_bytes=body_bytes) if body_bytes else ""
    script.write_text(body + _PACED.format(ms=max(1, round(1000 / rate))))
    named = ["-H", f"X-Lab-Nonce: {nonce}"] if nonce else []
    command = ["wrk", "-t1", "-c1", f"-d{seconds}s", "--timeout", "5s", "--latency", *named, "-s", str(script), url]
    inside = ["nsenter", "--target", str(within), "--net"] if within else []
    return WRK.seconds(_run([*inside, *command], seconds + ENDING_S))


def sockperf(port: int, *, rate: int, seconds: int, message_bytes: int) -> float:
    """The median round trip in seconds of its ping-pong over TCP on loopback, `rate` a second. Raises ProgramFailed."""
    where = ["--tcp", "-i", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        ["sockperf", "server", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        _await_listening(port, server)
        size = ["-m", str(message_bytes), "--mps", str(rate), "-t", str(seconds)]
        return SOCKPERF.seconds(_run(["sockperf", "ping-pong", *where, *size], seconds + ENDING_S))
    finally:
        server.terminate()
        server.wait(ENDING_S)


def missing(names: Sequence[str]) -> str:
    """Which of these programs are not here, with how to get them; empty where all are."""
    absent = [name for name in names if shutil.which(name) is None]
    return f"{' and '.join(absent)} not found: apt-get install {' '.join(absent)}" if absent else ""


def _await_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + ENDING_S
    wanted = f"0100007F:{port:04X}"
    while time.monotonic() < deadline and server.poll() is None:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        if any(line[1] == wanted and line[3] == "0A" for line in lines[1:]):
            return
        time.sleep(0.02)
    raise ProgramFailed("sockperf's server does not listen")


def _run(command: Sequence[str], timeout_s: float) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramFailed(f"{command[0]}: {error}") from error
    if ended.returncode != 0:
        raise ProgramFailed(
            f"{' '.join(command)} ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-500:]}"
        )
    return ended.stdout
