"""The scenario `cluster`: a cluster of its own, its steps in order, and nothing left of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster import cost
from drivers.kubernetes.objects.labels import owner_of
from lab.driver import Context
from lab.errors import DriverError
from lab.host.ownership import Owner
from lab.launch.waiter import reserve_port
from lab.spec import Spec
from lab.store.record import Outcome, RunRecord
from scenarios.cluster import Cluster


@pytest.fixture
def driver(tmp_path: Path, stub: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesDriver]:
    binary = tmp_path / "service"
    binary.write_bytes(b"\x7fELF service")
    monkeypatch.setattr("drivers.kubernetes.cluster.images.build_service", lambda _: binary)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    kind.make(ports={30000: reserve_port()})
    made = KubernetesDriver("", Context(run_dir=run_dir, cache_dir=tmp_path / "cache"))
    yield made
    made.close()


def test_the_scenario_tells_each_step_and_leaves_no_cluster(
    driver: KubernetesDriver, kind: Any, measure: Callable[..., RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def is_ready(port: int) -> bool:
        asked.append(port)
        return len(asked) > 1

    monkeypatch.setattr(cost, "_is_ready", is_ready)
    record = measure(Cluster(), driver)
    values = {sample.metric: sample.value for sample in record.samples}
    assert [target.outcome for target in record.targets] == [Outcome.OK]
    assert 0 < values["api_s"] < values["node_ready_s"] < values["first_pod_s"] and values["remove_s"] > 0
    (created,) = [call for call in kind.calls() if call[1:3] == ["create", "cluster"]]
    name = created[created.index("--name") + 1]
    assert name != "stratalab" and not kind.has(name) and kind.has("stratalab")
    assert created[created.index("--image") + 1] == "kindest/node:v1.28.0"
    config = yaml.safe_load((kind.directory / "config").read_text())
    assert config["networking"] == {"apiServerAddress": "127.0.0.1", "apiServerPort": asked[0]}
    assert "extraPortMappings" not in config["nodes"][0]
    assert owner_of(config["nodes"][0]["labels"])["lab.owner"] == str(Owner.current())
    assert driver._clusters.unfinished({}) == []


def test_a_cluster_that_cannot_be_made_is_an_error_and_leaves_nothing(driver: KubernetesDriver, kind: Any) -> None:
    kind.fail("ERROR: failed to create cluster: no space left on device")
    with pytest.raises(DriverError, match="no space left"):
        driver.cluster_cost(Spec(labels={"lab.run": "r1"}), lambda _: None)
    assert kind.calls()[-1][1:] == ["get", "clusters"] and not [n for n in kind.names() if n != "stratalab"]


def test_it_is_made_with_the_config_of_the_labs_own(
    driver: KubernetesDriver, kind: Any, stub: Any, tmp_path: Path
) -> None:
    path = tmp_path / "kind.yaml"
    told = {"ports": {}, "facts": {"kind_config": {"networking": {"podSubnet": "10.9.0.0/16"}}}}
    stub.listed("configmaps")[0]["data"]["cluster"] = json.dumps(told)
    kind.fail("ERROR: enough")
    with pytest.raises(DriverError):
        driver.cluster_cost(Spec(labels={"lab.run": "r1"}), lambda _: None)
    assert yaml.safe_load((kind.directory / "config").read_text())["networking"]["podSubnet"] == "10.9.0.0/16"
    path.write_text("networking: {podSubnet: 10.8.0.0/16}")
    options = {"kind-config": str(path)}
    other = KubernetesDriver("", Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", options=options))
    with pytest.raises(DriverError):
        other.cluster_cost(Spec(labels={"lab.run": "r1"}), lambda _: None)
    other.close()
    assert yaml.safe_load((kind.directory / "config").read_text())["networking"]["podSubnet"] == "10.8.0.0/16"


def test_an_api_that_does_not_listen_is_not_ready() -> None:
    assert cost._is_ready(reserve_port()) is False
