"""`lab cluster up|down|status`, on the driver that has a cluster to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.cli.command_cluster import cluster_down, cluster_status, cluster_up
from lab.errors import DriverUnavailable


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_up_status_and_down(capsys: pytest.CaptureFixture[str], kind: Any) -> None:
    options = {"kind-image": "kindest/node:own"}
    cluster_up(options=options, as_json=False)
    told = capsys.readouterr()
    assert "node image: kindest/node:own" in told.out and "making the cluster 'stratalab'" in told.err
    cluster_status(options={}, as_json=True)
    assert json.loads(capsys.readouterr().out)["version"] == "v1.28.0"
    cluster_down(options={}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"removed": True} and not kind.names()
    cluster_down(options={}, as_json=False)
    assert "there is none" in capsys.readouterr().out


def test_status_without_a_cluster_names_the_remedy() -> None:
    with pytest.raises(DriverUnavailable) as raised:
        cluster_status(options={}, as_json=False)
    assert raised.value.resolution == "lab cluster up"
