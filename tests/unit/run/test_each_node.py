"""A turn on each machine of an engine, and how an instance loses its own: on the fake engine, which is given three."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from lab.cli.options import read_options
from lab.driver import Context
from lab.errors import BadInput
from lab.features import Feature
from lab.figures.series import series_of
from lab.registry import make_scenario
from lab.run.runner import Plan
from lab.store.database import Store
from lab.store.record import RunRecord
from lab.testing import FakeDriver
from lab.testing.fake import FakeInstance
from scenarios.recover import Recover
from tests.unit.run.test_runner import Watcher, a_run

NODES = ("n1", "n2", "n3")
Measure = Callable[..., RunRecord]


class NodedInstance(FakeInstance):
    """Moves, when its node is lost, as a Deployment's pod does: another replica takes its place."""

    given_back: ClassVar[list[str]] = []

    def on_nodes(self) -> Mapping[str, int]:
        return {self._spec.node or NODES[0]: 1}

    def drain(self) -> Callable[[], None]:
        self._change(self._replace_each)
        return lambda: self.given_back.append("drained")

    def stop_node(self) -> Callable[[], None]:
        self._keep(0)
        return lambda: self.given_back.append("stopped")


class NodedDriver(FakeDriver):
    made = NodedInstance

    def nodes(self) -> Sequence[str]:
        return NODES


@pytest.fixture
def noded(tmp_path: Path) -> NodedDriver:
    made = NodedDriver("", Context(run_dir=tmp_path, cache_dir=tmp_path))
    made.engine.features |= {Feature.NODES}
    NodedInstance.given_back.clear()
    return made


def test_each_round_has_a_turn_on_each_node_in_an_order_by_chance(tmp_path: Path, noded: NodedDriver) -> None:
    plain = FakeDriver("", _context(tmp_path))
    watcher = Watcher()
    with Store.open(str(tmp_path / "lab.db")) as store:
        plan = Plan(rounds=8, warmup=0, seed=1, each_node=True)
        a_run(store, {"a": noded, "b": plain}, plan, watcher).execute()
        record = store.load("r1")
    rows = {
        row.dimensions.get("node"): row for row in series_of(record) if row.metric == "boot_s" and row.target == "a"
    }
    assert {name: len(row.values) for name, row in rows.items()} == dict.fromkeys(NODES, 8)
    launched = [str(launch.facts["node"]) for launch in record.launches if launch.target == "a"]
    rounds = [tuple(launched[at : at + 3]) for at in range(0, len(launched), 3)]
    assert all(sorted(one) == list(NODES) for one in rounds)
    assert len(set(rounds)) > 1
    assert not any("node" in sample.dimensions for sample in record.samples if sample.target == "b")


def test_what_cannot_be_meant_of_each_node_is_one_line() -> None:
    given = {"targets": ["process"], "param": ["nodes=each", "within=9"]}
    options = read_options(given, None)
    assert options.each_node
    assert make_scenario("recover", options.scenario_param) == Recover(within=9)
    with pytest.raises(BadInput, match="nodes=all"):
        read_options({"targets": ["process"], "param": ["nodes=all"]}, None)
    with pytest.raises(BadInput, match="--until-ci and nodes=each"):
        read_options({"targets": ["process"], "param": ["nodes=each"], "until_ci": "5%"}, None)


def test_recovering_from_a_drained_node_is_timed_and_the_node_is_given_back(
    noded: NodedDriver, measure: Measure
) -> None:
    record = measure(Recover(by="drain", within=10), noded, noded.engine.clock)
    found = {sample.metric: sample for sample in record.samples if sample.metric in ("recover_s", "recovered")}
    assert found["recovered"].value == 1
    assert found["recover_s"].value > 0
    assert found["recovered"].dimensions["by"] == "drain"
    assert NodedInstance.given_back == ["drained"]


def test_an_instance_that_stays_lost_with_its_node_is_never_and_the_node_is_given_back(
    noded: NodedDriver, measure: Measure
) -> None:
    record = measure(Recover(by="node", within=0.3), noded)
    values = {sample.metric: sample.value for sample in record.samples}
    assert values["recovered"] == 0
    assert "recover_s" not in values
    assert NodedInstance.given_back == ["stopped"]


def test_losing_a_node_asks_for_nodes_and_killing_for_processes() -> None:
    assert make_scenario("recover").requires == {Feature.NETWORK, Feature.HOST_PIDS}
    assert make_scenario("recover", {"by": "drain"}).requires == {Feature.NETWORK, Feature.NODES}


def _context(tmp_path: Path) -> Context:
    other = tmp_path / "other"
    other.mkdir()
    return Context(run_dir=other, cache_dir=other)
