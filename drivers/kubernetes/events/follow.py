"""One launch as the cluster's events tell it: the marks, and whether it can still succeed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.telling import Told
from drivers.kubernetes.objects.status import Verdict, pod_verdict, reached
from lab.driver import Mark
from lab.errors import LaunchError
from lab.timeline import ENGINE_CHAIN, Phase, Source

_GRACE_S = 3.0
"""So long may a pod be unschedulable: another's resources may just be on their way back to the scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What an object says: the phases that it has reached, why it will not get further, and the instants that the
    cluster tells of it."""

    phases: Callable[[Mapping[str, Any]], list[Phase]]
    verdict: Callable[[Mapping[str, Any]], Verdict | None]
    instants: Callable[[Mapping[str, Any]], dict[str, str]]


class Follower:
    """Turns the events of one launch's pods into marks, in the order of their arrival.

    An instant is the arrival of the event that first shows its phase, the same for all that it shows first. A phase
    that is shown only after a later one of its chain stays absent, and so do all that were not yet seen when the watch
    broke: their events come again when it is mended, but late. `expects_created` is False where the first pod is not
    what was asked for (a deployment). `reader` reads what the events tell of, pods unless it is given.
    """

    def __init__(
        self,
        mark: Mark,
        *,
        expects_created: bool = True,
        on_verdict: Callable[[LaunchError], None],
        reader: Reader | None = None,
    ) -> None:
        self._mark = mark
        self._reader = reader or PODS
        self._on_verdict = on_verdict
        self._changed = threading.Condition()
        self._furthest = 0 if expects_created else ENGINE_CHAIN.index(Phase.CREATED)
        self._marking = True
        self._accepted = False
        self._shown: set[Phase] = set()
        self._verdicts: dict[str, Verdict | None] = {}
        self._gone: set[str] = set()
        self._address = ""
        self._node = ""
        self._reported: dict[str, dict[str, str]] = {}
        self._waits = Told()

    def returned(self) -> None:
        """The creating call has returned: the object exists. Where an event was quicker to show more, this is stale
        news, and is not marked."""
        with self._changed:
            if not self._shown & _AFTER_CREATED:
                self._mark(Phase.CREATED, source=Source.RETURN)

    def event(self, kind: str, pod: Mapping[str, Any]) -> None:
        """An event arrived just now."""
        with self._changed:
            phases = self._reader.phases(pod)
            mark = self._mark.moment()
            for phase in phases:
                place = ENGINE_CHAIN.index(phase)
                if self._marking and phase not in self._shown and place > self._furthest:
                    mark(phase, source=Source.EVENT)
                    self._furthest = place
            self._learn(kind, pod, phases)

    def seen(self, pod: Mapping[str, Any]) -> None:
        """A listing shows the pod so: nothing is known of when."""
        with self._changed:
            self._learn("", pod, self._reader.phases(pod))

    def missed(self) -> None:
        """The watch broke: events may have been lost, and instants with them."""
        with self._changed:
            self._marking = False
            self._changed.notify_all()

    def removed(self, name: str) -> bool:
        """Whether an event told that the pod `name` is gone."""
        with self._changed:
            return name in self._gone

    def await_scheduled(self, timeout_s: float, look: Callable[[], Verdict | None]) -> None:
        """Return when a pod has a node. Raises LaunchError, with the scheduler's reason where there is one; `look` is
        asked now and then for one that no pod can tell."""
        deadline = time.monotonic() + timeout_s
        first_doubt = None
        while True:
            with self._changed:
                done = self._changed.wait_for(lambda: Phase.SCHEDULED in self._shown or self._final(), 0.5)
                verdict = self._verdict
                if done and Phase.SCHEDULED in self._shown:
                    return
            now = time.monotonic()
            verdict = verdict or look()
            first_doubt = (first_doubt or now) if verdict else None
            if verdict and (verdict.final or now - (first_doubt or now) >= _GRACE_S):
                raise verdict.error()
            if now > deadline:
                raise LaunchError(
                    f"the cluster gave the pod no node within {timeout_s:g} s", resolution="see `kubectl get events`"
                )

    def await_phase(self, phase: Phase, timeout_s: float) -> None:
        """Return when an event or a listing has shown `phase`. Raises LaunchError where that will not be."""
        with self._changed:
            if self._changed.wait_for(lambda: phase in self._shown or self._final(), timeout_s):
                if phase in self._shown or self._verdict is None:
                    return
                raise self._verdict.error()
        raise LaunchError(f"the pod did not reach '{phase}' within {timeout_s:g} s", resolution="kubectl get events")

    def await_address(self, timeout_s: float) -> str:
        """The pod's address, as soon as it is shown. Raises LaunchError."""
        self.await_phase(Phase.POD_IP, timeout_s)
        return self._address

    def await_node(self, timeout_s: float) -> str:
        """The address of the pod's node, as soon as it is shown. Raises LaunchError."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._node) or self._final(), timeout_s)
            if self._node:
                return self._node
            if self._verdict is not None:
                raise self._verdict.error()
        raise LaunchError(
            f"the cluster did not tell the address of the pod's node within {timeout_s:g} s",
            resolution="reach pods in another way: -o route=port-forward",
        )

    def accepted(self) -> None:
        """From now on a verdict is told to `on_verdict`, also one that is there already."""
        with self._changed:
            self._accepted = True
            self._tell()

    def reported(self) -> dict[str, str]:
        """The instants of the pod that was told of last, by the cluster's clock, which counts whole seconds; and what
        the calls of its launch waited for."""
        with self._changed:
            instants = {name: instant for told in self._reported.values() for name, instant in told.items()}
            return instants | self._waits.words()

    def waited(self, told: Told) -> None:
        """Calls of this launch waited for what `told` tells."""
        with self._changed:
            self._waits.add(told)

    def settle(self, timeout_s: float) -> None:
        """Return when the events have shown all phases, or cannot show more, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(
                lambda: Phase.ENGINE_READY in self._shown or not self._marking or self._final(), timeout_s
            )

    def require_hope(self) -> None:
        """Raise LaunchError where events have told that the service will not be."""
        with self._changed:
            if self._final() and self._verdict is not None:
                raise self._verdict.error()

    def await_event(self, timeout_s: float) -> None:
        """Return at the next event, or after `timeout_s`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def _learn(self, kind: str, pod: Mapping[str, Any], phases: list[Phase]) -> None:
        self._shown.update(phases)
        self._address = str((pod.get("status") or {}).get("podIP") or self._address)
        self._node = str((pod.get("status") or {}).get("hostIP") or self._node)
        if kind == "DELETED":
            self._gone.add(pod["metadata"]["name"])
        elif not pod["metadata"].get("deletionTimestamp"):
            # What one kind of object says takes nothing back that another has said; a listing of pods names no kind.
            kind_of_object = str(pod.get("kind") or "Pod")
            self._verdicts[kind_of_object] = self._reader.verdict(pod)
            self._reported[kind_of_object] = self._reader.instants(pod)
            self._tell()
        self._changed.notify_all()

    @property
    def _verdict(self) -> Verdict | None:
        """The worst that any kind of object says now."""
        told = [verdict for verdict in self._verdicts.values() if verdict is not None]
        return next((verdict for verdict in told if verdict.final), told[0] if told else None)

    def _tell(self) -> None:
        if self._accepted and self._verdict is not None and self._verdict.final:
            self._on_verdict(self._verdict.error())

    def _final(self) -> bool:
        return self._verdict is not None and self._verdict.final


def instants_of(pod: Mapping[str, Any]) -> dict[str, str]:
    """The times that a pod's object tells, by the cluster's clock, to the second."""
    status = pod.get("status") or {}
    found = {"creationTimestamp": pod["metadata"].get("creationTimestamp"), "startTime": status.get("startTime")}
    for condition in status.get("conditions") or []:
        if condition.get("status") == "True":
            found[f"condition {condition.get('type')}"] = condition.get("lastTransitionTime")
    for container in status.get("containerStatuses") or []:
        running = (container.get("state") or {}).get("running") or {}
        found[f"container {container.get('name')} startedAt"] = running.get("startedAt")
    return {name: str(instant) for name, instant in found.items() if instant}


PODS = Reader(phases=reached, verdict=pod_verdict, instants=instants_of)
_AFTER_CREATED = frozenset(ENGINE_CHAIN[ENGINE_CHAIN.index(Phase.CREATED) + 1 :])
