"""What other programs read of runs, each checked with its reader's own parser."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import junitparser
import pyarrow.parquet
import pyperf
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_prometheus

from lab.errors import BadInput
from lab.figures import stats
from lab.show.formats import FORMATS, format_of
from lab.show.formats.told import Case, Standing, Told, told_of
from lab.store.record import Outcome, RunRecord, TargetRecord
from lab.store.sample import Sample

MakeRecord = Callable[..., RunRecord]
HOSTILE = 'a"b\\c\n<d> & ]]> |`@e` \x00\x1b[31m\ud800'
"""What an engine might say of itself, or a user call a parameter."""


def written(name: str, *told: Told) -> str:
    text = FORMATS[name].write(told)
    assert isinstance(text, str)
    text.encode("utf-8", "replace")
    return text


def medians(record: RunRecord) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sample in record.samples:
        if sample.metric == "boot_s" and not sample.warmup:
            values.setdefault(sample.target, []).append(sample.value)
    return {target: stats.estimate(found).median for target, found in values.items()}


def judged(record: RunRecord) -> Told:
    cases = [
        Case(target="process", metric="boot_s", standing=Standing.PASSED),
        Case(target="docker", metric="boot_s", standing=Standing.REGRESSION, text="+19 % against 8 nights\nand more"),
        Case(target="libvirt:q35 (tcg)", metric="boot_s", standing=Standing.NOT_JUDGED, text="not enough nights"),
        Case(target="podman", standing=Standing.SKIPPED, text="skipped: it is not there"),
        Case(target="swarm", standing=Standing.FAILED, text="failed: it fell over"),
        Case(target="oci", standing=Standing.VOID, text="the control moved"),
    ]
    return Told(scenario="boot", record=record, cases=cases, notes=["the machine was noisy"])


def test_junit_has_a_case_a_total_and_fails_what_regressed_or_fell_over(make_record: MakeRecord) -> None:
    (suite,) = junitparser.JUnitXml.fromstring(written("junit", judged(make_record())).encode())
    assert (suite.name, suite.tests, suite.failures, suite.errors, suite.skipped) == ("lab boot", 6, 2, 0, 3)
    assert suite.time == 300.0 and suite.timestamp == "2026-01-01T10:00:00+00:00"
    cases = {case.name: case for case in suite}
    assert cases["process boot_s"].is_passed
    assert cases["process boot_s"].time == pytest.approx(sum(values_of(make_record(), "process")), abs=1e-3)
    (failure,) = cases["docker boot_s"].result
    assert isinstance(failure, junitparser.Failure) and failure.message == "+19 % against 8 nights"
    assert failure.text == "+19 % against 8 nights\nand more"
    assert [type(case.result[0]).__name__ for case in suite if case.result] == [
        "Failure",
        "Skipped",
        "Skipped",
        "Failure",
        "Skipped",
    ]
    out = written("junit", judged(make_record())).partition("<system-out>")[2]
    assert "docker/boot_s: median 270 ms, n = 10" in out and "the machine was noisy" in out


def values_of(record: RunRecord, target: str) -> list[float]:
    return [one.value for one in record.samples if one.target == target and one.metric == "boot_s" and not one.warmup]


def test_a_run_by_itself_passes_and_tells_what_was_left_out_or_failed(make_record: MakeRecord) -> None:
    record = make_record()
    targets = [
        *record.targets,
        TargetRecord(target="podman", outcome=Outcome.SKIPPED, reason="it is not there"),
        TargetRecord(target="swarm", outcome=Outcome.FAILED, reason="it fell over"),
        TargetRecord(target="oci", outcome=Outcome.OK),
    ]
    told = told_of(replace(record, targets=targets))
    assert [(case.target, case.metric, case.standing, case.text) for case in told.cases] == [
        ("process", "boot_s", "passed", ""),
        ("docker", "boot_s", "passed", ""),
        ("libvirt:q35 (tcg)", "boot_s", "passed", ""),
        ("podman", "", "skipped", "skipped: it is not there"),
        ("swarm", "", "failed", "failed: it fell over"),
        ("oci", "", "failed", "no complete launch"),
    ]


def test_openmetrics_and_the_older_text_have_the_same_gauges_each_as_its_reader_wants(make_record: MakeRecord) -> None:
    record = make_record()
    told = judged(record)
    text, older = written("openmetrics", told), written("prometheus", told)
    assert text.endswith("\n# EOF\n") and "EOF" not in older and "# UNIT" not in older
    new = {family.name: family for family in read_openmetrics(text)}
    old = {family.name: family for family in read_prometheus(older)}
    assert new["stratalab_run"].type == "info" and old["stratalab_run_info"].type == "gauge"
    assert {family.type for name, family in old.items()} == {"gauge"}, "none is untyped"
    found = {sample.labels["target"]: sample.value for sample in new["stratalab_boot_median_seconds"].samples}
    expected = medians(record)
    assert found == {"libvirt:q35 (tcg)" if t == "libvirt:q35" else t: value for t, value in expected.items()}
    assert new["stratalab_boot_median_seconds"].unit == "seconds"
    assert {s.name: (s.labels, s.value) for f in new.values() for s in f.samples} == {
        s.name: (s.labels, s.value) for f in old.values() for s in f.samples
    }
    standings = {s.labels["target"]: s.labels["standing"] for s in new["stratalab_standing"].samples if s.value == 1}
    assert standings["docker"] == "regression" and standings["podman"] == "skipped"


def test_bencher_has_each_total_with_its_interval(make_record: MakeRecord) -> None:
    record = make_record()
    found = json.loads(written("bencher", told_of(record)))
    assert set(found) == {"boot/process/boot_s", "boot/docker/boot_s", "boot/libvirt:q35 (tcg)/boot_s"}
    for measures in found.values():
        assert all(len(name) <= 64 for name in measures)
        assert set(measures["boot_s"]) == {"value", "lower_value", "upper_value"}
    docker = found["boot/docker/boot_s"]["boot_s"]
    assert docker["value"] == medians(record)["docker"] and docker["lower_value"] < docker["value"]
    few = json.loads(written("bencher", told_of(make_record(n=5))))
    assert set(few["boot/docker/boot_s"]["boot_s"]) == {"value"}, "no interval, no bounds"


def test_github_action_benchmark_has_only_what_is_better_smaller(make_record: MakeRecord) -> None:
    record = with_totals(make_record(), requests_per_s=("requests/s", 9.0), things=("", 3.0), used_bytes=("bytes", 1e6))
    found = {one["name"]: one for one in json.loads(written("github-action-benchmark", told_of(record)))}
    assert "boot/docker/boot_s" in found and "boot/docker/used_bytes" in found
    assert not [name for name in found if "things" in name or "requests_per_s" in name]
    assert found["boot/docker/boot_s"]["value"] == medians(record)["docker"]
    assert {type(found["boot/docker/boot_s"][key]) for key in ("name", "unit", "range", "extra")} == {str}


def with_totals(record: RunRecord, **metrics: tuple[str, float]) -> RunRecord:
    more = [
        Sample(target="docker", metric=metric, value=value + round_, unit=unit, iteration=1 + round_)
        for metric, (unit, value) in metrics.items()
        for round_ in range(7)
    ]
    return replace(record, samples=[*record.samples, *more])


def test_pyperf_reads_and_compares_what_is_written(make_record: MakeRecord, tmp_path: Path) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, delay_ms in zip(files, (0.0, 50.0), strict=True):
        record = with_totals(make_record(delays_ms={"docker": delay_ms}), zero_bytes=("bytes", 0.0), x=("share", 0.5))
        path.write_text(written("pyperf", told_of(record)))
    suite = pyperf.BenchmarkSuite.load(str(files[0]))
    assert suite.get_benchmark_names() == [
        "boot/process/boot_s",
        "boot/docker/boot_s",
        "boot/libvirt:q35 (tcg)/boot_s",
    ]
    docker = suite.get_benchmark("boot/docker/boot_s")
    assert docker.get_unit() == "second" and docker.get_nvalue() == 10
    assert docker.median() == pytest.approx(medians(make_record())["docker"])
    ran = subprocess.run(
        [sys.executable, "-m", "pyperf", "compare_to", *map(str, files), "--table"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "boot/docker/boot_s" in ran.stdout and "slower" in ran.stdout


def test_csv_and_parquet_of_two_runs_have_every_sample_and_whose_it_is(make_record: MakeRecord) -> None:
    told = [told_of(make_record(f"run-{number}", seed=number)) for number in (1, 2)]
    rows = list(csv.DictReader(io.StringIO(written("csv", *told))))
    content = FORMATS["parquet"].write(told)
    assert isinstance(content, bytes)
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    everything = [(one.record.run.id, sample) for one in told if one.record for sample in one.record.samples]
    assert len(rows) == table.num_rows == len(everything)
    for row, typed, (run, sample) in zip(rows, table.to_pylist(), everything, strict=True):
        assert (row["run"], row["target"], row["metric"]) == (run, sample.target, sample.metric)
        assert float(row["value"]) == sample.value == typed["value"]
        assert row["warmup"] == str(sample.warmup).lower() and typed["warmup"] is sample.warmup
        assert row["from"] == sample.dimensions.get("from", "") and typed["dim_from"] == sample.dimensions.get("from")
    assert str(table.schema.field("value").type) == "double"


def test_json_is_what_export_has_and_of_several_runs_an_array(make_record: MakeRecord) -> None:
    one, two = make_record("a"), make_record("b")
    assert json.loads(written("json", told_of(one)))["run"]["id"] == "a"
    assert [told["run"]["id"] for told in json.loads(written("json", told_of(one), told_of(two)))] == ["a", "b"]


def test_markdown_has_a_row_a_total_and_nothing_in_it_is_markup(make_record: MakeRecord) -> None:
    told = replace(judged(make_record()), notes=[HOSTILE])
    lines = written("markdown", told).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {7}
    (docker,) = (line for line in table if "docker" in line)
    assert "❌ regression: +19 % against 8 nights" in docker and "ms" in docker and "| 10 |" in docker
    (note,) = (line for line in lines if line.startswith("- "))
    assert "<d>" not in note.replace("\\<d\\>", "") and "\\@e" in note and "\x1b" not in note


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_that_an_engine_says_breaks_a_format(make_record: MakeRecord, name: str) -> None:
    record = make_record()
    samples = [replace(one, dimensions={**one.dimensions, "who": HOSTILE}) for one in record.samples]
    hostile = replace(record, samples=samples)
    told = Told(
        scenario=HOSTILE,
        record=hostile,
        cases=[Case(target=HOSTILE, standing=Standing.FAILED, text=HOSTILE)],
        notes=[HOSTILE],
    )
    text = FORMATS[name].write([told])
    plain = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    checks: dict[str, Callable[[bytes], Any]] = {
        "junit": junitparser.JUnitXml.fromstring,
        "openmetrics": lambda found: list(read_openmetrics(found.decode())),
        "prometheus": lambda found: list(read_prometheus(found.decode())),
        "parquet": lambda found: pyarrow.parquet.read_table(io.BytesIO(found)),
        "csv": lambda found: list(csv.reader(io.StringIO(found.decode()))),
        "markdown": lambda found: found.decode(),
    }
    checks.get(name, json.loads)(plain)


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_without_a_value_is_written_as_well(make_record: MakeRecord, name: str) -> None:
    record = make_record(n=0, warmup=1)
    targets = [replace(target, outcome=Outcome.SKIPPED, reason="gone") for target in record.targets]
    empty = replace(record, samples=[], launches=[], targets=targets)
    assert FORMATS[name].write([told_of(empty)])
    case = Case(target="docker", standing=Standing.VOID, text="too noisy")
    nothing = FORMATS[name].write([Told(scenario="boot", record=None, cases=[case])])
    assert nothing and (name not in ("junit", "markdown") or "too noisy" in str(nothing))


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="there is no format 'junti'") as caught:
        format_of("junti")
    assert "'junit'" in caught.value.resolution


def names_of(told: Sequence[Told]) -> list[str]:
    return [name for one in told for name in json.loads(written("bencher", one))]


def test_rows_that_differ_in_how_they_were_waited_for_keep_names_of_their_own(make_record: MakeRecord) -> None:
    record = make_record()
    odd = [
        replace(one, dimensions={**one.dimensions, "wait_method": "marker"}) if one.iteration % 2 else one
        for one in record.samples
    ]
    found = names_of([told_of(replace(record, samples=odd))])
    assert len(set(found)) == len(found) == 5
