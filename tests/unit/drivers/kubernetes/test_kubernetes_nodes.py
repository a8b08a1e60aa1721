"""Several nodes: where pods go, what a run on each tells, and how an instance loses its node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster.kind import cluster_config
from drivers.kubernetes.nodes import Placement, pods_by_node, usable
from lab.driver import Context, Driver
from lab.errors import BadInput, Unsupported
from lab.features import Feature, HasNodes, OnNodes, Replicates
from lab.host.ownership import Owner
from lab.launch.session import Session
from lab.launch.waiter import reserve_port
from lab.spec import Spec
from lab.timeline import SystemClock

LABELS = {"lab.run": "r1", "lab.scenario": "test", "lab.owner": str(Owner.current()), "lab.target": "kubernetes:x"}
SPEC = Spec(labels=LABELS)
WORKERS = ("stratalab-worker", "stratalab-worker2")
Make = Callable[..., KubernetesDriver]


@pytest.fixture
def make(tmp_path: Path, stub: Any, kind: Any, k8s: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Drivers on a cluster of the lab's with two workers, of which the first is the way in."""
    binary = tmp_path / "service"
    binary.write_bytes(b"\x7fELF service")
    monkeypatch.setattr("drivers.kubernetes.cluster.images.build_service", lambda _: binary)
    stub.ports = {30000 + i: reserve_port() for i in range(6)}
    kind.make(ports=stub.ports)
    k8s.add_node(stub, WORKERS[0], **{"lab.ports": "mapped"})
    k8s.add_node(stub, WORKERS[1])
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    made: list[Driver] = []

    def one(variant: str = "", **options: str) -> KubernetesDriver:
        given = {key.replace("_", "-"): value for key, value in options.items()}
        made.append(KubernetesDriver(variant, Context(run_dir=run_dir, cache_dir=tmp_path / "cache", options=given)))
        return made[-1]  # type: ignore[return-value]

    yield one
    for driver in made:
        driver.close()


@contextlib.contextmanager
def launched(driver: Driver, of: Spec = SPEC) -> Iterator[Session]:
    driver.prepare(of)
    with Session(driver, driver.info(), of.for_launch(), SystemClock(), timeout_s=10) as session:
        session.launch()
        yield session


def test_a_cluster_is_made_with_workers_of_which_the_first_is_the_way_in() -> None:
    config = cluster_config("stratalab", None, workers=2)
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    assert [bool(node.get("extraPortMappings")) for node in config["nodes"]] == [False, True, False]
    with pytest.raises(BadInput, match="names its nodes"):
        cluster_config("stratalab", {"nodes": [{"role": "control-plane"}]}, workers=1)


def test_workers_asked_for_are_kind_s_and_another_number_is_refused(make: Make, stub: Any, kind: Any) -> None:
    stub.remove("configmaps", "kube-system", "stratalab")
    driver = make(kind_cluster="other", kind_workers="2")
    driver.cluster_up(lambda _: None)
    config = yaml.safe_load((kind.directory / "config").read_text())
    assert [node["role"] for node in config["nodes"]].count("worker") == 2
    with pytest.raises(BadInput, match="2 workers, not 3"):
        make(kind_cluster="other", kind_workers="3").cluster_up(lambda _: None)
    with pytest.raises(BadInput, match="kind-workers=two"):
        make(kind_cluster="x", kind_workers="two").cluster_up(lambda _: None)


def test_the_nodes_that_take_pods_are_told_and_one_way_leads_to_all(make: Make) -> None:
    driver = make()
    info = driver.info()
    assert isinstance(driver, HasNodes)
    assert list(driver.nodes()) == info.facts["nodes_that_take_pods"] == list(WORKERS)
    assert Feature.NODES in info.features
    assert info.qualifiers["route"] == "node-port"
    assert "2 nodes take pods" in info.facts["route"]


@pytest.mark.parametrize("by", ["option", "spec"])
def test_a_pod_goes_to_the_node_that_is_named(make: Make, stub: Any, by: str) -> None:
    driver = make(**({"node": WORKERS[1]} if by == "option" else {}))
    assert driver.info().qualifiers.get("node") == (WORKERS[1] if by == "option" else None)
    spec = SPEC if by == "option" else Spec(labels=LABELS, node=WORKERS[1])
    with launched(driver, spec) as session:
        assert isinstance(session.instance, OnNodes)
        assert session.instance.on_nodes() == {WORKERS[1]: 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"node": "nowhere"}, "no node 'nowhere'"),
        ({"node": "stratalab-control-plane"}, "takes no pods"),
        ({"spread": "racks"}, "no spread 'racks'"),
        ({"spread": "nodes", "node": WORKERS[0]}, "one node, or spread"),
        ({"tolerate": "soon"}, "tolerate=soon"),
    ],
)
def test_what_cannot_be_meant_of_nodes_is_one_line(make: Make, options: dict[str, str], said: str) -> None:
    driver = make(**options)
    with pytest.raises(BadInput, match=said):
        driver.info()
        driver.prepare(SPEC)


def test_replicas_are_spread_over_the_nodes(make: Make, stub: Any) -> None:
    with launched(make("deployment", spread="nodes")) as session:
        assert isinstance(session.instance, Replicates) and isinstance(session.instance, OnNodes)
        session.instance.scale(4)
        wanted = dict.fromkeys(WORKERS, 2)
        assert _soon(session.instance.on_nodes, wanted) == wanted
        constraint = stub.listed("pods")[0]["spec"]["topologySpreadConstraints"][0]
        name = session.instance.id.partition("/")[2]
        assert constraint["labelSelector"]["matchLabels"] == {"stratalab/instance": name}


def test_draining_cordons_the_node_evicts_the_pod_and_gives_the_node_back(make: Make, stub: Any) -> None:
    with launched(make("deployment")) as session:
        instance = session.instance
        assert isinstance(instance, OnNodes)
        assert instance.on_nodes() == {WORKERS[1]: 1}, "it keeps off the way in"
        give_back = instance.drain()
        assert usable(stub.listed("nodes")) == [WORKERS[0]]
        assert len(stub.asked("POST", "/eviction$")) == 1
        assert _soon(instance.on_nodes, {WORKERS[0]: 1}) == {WORKERS[0]: 1}
        give_back()
        assert usable(stub.listed("nodes")) == list(WORKERS)


def test_an_eviction_that_is_refused_gives_the_node_back(make: Make, stub: Any, quick: None) -> None:
    with launched(make("deployment")) as session:
        stub.refuse("POST", "/eviction$", 429, "it would violate the pod's disruption budget", times=4)
        assert isinstance(session.instance, OnNodes)
        with pytest.raises(Exception, match="evict a pod"):
            session.instance.drain()
        assert usable(stub.listed("nodes")) == list(WORKERS)


def test_a_node_is_stopped_and_started_again_but_never_the_way_in(make: Make, stub: Any, kind: Any) -> None:
    with launched(make("deployment", tolerate="5")) as session:
        assert isinstance(session.instance, OnNodes)
        tolerations = stub.listed("pods")[0]["spec"]["tolerations"]
        assert {one["tolerationSeconds"] for one in tolerations} == {5}
        session.instance.stop_node()()
        calls = [call for call in kind.calls() if call[1] in ("stop", "start")]
        assert [call[1:] for call in calls] == [["stop", "--time", "0", WORKERS[1]], ["start", WORKERS[1]]]
    with launched(make(node=WORKERS[0])) as session:
        assert isinstance(session.instance, OnNodes)
        with pytest.raises(Unsupported, match="only way into the cluster"):
            session.instance.stop_node()


def test_pods_on_their_way_out_are_on_no_node() -> None:
    pods = [
        {"metadata": {}, "spec": {"nodeName": "a"}},
        {"metadata": {"deletionTimestamp": "now"}, "spec": {"nodeName": "a"}},
        {"metadata": {}, "spec": {}},
    ]
    assert pods_by_node(pods) == {"a": 1}
    assert Placement().of_pods({}) == {}


def _soon(ask: Callable[[], Any], wanted: Any) -> Any:
    import time

    deadline = time.monotonic() + 5
    while (found := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found
