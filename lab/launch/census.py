"""Which replicas of one launch answer, and since when: told apart by `/clock`, on new connections every 20 ms."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType

from lab.driver import Info, Instance
from lab.errors import MeasurementError
from lab.features import Feature, Replicates
from lab.launch.waiter import ATTEMPT_EVERY_S, Answer, Waiter
from lab.spec import Endpoint, Spec
from lab.timeline import HostClock

RATE = f"{1 / ATTEMPT_EVERY_S:.0f}/s"
"""New connections to each address, as a dimension tells it."""

_FOLLOW_S = 0.1


def identity(answer: Answer | None) -> str:
    """What no two replicas share, nor a service before and after its restart: boot id, pid and the start of `main`.

    Raises MeasurementError where the answer is not the lab's own service's.
    """
    told = answer.clock() if answer is not None else None
    if told is None:
        raise MeasurementError(
            "replicas can be told apart only by the lab's own service", resolution="leave out --image"
        )
    return f"{told['boot_id']}/{told['pid']}/{told['main_ns']}"


def replicating(info: Info, instance: Instance | None) -> Replicates | None:
    """`instance` where its engine keeps several of it; None where it does not say so."""
    return instance if Feature.REPLICAS in info.features and isinstance(instance, Replicates) else None


def addresses_of(instance: Instance) -> Sequence[Endpoint]:
    """Where its replicas answer now, or it alone does."""
    if isinstance(instance, Replicates):
        return instance.endpoints()
    return [instance.endpoint] if instance.endpoint is not None else []


class Census:
    """Asks every address of `instance`, followed as they change, who answers there; leaving the context ends it.

    `first_ns` is the arrival of each new replica's first answer and `last_ns` that of each one's last; an address that
    has given a new replica is asked no more where there are several, unless `everyone` is to be heard again. What stops
    the asking is raised by `look`, or at the latest on leaving: silence that nobody listened to means nothing.
    """

    def __init__(
        self, instance: Instance, spec: Spec, clock: HostClock, *, known: frozenset[str], everyone: bool = False
    ) -> None:
        self._everyone = everyone
        self.first_ns: dict[str, int] = {}
        self.last_ns: dict[str, int] = {}
        self._instance = instance
        self._spec = spec
        self._clock = clock
        self._known = known
        self._waiters: dict[Endpoint, Waiter] = {}
        self._settled: set[Endpoint] = set()
        self._news = threading.Event()

    def look(self, until: Callable[[], bool], *, timeout_s: float) -> bool:
        """Ask until `until` holds; False when it did not within `timeout_s`. Raises DriverError, and what stopped the
        asking."""
        deadline = time.monotonic() + timeout_s
        follow_at = 0.0
        while not until():
            self._check()
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= follow_at:
                self._follow()
                follow_at = time.monotonic() + _FOLLOW_S
            self._news.wait(max(0.0, min(follow_at, deadline) - time.monotonic()))
            self._news.clear()
        return True

    def __enter__(self) -> Census:
        self._follow()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for waiter in self._waiters.values():
            waiter.cancel()
        if error is None:
            self._check()

    def _check(self) -> None:
        for waiter in self._waiters.values():
            waiter.check()

    def _follow(self) -> None:
        addresses = addresses_of(self._instance)
        self._settled.intersection_update(addresses)
        wanted = [one for one in addresses if len(addresses) == 1 or one not in self._settled]
        for gone in self._waiters.keys() - set(wanted):
            waiter = self._waiters.pop(gone)
            waiter.cancel()
            waiter.check()
        for endpoint in wanted:
            if endpoint not in self._waiters:
                waiter = Waiter(self._spec, self._clock, accept=partial(self._heard, endpoint))
                self._waiters[endpoint] = waiter
                waiter.start(endpoint)
                waiter.attempt()

    def _heard(self, endpoint: Endpoint, answer: Answer) -> bool:
        who = identity(answer)
        self.last_ns[who] = answer.received_ns
        if who not in self._known:
            if not self._everyone:
                self._settled.add(endpoint)
            self.first_ns.setdefault(who, answer.received_ns)
            self._news.set()
        return False
