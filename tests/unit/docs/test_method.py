"""docs/method.md and those who cite it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
METHOD = "docs/method.md"
_READ = {".py", ".c", ".h", ".md", ".sh", ".toml", ""}
_CITED = re.compile(
    # A number, or several as 'rules 1, 2 and 9'; the text may be broken into lines of comment in between.
    rf"{re.escape(METHOD)}[,;:]?[\s#*/]+rules?[\s#*/]+(\d+(?:(?:,|,?\s+and|,?\s+or|\s+to)[\s#*/]+\d+)*)"
)
_RULE = re.compile(r"^\*\*(\d+)\. ", re.MULTILINE)


def _rules() -> list[int]:
    return [int(number) for number in _RULE.findall((ROOT / METHOD).read_text())]


def _texts() -> Iterator[tuple[str, str]]:
    folders = [ROOT / name for name in ("docs", "drivers", "lab", "scenarios", "tests", "vagrant", "findings")]
    for path in [*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*"))]:
        if path.suffix in _READ and path.is_file() and path != Path(__file__):
            yield str(path.relative_to(ROOT)), path.read_text(errors="replace")


def _cited(text: str) -> list[int]:
    return [int(number) for found in _CITED.findall(text) for number in re.findall(r"\d+", found)]


def test_the_rules_are_numbered_without_a_gap() -> None:
    assert _rules() == list(range(1, 27))


def test_citations_are_found_however_they_are_written() -> None:
    text = (
        "(docs/method.md, rules 8, 9 and 13) docs/method.md, rule 1; docs/method.md,\n * rule 4 docs/method.md, rule 99"
    )
    assert _cited(text) == [8, 9, 13, 1, 4, 99]


def test_every_citation_names_a_rule_that_exists() -> None:
    rules = set(_rules())
    cited = {name: _cited(text) for name, text in _texts()}
    assert sum(map(bool, cited.values())) >= 20
    wrong = {name: found for name, numbers in cited.items() if (found := [n for n in numbers if n not in rules])}
    assert not wrong


def test_nobody_cites_a_method_that_is_no_part_of_the_repository() -> None:
    assert not [name for name, text in _texts() if re.search(r"(?<!docs/)\bMETHOD\.md\b", text)]


def test_every_mention_of_the_method_is_a_link_or_names_its_rule() -> None:
    """A citation whose number the expression above does not see would never be checked."""
    for name, text in _texts():
        if Path(name).suffix in {".py", ".c", ".h"}:
            assert text.count(METHOD) == len(_CITED.findall(text)), name
