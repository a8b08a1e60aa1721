"""Kubernetes beyond one node, on a real kind cluster of the lab's own: `lab cluster up --workers 2` makes one.

What needs several nodes that take pods skips on a cluster of one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.connection import client
from lab.features import OnNodes
from lab.spec import Spec
from tests.integration.drivers.test_kubernetes import Drive, drive, launched

__all__ = ["drive"]  # a fixture
pytestmark = pytest.mark.engine("kubernetes")
MOVES_WITHIN_S = 60.0


def several(driver: KubernetesDriver) -> list[str]:
    nodes = list(driver.nodes())
    if len(nodes) < 2:
        pytest.skip(f"the cluster has one node that takes pods, {nodes[0]}: lab cluster up --workers 2")
    return nodes


def soon(ask: Callable[[], bool], within_s: float = MOVES_WITHIN_S) -> bool:
    deadline = time.monotonic() + within_s
    while not ask():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_a_pod_goes_to_each_node_that_is_named(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive()
    for node in driver.nodes():
        with launched(driver, labels, node=node) as session:
            assert isinstance(session.instance, OnNodes)
            assert session.instance.on_nodes() == {node: 1}
            assert session.answer is not None


def test_a_drained_deployment_moves_and_the_node_is_given_back(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive("deployment")
    before = set(several(driver))
    with launched(driver, labels) as session:
        instance = session.instance
        assert isinstance(instance, OnNodes)
        (lost,) = instance.on_nodes()
        give_back = instance.drain()
        try:
            assert soon(lambda: set(instance.on_nodes()) == before - {lost} or lost not in instance.on_nodes())
        finally:
            give_back()
    fresh = drive("deployment")
    assert set(fresh.nodes()) == before


def test_replicas_are_spread_over_the_nodes(drive: Drive, labels: dict[str, str]) -> None:
    driver = drive("deployment", spread="nodes")
    nodes = several(driver)
    with launched(driver, labels) as session:
        instance = session.instance
        instance.scale(len(nodes))  # type: ignore[union-attr]  # a deployment's
        assert isinstance(instance, OnNodes)
        assert soon(lambda: instance.on_nodes() == dict.fromkeys(sorted(nodes), 1))


def test_a_job_serves_and_is_suspended(drive: Drive, labels: dict[str, str]) -> None:
    with launched(drive("job"), labels) as session:
        assert session.answer is not None
        session.stop()
        assert isinstance(session.instance, OnNodes)
        assert session.instance.on_nodes() == {}


def test_what_the_kubelets_are_set_to_is_told(drive: Drive) -> None:
    info = drive().info()
    assert info.facts["cpu_manager"] in (["none"], ["static"], ["none", "static"])
    assert "podPidsLimit" in info.facts["limits"]["pids"]


def test_a_listing_comes_in_pages(drive: Drive, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGE", 1)
    driver = drive()
    with launched(driver, labels), launched(driver, labels):
        assert len(driver.list_instances(labels)) == 2
        api = driver._target().ground.api
        listed = [node["metadata"]["name"] for node in api.each(api.core.list_node)]
        assert set(driver.nodes()) <= set(listed)
        driver.prepare(Spec(labels=labels))  # which follows its events from a listing by pages
