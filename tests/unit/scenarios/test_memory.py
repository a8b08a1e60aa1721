"""What memory measured stays where a later step is not served, and that step is named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import BadInput, DriverError, LabError, MeasurementError, Unsupported
from lab.launch.session import Session
from lab.scenario import Bench
from lab.service.load import LoadResult, Request
from lab.spec import Endpoint, Ready, Spec
from scenarios import memory


class Emitted:
    def __init__(self) -> None:
        self.samples: list[tuple[str, dict[str, str]]] = []

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, dimensions))


def session_of(**spec: Any) -> Session:
    made = Spec(image="somebody/else", ready_path="/", **spec)
    return cast(Session, SimpleNamespace(spec=made, instance=SimpleNamespace(endpoint=Endpoint("127.0.0.1", 1))))


def answered(*statuses: int | str) -> LoadResult:
    return LoadResult(
        requests=[
            Request(intended_ns=1, sent_ns=1, done_ns=2, status=status, version="", late=False) for status in statuses
        ]
    )


@pytest.mark.parametrize("error", [DriverError("98 of 100 requests"), LabError("the load's client failed")])
def test_a_step_that_is_not_served_is_absent_with_its_name_and_reason(error: LabError) -> None:
    bench = Emitted()
    with memory._kept_without(cast(Bench, bench), "pss_after_bytes after=load", "the load"):
        raise error
    [(metric, told)] = bench.samples
    assert metric == "absent" and told["of"] == "pss_after_bytes after=load"
    assert told["why"] == f"the load was not served: {error.brief}"


@pytest.mark.parametrize("error", [BadInput("x"), MeasurementError("x")])
def test_what_is_wrong_by_itself_is_not_called_unserved(error: LabError) -> None:
    with pytest.raises(type(error)), memory._kept_without(cast(Bench, Emitted()), "x", "the load"):
        raise error


def test_the_load_tells_what_its_requests_got(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "run_load", lambda *_, **__: answered(200, "timeout", 404, "timeout"))
    with pytest.raises(DriverError, match=r"3 of 4 requests of /: 2 times timeout, 1 times 404"):
        memory.Memory(requests=4)._load(session_of())


def test_what_the_user_calls_an_answer_is_one_of_the_load_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "run_load", lambda *_, **__: answered(302, 302))
    memory.Memory(requests=2)._load(session_of(ready_status=((200, 399),)))
    with pytest.raises(DriverError):
        memory.Memory(requests=2)._load(session_of())


def test_what_speaks_no_http_gets_no_load_of_it() -> None:
    with pytest.raises(Unsupported, match="--ready tcp"):
        memory.Memory()._load(session_of(ready=Ready.TCP))
