"""One trouble in one instance: proof of its limit, quiet window, trouble, and what became of everybody."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from lab.errors import DriverError, MeasurementError, Unsupported
from lab.features import Feature, OnThisHost, Role
from lab.figures.evidence import Seen, tell
from lab.figures.series import SEEN
from lab.host.limits import console_tells
from lab.host.procs import Process
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from lab.service.serving import main_process
from lab.service.task import TaskState, start_task, task
from lab.service.task import Trouble as Task
from scenarios.containment import outcome, proof, traces, watching
from scenarios.containment.outcome import Observed, Survival
from scenarios.containment.traces import Traces
from scenarios.containment.troubles import TASKS, Trouble
from scenarios.containment.victim import Identity, identity, survival
from scenarios.containment.watching import Watchee, Watching

_LATE_NS = 3_000_000_000  # by the service's clock, within which a task whose deadline is over has been reaped
_END_S = 60.0  # the same by this host's, by which a starved guest's clock may be slow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    who: Identity
    traces: Traces
    main: Process | None


def make(bench: Bench, session: Session, who: Mapping[str, Watchee], trouble: Trouble, seconds: int) -> None:
    """Make `trouble` in `session`'s instance, where a limit that holds it in was read back, and tell what is seen."""
    bound = proof.bound(trouble, session, bench.info)
    if isinstance(bound, str):
        _not_made(bench, trouble, bound)
        return
    before = _before(bench, session)
    with Watching(who, bench.clock, seconds=seconds) as watch:
        watch.quiet()
        start_ns = bench.clock.now_ns()
        try:
            from_outside = trouble is Trouble.KILL and _is_first(bench, before)
            if from_outside:
                _kill(session, before.main)
            else:
                start_task(session, Task(trouble.value), seconds=seconds, amount=bound.amount)
        except Unsupported as refused:
            _not_made(bench, trouble, refused.brief)
            return
        ended_ns = _await_end(bench, before.main, start_ns, seconds)
        watch.until_over(start_ns)
        seen, after = _after(bench, session, trouble, before, from_outside=from_outside)
        windows = watch.windows(start_ns)
    tell(bench, Seen.OUTSIDE, f"{trouble}: the limit", bound.said)
    tell(bench, Seen.INSIDE, f"{trouble}: the instance", outcome.happened(trouble, seen))
    tell(bench, Seen.OUTSIDE, f"{trouble}: by whom", outcome.by_whom(trouble, seen))
    _figures(bench, trouble, seen)
    if ended_ns is not None:
        bench.emit("ended_s", (ended_ns - start_ns) / 1e9, "s", trouble=trouble, **{SEEN: Seen.OUTSIDE})
    watching.emit(bench, trouble, windows)
    _left(bench, trouble, before.traces, after, gone=seen.survival is Survival.GONE)


def _not_made(bench: Bench, trouble: Trouble, why: str) -> None:
    tell(bench, Seen.INSIDE, f"{trouble}: the instance", f"not made: {why}")


def _before(bench: Bench, session: Session) -> _Before:
    main = None
    if isinstance(session.instance, OnThisHost):
        main = main_process(session, bench.clock)
    return _Before(who=identity(session), traces=traces.look(session.instance), main=main)


def _is_first(bench: Bench, before: _Before) -> bool:
    """Whether the service is pid 1 of a pid namespace of this host's kernel, which nobody within can kill."""
    return before.who.pid == 1 and Feature.OWN_KERNEL not in bench.info.features


def _kill(session: Session, main: Process | None) -> None:
    """SIGKILL to the service's own process, where that is one of this host's."""
    instance = session.instance
    if main is None or not isinstance(instance, OnThisHost) or instance.host_pids().get(main.pid) is not Role.SERVICE:
        raise Unsupported("the service is the first process inside, and none of this host's")
    try:
        main.send(signal.SIGKILL)
    except PermissionError as error:
        raise Unsupported("the service's process is another user's (run the lab with sudo)") from error


def _await_end(bench: Bench, main: Process | None, start_ns: int, seconds: int) -> int | None:
    """When the instance's main process ended, if it did within the window."""
    left_s = seconds - (bench.clock.now_ns() - start_ns) / 1e9
    if main is None or not main.wait(left_s):
        return None
    return bench.clock.now_ns()


def _after(
    bench: Bench, session: Session, trouble: Trouble, before: _Before, *, from_outside: bool
) -> tuple[Observed, Traces]:
    state = _state(session) if trouble in TASKS else None
    who = survival(session, before.who)
    after = traces.settled(session.instance, before.traces)
    if who is Survival.SILENT and isinstance(session.instance, OnThisHost) and not after.processes:
        who = Survival.GONE
    seen = Observed(
        survival=who,
        state=state if who is Survival.SERVES else None,
        risen=after.toll.since(before.traces.toll),
        console=console_tells(before.traces.console, after.console),
        own_kernel=Feature.OWN_KERNEL in bench.info.features,
        killed_from_outside=from_outside,
    )
    return seen, after


def _state(session: Session) -> TaskState | None:
    """What the service tells of the task once that has ended; None where it cannot be asked."""
    deadline = time.monotonic() + _END_S
    with suppress(DriverError):  # it is gone, or cannot answer: `survival` tells which
        while True:
            asked_ns = int(ask.get(session, "/clock")["now_ns"])  # before, since an answer may take long
            state = task(session)
            if not state.running:
                return state
            late_ns = asked_ns - state.deadline_ns
            if late_ns > _LATE_NS or time.monotonic() > deadline:
                raise MeasurementError(f"the task '{state.kind}' is {late_ns / 1e9:.1f} s past its own deadline")
            time.sleep(0.05)
    return None


def _figures(bench: Bench, trouble: Trouble, seen: Observed) -> None:
    told = {"trouble": trouble.value, SEEN: Seen.INSIDE.value}
    if seen.killed_after_s is not None:
        bench.emit("outcome_s", seen.killed_after_s, "s", **told)
    if seen.state is not None and trouble in (Trouble.MEMORY, Trouble.DISK):
        bench.emit("reached_bytes", seen.state.bytes, "bytes", **told)
    elif seen.state is not None and trouble in (Trouble.FORKS, Trouble.FILES):
        bench.emit("reached_count", seen.state.made, "", **told)


def _left(bench: Bench, trouble: Trouble, before: Traces, after: Traces, *, gone: bool) -> None:
    found = traces.left(before, after)
    tell(bench, Seen.OUTSIDE, f"{trouble}: left behind", traces.left_said(found, gone=gone))
    told = {"trouble": trouble.value, SEEN: Seen.OUTSIDE.value}
    bench.emit("left_processes", found["processes"], "processes", **told)
    for what in ("charged", "scratch"):
        if what in found:
            bench.emit("left_bytes", found[what], "bytes", what=what, **told)
