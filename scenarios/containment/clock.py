"""The wrong clock: a guest that is started with one, and never a call from a workload."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lab.figures.evidence import Seen, tell
from lab.figures.series import SEEN
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service import ask
from scenarios.containment import watching
from scenarios.containment.troubles import Trouble
from scenarios.containment.watching import Watchee, Watching

_PROBE = Trouble.CLOCK.value
_LAUNCH_S = 90.0
_EXACT_S = 60.0  # emulated guests boot with clocks that are some seconds off; a day is another matter
_MOVED_S = 0.5  # within a window NTP slews by less (500 ppm)


def start_with_another(bench: Bench, who: Mapping[str, Watchee], seconds: int, offset_s: int) -> None:
    """Launch a guest whose clock is wrong by `offset_s`, watch, and tell what its clock and the host's show."""
    with Watching(who, bench.clock, seconds=seconds, slack_s=_LAUNCH_S) as watch:
        watch.quiet()
        was_s = _host_offset_s()
        with bench.session(guest_clock_offset_s=offset_s) as session:
            start_ns = bench.clock.now_ns()
            offset_seen_s = _guest_offset_s(session)
            watch.until_over(start_ns)
            moved_s = _host_offset_s() - was_s
            windows = watch.windows(start_ns)
            _tell(bench, offset_s, offset_seen_s, moved_s)
            watching.emit(bench, Trouble.CLOCK, windows)


def _tell(bench: Bench, asked_s: int, seen_s: float, moved_s: float) -> None:
    tell(bench, Seen.OUTSIDE, f"{_PROBE}: the limit", "a machine whose clock the engine sets as it starts")
    tell(bench, Seen.INSIDE, f"{_PROBE}: the instance", clock_said(asked_s, seen_s))
    moved = "the host's clock did not move" if abs(moved_s) < _MOVED_S else f"the host's clock moved by {moved_s:.1f} s"
    tell(bench, Seen.OUTSIDE, f"{_PROBE}: by whom", f"its engine, as it was asked to; {moved}")
    bench.emit("clock_offset_s", seen_s, "s", trouble=_PROBE, **{SEEN: Seen.INSIDE})
    bench.emit("host_clock_moved_s", moved_s, "s", trouble=_PROBE, **{SEEN: Seen.OUTSIDE})


def clock_said(asked_s: int, seen_s: float) -> str:
    """Whether the guest's clock is as wrong as it was to be."""
    if abs(seen_s - asked_s) < _EXACT_S:
        return f"serves, its clock {abs(asked_s) / 3600:.0f} h {'slow' if asked_s < 0 else 'fast'}"
    return f"serves, its clock {seen_s:.0f} s off and not {asked_s} s"


def _guest_offset_s(session: Session) -> float:
    before_ns = time.time_ns()
    guest_ns = int(ask.get(session, "/clock")["realtime_ns"])
    return (guest_ns - (before_ns + time.time_ns()) / 2) / 1e9


def _host_offset_s() -> float:
    """The host's time of day less its monotonic clock: constant unless somebody sets the clock."""
    return (time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) / 1e9
