"""What the lab's own service measures of the platform below it, and what that comes to for one piece of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lab import ask
from lab.errors import MeasurementError
from lab.session import Session
from lab.stats import estimate

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
    """`count` operations in chunks of `chunk_count`, each chunk's ns by the service's own clock; `cpu_ns` is the CPU
    time of the process that measured. `told` is the whole answer."""

    count: int
    chunk_count: int
    chunks_ns: Sequence[int]
    elapsed_ns: int
    cpu_ns: int
    told: Mapping[str, Any]

    @property
    def operation_s(self) -> float:
        """Seconds of one operation: the median chunk's, so that a pause in a few of them does not count."""
        return estimate(self.chunks_ns).median / self.chunk_count / 1e9

    @property
    def least_s(self) -> float:
        """Seconds of one operation in the fastest chunk: what it takes where nobody else has the CPU."""
        return min(self.chunks_ns) / self.chunk_count / 1e9

    @property
    def cpu_share(self) -> float:
        """CPU time over time passed: 1 where nobody else had the CPU and nothing was waited for."""
        return self.cpu_ns / self.elapsed_ns


def measure(session: Session, kind: Kind, amount: int) -> Measured | str:
    """Have the service measure; why not, where the target has no such thing. Raises Unsupported, DriverError, and
    MeasurementError where what it told is not whole."""
    name = "mib" if kind is Kind.MEMORY else "count"
    return parse(ask.get(session, f"/measure/{kind}?{name}={amount}", timeout_s=_TIMEOUT_S))


def parse(told: Mapping[str, Any]) -> Measured | str:
    """The service's answer. Raises MeasurementError where it is not whole."""
    if isinstance(told.get("absent"), str):
        return str(told["absent"])
    try:
        found = Measured(
            count=int(told["count"]),
            chunk_count=int(told["chunk_count"]),
            chunks_ns=tuple(int(chunk) for chunk in told["chunks_ns"]),
            elapsed_ns=int(told["elapsed_ns"]),
            cpu_ns=int(told["cpu_ns"]),
            told=told,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MeasurementError("what the service measured is not whole", details=repr(error)) from error
    if (
        not found.chunks_ns
        or min(found.chunks_ns) <= 0
        or found.count != found.chunk_count * len(found.chunks_ns)
        or sum(found.chunks_ns) > found.elapsed_ns
    ):
        raise MeasurementError("what the service measured contradicts itself", details=str(dict(told)))
    return found
