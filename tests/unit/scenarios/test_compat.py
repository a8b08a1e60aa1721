"""What came of a try, in words and counted; and that each feature of the service's is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab.errors import MeasurementError
from lab.figures.evidence import Finding, Seen, Shown, meaning
from lab.service.build import SOURCE_DIR
from lab.show import table_evidence
from scenarios.compat import Compat, counts, parse, said

ROOT = Path(__file__).parents[3]


def _features() -> list[str]:
    found: list[str] = []
    for path in sorted((SOURCE_DIR / "compat").glob("features_*.c")):
        table = path.read_text().partition("static const struct feature list[] = {")[2]
        found += re.findall(r'\{"([^"]+)",\s*\w+\}', table)
    return found


def test_each_feature_has_a_line_in_its_document_and_a_meaning_in_reports() -> None:
    features = _features()
    table = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs/compat.md").read_text(), re.MULTILINE)
    assert len(features) == len(set(features)) > 100
    assert table[1:] == features or set(table) - {"feature", "---"} == set(features)
    assert not [name for name in features if meaning(Compat(), name) is None]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("ok", 0, ""), "works"),
        (("ok", 0, "version 7"), "works (version 7)"),
        (("wrong", 0, ""), "works otherwise"),
        (("errno", 1, ""), "refused (EPERM)"),
        (("errno", 9999, ""), "refused (errno 9999)"),
        (("signal", 31, ""), "killed by SIGSYS"),
        (("timeout", 2, ""), "no answer in 2 s"),
    ],
)
def test_what_became_of_a_try_is_told_in_words(told: tuple[str, int, str], words: str) -> None:
    assert said(*told) == words


def test_what_was_not_tried_in_time_leaves_no_count_that_would_be_too_small() -> None:
    assert counts(["ok", "errno", "wrong", "signal", "timeout", "exit"]) == {
        "features_refused": 1,
        "features_differing": 1,
        "features_unanswered": 3,
        "features_tried": 6,
    }
    late = counts(["ok", "errno", "late", "unmade"])
    assert late == {**dict.fromkeys(late, "2 features were not tried"), "features_tried": 2}


@pytest.mark.parametrize(
    "answer", [{}, {"features": [["a", "ok"]]}, {"features": 1}, {"features": [["a", "ok", "x", ""]]}]
)
def test_an_answer_that_is_none_is_told(answer: dict[str, Any]) -> None:
    with pytest.raises(MeasurementError, match="cannot be read"):
        parse(answer)


def test_what_is_the_same_on_all_targets_is_hidden_unless_it_is_asked_for_and_counted() -> None:
    def finding(probe: str, one: str, other: str, shown: Shown = Shown.DIFFERING) -> Finding:
        return Finding(seen=Seen.INSIDE, probe=probe, said={"docker": one, "process": other}, shown=shown)

    differs, same = finding("a: x", "refused (EPERM)", "works"), finding("a: y", "works", "works")
    assert not differs.hidden and same.hidden
    assert not finding("a: y", "works", "works", Shown.ALL).hidden
    assert not Finding(seen=Seen.INSIDE, probe="a", said={"docker": "works"}, shown=Shown.DIFFERING).hidden
    table, line = table_evidence._grid("seen", [differs, same], first="process")
    headings = [str(column.header) for column in table.columns]  # type: ignore[union-attr]
    assert headings == ["seen", "process", "docker"], "the control first"
    assert table.row_count == 1  # type: ignore[union-attr]
    assert str(line).startswith("1 more are the same on all targets (1 of them work)")
