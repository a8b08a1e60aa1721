"""The part of a report that reads like evidence: claim, what was done, what was seen from inside and from outside, and
what the differences mean. All text is plain: whoever writes the page escapes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from lab.errors import LabError
from lab.figures import evidence, series
from lab.figures.evidence import Claims, Finding, Meaning, Seen
from lab.figures.series import EXPLAINING, SEEN, Series
from lab.registry import make_scenario
from lab.store.record import RunRecord

_LONG = 4  # items, from which on two lists are told by their difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Probes that differ and mean the same: `differs` says where and how; `words` and `page` are the scenario's."""

    title: str
    differs: Sequence[str]
    words: str
    page: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What was seen from one side: its facts as rows of a table with these headings, `marked` being the cells (row,
    column) that differ from the first target; what was counted, headings first; and its figures."""

    title: str
    headings: Sequence[str]
    facts: Sequence[Sequence[str]]
    marked: frozenset[tuple[int, int]]
    counts: Sequence[Sequence[str]]
    figures: Sequence[Series]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Undone:
    """A scenario's words without what was done: with the parameters that it has now, something else is."""

    claim: str
    caveats: Sequence[str]
    meanings: Mapping[str, Meaning]
    done: Sequence[str] = ()


def claims_of(record: RunRecord) -> Claims | None:
    """The run's scenario with the run's parameters, if it tests a claim and is still here; where it no longer has
    those, without what it did."""
    own: Mapping[str, str] = record.run.parameters.get("scenario") or {}
    for parameters in (own, {}):
        with contextlib.suppress(LabError):  # another lab's scenario, or parameters that it no longer has
            found = make_scenario(record.run.scenario, parameters)
            if not isinstance(found, Claims):
                return None
            if parameters == own:
                return found
            told = _Undone(claim=found.claim, caveats=found.caveats, meanings=found.meanings)
            return cast("Claims", told)  # frozen, as scenarios are too
    return None


def sides(record: RunRecord, rows: Sequence[Series]) -> Iterator[Side]:
    """Inside, then outside; a side from which nothing was seen is left out."""
    found = evidence.findings(record)
    for seen in Seen:
        mine = [finding for finding in found if finding.seen is seen and not finding.hidden]
        labels = list(dict.fromkeys(label for finding in mine for label in finding.said))
        facts = [[finding.probe, *(finding.said.get(label, "") for label in labels)] for finding in mine]
        marked = {
            (line, column)
            for line, cells in enumerate(facts)
            for column, cell in enumerate(cells)
            if cell and cell != next(filter(None, cells[1:])) and column
        }
        rows_here = [row for row in rows if row.dimensions.get(SEEN) == seen and row.metric not in EXPLAINING]
        counted = [row for row in rows_here if series.is_fact(row)]
        shown = [row for row in rows_here if row not in counted]
        names = list(dict.fromkeys(row.name for row in shown))
        shown.sort(key=lambda row: names.index(row.name))
        if facts or counted or shown:
            yield Side(
                title=f"Seen from {seen}",
                headings=["", *labels],
                facts=facts,
                marked=frozenset(marked),
                counts=series.fact_grid(record, counted) if counted else [],
                figures=shown,
            )


def lessons(record: RunRecord, claims: Claims) -> Iterator[Lesson]:
    """What differs from the control or from plain Docker, and what that means, where the scenario says it."""
    references = evidence.references(record)
    found: dict[tuple[Seen, Meaning], list[Finding]] = {}
    for finding in evidence.findings(record):
        meant = evidence.meaning(claims, finding.probe)
        if meant is not None and finding.against(references):
            found.setdefault((finding.seen, meant), []).append(finding)
    for (seen, meant), findings in found.items():
        several = len(findings) > 1
        title = findings[0].probe.partition(":")[0] if several else findings[0].probe
        yield Lesson(
            title=f"{title}, from {seen}",
            differs=[
                (f"{finding.probe}: " if several else "") + line
                for finding in findings
                for line in _differences(finding, references)
            ],
            words=f"{_sentence(meant.what)} {_sentence(meant.why)}",
            page=meant.page,
        )


def _differences(finding: Finding, references: Sequence[str]) -> Iterator[str]:
    """One line for the targets that say the same."""
    against = finding.against(references)
    for said, labels in finding.groups().items():
        names = list(dict.fromkeys(name for label in labels for name in against.get(label, ())))
        if names:
            others = "; ".join(f"{name}: {_beside(finding.said[name], said)}" for name in names)
            yield f"{', '.join(labels)}: {said} (against {others})"


def _beside(reference: str, said: str) -> str:
    """What a reference said, for who has just read `said`: of two long lists only what the reference has or lacks."""
    theirs, ours = reference.split(", "), said.split(", ")
    if min(len(theirs), len(ours)) < _LONG:
        return reference
    more, less = [one for one in theirs if one not in ours], [one for one in ours if one not in theirs]
    told = [f"also {', '.join(more)}"] if more else []
    return "; ".join([*told, f"without {', '.join(less)}"] if less else told)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."
