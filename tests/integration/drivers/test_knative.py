"""Knative Serving on a real cluster: what only this driver does.

`LAB_REQUIRE=knative` makes a skip a failure. The lab does not install Knative: where it is on the lab's kind cluster,
or on the context that LAB_CONTEXT names (then with LAB_SERVICE_IMAGE, a reference that its nodes can pull), these run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from drivers.kubernetes.knative import KnativeDriver
from drivers.kubernetes.knative.instance import Function
from lab.driver import Context
from lab.features import CallPhase, SleepState
from lab.launch.session import Session
from lab.service import ask
from lab.spec import Spec
from lab.timeline import ENGINE_CHAIN, Phase, SystemClock

pytestmark = pytest.mark.engine("knative")
ZERO_S = 180.0
"""The window, the grace period and what the autoscaler adds."""


@pytest.fixture
def launched(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Session]:
    driver = KnativeDriver("", make_context())
    try:
        info, spec = driver.info(), Spec(labels=labels)
        driver.prepare(spec)
        with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=120) as session:
            session.launch()
            yield session
        assert driver.list_instances({"lab.run": labels["lab.run"]}) == []
    finally:
        for leftover in driver.leftovers({"lab.run": labels["lab.run"]}):
            leftover.delete()
        driver.close()


def test_it_serves_by_its_name_goes_to_zero_and_comes_back_with_a_call(launched: Session) -> None:
    function, timeline = launched.instance, launched.timeline
    assert isinstance(function, Function) and function.endpoint is not None
    function.settle(timeout_s=60)
    assert [phase for phase in ENGINE_CHAIN if phase in timeline] == list(ENGINE_CHAIN)
    assert timeline.duration_s(Phase.REQUESTED, Phase.READY) > 0
    assert function.endpoint.authority.startswith(function.id.partition("/")[2])
    assert function.activator() != "not told"
    (first,) = function.workers()
    assert ask.facts(launched)

    function.sleep(SleepState.ZERO, timeout_s=ZERO_S)
    assert function.workers() == [] and function.host_pids() == {}

    seen: list[tuple[str, CallPhase, str]] = []
    with function.follow(lambda *told: seen.append(told)):
        function.wake(SleepState.ZERO)
        assert ask.facts(launched), "the call that wakes it is answered"
        (second,) = function.workers()
    assert second != first
    assert [(worker, phase) for worker, phase, _ in seen] == [(second, CallPhase.CREATED), (second, CallPhase.STARTED)]
