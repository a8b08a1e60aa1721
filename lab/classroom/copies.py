"""Results that stand under two students: for the teacher's eyes, with how it is known, and what else it may mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.classroom.handed import Class

_LEAST_VALUES = 3
"""So many times with the resolution of a clock are never the same twice by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """`what` is the same in all of `sources`, which are files, each with whose it is where that is known."""

    what: str
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Claim:
    """That a run is of a student."""

    source: str
    owner: str
    run_id: str

    @property
    def told(self) -> str:
        return f"{self.source} ({self.owner})" if self.owner else self.source


def copies_in(found: Class) -> list[Copy]:
    """Runs and machines under two students, and times that are the same under two runs."""
    return [*_same_run(found), *_same_times(found), *_same_machine(found)]


def _same_run(found: Class) -> Iterator[Copy]:
    claims: dict[str, list[_Claim]] = {}
    for run in found.runs:
        claims.setdefault(run.run_id, []).append(_Claim(run.source, run.owner, run.run_id))
    for claim in found.twice:
        claims.setdefault(claim.run_id, []).append(_Claim(claim.source, claim.owner, claim.run_id))
    for lesson in found.lessons:
        for run_id in sorted({figure.run_id for figure in lesson.progress.figures}):
            claims.setdefault(run_id, []).append(_Claim(lesson.source, lesson.owner, run_id))
    for run_id, mine in sorted(claims.items()):
        if _of_several(mine):
            yield Copy(what=f"run {run_id}", sources=_sources(mine))


def _same_times(found: Class) -> Iterator[Copy]:
    claims: dict[tuple[float, ...], list[_Claim]] = {}
    said: dict[tuple[float, ...], str] = {}
    for run in found.runs:
        for row in run.rows:
            if row.unit == "s" and len(set(row.values)) >= _LEAST_VALUES:
                values = tuple(row.values)
                said.setdefault(values, f"{row.metric} of {row.label}, to the last digit")
                claims.setdefault(values, []).append(_Claim(run.source, run.owner, run.run_id))
    told: dict[tuple[str, ...], list[str]] = {}
    for values, mine in claims.items():
        if len({claim.run_id for claim in mine}) > 1:
            sources = tuple(f"{claim.told}, run {claim.run_id}" for claim in mine)
            told.setdefault(sources, []).append(said[values])
    for sources, whats in sorted(told.items()):
        yield Copy(what="; ".join(whats), sources=sources)


def _same_machine(found: Class) -> Iterator[Copy]:
    """Where the files tell whose they are. Two who share a laptop are no cheats, and neither is who has a clone."""
    claims: dict[tuple[str, str], list[_Claim]] = {}
    for run in found.runs:
        if run.machine.id:
            claim = _Claim(run.source, run.owner, run.run_id)
            claims.setdefault((run.machine.id, run.machine.name), []).append(claim)
    for (_, name), mine in sorted(claims.items()):
        if _of_several(mine):
            first = {claim.owner: claim for claim in reversed(mine) if claim.owner}
            what = f"one machine, {name or 'without a name'}: shared, or the disk of one was cloned"
            yield Copy(what=what, sources=_sources(first.values()))


def _of_several(claims: Sequence[_Claim]) -> bool:
    return len({claim.owner for claim in claims if claim.owner}) > 1


def _sources(claims: Iterable[_Claim]) -> list[str]:
    return sorted({claim.told for claim in claims})
