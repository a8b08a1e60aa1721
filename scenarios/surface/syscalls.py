"""Which system calls are refused to the workload: what the service found when it tried each once (GET /surface/calls).

The forms in which they are tried, why each is harmless, and what its answer can tell stand in the reviewed table beside
the service's source (lab/service/src/surface/calls_table.h, which explains its columns), and are read from there.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

from lab.errors import LabError, MeasurementError
from lab.launch.session import Session
from lab.service import ask
from lab.service.build import SOURCE_DIR

TABLE = ("surface/calls_table.h", "surface/calls_x86.h", "surface/calls_newer.h")

_TIMEOUT_S = 65.0  # longer than the service's own for all of them
_REFUSALS = ("EPERM", "EACCES")
_ERRNO_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # one number with ENOTSUP; the kernel's name for it
_ROW = re.compile(r'(TRY|NOT)(?:_AT)?\((?:\d+, )?(\w+), (?:(WORKS|CHECKED|FAULT|GONE), )?"([^"]+)"(?:, [^()]+)?\)')


class Sees(StrEnum):
    """What the answer to a call's form can tell."""

    WORKS = "works"
    """The form does its harmless work: whether the call is allowed and works."""
    CHECKED = "checked"
    """The kernel, or a version of it, asks for the privilege before it meets the form's fault: whether that, or a
    filter, refuses."""
    FAULT = "fault"
    """In every Linux the form's fault comes first: only what stands before the call, a seccomp filter, can refuse it.
    Another kernel, such as gVisor's, may ask for a privilege even so."""
    GONE = "gone"
    """Linux has lost the call, or never had it: ENOSYS is the kernel's own answer, and any other a filter's."""


class Outcome(StrEnum):
    """How one try ended."""

    OK = "ok"
    ERRNO = "errno"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    """It did not return within two seconds, and was killed."""
    EXIT = "exit"
    """Its process ended by itself, without an answer."""
    UNMADE = "unmade"
    """No process could be made for it."""
    LATE = "late"
    """The time for all of them was over before its turn."""
    UNTRIED = "untried"
    """No form of it is harmless, or none tells anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the reviewed table says of a call: `why` its form is harmless, or (`sees` is None) why none is tried."""

    name: str
    sees: Sees | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call and what came of trying it. `errno` and `signal` are names, empty where there is none.

    `why` and `sees` are the reviewed table's, see `Row`; `number` is that of the workload's machine.
    """

    name: str
    number: int
    outcome: Outcome
    errno: str = ""
    signal: str = ""
    why: str = ""
    sees: Sees | None = None

    @property
    def said(self) -> str:
        """The outcome in a word: ok, the error's or the signal's name, or what else became of it."""
        return self.errno or self.signal or self.outcome.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The calls, in the table's order, and as whom they were tried: the four user ids (real, effective, saved, file
    system's) and the mask of effective capabilities, from the trying process's /proc/self/status."""

    user_ids: Sequence[int]
    capabilities: int
    calls: Sequence[Call]


@dataclass(frozen=True, slots=True)
class Difference:
    """A call that was answered otherwise than to the control."""

    call: Call
    control: Call


def probe(session: Session, *, drop: bool) -> Probed:
    """Have the service try every call; with `drop` as nobody and without a capability, which is proven.

    Raises DriverError, Unsupported; MeasurementError where privileges were to be dropped and are still there.
    """
    probed = parse(ask.get(session, f"/surface/calls?drop={int(drop)}", timeout_s=_TIMEOUT_S))
    if drop and (0 in probed.user_ids or probed.capabilities):
        raise MeasurementError("the service tried its system calls with privileges that it was to give up")
    return probed


def probe_calls(session: Session, *, drop: bool) -> Sequence[Call]:
    """The calls of `probe`, whose errors it raises."""
    return probe(session, drop=drop).calls


def parse(answer: Mapping[str, Any]) -> Probed:
    """What the service told. Raises MeasurementError for what is no such answer."""
    try:
        return Probed(
            user_ids=[int(user_id) for user_id in answer["uid"].split()],
            capabilities=int(answer["cap_eff"], 16),
            calls=[_call(*told) for told in answer["calls"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MeasurementError(f"the service's account of system calls cannot be read: {error!r}") from error


def refused(calls: Iterable[Call], control: Iterable[Call] = ()) -> Sequence[Call]:
    """The calls that are refused to who tried them.

    A call is refused where it was answered with EPERM or EACCES (by the kernel's own check of privileges, a security
    module or a filter), or ended its process by SIGSYS (a filter). ENOSYS is a refusal only where `control`, who tried
    the same on the same kernel outside, found the call there: a filter may answer so, and a kernel without the call
    does. No other error is a refusal: it is the fault that the form was given, and shows that the call was reached.
    """
    found_there = {call.name for call in control if call.outcome is not Outcome.UNTRIED and call.errno != "ENOSYS"}
    return [
        call
        for call in calls
        if call.errno in _REFUSALS or call.signal == "SIGSYS" or (call.errno == "ENOSYS" and call.name in found_there)
    ]


def differs(calls: Iterable[Call], control: Iterable[Call]) -> Sequence[Difference]:
    """The calls that were tried on both sides and answered otherwise, in the order of `calls`.

    On one kernel, a difference is a filter's, a security module's or a privilege's; across kernels it may be a call or
    a check that only one of them has.
    """
    there = {call.name: call for call in control if _was_tried(call)}
    pairs = [Difference(call, there[call.name]) for call in calls if _was_tried(call) and call.name in there]
    return [pair for pair in pairs if pair.call.said != pair.control.said]


@cache
def table() -> Mapping[str, Row]:
    """The reviewed table's rows, by the call's name. Raises LabError for a row that is none, or is there twice."""
    rows: dict[str, Row] = {}
    for line in (line for name in TABLE for line in (SOURCE_DIR / name).read_text().splitlines()):
        if not line.startswith(("TRY", "NOT")):
            continue
        found = _ROW.fullmatch(line)
        if found is None or (found[1] == "TRY") != bool(found[3]) or found[2] in rows:
            raise LabError(f"this row of the table of system calls cannot be read: {line}")
        rows[found[2]] = Row(name=found[2], sees=Sees[found[3]] if found[3] else None, why=found[4])
    return rows


def _was_tried(call: Call) -> bool:
    return call.outcome not in (Outcome.UNTRIED, Outcome.LATE, Outcome.UNMADE)


def _call(name: str, number: int, said: str, detail: int = 0) -> Call:
    outcome = Outcome(said)
    row = table()[name]
    return Call(
        name=name,
        number=number,
        outcome=outcome,
        errno=_ERRNO_NAMES.get(detail, f"errno {detail}") if outcome is Outcome.ERRNO else "",
        signal=_signal_name(detail) if outcome is Outcome.SIGNAL else "",
        why=row.why,
        sees=row.sees,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
