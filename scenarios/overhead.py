"""What does a platform take from the service while it runs?

Each metric has one value a launch, of the lab's own service, once it is ready. Durations within the service are
differences of its own clock's readings, which in a guest is the guest's.

| metric | start | end | unit |
|---|---|---|---|
| `syscall_s` | before a chunk of `syscalls`/100 calls of getppid by number, one after the other | after it, divided by the calls | s |
| `cpu_work_s` | before a chunk of `steps`/100 steps of integer arithmetic, each needing the one before | after it, divided by the steps | s |
| `switch_s` | before a chunk of `switches`/100 round trips of a byte, by two pipes between two processes on one CPU | after it, divided by two switches a round trip; the four system calls of the round trip are in it | s |
| `copy_bytes_per_s` | before one buffer is copied to another | after it: bytes copied (each is read and written) over the time | bytes/s |
| `fsync_s` (`file_system`) | before 4 KiB are appended to a file | fsync has returned | s |
| `latency_p50_s`, `latency_p99_s` (`load`) | the instant at which a request was to be sent, whether or not it could be | its complete answer | s |
| `served_per_s` (`load`) | the first request's instant | the last one's answer, or the end of the load: requests served over the time | requests/s |
| `cpu_share` (`of`) | as the metric `of` | CPU time of the measuring process over the time passed | share |
| `clock_step_s` (`of`) | a reading of the service's clock | the next that differs; the least of 8: its resolution, or the time that reading it takes | s |
| `late_share` (`load`) | none | requests during which the load's own client was late, of all | share |
| `unserved_requests` (`load`) | none | requests of the load missed by the client, refused, broken, too late or answered with an error | requests |

The first five are medians of up to 100 equal chunks (of 20 copies, and of `fsyncs` appends), after one that is not
counted, and fewer where 3 s were over: a pause in less than half of them does not count. The chunks are kept as
`chunk_s` and each request's latency as `request_s`, both raw. A guest's clock may go by its timer's ticks of 4 ms: where
a chunk is shorter than 25 steps of the clock, as many in a row count as one, and what is too short as a whole is absent.

- Memory: the two `buffers` together are three eighths of the declared memory, so that they fit beside a guest's kernel,
  and at most four times the largest cache that the host names. Where they do not exceed that, it is a cache that is
  measured, and `in_cache` says so. The copying loop is the service's own: a library's would use other instructions on
  another virtual CPU.
- fsync: on the first of /var/tmp and / that is writable and not kept in memory; 'no disk' where there is none, as in a
  guest that runs from its initramfs. `overlay` does not tell what disk is below it.
- The load is open-loop: `rate` requests of /healthz a second for `seconds`, on kept-open connections, by a client on
  this host, which shares its CPUs with the target. All requests count for p50 and p99, one without an answer as endless;
  a quantile has no value where n is too small for its interval (p99: 368 requests), or it is endless. Where the client
  was itself late for more than 5 % of them, no figure of the load is given.
- A step that the service does not serve is told to be absent, with the reason; what was measured before it stays.
- Emulated guests (tcg) show what emulation takes, and nothing of virtual machines in general. CPU time in a guest is
  what the guest believes it had: time that its host took away counts as its own.
"""  # noqa: E501  a table's rows are not broken

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from lab.errors import BadInput, LabError, MeasurementError, Unsupported
from lab.features import Feature
from lab.figures.latency import latencies_s, quantile_s
from lab.figures.series import ABSENT
from lab.host.pinning import largest_cache_bytes
from lab.launch.session import Session
from lab.scenario import Bench, exceeding_calls
from lab.service.load import LATE_SHARE, LoadResult, run_load
from lab.service.measure import Kind, Measured, measure
from lab.spec import Spec
from lab.units import MIB

MAX_REQUESTS = 20_000
_CALLS_BEFORE = 1 + len(Kind)  # of a function's worker: for `ready`, and a measurement of each kind
_QUANTILES = {"latency_p50_s": 0.5, "latency_p99_s": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """One instance's work of each kind, and then a load of `rate` requests a second for `seconds`."""

    rate: Annotated[int, Field(ge=1, le=5000)] = 200
    seconds: Annotated[float, Field(ge=0.5, le=60)] = 3.0
    syscalls: Annotated[int, Field(ge=100, le=10_000_000)] = 200_000
    steps: Annotated[int, Field(ge=100, le=1_000_000_000)] = 20_000_000
    switches: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    fsyncs: Annotated[int, Field(ge=1, le=1000)] = 20

    name: ClassVar[str] = "overhead"
    question: ClassVar[str] = "What does a platform take from the service while it runs?"
    headline: ClassVar[str] = "syscall_s"
    own_service: ClassVar[bool] = True
    requires: ClassVar[frozenset[Feature]] = frozenset({Feature.NETWORK})

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.rate * self.seconds > MAX_REQUESTS:
            raise ValueError(f"rate times seconds must be at most {MAX_REQUESTS} requests")
        return self

    def measure(self, bench: Bench) -> None:
        with bench.session() as session:
            _work(bench, session, Kind.SYSCALL, self.syscalls, "syscall_s")  # the first: without it nothing is kept
            steps: dict[str, Callable[[], None]] = {
                "cpu_work_s": lambda: _work(bench, session, Kind.CPU, self.steps, "cpu_work_s"),
                "switch_s": lambda: _work(bench, session, Kind.SWITCH, self.switches, "switch_s", parts=2),
                "copy_bytes_per_s": lambda: _copy(bench, session),
                "fsync_s": lambda: _work(bench, session, Kind.FSYNC, self.fsyncs, "fsync_s", told=_place),
                "latency_p50_s": lambda: self._load(bench, session),
            }
            for metric, step in steps.items():
                try:
                    step()
                except (BadInput, MeasurementError):
                    raise
                except LabError as error:  # what was measured before it stays
                    bench.emit(ABSENT, 1, "", of=metric, why=f"this step was not served: {error.brief}")

    def _load(self, bench: Bench, session: Session) -> None:
        assert session.instance is not None and session.instance.endpoint is not None  # noqa: S101  it has a network
        if why := exceeding_calls(bench.info, _CALLS_BEFORE + round(self.rate * self.seconds)):
            raise Unsupported(f"it may be {why}")
        found = run_load(session.instance.endpoint, rate=self.rate, seconds=self.seconds)
        emit_load(bench, found, load=f"{self.rate}/s for {self.seconds:g} s", seconds=self.seconds)


def buffers_mib(spec: Spec, cache_bytes: int) -> int:
    """How many MiB both buffers have: three eighths of the declared memory, and no more than four times the cache."""
    return min(spec.memory_bytes * 3 // 8, max(4 * cache_bytes, 64 * MIB)) // MIB


def emit_load(bench: Bench, found: LoadResult, *, load: str, seconds: float) -> None:
    """The samples of a load that was to take `seconds`: what each of its requests took, and what that comes to."""
    bench.emit("late_share", found.late_share, "", load=load)
    bench.emit("unserved_requests", sum(not one.served for one in found.requests), "requests", load=load)
    metrics = [*_QUANTILES, "served_per_s"]
    if found.late_share > LATE_SHARE:
        for metric in metrics:
            bench.emit(ABSENT, 1, "", of=metric, why="the load's own client was late")
        return
    latencies = latencies_s(found)
    for latency_s in filter(math.isfinite, latencies):
        bench.emit("request_s", latency_s, "s", load=load)
    for metric, q in _QUANTILES.items():
        quantile = quantile_s(latencies, q)
        if isinstance(quantile, str):
            bench.emit(ABSENT, 1, "", of=metric, why=quantile)
        else:
            bench.emit(metric, quantile, "s", load=load)
    served_ns = [one.done_ns for one in found.requests if one.served and one.done_ns is not None]
    if served_ns:
        took_s = max(seconds, (max(served_ns) - found.requests[0].intended_ns) / 1e9)
        bench.emit("served_per_s", len(served_ns) / took_s, "requests/s", load=load)
    else:
        bench.emit(ABSENT, 1, "", of="served_per_s", why="no request was served")


def _work(
    bench: Bench,
    session: Session,
    kind: Kind,
    amount: int,
    metric: str,
    *,
    parts: int = 1,
    told: Callable[[Measured], dict[str, str]] = lambda _: {},
) -> None:
    found = _measured(bench, session, kind, amount, metric)
    if found is not None:
        bench.emit(metric, found.operation_s / parts, "s", **told(found))


def _copy(bench: Bench, session: Session) -> None:
    cache_bytes = largest_cache_bytes()
    mib = buffers_mib(bench.spec, cache_bytes)
    found = _measured(bench, session, Kind.MEMORY, mib, "copy_bytes_per_s")
    if found is not None:
        told = {"buffers": f"{mib} MiB"} | ({"in_cache": "yes"} if mib * MIB <= cache_bytes else {})
        bench.emit("copy_bytes_per_s", int(found.told["bytes_per_pass"]) / found.operation_s, "bytes/s", **told)


def _measured(bench: Bench, session: Session, kind: Kind, amount: int, metric: str) -> Measured | None:
    """What the service measured, its chunks kept; where there is no such thing, the reason is kept."""
    found = measure(session, kind, amount)
    if isinstance(found, str):
        bench.emit(ABSENT, 1, "", of=metric, why=found)
        return None
    for chunk_ns in found.chunks_ns:
        bench.emit("chunk_s", chunk_ns / 1e9, "s", of=metric, operations=str(found.chunk_count))
    bench.emit("cpu_share", found.cpu_share, "", of=metric)
    bench.emit("clock_step_s", found.clock_step_ns / 1e9, "s", of=metric)
    return found


def _place(found: Measured) -> dict[str, str]:
    return {"file_system": str(found.told["file_system"])}
