"""Bursts on real engines: a service in Docker, and functions that come for its jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from lab.driver import Context
from lab.figures.series import series_of
from lab.registry import make_driver
from lab.show.tandem import table
from lab.spec import Target
from lab.store.record import Outcome, RunRecord
from lab.units import MIB
from scenarios.tandem import Tandem

JOBS = 3
QUICK = Tandem(bursts=str(JOBS), pause="0.3", ms=10, rate=2000, before=0.2, after=0.4)


@pytest.fixture
def make_drivers(make_context: Callable[..., Context]) -> Iterator[Callable[..., list[object]]]:
    with contextlib.ExitStack() as stack:

        def make(*targets: str) -> list[object]:
            made = [make_driver(Target.parse(target), make_context()) for target in targets]
            for one in made:
                stack.callback(one.close)
            return list(made)

        yield make


def found(record: RunRecord, metric: str, arrangement: str, target: str = "docker", **told: str) -> list[float]:
    told = {"arrangement": arrangement} | told
    return [
        one.value
        for one in record.samples
        if (one.metric, one.target) == (metric, target) and told.items() <= dict(one.dimensions).items()
    ]


@pytest.mark.engine("docker")
@pytest.mark.engine("socket:activator")
@pytest.mark.engine("lambda")
def test_a_burst_is_done_within_beside_and_by_functions_that_come_for_it(
    make_drivers: Callable[..., list[object]], measure: Callable[..., RunRecord]
) -> None:
    service, *functions = make_drivers("docker", "socket:activator", "lambda")
    record = measure(QUICK, service, beside=functions)
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    cases = [("within", "docker"), ("beside", "docker"), ("function", "socket"), ("function", "lambda")]
    for case in cases:
        for pause in ("long", "0.3"):
            assert found(record, "failed_jobs", *case, pause=pause) == [0], case
            (first,), (last,) = (found(record, f"{which}_job_s", *case, pause=pause) for which in ("first", "last"))
            assert 0 < first <= last
            curve = found(record, "jth_job_s", *case, pause=pause)
            assert len(curve) == JOBS and (curve[0], curve[-1]) == (first, last)
        for window in ("before", "after"):
            assert len(found(record, "late_share", *case, window=window)) == 1
        assert len(found(record, "late_share", *case, window="during")) == 2
        (looks,) = found(record, "looks", *case)
        assert looks > 2 and 0 < found(record, "look_share", *case)[0] < 1
    (steps,) = {one.value for one in record.samples if one.metric == "job_steps"}
    assert steps > 0, "the same work for all"

    assert found(record, "cold_starts", "beside", pause="long") == [0]
    assert found(record, "cold_starts", "function", "socket", pause="long") == [1], "one worker takes what comes"
    assert found(record, "cold_starts", "function", "lambda", pause="long") == [JOBS], "one for each job"
    assert found(record, "cold_starts", "function", "lambda", pause="0.3")[0] < JOBS, "they had been kept"

    # How much more a second instance holds is not for a test: others' containers share its shim's pages.
    assert all(found(record, "held_bytes", name, at="before")[0] > MIB for name in ("within", "beside"))
    (rest,), (peak, _) = (found(record, "held_bytes", "function", "lambda", at=at) for at in ("before", "peak"))
    assert peak > rest + JOBS * MIB, "its workers, with their shims and proxies"
    assert len(found(record, "mean_held_bytes", "function", "lambda", pause="0.3")) == 1
    questions = {(line[0].split()[0], line[1], line[2]) for line in table.better(series_of(record))[1:]}
    assert {("lambda", "last job", "within"), ("socket", "memory held", "beside")} <= questions
