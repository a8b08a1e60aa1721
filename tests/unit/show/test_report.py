"""The report is one file that loads nothing, shows the run's figures, and takes no word of it for markup."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.figures.series import series_of
from lab.show.charts import distributions, phases
from lab.show.report import render, write_html
from lab.store.record import LaunchRecord, Outcome, RunRecord, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Timeline
from lab.units import quantity

Make = Callable[..., RunRecord]


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, and its words outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.words).append(data)


def test_shows_the_run(make_record: Make) -> None:
    record = make_record()
    page = Page(render(record))
    words = " ".join(" ".join(page.words).split())
    docker = next(row for row in series_of(record) if row.target == "docker" and row.metric == "boot_s")
    ordered = sorted(docker.values)
    assert quantity((ordered[4] + ordered[5]) / 2, "s") in words
    for needed in (
        "libvirt:q35 (tcg)",
        "nothing of VMs in general",
        "requested → kernel",
        "between the chains",
        "Test CPU",
        "spec.memory_bytes",
        "20.10.24",
        "order statistics",
        "stop_s",
    ):
        assert needed in words


def test_loads_nothing_and_may_not(make_record: Make) -> None:
    page = Page(render(make_record()))
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action", "background", "data"} & set(attributes)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    # Outside of Plotly's own script, which is the first, no address is named at all.
    assert "Plotly.newPlot" in page.scripts[1]
    rest = " ".join([*page.scripts[1:], *page.words, *(str(attributes) for _, attributes in page.tags)])
    assert not re.search(r"(?:https?:)?//[a-z]", rest)


def test_where_no_script_may_run_a_line_says_so_and_the_first_chart_takes_it_away(make_record: Make) -> None:
    page = Page(render(make_record()))
    assert any("Content-Security-Policy" in word and "save this file" in word for word in page.words)
    assert all('getElementById("no-charts")?.remove()' in script for script in page.scripts[1:])
    without = make_record()
    without = replace(without, samples=[s for s in without.samples if s.metric == "stop_s"])
    assert "no-charts" not in render(without)


def test_every_row_is_a_point_in_the_charts(make_record: Make) -> None:
    record = make_record()
    rows = series_of(record)
    boots = [row for row in rows if row.metric == "boot_s"]
    boxes = distributions(boots).to_dict()["data"]
    factors = {"process": 1e-3, "docker": 1e-3, "libvirt:q35 (tcg)": 1.0}
    for row, box in zip(boots, boxes, strict=True):
        assert [x * factors[row.label] for x in box["x"]] == pytest.approx(list(row.values))
    bars = phases(rows, [row.target for row in boots]).to_dict()["data"]
    assert len(bars) == 3 + 3 + 5
    assert sum(part["x"][0] for part in bars) == pytest.approx(300)
    near = [replace(row, values=boots[0].values) for row in boots[:2]]
    assert "xaxis2" not in distributions(near).to_dict()["layout"]


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{}\\ %{x} <b>$&"


def test_takes_no_word_for_markup(make_record: Make) -> None:
    record = make_record()
    qualified = [replace(t, info={**t.info, "qualifiers": {"accel": HOSTILE}}) for t in record.targets]
    bad = TargetRecord(target=HOSTILE, outcome=Outcome.FAILED, reason=HOSTILE, remedy=HOSTILE, info={HOSTILE: HOSTILE})
    failed = LaunchRecord(
        target=HOSTILE,
        iteration=1,
        warmup=False,
        outcome=Outcome.FAILED,
        timeline=Timeline(),
        error=HOSTILE,
        logs=f"first\n{HOSTILE}\x1b[31m\ud800",
    )
    odd = Sample(target=HOSTILE, metric=HOSTILE, value=1.0, unit=HOSTILE, iteration=1, dimensions={HOSTILE: HOSTILE})
    record = replace(
        record,
        run=replace(record.run, id=HOSTILE, scenario=HOSTILE, parameters={HOSTILE: {HOSTILE: HOSTILE}}),
        host={HOSTILE: [HOSTILE], "warnings": [{"text": HOSTILE, "remedy": HOSTILE}]},
        targets=[*qualified, bad],
        launches=[failed],
        samples=[*record.samples, odd],
    )
    text = render(record)
    plain = Page(render(make_record()))
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in {"img", "b"}]
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    # One script for Plotly, and one for each chart: of the phases and of the two totals.
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 4
    assert len([tag for tag, _ in plain.tags if tag == "script"]) == 3
    assert text.count("</script>") == 4
    assert "\x1b" not in text
    for script in page.scripts[1:]:
        data = script[script.index("const f = ") + len("const f = ") : script.rindex(";Plotly.newPlot")]
        assert "<b>" not in json.dumps(json.loads(data)["data"])
        assert "<img" not in json.dumps(json.loads(data)["data"])


def test_failures_have_their_logs(make_record: Make) -> None:
    failed = LaunchRecord(
        target="docker",
        iteration=3,
        warmup=False,
        outcome=Outcome.FAILED,
        timeline=Timeline(),
        error="it ended",
        logs="line 1\nline 2",
    )
    record = make_record()
    record = replace(record, launches=[*record.launches, failed])
    words = "".join(Page(render(record)).words)
    assert "docker, round 3: it ended" in words
    assert "line 1\nline 2" in words


def test_a_run_of_nothing_has_a_report(make_record: Make) -> None:
    assert "0 rounds" in render(make_record(n=0, warmup=0))
    assert "memory" in render(make_record(n=0, scenario="memory"))


def test_is_written_whole_or_not_at_all(make_record: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("the one before")
    record = make_record(n=1)
    monkeypatch.setattr(Path, "replace", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_html(record, path)
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_html(record, path)
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def _interrupted(*_: object) -> Path:
    raise KeyboardInterrupt


def test_a_place_that_cannot_be_written_is_named(make_record: Make, tmp_path: Path) -> None:
    record = make_record(n=1)
    for path in (tmp_path / "no" / "report.html", tmp_path):
        with pytest.raises(BadInput, match="cannot be written"):
            write_html(record, path)
    assert list(tmp_path.iterdir()) == []
