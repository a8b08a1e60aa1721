"""Bursts as they are shown: by who does them, with the service's answers and memory around them, and where what is
better begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from lab.figures.series import series_of
from lab.show.report import render
from lab.show.table import render_run
from lab.show.tandem import chart, table
from lab.store.record import RunRecord
from lab.store.sample import Sample
from lab.units import MIB

Make = Callable[..., RunRecord]
ROUNDS = range(1, 11)
LONG = {"pause": "long"}


def samples(target: str, metric: str, value: float, unit: str = "s", **told: str) -> list[Sample]:
    each = {"target": target, "metric": metric, "unit": unit, "warmup": False, "dimensions": told}
    return [Sample(value=value, iteration=number, **each) for number in ROUNDS]


def burst(target: str, arrangement: str, size: int, seconds: float, p99_s: float, failed: int = 0) -> list[Sample]:
    told = {"arrangement": arrangement, "burst": str(size)}
    found = [
        *samples(target, "failed_jobs", failed, "jobs", **told, **LONG),
        *samples(target, "cold_starts", 0 if arrangement == "within" else size, "starts", **told, **LONG),
        *samples(target, "first_job_s", seconds / 4, **told, **LONG),
        *samples(target, "half_job_s", seconds / 2, **told, **LONG),
        *samples(target, "steady_p99_s", p99_s, window="during", **told, **LONG),
        *samples(target, "steady_worst_s", 2 * p99_s, window="during", **told, **LONG),
        *samples(target, "steady_p99_s", 0.001, window="before", **told),
        *samples(target, "held_bytes", 15 * MIB, "bytes", at="before", **told),
        *samples(target, "held_bytes", 40 * MIB, "bytes", at="peak", **told, **LONG),
    ]
    for j in range(1, size - failed + 1):
        found += samples(target, "jth_job_s", seconds * j / size, j=str(j), **told, **LONG)
    if failed:
        of = f"last_job_s arrangement={arrangement} burst={size} pause=long"
        return found + samples(target, "absent", 1, "", of=of, why=f"{failed} of {size} jobs: a status 503")
    return found + samples(target, "last_job_s", seconds, **told, **LONG)


@pytest.fixture
def record(make_record: Make) -> RunRecord:
    made = make_record()
    told = [
        *burst("docker", "within", 1, 0.05, 0.002),
        *burst("docker", "within", 4, 0.2, 0.040),
        *burst("process", "function", 1, 0.4, 0.001),
        *burst("process", "function", 4, 0.1, 0.001),
        *burst("process", "function", 20, 1.0, 0.001, failed=4),
    ]
    run = replace(made.run, scenario="tandem", id="r")
    return RunRecord(run=run, host=made.host, targets=made.targets, samples=told, launches=[])


def test_each_case_is_a_row_with_its_jobs_and_the_services_answers(record: RunRecord) -> None:
    rows = series_of(record)
    cases = table.cases(rows)
    assert [case.said for case in cases if case.who == "docker within"] == ["1, long", "4, long"]
    grid = table.done(rows, [case for case in cases if case.who == "docker within"])
    assert grid[0][0] == "burst, pause"
    assert grid[2] == [
        "4, long",
        "50.0 ms",
        "100 ms",
        "200 ms\n200-200",
        "0",
        "1.00 ms\nendless",
        "40.0 ms\n80.0 ms",
        "-\n-",
        "10",
    ]
    held = table.memory(rows, cases[:1])
    assert held[1][1:5] == ["0", "15.0 MiB", "40.0 MiB", "-"]


def test_an_answer_that_never_came_is_no_short_one(record: RunRecord) -> None:
    served = [
        one
        for one in record.samples
        if one.metric != "steady_worst_s" or one.dimensions["burst"] != "4" or one.iteration < 4
    ]
    rows = series_of(replace(record, samples=served))
    (case,) = [one for one in table.cases(rows) if (one.who, one.burst) == ("docker within", "4")]
    assert table.done(rows, [case])[1][6] == "40.0 ms\nendless", "in seven of ten rounds there was one"


def test_a_burst_with_a_failed_job_has_no_last_job_and_its_reason(record: RunRecord) -> None:
    rows = series_of(record)
    (case,) = [one for one in table.cases(rows) if one.burst == "20"]
    (_, cells) = table.done(rows, [case])
    assert cells[3] == "-" and cells[-1] == "0"
    assert table.failed(record) == [["process arrangement=function burst=20 pause=long", "4 of 20 jobs: a status 503"]]


def test_where_it_is_better_stands_with_who_it_is(record: RunRecord) -> None:
    rows = series_of(record)
    assert table.better(rows)[1] == [
        "process",
        "last job",
        "within",
        "pause long",
        "1-4 jobs",
        "1: 8.00x worse, 4: 0.500x better",
    ]


def test_the_curve_has_a_line_for_each_case_by_the_number_of_jobs(record: RunRecord) -> None:
    rows = series_of(record)
    assert chart.sizes(rows) == ["1", "4", "20"]
    lines = {line.name: line for line in chart.jobs(rows, "4").data}
    assert set(lines) == {"docker within, long pause", "process, long pause"}
    assert list(lines["docker within, long pause"].x) == [1, 2, 3, 4]
    assert list(lines["docker within, long pause"].y) == pytest.approx([0.05, 0.1, 0.15, 0.2])
    ((of_20),) = chart.jobs(rows, "20").data
    assert len(of_20.x) == 16, "of a failed job there is no time"
    answers = {line.name: line for line in chart.answers(rows, "4").data}
    assert list(answers["docker within, long pause"].x) == ["before", "during"]
    assert list(answers["docker within, long pause"].y) == [0.001, 0.040]


def test_terminal_and_page_show_all_of_it_and_nothing_twice(record: RunRecord) -> None:
    console = Console(file=StringIO(), width=80)
    console.print(render_run(record))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "process: function" in shown and "4 of 20 jobs: a status 503" in shown
    assert "1-4 jobs" in shown and "last_job_s  " not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    html = render(record)
    assert html.count("Who does a burst") == 1 and "Time until the j-th of 4 jobs is done" in html
    assert "1-4 jobs" in html
