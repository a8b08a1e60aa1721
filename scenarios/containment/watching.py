"""The neighbour and the host, asked every 10 ms through a quiet window and a trouble's.

Each request has a new connection, so that it is also seen whether a new client gets in; but a guest behind QEMU's
user-mode network is asked on connections that are kept open. That forwarder's backlog is one connection (libslirp
listens with 1): what comes while QEMU is busy elsewhere for 20 ms is dropped, and its SYN is sent again after 1 s, so
that new connections would tell of the forwarder and not of the guest.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from lab.driver import Info
from lab.errors import MeasurementError
from lab.features import Feature
from lab.figures.evidence import Seen, tell
from lab.figures.series import ABSENT, SEEN
from lab.scenario import Bench, exceeding_calls
from lab.service.load import Client, LoadResult, start_load, start_watch
from lab.service.watch import ANSWER_WITHIN_S, Watched, window
from lab.spec import Endpoint
from lab.timeline import HostClock
from scenarios.containment.troubles import Trouble

NEIGHBOUR, HOST = "neighbour", "host"
INTERVAL_S = 0.010
_KEPT = 100  # as many as can be waited for within 1 s, so that no pause that short needs another
_START_S = 0.3  # in which the clients begin to ask
_OPEN_S = 1.5  # in which those that keep connections open them
_JUDGE_S = ANSWER_WITHIN_S + 0.1  # until the last request's time is over


@dataclass(frozen=True, slots=True)
class Watchee:
    """Who is watched, and whether on connections that are kept open."""

    endpoint: Endpoint
    keep: bool = False

    @property
    def connections(self) -> str:
        return "kept" if self.keep else "new"

    def watch(self, seconds: float) -> Client:
        """Raises LabError."""
        if self.keep:
            return start_load(self.endpoint, rate=round(1 / INTERVAL_S), seconds=seconds, open_first=_KEPT)
        return start_watch(self.endpoint, seconds=seconds, interval_s=INTERVAL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """A quiet window and the trouble's of one who was watched; words where the watch did not span one of them."""

    connections: str
    quiet: Watched | str
    trouble: Watched | str


class Watching:
    """Watches all of `who` from entering the context on; leaving it ends the watch."""

    def __init__(self, who: Mapping[str, Watchee], clock: HostClock, *, seconds: int, slack_s: float = 15.0) -> None:
        """`seconds` is the length of each window; `slack_s` how much later than that the trouble may begin."""
        self._who = who
        self._clock = clock
        self._seconds = seconds
        self._slack_s = slack_s
        self._clients: dict[str, Client] = {}
        self._all = ExitStack()
        self._quiet_end_ns = 0
        self._start_s = _OPEN_S if any(one.keep for one in who.values()) else _START_S

    def __enter__(self) -> Watching:
        lasts_s = self._start_s + 2 * self._seconds + self._slack_s + _JUDGE_S
        with ExitStack() as undo:
            for name, watchee in self._who.items():
                self._clients[name] = undo.enter_context(watchee.watch(lasts_s))
                self._clients[name].prefer()
            self._all = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.__exit__(kind, error, trace)

    def quiet(self) -> None:
        """Returns at the end of the quiet window."""
        time.sleep(self._start_s + self._seconds)
        self._quiet_end_ns = self._clock.now_ns()

    def until_over(self, start_ns: int) -> None:
        """Returns when the window of a trouble that began at `start_ns` is over."""
        time.sleep(max(0.0, (start_ns - self._clock.now_ns()) / 1e9 + self._seconds))

    def windows(self, start_ns: int) -> Mapping[str, Windows]:
        """What was seen, once the last request of the trouble's window had its time. Raises LabError."""
        self.until_over(start_ns + round(_JUDGE_S * 1e9))
        length_ns = self._seconds * 1_000_000_000
        found = {}
        for name, client in self._clients.items():
            result = client.stop()
            found[name] = Windows(
                connections=self._who[name].connections,
                quiet=_seen(result, self._quiet_end_ns - length_ns, self._quiet_end_ns),
                trouble=_seen(result, start_ns, start_ns + length_ns),
            )
        return found


def emit(bench: Bench, trouble: Trouble, windows: Mapping[str, Windows]) -> None:
    """The figures and facts of all who were watched."""
    for name, found in windows.items():
        told = {"trouble": trouble.value, "of": name, "connections": found.connections, SEEN: Seen.OUTSIDE}
        for watched, prefix in ((found.quiet, "quiet_"), (found.trouble, "")):
            which = "the quiet window before" if prefix else "the trouble"
            if isinstance(watched, Watched):
                bench.emit("late_share", watched.late_share, "", **told, window=prefix.strip("_") or "trouble")
            if why := _inconclusive(watched):
                for metric in ("availability", "worst_gap_s"):
                    bench.emit(ABSENT, 1, "", of=prefix + metric, why=f"{trouble}, {name}, in {which}: {why}")
            elif isinstance(watched, Watched):
                bench.emit(f"{prefix}availability", watched.availability, "share", **told)
                bench.emit(f"{prefix}worst_gap_s", watched.worst_gap_s, "s", **told)
                if watched.own_gap_s and not prefix:
                    bench.emit("own_gap_s", watched.own_gap_s, "s", **told)
        tell(bench, Seen.OUTSIDE, f"{trouble}: the {name}", said(found))
    if NEIGHBOUR not in windows:
        tell(bench, Seen.OUTSIDE, f"{trouble}: the {NEIGHBOUR}", f"not watched: {unwatched(bench.info)}")


def unwatched(info: Info) -> str:
    """Why the neighbour is not asked; empty where it is."""
    if Feature.NETWORK not in info.features:
        return "without a network it answers nobody"
    why = exceeding_calls(info, round(2 / INTERVAL_S))
    return f"every {INTERVAL_S:g} s, in two windows of 1 s alone, would be {why}" if why else ""


def said(found: Windows) -> str:
    """Whether who was watched was available throughout; 'inconclusive' where the watcher cannot know."""
    if why := _inconclusive(found.trouble):
        return f"inconclusive: {why}"
    text = _availability(found.trouble)
    if why := _inconclusive(found.quiet):
        return f"{text} (the quiet window before is inconclusive: {why})"
    return text if _available(found.quiet) else f"{text} (and in the quiet window before {_availability(found.quiet)})"


def _inconclusive(watched: Watched | str) -> str:
    if isinstance(watched, str):
        return watched
    return "the watcher was late too often" if watched.inconclusive else ""


def _available(watched: Watched | str) -> bool:
    return isinstance(watched, Watched) and watched.throughout


def _availability(watched: Watched | str) -> str:
    if isinstance(watched, str):
        return watched
    if watched.throughout:
        return "available throughout"
    return f"{watched.asked - watched.answered} of {watched.asked} requests were not answered within 1 s"


def _seen(result: LoadResult, start_ns: int, end_ns: int) -> Watched | str:
    try:
        return window(result, start_ns, end_ns)
    except MeasurementError as error:  # a watcher that could not keep up, which is for the reader to know
        return error.brief
