"""The part of a report that reads like evidence: claim, what was done, what was seen from inside and from outside, and
what the differences mean. All text is plain: whoever writes the page escapes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab import evidence
from lab.errors import LabError
from lab.evidence import Claims, Seen
from lab.figures import SEEN, Series
from lab.registry import make_scenario
from lab.run import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A probe that differs: `differs` says where and how; `what`, `why` and `page` are the scenario's words for it."""

    probe: str
    differs: Sequence[str]
    what: str
    why: str
    page: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What was seen from one side: its facts as rows of a table with these headings, `marked` being the cells (row,
    column) that differ from the first target, and its figures."""

    title: str
    headings: Sequence[str]
    facts: Sequence[Sequence[str]]
    marked: frozenset[tuple[int, int]]
    figures: Sequence[Series]


def claims_of(record: RunRecord) -> Claims | None:
    """The run's scenario with the run's parameters, if it tests a claim and is still here."""
    own: Mapping[str, str] = record.run.parameters.get("scenario") or {}
    for parameters in (own, {}):
        with contextlib.suppress(LabError):  # another lab's scenario, or parameters that it no longer has
            found = make_scenario(record.run.scenario, parameters)
            return found if isinstance(found, Claims) else None
    return None


def sides(record: RunRecord, rows: Sequence[Series]) -> Iterator[Side]:
    """Inside, then outside; a side from which nothing was seen is left out."""
    found = evidence.findings(record)
    for seen in Seen:
        mine = [finding for finding in found if finding.seen is seen]
        labels = list(dict.fromkeys(label for finding in mine for label in finding.said))
        facts = [[finding.probe, *(finding.said.get(label, "") for label in labels)] for finding in mine]
        marked = {
            (line, column)
            for line, cells in enumerate(facts)
            for column, cell in enumerate(cells[2:], start=2)
            if cell and cell != cells[1]
        }
        shown = [row for row in rows if row.dimensions.get(SEEN) == seen]
        if facts or shown:
            yield Side(
                title=f"Seen from {seen}",
                headings=["", *labels],
                facts=facts,
                marked=frozenset(marked),
                figures=shown,
            )


def lessons(record: RunRecord, claims: Claims) -> Iterator[Lesson]:
    """What differs from the control or from plain Docker, and what that means, where the scenario says it."""
    references = evidence.references(record)
    for finding in evidence.findings(record):
        meant = evidence.meaning(claims, finding.probe)
        against = finding.against(references)
        if meant is None or not against:
            continue
        differs = [
            f"{label}: {finding.said[label]} (against {_told(finding.said, names)})" for label, names in against.items()
        ]
        title = f"{finding.probe}, from {finding.seen}"
        yield Lesson(probe=title, differs=differs, what=meant.what, why=meant.why, page=meant.page)


def _told(said: Mapping[str, str], names: Sequence[str]) -> str:
    return "; ".join(f"{name}: {said[name]}" for name in names)
