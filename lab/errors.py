"""Every error the lab raises on purpose.

LabError
├── BadInput                what the user gave is wrong (exit code 2)
├── DriverError
│   ├── DriverUnavailable   the engine is not there, or does not answer; `resolution` is the one command that mends it
│   ├── Unsupported         the engine is there, and cannot do what the spec or the scenario asks
│   ├── LaunchError         the engine refused, or the service ended before it was ready
│   ├── PlaceError          a directory that the lab writes to is full, read-only, or lets nothing be run from it
│   ├── ReadyTimeout        no complete answer of this launch within the limit
│   │   └── ReadyRefused    what answers does not count, and will not change by itself
│   └── CleanupError        something the lab made could not be removed, or was seen again after it was
├── MeasurementError        the figure would be wrong: a negative difference, a host that slept, ...
│   ├── MissingPhase        a difference was asked for between instants of which one was never seen
│   └── ClockMismatch       a difference was asked for between two clocks
├── StoreError              the store cannot be opened, read or written
└── IncomparableRuns        two runs differ in what a comparison must hold equal (exit code 4)

A driver maps its SDK's exceptions to these in one place, by `mapped`, with what `chain_of`, `details_of` and `one_line`
tell of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


def with_remedy(reason: str, remedy: str) -> str:
    """A reason and what mends it, where something does: `the disk is full (free some space)`."""
    return f"{reason} ({remedy})" if remedy else reason


class LabError(Exception):
    """Base of all: one `brief` line, `details` for the record, and a `resolution`, what the user can do."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return with_remedy(self.brief, self.resolution)


class BadInput(LabError):
    """What the user gave cannot be used."""


class DriverError(LabError):
    """An engine could not do what a driver asked of it."""


class DriverUnavailable(DriverError):
    """The engine is not there or does not answer."""


class Unsupported(DriverError):
    """The engine cannot do what was asked, on this host."""


class LaunchError(DriverError):
    """The launch failed; `details` carries what the engine and the service said."""


class PlaceError(DriverError):
    """A directory of the lab's cannot be used; the brief names it, and what was to go there."""


class ReadyTimeout(DriverError):
    """The service did not give a complete answer of this launch in time."""


class ReadyRefused(ReadyTimeout):
    """The service answers steadily, and not with what counts as ready."""


class CleanupError(DriverError):
    """Something of the lab's could not be removed."""


class MeasurementError(LabError):
    """A figure could not be computed honestly."""


class MissingPhase(MeasurementError):
    """One of the two instants was not seen."""


class ClockMismatch(MeasurementError):
    """The two instants were read from different clocks."""


class StoreError(LabError):
    """The store cannot be used."""


class IncomparableRuns(LabError):
    """The two runs may not be compared."""


@contextlib.contextmanager
def mapped(known: Callable[[BaseException], bool], mapping: Callable[[BaseException], LabError]) -> Iterator[None]:
    """Raise what `known` says is an SDK's, of the exceptions inside, as the error that `mapping` makes of it. The lab's
    own pass as they are, and so do mistakes."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        if not known(error):
            raise
        raise mapping(error) from error


def chain_of(error: BaseException) -> list[BaseException]:
    """`error` and all that it came from, each once; requests and urllib3 carry causes among their arguments as well."""
    found = [error]
    for one in found:
        for inner in (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args):
            if isinstance(inner, BaseException) and not any(inner is known for known in found):
                found.append(inner)
    return found


def details_of(error: BaseException) -> str:
    """All that `error` came from, a line each, for `LabError.details`."""
    return "\n".join(dict.fromkeys(f"{type(one).__name__}: {one}" for one in chain_of(error)))


def one_line(error: BaseException) -> str:
    """What `error` says in one line, or the name of its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
