"""The pages: every word of others is escaped, and nothing is in them that the policy forbids."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_run import make_record

from lab.cli.doctor import Engine, Findings
from lab.figures.comparison import compare_runs
from lab.host.noise import HostWarning, WarningCode
from lab.show.listing import run_row
from lab.show.why import WHY
from lab.timeline import CHAINS, Phase
from lab.web import pages

ROOT = Path(__file__).parents[3]
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Seen(HTMLParser):
    """The tags of a page, and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def harmless(page: str) -> Seen:
    seen = Seen(page)
    assert seen.tags.count("script") <= 1 and "img" not in seen.tags and "style" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "style"]
    addresses = [value or "" for name, value in seen.attributes if name in ("src", "href", "action")]
    assert not [one for one in addresses if re.match(r"[a-z]+:|//", one)], "all of it is the lab's own"
    return seen


def evil_record(run_id: str, **changes: Any) -> Any:
    return make_record(
        run_id, instants={EVIL: {"main": 2.0, "listening": 2.1, "ready": 3.0}}, host_name=EVIL, host_id=EVIL,
        notes=(("2026-01-01", EVIL),), **changes,
    )  # fmt: skip


def test_runs_are_escaped() -> None:
    page = pages.runs([run_row(evil_record("20260101-aaaa").run), {**run_row(make_record().run), "id": EVIL}])
    harmless(page)
    assert page.count("alert(2)") >= 4


def test_a_comparison_is_escaped() -> None:
    a, b = evil_record("20260101-aaaa"), evil_record("20260101-bbbb", seed=2, delays_ms={EVIL: 40.0})
    page = pages.compared(compare_runs(a, b).to_json())
    harmless(page)
    assert "B is worse somewhere." in page


def test_the_doctor_is_escaped() -> None:
    engines = [
        Engine(name=EVIL, info={}, reason=EVIL, remedy=EVIL),
        Engine(name="x", info={"engine": EVIL, "version": EVIL, "isolation": EVIL, "qualifiers": {"a": EVIL}}),
    ]
    warning = HostWarning(code=next(iter(WarningCode)), text=EVIL, remedy=EVIL)
    found = Findings(engines=engines, host={}, warnings=[warning], installation=[EVIL])
    harmless(pages.doctor(found.to_json()))


def test_targets_scenarios_and_complaints_are_escaped() -> None:
    harmless(pages.race([{"target": EVIL, "about": EVIL}], [{"scenario": EVIL, "question": EVIL}], [EVIL]))
    harmless(pages.complaint(EVIL, EVIL, at="Runs"))
    harmless(pages.history([EVIL], EVIL, "../x"))
    harmless(pages.run(EVIL, "../x?y=" + "&z"))


def test_every_phase_has_its_why_in_the_glossarys_words() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    assert set(WHY) == set(Phase)
    assert not [phase for phase, told in WHY.items() if f"- `{phase.value}`: {told.what}\n" not in glossary]
    page = pages.race([], [], [])
    raced = {phase for chain in CHAINS[:2] for phase in chain}
    assert not [phase for phase in raced if f"phase-{phase.value}" not in page and phase is not Phase.REQUESTED]


@pytest.mark.parametrize("name", ["page.css", "race.js", "icon.svg"])
def test_what_is_served_loads_nothing_from_elsewhere(name: str) -> None:
    text = (ROOT / "lab" / "web" / "static" / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http" not in text and "//" not in re.sub(r"(?m)^\s*//.*$", "", text)


def test_nothing_moves() -> None:
    text = (ROOT / "lab" / "web" / "static" / "page.css").read_text()
    assert not re.search(r"\b(animation|transition)\b", text)
    assert "requestAnimationFrame" not in (ROOT / "lab" / "web" / "static" / "race.js").read_text()
