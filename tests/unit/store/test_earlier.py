"""A store and exports that an earlier lab made, before its modules moved into rooms: they open, and read as they did.

`tests/data/earlier` was made by the lab of commit ba5ec63, with two runs of `boot` and one of `memory` on `process`;
what names the machine was replaced in the store, and the exports were made from that.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cli.main import main
from lab.store.database import Store
from lab.store.record import RunStatus

EARLIER = Path(__file__).parents[2] / "data/earlier"
RUNS = {"boot": "20261130-143509-4a5c", "memory": "20261130-143511-a234"}
LATER_BOOT = "20261130-143524-d136"

Lab = Callable[..., str]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lab:
    """The command, on a copy of the earlier store; gives what it printed."""
    store = shutil.copy(EARLIER / "lab.db", tmp_path / "lab.db")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lab", *arguments, "--store", str(store)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert ended.value.code == 0, told.err
        return told.out

    return run


def exported(scenario: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((EARLIER / f"{scenario}.json").read_text())
    return told


def as_then(told: dict[str, Any]) -> dict[str, Any]:
    """An export without what is told since."""
    told = {key: value for key, value in told.items() if key in exported("boot")}
    return {**told, "run": {key: value for key, value in told["run"].items() if key in exported("boot")["run"]}}


def median_ms(scenario: str, metric: str, **dimensions: str) -> float:
    values = sorted(
        sample["value"] * 1000
        for sample in exported(scenario)["samples"]
        if sample["metric"] == metric and not sample["warmup"] and dimensions.items() <= sample["dimensions"].items()
    )
    return float(values[len(values) // 2])


def test_it_lists_its_runs(lab: Lab) -> None:
    found = {run["id"]: (run["scenario"], run["status"]) for run in json.loads(lab("runs", "--json"))}
    assert found == {RUNS["boot"]: ("boot", "done"), RUNS["memory"]: ("memory", "done"), LATER_BOOT: ("boot", "done")}


@pytest.mark.parametrize("scenario", RUNS)
def test_it_exports_what_the_earlier_lab_exported(lab: Lab, scenario: str) -> None:
    told = lab("export", RUNS[scenario], "--format", "json")
    assert as_then(json.loads(told)) == exported(scenario)
    lines = lab("export", RUNS[scenario], "--format", "csv").splitlines()
    assert len(lines) == 1 + len(exported(scenario)["samples"]) > 30


def test_it_shows_the_figures(lab: Lab) -> None:
    assert f"{median_ms('boot', 'boot_s'):.3g} ms" in lab("show", RUNS["boot"])
    shown = lab("show", RUNS["memory"])
    assert "process" in shown and re.search(r"\d KiB|\d MiB", shown)


def test_two_of_its_runs_are_compared(lab: Lab) -> None:
    told = json.loads(lab("compare", RUNS["boot"], LATER_BOOT, "--json"))
    (total,) = [row for row in told["rows"] if row["metric"] == "boot_s"]
    assert total["ratio"]["value"] == pytest.approx(0.877, abs=0.001)  # as the earlier lab said


@pytest.mark.parametrize("scenario", RUNS)
def test_it_is_reported(lab: Lab, scenario: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    lab("report", RUNS[scenario], "--html", str(page))
    assert RUNS[scenario] in page.read_text() and "process" in page.read_text()


def test_a_new_run_is_kept_beside_the_earlier_ones(tmp_path: Path, make_record: Any) -> None:
    path = shutil.copy(EARLIER / "lab.db", tmp_path / "lab.db")
    with Store.open(str(path)) as store:
        store.begin(make_record("new", n=0).run, {})
        store.finish("new", RunStatus.DONE, "2026-12-01T00:00:00+00:00")
        assert len(store.runs()) == 4
        assert as_then(store.load(RUNS["boot"]).to_json()) == exported("boot")
