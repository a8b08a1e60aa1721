"""The scenario `overhead`: what it makes of the service's answers and of a load, and how its figures are shown."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from lab.errors import BadInput, DriverError, MeasurementError
from lab.figures import notes
from lab.figures.compared import Verdict
from lab.figures.comparison import compare_runs
from lab.figures.series import EXPLAINING, series_of
from lab.host.pinning import largest_cache_bytes
from lab.registry import make_scenario
from lab.scenario import Bench
from lab.service.load import LoadResult, Request
from lab.service.measure import Measured, parse
from lab.show.table import render_comparison, render_run
from lab.spec import Endpoint, Spec
from lab.store.record import RunRecord
from lab.store.sample import Sample
from lab.units import MIB, quantity
from scenarios.overhead import Overhead, buffers_mib, emit_load

Make = Callable[..., RunRecord]
MS = 1_000_000
SAMPLE: dict[str, Any] = {"target": "docker", "metric": "absent", "value": 1, "unit": "", "iteration": 3}
CHUNKS = [2000, 2000, 9000, 2000, 1000]
ANSWERS: dict[str, dict[str, Any]] = {
    "syscall": {"chunk_count": 10},
    "cpu": {"chunk_count": 1000},
    "switch": {"chunk_count": 1},
    "memory": {"chunk_count": 1, "bytes_per_pass": 24 * MIB},
    "fsync": {"chunk_count": 1, "file_system": "ext2-4", "directory": "/var/tmp"},
}


def told(**changes: Any) -> dict[str, Any]:
    """A whole answer, with changes."""
    each = changes.get("chunk_count", 10)
    return {
        "count": each * len(CHUNKS),
        "chunk_count": each,
        "chunks_ns": CHUNKS,
        "clock_step_ns": 20,
        "elapsed_ns": 20_000,
        "cpu_ns": 15_000,
        **changes,
    }


class FakeBench:
    """A bench whose only launch answers with what it was given."""

    def __init__(self, endpoint: Endpoint | None = None, facts: Mapping[str, Any] | None = None, **spec: Any) -> None:
        self.info = SimpleNamespace(engine="fake", facts=facts or {})
        self.spec = Spec(**spec).for_launch()
        self.samples: list[tuple[str, float, str, dict[str, str]]] = []
        self._endpoint = endpoint

    @contextlib.contextmanager
    def session(self) -> Iterator[Any]:
        yield SimpleNamespace(spec=self.spec, instance=SimpleNamespace(endpoint=self._endpoint))

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, unit, dimensions))

    def values(self, metric: str) -> list[float]:
        return [value for name, value, _, _ in self.samples if name == metric]

    def absent(self) -> dict[str, str]:
        return {told["of"]: told["why"] for name, _, _, told in self.samples if name == "absent"}


def bench_of(fake: FakeBench) -> Bench:
    return cast("Bench", fake)


@contextlib.contextmanager
def answering(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Endpoint, list[str]]]:
    """A server that tells of each kind what it is given; and the paths that it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            kind = self.path.removeprefix("/measure/").partition("?")[0]
            if kind in answers:
                asked.append(self.path)
            body = json.dumps(answers.get(kind, {"status": "ok"})).encode()
            self.send_response(int(answers.get(kind, {}).get("status", 200)))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield Endpoint("127.0.0.1", server.server_address[1]), asked
    finally:
        server.shutdown()
        server.server_close()


def requests(latencies_ms: Sequence[float | None], *, late: int = 0, missed: int = 0) -> LoadResult:
    """A load of a request every ms; None is one that timed out, the last `missed` were never sent."""
    made = []
    for i, latency in enumerate(latencies_ms):
        intended = i * MS
        done = intended + round((1000.0 if latency is None else latency) * MS)
        made.append(
            Request(
                intended_ns=intended,
                sent_ns=intended,
                done_ns=done,
                status="timeout" if latency is None else 200,
                version="",
                late=i < late,
            )
        )
    for i in range(missed):
        at = (len(latencies_ms) + i) * MS
        made.append(Request(intended_ns=at, sent_ns=None, done_ns=None, status="missed", version="", late=False))
    return LoadResult(requests=made)


def load_samples(result: LoadResult, seconds: float = 0.4) -> FakeBench:
    fake = FakeBench()
    emit_load(bench_of(fake), result, load="test", seconds=seconds)
    return fake


def test_each_figure_is_the_median_chunk_of_one_operation() -> None:
    answers = {kind: told(**answer) for kind, answer in ANSWERS.items()}
    with answering(answers) as (endpoint, asked):
        fake = FakeBench(endpoint, memory_bytes=128 * MIB)
        Overhead(rate=400, seconds=0.5, syscalls=100, steps=200, switches=300, fsyncs=7).measure(bench_of(fake))
    assert asked[:3] == ["/measure/syscall?count=100", "/measure/cpu?count=200", "/measure/switch?count=300"]
    assert asked[3] == f"/measure/memory?mib={buffers_mib(fake.spec, largest_cache_bytes())}"
    assert asked[4:] == ["/measure/fsync?count=7"]
    expected = {"syscall_s": 2e-7, "cpu_work_s": 2e-9, "switch_s": 1e-6, "fsync_s": 2e-6}
    for metric, value in expected.items():
        assert fake.values(metric) == [pytest.approx(value)], metric
    assert fake.values("copy_bytes_per_s") == [pytest.approx(24 * MIB / 2e-6)]
    assert fake.values("chunk_s") == [pytest.approx(chunk / 1e9) for _ in ANSWERS for chunk in CHUNKS]
    assert fake.values("cpu_share") == [0.75] * 5
    (place,) = [dimensions for name, _, _, dimensions in fake.samples if name == "fsync_s"]
    assert place == {"file_system": "ext2-4"}
    (unserved,) = fake.values("unserved_requests")
    if not fake.absent():  # the machine may be too busy for the client of the load
        assert len(fake.values("request_s")) + unserved == 200
    if not fake.absent() and not unserved:
        assert fake.values("served_per_s") == [pytest.approx(400, rel=0.2)]


def test_what_a_target_does_not_have_is_absent_with_its_reason_and_has_no_figure() -> None:
    answers = {kind: told(**answer) for kind, answer in ANSWERS.items()}
    answers |= {"fsync": {"absent": "no disk"}, "memory": {"absent": "no room"}}
    with answering(answers) as (endpoint, _):
        fake = FakeBench(endpoint)
        Overhead(rate=20, seconds=0.5).measure(bench_of(fake))
    assert fake.absent()["fsync_s"] == "no disk"
    assert fake.absent()["copy_bytes_per_s"] == "no room"
    assert not fake.values("fsync_s")
    assert not fake.values("copy_bytes_per_s")
    assert {told["of"] for name, _, _, told in fake.samples if name == "chunk_s"} == {
        "syscall_s",
        "cpu_work_s",
        "switch_s",
    }


@pytest.mark.parametrize(("rate", "loaded"), [(94, True), (95, False)])
def test_a_function_s_worker_is_not_loaded_beyond_what_its_platform_says_of_its_workers(
    rate: int, *, loaded: bool
) -> None:
    answers = {kind: told(**answer) for kind, answer in ANSWERS.items()}
    with answering(answers) as (endpoint, _):
        fake = FakeBench(endpoint, facts={"calls_per_worker": 100, "calls_per_worker_why": "its log grows"})
        Overhead(rate=rate, seconds=1.0, syscalls=100, steps=200, switches=300, fsyncs=7).measure(bench_of(fake))
    assert len(fake.values("syscall_s")) == 1
    assert bool(fake.values("unserved_requests")) == loaded
    if not loaded:
        told_why = "101 calls of one worker, and at most 100 are to be compared on fake: its log grows"
        assert fake.absent()["latency_p50_s"].endswith(told_why)


def test_an_error_of_the_service_fails_the_launch() -> None:
    with answering({"syscall": {"status": 500, "error": "x"}}) as (endpoint, _):
        fake = FakeBench(endpoint)
        with pytest.raises(DriverError, match="500"):
            Overhead().measure(bench_of(fake))
    assert not fake.samples


def test_what_was_measured_stays_where_a_later_step_is_not_served() -> None:
    """The step is named: a reader must not take its absence for the engine's."""
    broken = {"status": 500, "error": "x"}
    answers = {kind: told(**answer) for kind, answer in ANSWERS.items()} | {"fsync": broken, "cpu": broken}
    with answering(answers) as (endpoint, _):
        fake = FakeBench(endpoint)
        Overhead(rate=10, seconds=0.5, syscalls=100, switches=300).measure(bench_of(fake))
    assert len(fake.values("syscall_s")) == len(fake.values("switch_s")) == 1
    assert "not served" in fake.absent()["cpu_work_s"] and "500" in fake.absent()["fsync_s"]
    assert len(fake.values("unserved_requests")) == 1, "the steps after it go on"


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 49},
        {"chunks_ns": []},
        {"chunks_ns": [-1, 2000, 2000, 2000, 2000]},
        {"clock_step_ns": 0},
        {"clock_step_ns": None},
        {"chunks_ns": [20_000, 1, 1, 1, 1]},
        {"chunks_ns": None},
        {"cpu_ns": "x"},
    ],
)
def test_an_answer_that_contradicts_itself_is_no_measurement(changes: Mapping[str, Any]) -> None:
    with pytest.raises(MeasurementError):
        parse(told(**changes))


def test_a_clock_that_did_not_move_is_too_coarse_and_contradicts_nothing() -> None:
    assert "too coarse" in str(parse(told(chunks_ns=[0] * 5, clock_step_ns=4_000_000, elapsed_ns=0)))


def test_a_pause_in_some_chunks_does_not_count() -> None:
    found = parse(told())
    assert isinstance(found, Measured)
    assert found.operation_s == pytest.approx(2e-7)


def test_where_the_clock_is_coarse_more_chunks_count_as_one() -> None:
    ticks = [4_000_000, 0, 0, 4_000_000, 0] * 20  # 1.6 ms each, by a clock of 4 ms
    found = parse(told(count=1000, chunks_ns=ticks, clock_step_ns=4_000_000, elapsed_ns=160_000_000))
    assert isinstance(found, Measured)
    assert found.operation_s == pytest.approx(1.6e-4, rel=0.05)
    few = parse(told(count=100, chunks_ns=ticks[:10], clock_step_ns=4_000_000, elapsed_ns=16_000_000))
    assert few == "the target's clock is too coarse, with steps of 4.00 ms"


def test_quantiles_are_of_all_requests_from_their_intended_instants() -> None:
    fake = load_samples(requests([1.0] * 390 + [50.0] * 10))
    assert fake.values("latency_p50_s") == [pytest.approx(0.001)]
    assert fake.values("latency_p99_s") == [pytest.approx(0.050)]
    assert fake.values("request_s") == [pytest.approx(0.001)] * 390 + [pytest.approx(0.050)] * 10
    assert fake.values("served_per_s") == [pytest.approx(400 / 0.449)]  # the last came 50 ms after its instant
    assert not fake.absent()


def test_p99_has_no_value_below_368_requests() -> None:
    fake = load_samples(requests([1.0] * 367))
    assert fake.values("latency_p50_s")
    assert not fake.values("latency_p99_s")
    assert fake.absent() == {"latency_p99_s": "367 requests are too few"}
    assert load_samples(requests([1.0] * 368)).values("latency_p99_s")


def test_requests_without_an_answer_count_as_endless() -> None:
    fake = load_samples(requests([1.0] * 395 + [None] * 3, missed=2))
    assert fake.absent() == {"latency_p99_s": "too many requests were not served"}
    assert fake.values("latency_p50_s") == [pytest.approx(0.001)]
    assert fake.values("unserved_requests") == [5]
    assert fake.values("served_per_s") == [pytest.approx(395 / 0.4)]
    one = load_samples(requests([1.0] * 399, missed=1))
    assert one.values("latency_p99_s") == [pytest.approx(0.001)]
    none = load_samples(requests([None] * 400))
    assert set(none.absent()) == {"latency_p50_s", "latency_p99_s", "served_per_s"}


def test_a_load_whose_client_was_late_gives_no_figure() -> None:
    fake = load_samples(requests([1.0] * 400, late=21))
    assert set(fake.absent()) == {"latency_p50_s", "latency_p99_s", "served_per_s"}
    assert fake.values("late_share") == [pytest.approx(21 / 400)]
    assert not fake.values("request_s")
    assert not load_samples(requests([1.0] * 400, late=20)).absent()


def test_buffers_fit_the_memory_and_exceed_the_cache_where_they_can(tmp_path: Path) -> None:
    assert buffers_mib(Spec(memory_bytes=128 * MIB), 32 * MIB) == 48
    assert buffers_mib(Spec(memory_bytes=1024 * MIB), 32 * MIB) == 128
    assert buffers_mib(Spec(memory_bytes=1024 * MIB), 0) == 64
    for index, size in enumerate(["48K", "2048K", "32768K"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert largest_cache_bytes(tmp_path) == 32 * MIB
    assert largest_cache_bytes(tmp_path / "none") == 0


def test_parameters_are_bounded() -> None:
    made = make_scenario("overhead", {"rate": "50", "seconds": "1.5"})
    assert isinstance(made, Overhead)
    assert (made.rate, made.seconds) == (50, 1.5)
    for bad in ({"rate": "0"}, {"seconds": "61"}, {"rate": "5000", "seconds": "5"}, {"syscalls": "1"}):
        with pytest.raises(BadInput):
            make_scenario("overhead", bad)


def run_with(make: Make, name: str, metric: str, unit: str, value: float, *, seed: int, n: int = 10) -> RunRecord:
    """A run that has, beside `boot_s`, `metric` of docker around `value`."""
    record = make(name, seed=seed, n=n)
    more = [
        Sample(target="docker", metric=metric, value=value * (1 + 0.001 * i), unit=unit, iteration=i, dimensions={})
        for i in range(1, n + 1)
    ]
    return replace(record, samples=[*record.samples, *more])


@pytest.mark.parametrize(("unit", "worse"), [("bytes/s", 0.5), ("requests/s", 0.5), ("s", 2.0), ("bytes", 2.0)])
def test_compare_knows_which_way_is_worse(make_record: Make, unit: str, worse: float) -> None:
    a = run_with(make_record, "a", "some", unit, 1000.0, seed=1)
    b = run_with(make_record, "b", "some", unit, 1000.0 * worse, seed=1)
    there, back = compare_runs(a, b), compare_runs(b, a)
    assert [row.metric for row in there.alarms] == [row.metric for row in there.regressions] == ["some"]
    assert ([row.metric for row in back.alarms], back.regressions) == (["some"], [])
    assert there.alarms[0].verdict in ({Verdict.LOWER} if worse < 1 else {Verdict.SLOWER, Verdict.HIGHER})


def test_a_comparison_of_several_metrics_names_each(make_record: Make) -> None:
    a, b = (run_with(make_record, name, "some", "bytes/s", value, seed=1) for name, value in (("a", 9e9), ("b", 3e9)))
    found = compare_runs(a, b)
    text = shown(render_comparison(found))
    assert "docker some" in text
    assert "docker boot_s" in text
    assert "8.43 GiB/s" in text
    assert notes.conclusion(found) == "B against A: lower: docker some."


def test_raw_values_and_absences_are_kept_and_make_no_rows(make_record: Make) -> None:
    record = make_record("a", n=6)
    values = [
        Sample(target=target, metric=metric, value=1e-6, unit="s", iteration=i, dimensions=told)
        for i in range(1, 7)
        for target, metric, told in (
            ("process", "fsync_s", {}),
            ("docker", "request_s", {}),
            ("docker", "chunk_s", {"of": "fsync_s"}),
            ("docker", "absent", {"of": "fsync_s", "why": "no disk"}),
        )
    ]
    record = replace(record, samples=[*record.samples, *values])
    rows = series_of(record)
    assert not {"request_s", "chunk_s", "absent"} & {row.metric for row in rows}
    assert {row.metric for row in rows if row.metric not in EXPLAINING} == {"boot_s", "fsync_s"}
    text = shown(render_run(record))
    assert any(line.split()[:3] == ["docker", "no", "disk"] for line in text.splitlines())
    assert "docker has no fsync_s, or not of every round: no disk." in text
    late = [Sample(**{**SAMPLE, "dimensions": {"of": of, "why": "late"}}) for of in ("x_s", "y_s")]
    told_once = notes.of_run(replace(record, samples=[*record.samples, *late]), rows)
    assert "docker has no x_s, y_s, or not of every round: late." in told_once


def test_rates_are_scaled_like_their_amounts() -> None:
    assert quantity(15.5 * 2**30, "bytes/s") == "15.5 GiB/s"
    assert quantity(200.0, "requests/s") == "200 requests/s"


def shown(renderable: Any) -> str:
    out = StringIO()
    Console(file=out, width=120).print(renderable)
    return out.getvalue()
