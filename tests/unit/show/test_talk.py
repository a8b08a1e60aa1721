"""Calls between instances as they are shown: cells by path, what they cost, the shut paths, the heat map, the curve."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from lab.figures.series import series_of
from lab.show.report import render
from lab.show.table import render_run
from lab.show.talk import chart, table
from lab.store.record import RunRecord
from lab.store.sample import Sample

Make = Callable[..., RunRecord]
ROUNDS = range(1, 8)


def samples(target: str, metric: str, value: float, unit: str = "s", **told: str) -> list[Sample]:
    each = {"target": target, "metric": metric, "unit": unit, "warmup": False, "dimensions": told}
    return [Sample(value=value, iteration=number, **each) for number in ROUNDS]


@pytest.fixture
def record(make_record: Make) -> RunRecord:
    made = make_record()
    told = [
        *samples("process", "call_p50_s", 50e-6, path="loopback"),
        *samples("process", "call_p99_s", 90e-6, path="loopback"),
        *samples("process", "first_call_s", 300e-6, path="loopback"),
        *samples("process", "cpu_per_1000_s", 0.02, path="loopback", side="caller"),
        *samples("process", "variant_p50_s", 120e-6, path="loopback", connection="new", payload="64 KiB"),
        *samples("process", "variant_p99_s", 310e-6, path="loopback", connection="new", payload="64 KiB"),
        *samples("process", "variant_p50_s", 70e-6, path="loopback", connection="kept", payload="1 KiB"),
        *samples("process", "curve_p50_s", 50e-6, path="loopback", rate="500"),
        *samples("process", "curve_p50_s", 60e-6, path="loopback", rate="4000"),
        *samples("process", "curve_p99_s", 95e-6, path="loopback", rate="500"),
        *samples("docker", "call_p50_s", 80e-6, path="bridge"),
        *samples("docker", "call_p50_s", 500e-6, path="bridge", rate="20"),
        *samples("docker", "first_call_s", 0.001, path="bridge"),
        *samples("docker", "absent", 1, "", of="call_p50_s path=bridge", path="bridge", why="late in some rounds"),
        *samples("docker", "call_p50_s", 200e-6, path="bridge", callee="process"),
        *samples("docker", "fact", 1, "", probe="what the pair shares", said="kernel", seen="inside"),
        *samples("docker", "fact", 1, "", probe="what the pair shares with process", said="a kernel", seen="inside"),
        *samples("docker", "resolve_s", 0.002, path="named network"),
        *samples("docker", "first_call_s", 0.003, path="named network"),
        *samples(
            "docker", "absent", 1, "", of="call_p50_s path=published port", path="published port", why="own namespace"
        ),
    ]
    return RunRecord(run=made.run, host=made.host, targets=made.targets, samples=told, launches=[])


def test_each_path_is_a_row_with_p50_over_p99_by_cell(record: RunRecord) -> None:
    grid = table.cells(series_of(record))
    assert grid[0] == ["calls: p50, p99", "kept\n0 KiB", "kept\n1 KiB", "new\n64 KiB"]
    assert grid[1] == ["process\nloopback", "50.0 µs\n90.0 µs", "70.0 µs\n-", "120 µs\n310 µs"]
    assert [row[0] for row in grid[2:]] == ["docker\nbridge", "docker\nbridge to process", "docker\nnamed network"]


def test_a_first_call_and_the_cpu_time_stand_by_side(record: RunRecord) -> None:
    grid = table.costs(series_of(record))
    assert grid[0][1:] == ["first", "name", "caller", "callee", "helpers", "engine"]
    assert grid[1][1:] == ["300 µs", "-", "20.0 ms", "-", "-", "-"]
    assert grid[4][1:3] == ["3.00 ms", "2.00 ms"]


def test_what_a_pair_shares_stands_beside_its_latency(record: RunRecord) -> None:
    assert table.shares(record, series_of(record)) == ["", "kernel", "a kernel", "kernel"]


def test_a_shut_path_is_told_with_its_reason(record: RunRecord) -> None:
    assert table.shut(record) == [["docker\npublished port", "own namespace"]]


def test_the_heat_map_has_a_cell_for_what_was_measured_and_a_gap_elsewhere(record: RunRecord) -> None:
    heat = chart.matrix(series_of(record), "p50").data[0]
    assert list(heat.x) == ["loopback", "bridge", "to process, bridge"]
    assert list(heat.y) == ["process", "docker"]
    assert [list(line) for line in heat.text] == [["50.0 µs", "", ""], ["", "80.0 µs", "200 µs"]]
    assert [[cell is None for cell in line] for line in heat.z] == [[False, True, True], [True, False, False]]


def test_the_curve_has_a_line_for_each_quantile_by_rate(record: RunRecord) -> None:
    lines = {line.name: (list(line.x), list(line.y)) for line in chart.curve(series_of(record)).data}
    assert lines == {
        "process loopback, p50": ([500, 4000], [50e-6, 60e-6]),
        "process loopback, p99": ([500], [95e-6]),
    }


def test_a_terminal_of_80_columns_and_a_report_show_them(record: RunRecord) -> None:
    out = StringIO()
    Console(file=out, width=80).print(render_run(record))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "own namespace" in out.getvalue()
    page = render(record)
    assert all(words in page for words in ("Who calls whom", "Latency against rate", 'id="matrix-p50"', 'id="curve"'))


def test_a_run_of_another_scenario_shows_nothing_of_it(make_record: Make) -> None:
    made = make_record()
    assert table.parts(made, series_of(made)) == []
    assert "Who calls whom" not in render(made)
