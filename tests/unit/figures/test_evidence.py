"""Facts in words: what agrees and what differs, and a report that tells the claim, both sides and the lesson."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import ClassVar

import pytest
from rich.console import Console

from lab.errors import BadInput
from lab.figures import evidence
from lab.figures.evidence import Meaning, Seen
from lab.figures.series import FACT, SEEN, series_of
from lab.show import report_evidence
from lab.show.report import render
from lab.show.table import render_run
from lab.store.record import RunRecord
from lab.store.sample import Sample

Make = Callable[..., RunRecord]


@dataclass(frozen=True)
class Told:
    """A scenario that tests a claim."""

    window: float = 1.0

    name: ClassVar[str] = "told"
    question: ClassVar[str] = "Is the kernel <shared>?"
    headline: ClassVar[str] = "namespaces"
    claim: ClassVar[str] = "Containers share <the> kernel."
    caveats: ClassVar[Sequence[str]] = ("It was a small machine.",)
    meanings: ClassVar[dict[str, Meaning]] = {"boot id": Meaning("one for each boot", "Shared is shared.", "random(4)")}

    @property
    def done(self) -> Sequence[str]:
        return (f"Looked for {self.window:g} s.",)


def fact(target: str, seen: Seen, probe: str, said: str, *, iteration: int = 1, warmup: bool = False) -> Sample:
    return Sample(
        target=target,
        metric=FACT,
        value=1,
        unit="",
        iteration=iteration,
        warmup=warmup,
        dimensions={"probe": probe, "said": said, SEEN: seen},
    )


@pytest.fixture
def record(make_record: Make) -> RunRecord:
    made = make_record(scenario="told", parameters={"scenario": {"window": 3.0}, "warmup": 1, "rounds": 10})
    facts = [
        fact("process", Seen.OUTSIDE, "user", "root"),
        fact("docker", Seen.OUTSIDE, "user", "root"),
        fact("process", Seen.INSIDE, "boot id", "never shown", warmup=True),
        fact("process", Seen.INSIDE, "boot id", "the host's"),
        fact("docker", Seen.INSIDE, "boot id", "the host's"),
        fact("libvirt:q35", Seen.INSIDE, "boot id", "its own <one>"),
        fact("libvirt:q35", Seen.INSIDE, "boot id", "the host's", iteration=2),
        fact("libvirt:q35", Seen.INSIDE, "boot id", "its own <one>", iteration=3),
    ]
    figure = replace(facts[0], metric="namespaces", value=7.0, dimensions={SEEN: Seen.INSIDE})
    return replace(made, samples=[*made.samples, *facts, figure])


def test_findings_come_from_inside_first_and_tell_how_many_rounds_had_which(record: RunRecord) -> None:
    boot, user = evidence.findings(record)
    assert (boot.seen, boot.probe, user.seen) == (Seen.INSIDE, "boot id", Seen.OUTSIDE)
    assert boot.said["libvirt:q35 (tcg)"] == "its own <one> (2 of 3); the host's (1 of 3)"
    assert boot.groups()["the host's"] == ["process", "docker"]
    assert boot.against(["process", "docker"]) == {"libvirt:q35 (tcg)": ["process", "docker"]}
    assert user.against(["process"]) == {}
    assert all(row.metric != FACT for row in series_of(record))


def test_the_report_reads_like_evidence(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_evidence, "make_scenario", lambda _, parameters: Told(**parameters))
    words = _words(render(record))
    places = [
        words.index(text)
        for text in (
            "The claim",
            "Containers share <the> kernel.",
            "What was done",
            "Looked for 3 s.",
            "It was a small machine.",
            "Seen from inside",
            "its own <one> (2 of 3)",
            "namespaces",
            "Seen from outside",
            "What the differences mean",
            "One for each boot. Shared is shared. See random(4).",
            "boot_s",
        )
    ]
    assert places == sorted(places)
    assert words.count("What the differences mean") == 1 and "user, from outside" not in words


def test_what_was_done_with_other_parameters_is_not_made_up(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    def now(_: str, parameters: Mapping[str, str]) -> Told:
        if parameters:
            raise BadInput("told has no parameter 'window'")
        return Told()

    monkeypatch.setattr(report_evidence, "make_scenario", now)
    words = _words(render(record))
    assert "The claim" in words and "It was a small machine." in words and "What the differences mean" in words
    assert "What was done" not in words and "Looked for" not in words


def test_a_scenario_that_is_gone_is_shown_without_its_words(record: RunRecord) -> None:
    words = _words(render(record))
    assert "Seen from inside" in words and "The claim" not in words and "What the differences mean" not in words


def test_the_terminal_groups_targets_that_agree(record: RunRecord) -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(render_run(record))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert lines[lines.index("boot id") + 1] == "process, docker the host's"
    assert "user (all) root" in lines


def _words(page: str) -> str:
    found: list[str] = []

    class Words(HTMLParser):
        skipped = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.skipped = tag in ("script", "style")

        def handle_endtag(self, tag: str) -> None:
            self.skipped = False

        def handle_data(self, data: str) -> None:
            if not self.skipped:
                found.append(data)

    Words().feed(page)
    return " ".join(" ".join(found).split())


def test_long_lists_are_told_by_their_difference_and_probes_of_one_meaning_together(record: RunRecord) -> None:
    lists = {"process": "a, b, c, d", "docker": "b, c, d, e, f"}
    told = [fact(name, Seen.INSIDE, f"boot id: {probe}", said) for name, said in lists.items() for probe in "xy"]
    made = replace(record, samples=[*record.samples, *told])
    (lesson,) = report_evidence.lessons(made, Told())
    assert lesson.title == "boot id, from inside"
    assert "boot id: x: docker: b, c, d, e, f (against process: also a; without e, f)" in lesson.differs
    assert "boot id: y: process: a, b, c, d (against docker: also e, f; without a)" in lesson.differs


def test_what_differs_is_marked_against_the_first_that_was_looked_at(record: RunRecord) -> None:
    told = [fact(name, Seen.OUTSIDE, "disk", said) for name, said in (("docker", "one"), ("libvirt:q35", "two"))]
    made = replace(record, samples=[*record.samples, *told])
    outside = next(side for side in report_evidence.sides(made, []) if side.title == "Seen from outside")
    line = [cells[0] for cells in outside.facts].index("disk")
    assert outside.facts[line] == ["disk", "", "one", "two"]
    assert {column for row, column in outside.marked if row == line} == {3}
