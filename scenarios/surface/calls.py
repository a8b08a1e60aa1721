"""What came of the system calls that the workload tried, in words and counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scenarios.surface.syscalls import Call, Outcome, Sees, refused

_NO_TURN = (Outcome.LATE, Outcome.UNMADE)
_NO_ANSWER = (Outcome.SIGNAL, Outcome.TIMEOUT, Outcome.EXIT, *_NO_TURN)


def filtered(calls: Iterable[Call]) -> Sequence[Call]:
    """The refused calls that only a filter can have refused: their own fault, or their absence, is met before any
    right is asked for."""
    return [call for call in refused(calls) if call.sees in (Sees.FAULT, Sees.GONE) or call.signal == "SIGSYS"]


def facts(calls: Sequence[Call]) -> Mapping[str, str]:
    """The calls by name, sorted, those that were answered alike together."""
    found = refused(calls)
    unanswered = [call for call in calls if call.outcome in _NO_ANSWER and call not in found]
    return {
        "system calls: refused": _by_answer(found),
        "system calls: refused by a filter for certain": _names(filtered(calls)),
        "system calls: answered ENOSYS": _names(_absent(calls)),
        "system calls: without an answer": _by_answer(unanswered),
    }


def counts(calls: Sequence[Call]) -> Mapping[str, int | str]:
    """The counted figures by metric; a text where there is none, which says why."""
    late = sum(call.outcome in _NO_TURN for call in calls)
    of_answers = {"calls_refused": refused(calls), "calls_filtered": filtered(calls), "calls_absent": _absent(calls)}
    return {
        **{
            metric: f"{late} calls were not tried in time" if late else len(found)
            for metric, found in of_answers.items()
        },
        "calls_tried": sum(call.outcome not in (Outcome.UNTRIED, *_NO_TURN) for call in calls),
        "calls_not_tried": sum(call.outcome is Outcome.UNTRIED for call in calls),
    }


def _absent(calls: Iterable[Call]) -> Sequence[Call]:
    """Those that their kernel has not, or a filter says it has not; without what no Linux has any more."""
    return [call for call in calls if call.errno == "ENOSYS" and call.sees is not Sees.GONE]


def _names(calls: Iterable[Call]) -> str:
    return ", ".join(sorted(call.name for call in calls)) or "none"


def _by_answer(calls: Sequence[Call]) -> str:
    answers = sorted({call.said for call in calls})
    told = [f"{answer}: {_names(call for call in calls if call.said == answer)}" for answer in answers]
    return "; ".join(told) or "none"
