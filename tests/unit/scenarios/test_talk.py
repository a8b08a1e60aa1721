"""The scenario `talk`: which cells it measures, what it does where a caller is late, and what a chain asks of whom."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import BadInput, DriverError, MeasurementError
from lab.features import Place
from lab.launch.session import Session
from lab.registry import make_scenario
from lab.scenario import Bench
from lab.service.calls import Calls, call, parse
from lab.spec import Spec
from scenarios.surface.inside import Host, Inside
from scenarios.talk import Talk, sharing

OPEN = Place(path="bridge", network="b1", host="172.17.0.2", port=8080)
NAMED = Place(path="named network", network="n1", name="lab-x", port=8080)
SHUT = Place(path="vsock", network="", why="no such device")
HOST = Host(boot_id="boot", release="6.1", hostname="host", namespaces={"net": "net:[1]", "pid": "pid:[1]"})
Answer = Callable[[Mapping[str, Any]], Calls]


def calls(seconds: float, count: int = 400, *, late: float = 0.0, unserved: int = 0) -> Calls:
    latencies = [seconds] * (count - unserved) + [math.inf] * unserved
    outcomes = {"timeout": unserved} if unserved else {}
    return Calls(latencies_s=latencies, outcomes=outcomes, late_share=late, took_s=1.0, cpu_s=0.02, resolve_s=0.003)


class FakePeer:
    endpoint = None

    def places(self) -> Sequence[Place]:
        return (OPEN, NAMED, SHUT)

    def reach(self, place: Place) -> Place | str:
        return place.why or place


class FakeBench:
    """A bench whose launches are peers; what they are asked for is in `asked`."""

    def __init__(self) -> None:
        self.driver = SimpleNamespace()
        self.spec = Spec().for_launch()
        self.samples: list[tuple[str, float, dict[str, str]]] = []
        self.launched: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def session(self, **changes: Any) -> Iterator[Any]:
        self.launched.append(changes)
        yield SimpleNamespace(spec=self.spec, instance=FakePeer())

    def others(self) -> Sequence[Bench]:
        return ()

    def random(self) -> Any:
        return SimpleNamespace(shuffle=lambda _: None)

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        self.samples.append((metric, value, dimensions))

    def found(self, metric: str) -> list[tuple[float, dict[str, str]]]:
        return [(value, told) for name, value, told in self.samples if name == metric]

    def absent(self) -> dict[str, str]:
        return {told["of"]: told["why"] for _, told in self.found("absent")}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeBench]:
    def run(answer: Answer, **parameters: Any) -> FakeBench:
        bench = FakeBench()

        def punctual_call(_caller: Any, _place: Place, **how: Any) -> Calls:
            return answer(how)

        monkeypatch.setattr("scenarios.talk.punctual_call", punctual_call)
        monkeypatch.setattr("scenarios.talk.pair.punctual_call", punctual_call)
        monkeypatch.setattr(sharing, "own_port", lambda _, port: port)
        monkeypatch.setattr(sharing, "tell_shared", lambda *_: None)
        Talk(**parameters).measure(cast("Bench", bench))
        return bench

    return run


def even(how: Mapping[str, Any]) -> Calls:
    return calls(0.0001 if how["count"] > 1 else 0.002, how["count"])


def test_each_open_path_has_its_cells_and_each_shut_one_its_reason(measured: Callable[..., FakeBench]) -> None:
    bench = measured(even, rates="500,4000")
    assert bench.launched == [{"peers": "talk"}] * 2
    assert bench.found("first_call_s") == [(0.002, {"path": path}) for path in ("bridge", "named network")]
    assert bench.found("resolve_s") == [(0.003, {"path": "named network"})]
    for path in ("bridge", "named network"):
        assert [told for _, told in bench.found("call_p50_s") if told["path"] == path] == [{"path": path}]
        cells = {
            (told["connection"], told["payload"]) for _, told in bench.found("variant_p50_s") if told["path"] == path
        }
        assert cells == {("kept", "1 KiB"), ("kept", "64 KiB"), ("new", "0 KiB"), ("new", "1 KiB"), ("new", "64 KiB")}
    assert bench.absent() == {"call_p50_s path=vsock": "no such device"}
    assert bench.found("highest_rate") == [(4000, {"path": path}) for path in ("bridge", "named network")]


def test_a_curve_ends_at_the_first_rate_that_is_not_borne(measured: Callable[..., FakeBench]) -> None:
    asked: list[int] = []

    def slow_from_2000(how: Mapping[str, Any]) -> Calls:
        asked.append(how["rate"])
        return calls(0.011 if how["rate"] >= 2000 else 0.0002, how["count"])

    bench = measured(slow_from_2000, rates="500,1000,2000,4000")
    assert [value for value, _ in bench.found("highest_rate")] == [1000, 1000]
    assert 4000 not in asked
    assert {told["rate"] for _, told in bench.found("curve_p99_s")} == {"500", "1000", "2000"}


def test_calls_that_were_not_served_are_not_borne(measured: Callable[..., FakeBench]) -> None:
    bench = measured(lambda how: calls(0.0001, how["count"], unserved=int(how["rate"] == 1000)), rates="500,1000")
    assert {value for value, _ in bench.found("highest_rate")} == {500}


def test_a_late_caller_is_no_figure_and_no_limit_of_the_path(measured: Callable[..., FakeBench]) -> None:
    bench = measured(
        lambda how: calls(0.0001, how["count"], late=0.2 if how["rate"] == 1000 else 0.0), rates="500,1000"
    )
    assert not bench.found("highest_rate")
    assert "at 1000 calls a second" in bench.absent()["highest_rate path=bridge"]


def test_a_caller_that_cannot_keep_up_is_asked_for_less_and_says_so(measured: Callable[..., FakeBench]) -> None:
    def guest(how: Mapping[str, Any]) -> Calls:
        return calls(0.004, how["count"], late=1.0 if how["rate"] > 20 else 0.0)

    bench = measured(guest, rates="")
    assert [told for _, told in bench.found("call_p50_s")] == [
        {"path": path, "rate": "20"} for path in ("bridge", "named network")
    ]
    assert {told.get("rate") for _, told in bench.found("control_p50_s")} == {"20"}


def test_a_caller_that_is_always_late_has_no_round(measured: Callable[..., FakeBench]) -> None:
    bench = measured(lambda how: calls(0.004, how["count"], late=1.0))
    assert "late for 100%" in bench.absent()["call_p50_s"]
    assert not bench.found("call_p50_s") and not bench.found("first_call_s")


def test_a_caller_that_others_held_up_is_asked_for_nothing_slower(measured: Callable[..., FakeBench]) -> None:
    bench = measured(lambda how: calls(0.0001, how["count"], late=0.2 if how["rate"] == 250 else 0.0))
    assert "late for 20%" in bench.absent()["call_p50_s"]
    assert not bench.found("call_p50_s")


def test_a_first_call_without_an_answer_shuts_the_path(measured: Callable[..., FakeBench]) -> None:
    bench = measured(lambda how: calls(0.001, how["count"], unserved=int(how["count"] == 1)))
    assert bench.absent()["call_p50_s path=bridge"] == "its first call was not answered: 1 timeout"
    assert not bench.found("call_p50_s")


def test_calls_too_few_for_a_p99_have_a_median_and_the_reason(measured: Callable[..., FakeBench]) -> None:
    bench = measured(even, calls=100, rates="")
    assert len(bench.found("call_p50_s")) == 2
    assert "too few" in bench.absent()["call_p99_s path=bridge"]


@pytest.mark.parametrize(
    "given",
    [{"payloads": "65"}, {"rates": "0"}, {"rates": "20001"}, {"depth": "1"}, {"depth": "9"}, {"rate": "1"}],
)
def test_parameters_that_cannot_be_are_refused(given: Mapping[str, str]) -> None:
    with pytest.raises(BadInput):
        make_scenario("talk", given)


def test_across_is_said_by_a_word() -> None:
    assert cast("Talk", make_scenario("talk", {"across": "yes"})).across


def test_an_account_of_calls_is_whole_or_none() -> None:
    told = {
        "planned": 2,
        "latency_ns": [1000, None],
        "outcomes": {"timeout": 1, "missed": 0},
        "late": 1,
        "took_ns": 5,
        "cpu_ns": 7,
        "resolve_ns": 0,
    }
    found = parse(told)
    assert (found.latencies_s, found.unserved, found.outcomes, found.late_share) == (
        [1e-6, math.inf],
        1,
        {"timeout": 1},
        0.5,
    )
    for change in ({"planned": 3}, {"outcomes": {"timeout": 2}}, {"latency_ns": []}, {"latency_ns": [-1, None]}):
        with pytest.raises(MeasurementError):
            parse({**told, **change})


def inside(boot: str, **namespaces: str) -> Inside:
    return Inside(found={"kernel": {"boot_id": boot}, "namespaces": namespaces}, host=HOST, dropped=False)


def test_what_a_pair_shares_is_told_by_kernel_and_namespaces() -> None:
    one = inside("boot", net="net:[1]", pid="pid:[1]")
    assert sharing.shared(one, one) == "kernel, all namespaces"
    assert sharing.shared(one, inside("boot", net="net:[1]", pid="pid:[2]")) == "kernel, namespaces net"
    assert sharing.shared(one, inside("boot", net="net:[3]", pid="pid:[2]")) == "kernel"
    assert sharing.shared(one, inside("other", net="net:[1]", pid="pid:[1]")).startswith("no kernel")
    assert sharing.shared(one, inside("")) == "not told"


def test_a_caller_that_does_not_answer_is_told_without_the_callees_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_session: Any, path: str, **_: Any) -> None:
        raise DriverError(f"the service did not answer GET {path}: timed out")

    monkeypatch.setattr("lab.service.ask.get", silent)
    with pytest.raises(DriverError) as told:
        call(cast("Session", None), OPEN, nonce="5eed", rate=10, count=1)
    assert str(told.value) == "the service did not answer GET /call: timed out"
