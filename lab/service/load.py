"""Open-loop load and watching: the service binary's own client mode, as a bounded child of this process.

Every request has its intended instant, whether or not the last was answered; latency counts from there; what could
not be sent at its instant is missed and counted (docs/method.md, rule 19). The client carries its own deadline, so that
it ends though the lab is dead, and tells of each request whether it was late meanwhile (docs/method.md, rule 18).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.errors import LabError, MeasurementError
from lab.features import Execs
from lab.host.pinning import cpu_list
from lab.service.build import build_enter, build_service
from lab.spec import Endpoint
from lab.store.place import cache_dir, require_exec

LATE_SHARE = 0.05
"""A client that was late for more of its requests than this saw nothing for certain (docs/method.md, rule 18)."""

_REQUESTS_MAX = 200_000
_INSIDE_TIMEOUT_S = 1.0
_OVER_S = 75.0  # the client's own grace and the time in which it must have told all; see src/client/load_and_watch.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the plan, in ns of CLOCK_MONOTONIC; None is never.

    `status` is HTTP's number, or one of missed, timeout, refused, closed, broken, cut-off, unsent.
    """

    intended_ns: int
    sent_ns: int | None
    done_ns: int | None
    status: int | str
    version: str
    late: bool

    @property
    def served(self) -> bool:
        """Whether a complete answer with a status of success came."""
        return isinstance(self.status, int) and 200 <= self.status < 300

    @property
    def failed(self) -> bool:
        """Whether it left, or tried to, and got no such answer; a missed one is the client's, and no failure."""
        return not self.served and self.status not in ("missed", "unsent", "cut-off")

    @property
    def latency_s(self) -> float | None:
        """From its intended instant to its end, whatever that was; None for what has none."""
        return None if self.done_ns is None else (self.done_ns - self.intended_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What became of every planned request, in the order of their instants."""

    requests: Sequence[Request]

    def split(self, at_ns: int) -> tuple[LoadResult, LoadResult]:
        """The requests that were over at `at_ns`, and those under way then or meant for later."""
        over = [_end_ns(one) <= at_ns for one in self.requests]
        pairs = list(zip(self.requests, over, strict=True))
        return (
            LoadResult(requests=[one for one, done in pairs if done]),
            LoadResult(requests=[one for one, done in pairs if not done]),
        )

    @property
    def sent(self) -> int:
        """How many left, or tried to."""
        return sum(one.served or one.failed for one in self.requests)

    @property
    def failed(self) -> int:
        return sum(one.failed for one in self.requests)

    @property
    def missed(self) -> int:
        """How many the client could not send at their instants."""
        return sum(one.status == "missed" for one in self.requests)

    @property
    def worst_latency_s(self) -> float | None:
        """The longest time that a served request took; None when none was served."""
        return max((one.latency_s for one in self.requests if one.served and one.latency_s is not None), default=None)

    @property
    def late_share(self) -> float:
        """The share of requests during which the client itself was late, 0 to 1."""
        return sum(one.late for one in self.requests) / len(self.requests) if self.requests else 0.0

    def require_punctual(self) -> None:
        """Raises MeasurementError where the client was late too often for its word to count."""
        if self.late_share > LATE_SHARE:
            raise MeasurementError(
                f"inconclusive: the load's client was itself late for {self.late_share:.0%} of its requests",
                resolution="lower the rate, or leave this machine to the run",
            )


class Client:
    """A running client; leaving the context ends it."""

    def __init__(self, process: subprocess.Popen[bytes], bound_s: float) -> None:
        self._process = process
        self._bound_s = bound_s

    def result(self) -> LoadResult:
        """What it saw, once its time is over. Raises LabError where it failed."""
        try:
            output, complaint = self._process.communicate(timeout=self._bound_s)
        except subprocess.TimeoutExpired as error:
            self._kill()
            raise LabError(f"the load's client did not end within {self._bound_s:g} s") from error
        if self._process.returncode != 0:
            raise LabError(
                f"the load's client failed with status {self._process.returncode}",
                details=complaint.decode(errors="replace"),
            )
        return parse(output)

    def prefer(self) -> None:
        """Let the kernel run the client in real time, before all others, where this user may ask for that (sched(7)).
        It is late less often then; whether it was all the same, it tells by itself."""
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(self._process.pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))

    def stop(self) -> LoadResult:
        """What it saw until now. Raises LabError."""
        self._process.send_signal(signal.SIGTERM)
        return self.result()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def run_load(endpoint: Endpoint, *, rate: int, seconds: float, **options: Any) -> LoadResult:
    """`start_load`, and its result. Raises LabError."""
    with start_load(endpoint, rate=rate, seconds=seconds, **options) as client:
        return client.result()


def start_load(
    endpoint: Endpoint,
    *,
    rate: int,
    seconds: float,
    connections: int = 256,
    open_first: int = 0,
    path: str = "/healthz",
    nonce: str = "",
    timeout_s: float = 1.0,
    binary: Path | None = None,
    cpus: Sequence[int] = (),
) -> Client:
    """`rate` requests a second for `seconds`, on at most `connections` that are kept open, by a client that is held to
    the host's `cpus`, if any. Raises LabError."""
    _require_bounded(rate, seconds)
    options = {
        "rate": rate,
        "connections-cap": connections,
        **_early(open_first),
        **_common(seconds, path, nonce, timeout_s),
    }
    return _start(_command("load", endpoint, options, binary, cpus), seconds + timeout_s + _OVER_S)


def run_load_inside(instance: Execs, port: int, *, rate: int, seconds: float) -> LoadResult:
    """As `run_load`, by a client beside the lab's own service in its container, under the same limits and on the same
    CPUs. Raises LabError, MeasurementError where it fails there."""
    _require_bounded(rate, seconds)
    options = {"rate": rate, **_common(seconds, "/healthz", "", _INSIDE_TIMEOUT_S)}
    command = _command("load", Endpoint("127.0.0.1", port), options, Path("/service"))
    ended = instance.exec(command, timeout_s=seconds + _INSIDE_TIMEOUT_S + _OVER_S)
    if ended.exit_code != 0:
        raise MeasurementError(
            f"the load's client failed inside with status {ended.exit_code}",
            details=ended.stderr.decode(errors="replace"),
        )
    return parse(ended.stdout)


def start_watch(
    endpoint: Endpoint,
    *,
    seconds: float,
    interval_s: float = 0.010,
    path: str = "/healthz",
    nonce: str = "",
    timeout_s: float = 1.0,
    binary: Path | None = None,
) -> Client:
    """One request every `interval_s` for `seconds`, each on a new connection. Raises LabError."""
    options = {"interval-ms": round(interval_s * 1000), **_common(seconds, path, nonce, timeout_s)}
    return _start(_command("watch", endpoint, options, binary), seconds + timeout_s + _OVER_S)


def parse(output: bytes) -> LoadResult:
    """The result in the client's own lines. Raises LabError where they are not whole."""
    try:
        *lines, last = [json.loads(line) for line in output.splitlines()]
        if len(lines) != last["summary"]["planned"]:
            raise ValueError(f"{len(lines)} of {last['summary']['planned']} requests are told")
        return LoadResult(requests=[Request(**line) for line in lines])
    except (ValueError, KeyError, TypeError) as error:
        raise LabError("what the load's client told is not whole", details=str(error)) from error


def _end_ns(one: Request) -> int:
    return one.intended_ns if one.done_ns is None else one.done_ns


def _early(connections: int) -> dict[str, object]:
    return {"open-first": connections} if connections else {}


def _common(seconds: float, path: str, nonce: str, timeout_s: float) -> dict[str, object]:
    return {"seconds": f"{seconds:.3f}", "path": path, "nonce": nonce, "timeout-ms": round(timeout_s * 1000)}


def _require_bounded(rate: int, seconds: float) -> None:
    if rate * seconds > _REQUESTS_MAX:
        raise LabError(f"a load of {rate * seconds:.0f} requests is too long: {_REQUESTS_MAX} at most")


def _command(
    mode: str, endpoint: Endpoint, options: Mapping[str, object], binary: Path | None, cpus: Sequence[int] = ()
) -> list[str]:
    require_exec(cache_dir())
    command = [str(build_enter(cache_dir())), f"cpus={cpu_list(cpus)}", "--"] if cpus else []
    command += [str(binary or build_service(cache_dir())), mode, "--host", endpoint.host, "--port", str(endpoint.port)]
    for name, value in {**options, "authority": endpoint.authority}.items():
        command += [f"--{name}", str(value)] if value != "" else []
    return command


def _start(command: Sequence[str], bound_s: float) -> Client:
    try:
        # A session of its own: a Ctrl-C at the terminal is the lab's to handle.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(f"the load's client cannot be started: {error.strerror}") from error
    return Client(process, bound_s)
