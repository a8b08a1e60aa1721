"""One function of a rig's, called and ended and called again, for the contract's tests of functions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from contract_rig import Rig, clock_of

from lab.errors import Unsupported
from lab.features import CallPhase, Feature, Initializes, Invoked
from lab.launch.session import Session

_TOLD_WITHIN_S = 5.0
"""What a platform shows by events may come after the answer."""


@dataclass(slots=True)
class Calls:
    """What it told, with the workers that it named after each call, and what was shown meanwhile."""

    first: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[str] = ()
    zero: Sequence[str] = ()
    cold: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    shown: list[tuple[str, CallPhase, str]] = field(default_factory=list)
    warm: Mapping[str, Any] = field(default_factory=dict)
    after_warm: Sequence[str] = ()
    shown_warm: list[tuple[str, CallPhase, str]] = field(default_factory=list)
    initialized: Sequence[str] = ()
    not_initialized: str = ""
    first_of_initialized: Mapping[str, Any] = field(default_factory=dict)
    after_initialized: Sequence[str] = ()


_made: WeakKeyDictionary[Rig, Calls] = WeakKeyDictionary()


def calls_of(rig: Rig) -> Calls:
    """Made at the first look, of an instance of its own."""
    rig.needs(Feature.FUNCTION, Feature.NETWORK)
    if rig not in _made:
        _made[rig] = calls = Calls()
        with rig.session() as session:
            session.launch()
            assert isinstance(session.instance, Invoked)
            _call(rig, calls, session, session.instance)
    return _made[rig]


def _call(rig: Rig, calls: Calls, session: Session, function: Invoked) -> None:
    calls.first = _asked(session)
    calls.before = list(function.workers())
    function.force_cold(timeout_s=min(30.0, rig.timeout_s))
    calls.zero = list(function.workers())
    with function.follow(lambda *one: calls.shown.append(one)):
        calls.cold = _asked(session)
        deadline = time.monotonic() + min(_TOLD_WITHIN_S, rig.settle_s)
        while CallPhase.STARTED not in [phase for _, phase, _ in calls.shown] and time.monotonic() < deadline:
            time.sleep(0.02)
    calls.after = list(function.workers())
    with function.follow(lambda *one: calls.shown_warm.append(one)):
        calls.warm = _asked(session)
    calls.after_warm = list(function.workers())
    if not isinstance(function, Initializes):
        calls.not_initialized = f"{rig.target} initializes no worker before a call"
        return
    function.force_cold(timeout_s=min(30.0, rig.timeout_s))
    try:
        function.initialize(timeout_s=min(30.0, rig.timeout_s))
    except Unsupported as error:
        calls.not_initialized = error.brief
        return
    calls.initialized = list(function.workers())
    calls.first_of_initialized = _asked(session)
    calls.after_initialized = list(function.workers())


def _asked(session: Session) -> Mapping[str, Any]:
    """What /clock tells, of one request and no more."""
    told = clock_of(session, None)
    assert told, "it does not answer"
    return told
