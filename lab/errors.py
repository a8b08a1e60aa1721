"""Every error the lab raises on purpose.

LabError
├── BadInput                what the user gave is wrong (exit code 2)
├── DriverError
│   ├── DriverUnavailable   the engine is not there, or does not answer; `resolution` is the one command that mends it
│   ├── Unsupported         the engine is there, and cannot do what the spec or the scenario asks
│   ├── LaunchError         the engine refused, or the service ended before it was ready
│   ├── ReadyTimeout        no complete answer of this launch within the limit
│   └── CleanupError        something the lab made could not be removed, or was seen again after it was
├── MeasurementError        the figure would be wrong: a negative difference, a host that slept, ...
│   ├── MissingPhase        a difference was asked for between instants of which one was never seen
│   └── ClockMismatch       a difference was asked for between two clocks
├── StoreError              the store cannot be opened, read or written
└── IncomparableRuns        two runs differ in what a comparison must hold equal (exit code 4)
"""

from __future__ import annotations


class LabError(Exception):
    """Base of all: one `brief` line, `details` for the record, and a `resolution`, what the user can do."""

    def __init__(self, brief: str, *, details: str = "", resolution: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return f"{self.brief} ({self.resolution})" if self.resolution else self.brief


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


class ReadyTimeout(DriverError):
    """The service did not give a complete answer of this launch in time."""


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
