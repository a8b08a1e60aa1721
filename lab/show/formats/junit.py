"""JUnit's XML, in the form that pytest writes and GitLab, Jenkins and GitHub's actions read: a suite a scenario, a case
a total, and a failure where it is a regression or its target failed. `<error>` is not used: the schema that pytest
publishes has none below a case, and no reader makes a difference between the two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from lab.figures import notes
from lab.show.formats.told import Case, Standing, Told, Total
from lab.units import quantity

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write (2.2)."""

_TAGS = {
    Standing.REGRESSION: "failure",
    Standing.FAILED: "failure",
    Standing.SUSPECT: "skipped",
    Standing.SKIPPED: "skipped",
    Standing.VOID: "skipped",
    Standing.NOT_JUDGED: "skipped",
}


def junit(told: Sequence[Told]) -> str:
    """The document, with a case of its own for each target that failed or was left out."""
    root = ElementTree.Element("testsuites")
    for one in told:
        root.append(_suite(one))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(told: Told) -> ElementTree.Element:
    tags = [_TAGS.get(case.standing) for case in told.cases]
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": _plain(f"lab {told.scenario}"),
            "errors": "0",
            "failures": str(tags.count("failure")),
            "skipped": str(tags.count("skipped")),
            "tests": str(len(tags)),
            "time": f"{told.lasted_s:.3f}",
            **({"timestamp": told.record.run.started_at} if told.record is not None else {}),
        },
    )
    rows = told.totals
    spent_s = {(total.row.label, total.row.name): sum(total.row.values) for total in rows if total.row.unit == "s"}
    for case in told.cases:
        suite.append(_case(told.scenario, case, spent_s.get((case.target, case.metric), 0.0)))
    headline = [notes.headline(told.record)] if told.record is not None else []
    ElementTree.SubElement(suite, "system-out").text = _plain("\n".join([*headline, *map(_median, rows), *told.notes]))
    return suite


def _case(scenario: str, case: Case, spent_s: float) -> ElementTree.Element:
    element = ElementTree.Element(
        "testcase",
        {
            "classname": _plain(f"lab.{scenario}.{case.target.replace('.', '_')}"),
            "name": _plain(f"{case.target} {case.metric}".rstrip()),
            "time": f"{spent_s:.3f}",
        },
    )
    if tag := _TAGS.get(case.standing):
        text = _plain(case.text or str(case.standing))
        told = {"type": f"lab.{case.standing}".replace(" ", "-"), "message": text.partition("\n")[0]}
        ElementTree.SubElement(element, tag, told).text = text
    return element


def _median(total: Total) -> str:
    return f"{total.name}: median {quantity(total.estimate.median, total.row.unit)}, n = {total.estimate.n}"


def _plain(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
