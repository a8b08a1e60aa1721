"""What the lab's own service measures of the platform below it, and what that comes to for one piece of the work."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lab.errors import MeasurementError
from lab.launch.session import Session
from lab.service import ask
from lab.units import quantity

STEPS_PER_GROUP = 25
"""A duration is no shorter than this many steps of the clock that it was read from: its error is then 4 % at most."""

_TIMEOUT_S = 30.0  # beyond the service's own deadline for any work


class Kind(StrEnum):
    """What is measured; its amount is a number of operations, and for `MEMORY` the MiB of both buffers together."""

    SYSCALL = "syscall"
    CPU = "cpu"
    SWITCH = "switch"
    MEMORY = "memory"
    FSYNC = "fsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`count` operations in chunks of `chunk_count`, each chunk's ns by the service's own clock, whose least step is
    `clock_step_ns`; `cpu_ns` is the CPU time of the process that measured. `told` is the whole answer."""

    count: int
    chunk_count: int
    chunks_ns: Sequence[int]
    clock_step_ns: int
    elapsed_ns: int
    cpu_ns: int
    told: Mapping[str, Any]

    @property
    def operation_s(self) -> float:
        """Seconds of one operation: the median of the chunks, so that a pause in a few of them does not count. Where
        the clock is too coarse for one, of as many in a row as it needs."""
        return statistics.median(self._groups_s())

    @property
    def cpu_share(self) -> float:
        """CPU time over time passed: 1 where nobody else had the CPU and nothing was waited for."""
        return self.cpu_ns / self.elapsed_ns

    def _groups_s(self) -> Iterator[float]:
        """Seconds of one operation in each group of chunks; one without its time at the end is left out."""
        least_ns = STEPS_PER_GROUP * self.clock_step_ns
        took_ns = chunks = 0
        for chunk_ns in self.chunks_ns:
            took_ns, chunks = took_ns + chunk_ns, chunks + 1
            if took_ns >= least_ns:
                yield took_ns / (chunks * self.chunk_count) / 1e9
                took_ns = chunks = 0


def measure(session: Session, kind: Kind, amount: int) -> Measured | str:
    """Have the service measure; why not, where the target has no such thing. Raises Unsupported, DriverError, and
    MeasurementError where what it told is not whole."""
    name = "mib" if kind is Kind.MEMORY else "count"
    return parse(ask.get(session, f"/measure/{kind}?{name}={amount}", timeout_s=_TIMEOUT_S))


def parse(told: Mapping[str, Any]) -> Measured | str:
    """The service's answer, or why there is no such thing, its clock being too coarse for one. Raises MeasurementError
    where it is not whole."""
    if isinstance(told.get("absent"), str):
        return str(told["absent"])
    try:
        found = Measured(
            count=int(told["count"]),
            chunk_count=int(told["chunk_count"]),
            chunks_ns=tuple(int(chunk) for chunk in told["chunks_ns"]),
            clock_step_ns=int(told["clock_step_ns"]),
            elapsed_ns=int(told["elapsed_ns"]),
            cpu_ns=int(told["cpu_ns"]),
            told=told,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError("what the service measured is not whole", details=repr(error)) from error
    if (
        not found.chunks_ns
        or min(found.chunks_ns) < 0
        or found.clock_step_ns <= 0
        or found.elapsed_ns < 0  # a coarse clock may not have moved at all
        or found.count != found.chunk_count * len(found.chunks_ns)
        or sum(found.chunks_ns) > found.elapsed_ns
    ):
        raise MeasurementError("what the service measured contradicts itself", details=str(dict(told)))
    if sum(found.chunks_ns) < STEPS_PER_GROUP * found.clock_step_ns:
        return f"the target's clock is too coarse, with steps of {quantity(found.clock_step_ns / 1e9, 's')}"
    return found
