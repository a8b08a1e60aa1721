"""What hyperfine and pyperf measured, taken in as runs of theirs."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyperf
import pytest

from lab.errors import BadInput
from lab.store.database import Store
from lab.store.importing import hyperfine
from lab.store.importing import pyperf as pyperf_reader
from lab.store.importing.file import read_file

# As hyperfine 1.15 wrote it, and with 1.19's memory.
HYPERFINE: dict[str, Any] = {
    "results": [
        {
            "command": "sleep 0.01",
            "mean": 0.0155,
            "stddev": 0.0035,
            "median": 0.0155,
            "user": 0.0012,
            "system": 0.0,
            "min": 0.0114,
            "max": 0.0197,
            "times": [0.0197, 0.0114],
            "memory_usage_byte": [1769472, 1900544],
            "exit_codes": [0, 0],
        },
        {
            "command": "sleep 0.02; false",
            "mean": 0.03,
            "stddev": None,
            "median": 0.03,
            "user": 0.001,
            "system": 0.0005,
            "min": 0.03,
            "max": 0.03,
            "times": [0.03],
            "exit_codes": [1],
            "parameters": {"d": "0.02"},
        },
    ]
}


def pyperf_document(path: Path, *, unit: str = "second") -> Any:
    """As pyperf itself writes it."""
    told = {"unit": unit, "hostname": "h", "cpu_model_name": "Test CPU", "perf_version": "2.11.0"}
    benchmarks = [
        pyperf.Benchmark(
            [
                pyperf.Run(
                    [first, first * 2],
                    warmups=[(1000, first * 3)],
                    metadata={**told, "name": name, "date": f"2026-05-0{day} 10:00:00.123456"},
                    collect_metadata=False,
                )
                for day in (2, 1)
            ]
        )
        for name, first in (("add", 4), ("mul", 5))
    ]
    pyperf.BenchmarkSuite(benchmarks).dump(str(path), replace=True)
    return json.loads(path.read_text())


def test_each_command_of_hyperfine_is_a_target_with_its_times() -> None:
    record = hyperfine.read(HYPERFINE)
    assert record is not None and record.run.origin == record.run.scenario == "hyperfine"
    assert [target.target for target in record.targets] == ["sleep 0.01", "sleep 0.02; false"]
    assert [(s.target, s.metric, s.value, s.unit, s.iteration) for s in record.samples] == [
        ("sleep 0.01", "wall_s", 0.0197, "s", 0),
        ("sleep 0.01", "wall_s", 0.0114, "s", 1),
        ("sleep 0.01", "peak_rss_bytes", 1769472.0, "bytes", 0),
        ("sleep 0.01", "peak_rss_bytes", 1900544.0, "bytes", 1),
        ("sleep 0.02; false", "wall_s", 0.03, "s", 0),
    ]
    assert dict(record.samples[-1].dimensions) == {"d": "0.02"}
    assert record.targets[1].info["facts"] == {"mean_user_s": 0.001, "mean_system_s": 0.0005, "failed_exit_codes": [1]}


@pytest.mark.parametrize(
    ("unit", "metric", "told"), [("second", "value_s", "s"), ("byte", "value_bytes", "bytes"), ("integer", "value", "")]
)
def test_each_benchmark_of_pyperf_is_a_target_with_its_values_and_warm_up(
    tmp_path: Path, unit: str, metric: str, told: str
) -> None:
    record = pyperf_reader.read(pyperf_document(tmp_path / "p.json", unit=unit))
    assert record is not None and record.run.origin == "pyperf"
    assert (record.run.started_at, record.run.host_name) == ("2026-05-01T10:00:00+00:00", "h")
    assert record.host == {"cpu": {"model": "Test CPU"}}
    assert [target.target for target in record.targets] == ["add", "mul"]
    add = [(s.metric, s.unit, s.value, s.iteration, s.warmup) for s in record.samples if s.target == "add"]
    assert add == [
        (metric, told, value, place, warmup)
        for place, (value, warmup) in enumerate([(12.0, True), (4.0, False), (8.0, False)] * 2)
    ]


def test_the_same_document_is_the_same_run_and_goes_in_once(tmp_path: Path) -> None:
    records = [hyperfine.read(HYPERFINE), hyperfine.read(deepcopy(HYPERFINE))]
    with Store.open(str(tmp_path / "lab.db")) as store:
        assert [store.import_run(record) for record in records if record is not None] == [True, False]
        (run,) = store.runs()
        assert store.load(run.id).samples == records[0].samples  # type: ignore[union-attr]
        assert store.history("hyperfine") == [], "it is not among the lab's own"
    other = deepcopy(HYPERFINE)
    other["results"][0]["times"][0] = 0.02
    assert hyperfine.read(other).run.id != run.id  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "document", [None, [], 3, "x", {}, {"results": []}, {"results": [1]}, {"results": [{"a": 1}]}, {"benchmarks": [1]}]
)
def test_what_is_another_document_is_nobodys(document: Any) -> None:
    assert hyperfine.read(document) is None
    assert pyperf_reader.read(document) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"times": [0.1, "x"]}, "'times' of result 1 is no list of numbers"),
        ({"times": 3}, "'times' of result 1 is no list of numbers"),
        ({"times": [float("nan")]}, "'times' of result 1 is no list of numbers"),
        ({"times": [True]}, "'times' of result 1 is no list of numbers"),
        ({"command": 3}, "the command of result 1 is no text"),
        ({"parameters": [1]}, "'parameters' of result 1 is no object"),
    ],
)
def test_a_broken_result_of_hyperfine_is_told_by_its_place(change: dict[str, Any], said: str) -> None:
    document = {"results": [{**HYPERFINE["results"][0], **change}]}
    with pytest.raises(BadInput) as caught:
        hyperfine.read(document)
    assert caught.value.brief == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "2.0"}, "this is pyperf's format 2.0, and the lab knows 1.0"),
        ({"metadata": {"unit": "furlong"}}, "'add' is in 'furlong', a unit that pyperf does not have"),
        ({"benchmarks": [{"runs": [{"values": ["x"]}]}]}, "'values' of 'benchmark 1' is no list of numbers"),
        (
            {"benchmarks": [{"runs": []}, {"runs": [], "metadata": {"name": "benchmark 1"}}]},
            "two benchmarks are called",
        ),
    ],
)
def test_a_broken_document_of_pyperf_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        pyperf_reader.read({**pyperf_document(tmp_path / "p.json"), **change})
    assert caught.value.brief.startswith(said)


def test_a_file_is_read_by_whom_it_is_of(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_text(json.dumps(HYPERFINE))
    assert read_file(path).run.origin == "hyperfine"
    pyperf_document(path)
    assert read_file(path).run.origin == "pyperf"
