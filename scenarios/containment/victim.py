"""The instance that trouble is made in: the same as long as it goes on serving, else a new one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lab.errors import DriverError
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from scenarios.containment.outcome import Survival


class Victim:
    """`changes` are what its spec has that the neighbour's has not. Leaving the context removes the instance that there
    is then."""

    def __init__(self, bench: Bench, **changes: Any) -> None:
        self._bench = bench
        self._changes = changes
        self._stack = ExitStack()
        self._session: Session | None = None
        self._who: Identity | None = None

    def serving(self) -> Session:
        """An instance that answers: the one that there is, or another in its place. Raises DriverError."""
        if self._session is not None and self._serves(self._session):
            return self._session
        self.leave()
        self._session = self._stack.enter_context(self._bench.session(**self._changes))
        self._who = identity(self._session)
        return self._session

    def leave(self) -> None:
        """Remove the instance, if there is one."""
        self._session = None
        self._stack.close()

    def __enter__(self) -> Victim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _serves(self, session: Session) -> bool:
        return self._who is not None and survival(session, self._who) is Survival.SERVES


@dataclass(frozen=True, slots=True)
class Identity:
    """Which service answers: no two share all of these, nor does one after its restart."""

    boot_id: str
    pid: int
    main_ns: int


def identity(session: Session) -> Identity:
    """Which one answers now. Raises DriverError."""
    told = ask.get(session, "/clock", timeout_s=2.0)
    return Identity(str(told["boot_id"]), int(told["pid"]), int(told["main_ns"]))


def survival(session: Session, before: Identity) -> Survival:
    """Who answers now, where `before` did; SILENT where nobody does."""
    try:
        now = identity(session)
    except DriverError:  # that it does not answer is what is asked for here
        return Survival.SILENT
    if now.boot_id != before.boot_id:
        return Survival.REBOOTED
    return Survival.SERVES if now == before else Survival.RESTARTED
