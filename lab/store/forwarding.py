"""Runs go from this machine's store to a fleet's: whole, once, and none is lost while the fleet's is away.

A run is committed here first. What is to go and what has gone is kept beside it, by destination, so that another
process can go on where one was killed; and since a run that is there already is not entered again, one that was sent
without its being known (the connection broke with the commit) is sent again without harm.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.errors import BadInput, StoreError
from lab.store import connect
from lab.store.database import Store

TRIES = 3
"""So often a store that does not answer is asked, each time after a longer wait, before the rest is left for later."""
_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """What became of it: the runs that were `sent` anew, those that were there already and are now `known` to be, those
    that are `left` for later because of `problem`, and those that the destination `refused`, with its words."""

    sent: Sequence[str] = ()
    known: Sequence[str] = ()
    left: Sequence[str] = ()
    problem: StoreError | None = None
    refused: Sequence[tuple[str, str]] = ()


class Destination:
    """Another store. `shown` is its address as it may be told: without a password."""

    def __init__(self, url: str) -> None:
        """Raises BadInput for what is no store."""
        try:
            address = connect.address(url)
        except StoreError as error:
            raise BadInput(error.brief, resolution=error.resolution) from error
        self._url = url
        self.shown = connect.shown(address)
        self.name = connect.place_of(address)

    def require_other(self, local: Store) -> None:
        """Raises BadInput where `local` is the destination itself."""
        if local.place == self.name:
            raise BadInput(
                f"{self.shown} is the store itself, from which runs would be forwarded",
                resolution="keep runs in a store of this machine (--store), and forward them to another",
            )

    def queue(self, local: Store, run_id: str) -> None:
        """Note in `local` that a run is to go there, so that it is not pruned before. Raises BadInput where `local` is
        the destination itself, StoreError."""
        self.require_other(local)
        local.set_sent(run_id, self.name, None)

    def send(
        self,
        local: Store,
        *,
        queued: bool = False,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Forwarded:
        """Send the ended runs of `local` that have not gone there, and what was said since of those that have; where
        `queued`, only those that were noted by `queue`. Raises BadInput as `queue` does, StoreError where `local`
        fails."""
        self.require_other(local)
        waiting = local.unsent(self.name, queued=queued)
        sent: list[str] = []
        known: list[str] = []
        refused: list[tuple[str, str]] = []
        problem: StoreError | None = None
        failed = 0
        with contextlib.ExitStack() as connected:
            there: Store | None = None
            while waiting and failed < tries:
                record = local.load(waiting[0])
                try:
                    there = there or connected.enter_context(Store.open(self._url))
                    new = there.import_run(record)
                except BadInput as error:
                    refused.append((waiting.pop(0), error.brief))
                    continue
                except StoreError as error:
                    there, problem, failed = None, error, failed + 1
                    connected.close()
                    if failed < tries:
                        sleep(_WAIT_S * 2 ** (failed - 1))
                    continue
                local.set_sent(record.run.id, self.name, record.run)
                (sent if new else known).append(waiting.pop(0))
                problem, failed = None, 0
        return Forwarded(sent=sent, known=known, left=waiting, problem=problem, refused=refused)
