"""What the kubelets are set to: CPUs of a pod's own, and its limit on processes; and what is missing where not."""

from __future__ import annotations

from typing import Any

import pytest

from lab.cli.start import _enter
from lab.errors import Unsupported
from lab.features import CPUS_CHOSEN_BY, Feature
from lab.registry import make_scenario
from lab.spec import Spec, Target
from lab.store.record import Outcome
from tests.unit.drivers.kubernetes.test_kubernetes_driver import LABELS, Make, launched, make, spec

__all__ = ["make"]  # a fixture
NODE = "stratalab-control-plane"
STATIC = {"cpuManagerPolicy": "static", "podPidsLimit": 128}


def test_static_kubelets_give_pods_cpus_of_their_own(make: Make, stub: Any) -> None:
    stub.kubelets[NODE] = STATIC
    driver = make()
    info = driver.info()
    assert Feature.PINNING in info.features
    assert info.facts[CPUS_CHOSEN_BY] == "the kubelet"
    assert "podPidsLimit 128" in info.facts["limits"]["pids"]
    assert "lacks" not in info.facts
    with launched(driver, spec(cpuset=(0,))):
        resources = stub.listed("pods")[0]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"], "the QoS class Guaranteed"
        assert resources["limits"]["cpu"] == "1000m"


def test_a_share_of_a_cpu_is_none_of_its_own(make: Make, stub: Any) -> None:
    stub.kubelets[NODE] = STATIC
    with pytest.raises(Unsupported, match="whole CPUs"):
        make().prepare(Spec(labels=LABELS, cpuset=(0,), cpus=0.5))


def test_other_kubelets_do_not_and_the_row_says_what_is_missing(
    make: Make, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make()
    info = driver.info()
    assert Feature.PINNING not in info.features
    assert "no podPidsLimit" in info.facts["limits"]["pids"]
    monkeypatch.setattr("lab.cli.start.make_driver", lambda *_: driver)
    entrant = _enter(Target("kubernetes"), driver._context, make_scenario("neighbour"), Spec())
    assert entrant.record.outcome is Outcome.SKIPPED
    assert "CPU manager policy is 'none'" in entrant.record.reason


def test_a_user_who_may_not_ask_the_kubelets_is_told_so(make: Make, stub: Any) -> None:
    stub.refuse("GET", "/proxy/configz", 403, "nodes is forbidden", times=9)
    info = make().info()
    assert "this user may not ask them" in info.facts["limits"]["pids"]
    assert "not told: this user may not ask them" in info.facts["lacks"]["pinning"]


def test_a_kubelet_that_does_not_answer_is_no_end_of_the_cluster(make: Make, stub: Any, quick: None) -> None:
    stub.refuse("GET", "/proxy/configz", 502, "error dialing backend", times=9)
    assert "the API said 502" in make().info().facts["lacks"]["pinning"]
