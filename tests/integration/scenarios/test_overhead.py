"""What real platforms take while the service runs: every figure, or the reason why there is none, and nothing left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.driver import Context, Driver
from lab.figures.series import absences, series_of
from lab.registry import make_driver
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from scenarios.overhead import Overhead

Measure = Callable[..., RunRecord]

WORK = {"syscall_s", "cpu_work_s", "switch_s", "copy_bytes_per_s", "fsync_s"}
LOAD = {"latency_p50_s", "latency_p99_s", "served_per_s"}
TARGETS = ("process", "docker", "libvirt:microvm")


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@pytest.fixture
def record(driver: Driver, measure: Measure, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    monkeypatch.setattr("scenarios.overhead.LATE_SHARE", 1.0)  # these tests may share their CPUs
    return measure(Overhead(rate=400, seconds=1.0, syscalls=20_000, steps=1_000_000, switches=1_000), driver)


def values(record: RunRecord, metric: str, **dimensions: str) -> list[float]:
    wanted = dimensions.items()
    return [s.value for s in record.samples if s.metric == metric and wanted <= s.dimensions.items()]


@pytest.mark.parametrize("target", [pytest.param(one, marks=pytest.mark.engine(one)) for one in TARGETS])
def test_every_metric_has_a_figure_or_a_reason(record: RunRecord, target: str) -> None:
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    absent = {metric: why for (_, metric), why in absences(record).items()}
    rows = {row.metric for row in series_of(record)}
    assert (WORK | LOAD) - rows == set(absent)
    coarse = {
        metric for metric, why in absent.items() if "coarse" in why
    }  # a guest's clock may be, by its kernel's word
    assert set(absent) - coarse <= {"fsync_s", "copy_bytes_per_s", "latency_p99_s"}, absent
    assert target.startswith("libvirt") or not coarse
    for metric in WORK - set(absent):
        (value,) = values(record, metric)
        assert value > 0
        chunks = values(record, "chunk_s", of=metric)
        assert 1 <= len(chunks) <= 100  # fewer where its time was over
        assert sum(chunks) > 0
    served = values(record, "request_s")
    assert len(served) + values(record, "unserved_requests")[0] == 400
    assert values(record, "latency_p50_s")[0] > 0
    if target == "process":
        _is_all_of_this_hosts(record)
    if target == "libvirt:microvm":
        assert absent["fsync_s"] == "no disk" and not values(record, "fsync_s")


def _is_all_of_this_hosts(record: RunRecord) -> None:
    if not absences(record):
        (place,) = [dict(s.dimensions) for s in record.samples if s.metric == "fsync_s"]
        assert place["file_system"]
    assert not Path("/var/tmp/.lab-fsync").exists()
    assert not Path("/.lab-fsync").exists()
    # No system call is faster than a few steps of arithmetic, and no switch faster than a system call.
    assert values(record, "cpu_work_s") < values(record, "syscall_s") < values(record, "switch_s")
