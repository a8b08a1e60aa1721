"""What a wait without success tells: what came instead of the answer, how often, and what may help."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.errors import ReadyRefused, ReadyTimeout
from lab.launch.attempt import Came, Outcome
from lab.spec import Ready, Spec

STEADY_S = 5.0
"""What will not change by itself is told when nothing else was seen for this long, or for as long as it took to show
for the first time, if that was longer: a service that came slowly may be slow to have its pages in place, too."""

_MAY_CHANGE = frozenset({408, 425, 429})
"""Statuses below 500 that ask the client to come again (RFC 9110, 15.5.9; RFC 8470; RFC 6585). Every 5xx may change as
well: 503 and 502 are what services and proxies say while they start, and 500 what many say until their database is."""

_MORE_TIME = "give a longer --timeout"
_NO_HTTP = "give --ready tcp for what speaks no HTTP"


@dataclass(slots=True)
class Tally:
    """What became of the attempts so far; times are seconds of the monotonic clock."""

    began: float
    counts: Counter[Came] = field(default_factory=Counter)
    last: Outcome | None = None
    answer: Outcome | None = None
    by_name: bool = False
    """Whether one address serves several by name: it knows none that is not there yet, which a 404 then says."""
    _first: float = 0.0
    _again: int = 0

    def add(self, outcome: Outcome, now: float) -> None:
        """One attempt ended so, `now`."""
        if not outcome.same_as(self.last):
            self._first, self._again = now, 0
        self._again += 1
        self.counts[outcome.came] += 1
        self.last = outcome
        if outcome.came in (Came.STATUS, Came.NO_HTTP, Came.TLS, Came.BROKEN, Came.OTHERS):
            self.answer = outcome

    def steady(self, now: float) -> bool:
        """Whether waiting on is in vain: the same that does not change by itself was all that came, long enough."""
        if self.last is None or self._again < 2 or not _stays(self.last):
            return False
        if self.by_name and self.last.status == 404:
            return False
        return now - self._first >= max(STEADY_S, self._first - self.began)

    def timeout(self, spec: Spec, timeout_s: float, under_way: Sequence[Outcome]) -> ReadyTimeout:
        """The error for a wait of `timeout_s`, at whose end the attempts `under_way` were so far."""
        open_ones = Counter(one.came for one in under_way)
        found = self._worth_telling(under_way)
        if found is None:
            counted = ", ".join(_times(came, count) for came, count in (self.counts + open_ones).most_common())
            what = counted or "nothing was asked, as the engine did not say that the instance runs"
            hint = _hint(Came.SILENT if open_ones[Came.SILENT] else Came.REFUSED, 0, spec)
        else:
            what, hint = _words(found, spec), _hint(found.came, found.status, spec)
        kind = "no connection stood" if spec.ready is Ready.TCP else "no complete answer of this launch"
        return ReadyTimeout(f"{kind} within {timeout_s:g} s: {what}", details=self._details(), resolution=hint)

    def refusal(self, spec: Spec, now: float) -> ReadyRefused:
        """The error for what is `steady`."""
        assert self.last is not None  # noqa: S101  else it would not be steady
        words = _words(self.last, spec)
        return ReadyRefused(
            f"{words}, and that for {now - self._first:.0f} s",
            details=self._details(),
            resolution=_hint(self.last.came, self.last.status, spec),
        )

    def _worth_telling(self, under_way: Sequence[Outcome]) -> Outcome | None:
        """The last that says more than that nobody answered."""
        return next((one for one in under_way if one.came is Came.UNFINISHED), self.answer)

    def _details(self) -> str:
        return "attempts: " + ", ".join(_times(came, count) for came, count in self.counts.most_common())


def _stays(outcome: Outcome) -> bool:
    if outcome.came in (Came.NO_HTTP, Came.TLS):
        return True
    return outcome.came is Came.STATUS and outcome.status < 500 and outcome.status not in _MAY_CHANGE


def _times(came: Came, count: int) -> str:
    return f"{came} {count:,} time{'s' if count != 1 else ''}"


def _words(outcome: Outcome, spec: Spec) -> str:
    asked, status = f"GET {spec.ready_path}", outcome.status
    headers = "".join(f", {name.title()}: {value}" for name, value in outcome.headers.items())
    told = {
        Came.STATUS: f"{asked} is answered with {status}{headers}",
        Came.NO_HTTP: f"what answers {asked} is no HTTP: '{outcome.said}'",
        Came.TLS: f"what answers {asked} speaks TLS",
        Came.BROKEN: f"the answer to {asked}, {status}, broke off {outcome.said}",
        Came.UNFINISHED: f"{asked} is being answered{f' with {status}' if status else ''}, no end yet: {outcome.said}",
        Came.OTHERS: f"{asked} is answered with {status}, and without this launch's nonce",
    }
    return told.get(outcome.came, str(outcome.came))


def _hint(came: Came, status: int, spec: Spec) -> str:
    elsewhere = f"see that it listens at port {spec.port} on all addresses of its own, or {_MORE_TIME}"
    if spec.ready is Ready.TCP:
        return elsewhere
    longer = f"{_NO_HTTP}, --ready-path PATH for a shorter answer, or a longer --timeout"
    hints = {
        Came.STATUS: _status_hint(status),
        Came.NO_HTTP: f"{_NO_HTTP}, or the --port of its HTTP",
        Came.TLS: "give the --port at which it speaks plain HTTP, or --ready tcp",
        **dict.fromkeys((Came.SILENT, Came.UNFINISHED, Came.BROKEN), longer),
    }
    return hints.get(came, elsewhere)


def _status_hint(status: int) -> str:
    if 300 <= status < 400:
        return "give --ready-path where it leads to, or --ready-status 200-399 if that is an answer"
    counts = f"--ready-status 200,{status} if that is an answer"
    if status >= 500 or status in _MAY_CHANGE:
        return f"{_MORE_TIME}, or {counts}"
    if status in (400, 404, 421):
        return f"give --ready-path PATH, --header 'Host: NAME' where it serves by name, or {counts}"
    if status in (401, 403, 407):
        return f"give --ready-path PATH, --header 'Authorization: …', or {counts}"
    return f"give --ready-path PATH, or {counts}"
