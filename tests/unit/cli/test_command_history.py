"""`lab history`: what it reads, judges, shows and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_run import make_record
from typer.testing import CliRunner

from lab.cli.main import app
from lab.errors import BadInput, LabError
from lab.figures.nights import otava
from lab.figures.nights.night import CONFIRMS
from lab.host.facts import host_identity
from lab.store.database import Store
from lab.store.record import RunRecord

RUNNER = CliRunner()
KERNEL_NIGHT, SLOW_NIGHT, NIGHTS = 10, 12, 14


def night(place: int, **fields: object) -> RunRecord:
    delay = {"docker": 150.0} if place >= SLOW_NIGHT else None
    record = make_record(f"202601{place + 1:02d}-0000", n=6, seed=place, delays_ms=delay)
    host = {**record.host, "kernel": {"release": "6.8.0" if place >= KERNEL_NIGHT else "6.1.0"}}
    told = {"started_at": f"2026-01-{place + 1:02d}T02:00:00+00:00", "host_id": "h1", "host_name": "lab-1", **fields}
    return replace(record, host=host, run=replace(record.run, **told))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nights") / "lab.db"
    with Store.open(str(path)) as opened:
        for place in range(NIGHTS):
            opened.import_run(night(place))
        confirming = night(20)
        opened.import_run(replace(confirming, run=replace(confirming.run, parameters={CONFIRMS: "x"})))
        opened.import_run(night(2, id="other-host", host_id="h2", host_name="lab-2"))
        bigger = {**confirming.run.parameters, "spec": {"image": "stratalab/service", "memory_bytes": 1 << 30}}
        opened.import_run(night(1, id="bigger", parameters=bigger))
    return path


def lab(*words: str) -> str:
    done = RUNNER.invoke(app, list(words), terminal_width=200, env={"COLUMNS": "200"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def history(store: Path, *words: str) -> str:
    return lab("history", "boot", "--store", str(store), *words)


def test_json_tells_each_night_its_state_and_what_changed(store: Path) -> None:
    (host,) = json.loads(history(store, "--host", "lab-1", "--json"))["hosts"]
    assert len(host["nights"]) == NIGHTS and host["nights_judged"] == NIGHTS
    assert host["nights"][-1]["state"] == "suspect" and host["nights"][-1]["suspects"] == ["docker boot_s"]
    assert host["nights"][KERNEL_NIGHT]["host_changes"] == ["kernel 6.1.0 → 6.8.0"]
    (docker,) = [one for one in host["series"] if one["label"] == "docker"]
    assert docker["last"]["since"] == night(SLOW_NIGHT).run.id
    assert docker["last"]["low"] < docker["last"]["high"] < docker["last"]["value"]
    assert {one["metric"] for one in host["series"]} == {"boot_s"}
    assert host["left_out"] == ["1 run with cpus not given, not 1.0, memory 1073741824, not 134217728"] or (
        len(host["left_out"]) == 1 and "memory" in host["left_out"][0]
    )
    assert host["levels"]["suspects_per_year"] > host["levels"]["false_alarms_per_year_once_confirmed"]


def test_the_table_tells_the_same_in_words(store: Path) -> None:
    told = " ".join(history(store, "--host", "lab-1").split())
    assert "boot on lab-1: 14 nights shown" in told
    assert "suspect: docker boot_s." in told
    assert "process (control)" in told
    assert "kernel 6.1.0 → 6.8.0" in told
    assert "docs/nights.md" in told


def test_last_and_since_choose_what_is_shown_and_not_what_is_judged(store: Path) -> None:
    (host,) = json.loads(history(store, "--host", "h1", "--last", "2", "--json"))["hosts"]
    assert len(host["nights"]) == 2 and host["nights_judged"] == NIGHTS
    assert host["nights"][-1]["state"] == "suspect"
    (host,) = json.loads(history(store, "--host", "h1", "--since", "2026-01-05", "--json"))["hosts"]
    assert host["nights"][0]["at"].startswith("2026-01-05")


def test_hosts_are_judged_each_by_itself(store: Path) -> None:
    hosts = json.loads(history(store, "--host", "all", "--json"))["hosts"]
    assert {one["host_name"]: len(one["nights"]) for one in hosts} == {"lab-1": NIGHTS, "lab-2": 1}
    assert len(json.loads(history(store, "--json"))["hosts"]) == 2  # none is this one


def test_this_host_comes_first(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "a.db")) as opened:
        opened.import_run(night(0, host_id=host_identity().id))
        opened.import_run(night(1))
    assert len(json.loads(history(tmp_path / "a.db", "--json"))["hosts"]) == 1


def test_other_metrics_are_shown_where_they_are_asked_for_and_alarm_nobody(store: Path) -> None:
    (host,) = json.loads(history(store, "--host", "h1", "--metric", "phase_s,stop_s", "--json"))["hosts"]
    assert {one["metric"] for one in host["series"]} == {"phase_s", "stop_s"}
    assert not any(one["suspects"] for one in host["nights"])


def test_the_least_that_matters_is_the_users(store: Path) -> None:
    (host,) = json.loads(history(store, "--host", "h1", "--least", "500%", "--json"))["hosts"]
    assert not any(one["suspects"] for one in host["nights"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--least", "0"), "least"),
        (("--least", "x"), "share"),
        (("--least", "nan"), "least"),
        (("--since", "yesterday"), "date"),
        (("--host", "nowhere"), "no host 'nowhere'"),
        (("--metric", "boots"), "no metric boots"),
        (("--otava", "/no/such/python"), "no interpreter"),
        (("--html", "/no/such/folder/x.html"), "x.html"),
    ],
)
def test_bad_input_is_one_line(store: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput) as raised:
        history(store, "--host", "h1", *words) if "--host" not in words else history(store, *words)
    assert said in str(raised.value) and "\n" not in raised.value.brief


def test_no_runs_and_no_such_scenario_are_told_apart(tmp_path: Path, store: Path) -> None:
    with pytest.raises(LabError, match="no runs of boot yet"):
        history(tmp_path / "empty.db")
    with pytest.raises(BadInput, match="no runs of memory yet"):
        lab("history", "memory", "--store", str(store))
    with pytest.raises(BadInput, match="no scenario 'bout'"):
        lab("history", "bout", "--store", str(store))


def test_the_page_opens_without_a_network_and_its_points_lead_to_their_runs(store: Path, tmp_path: Path) -> None:
    history(store, "--host", "h1", "--html", str(tmp_path / "n.html"))
    page = (tmp_path / "n.html").read_text()
    for place in range(NIGHTS):
        assert f'id="run-{night(place).run.id}"' in page
    assert "plotly_click" in page and "kernel 6.1.0 → 6.8.0" in page
    assert page.count('class="chart"') == 3
    assert "default-src 'none'" in page


def test_names_from_elsewhere_are_escaped(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "a.db")) as opened:
        for place in range(9):
            opened.import_run(night(place, host_name="<script>alert(1)</script>\x1b[31m"))
    told = history(tmp_path / "a.db", "--html", str(tmp_path / "n.html"))
    assert "\x1b[31m" not in told
    assert "<script>alert" not in (tmp_path / "n.html").read_text()


@pytest.fixture
def pretended(tmp_path: Path) -> Iterator[Path]:
    """An interpreter whose Otava finds a step wherever it is told to look: at 12 and at the last value."""
    (tmp_path / "otava").mkdir()
    (tmp_path / "otava" / "__init__.py").touch()
    (tmp_path / "otava" / "analysis.py").write_text(
        "class Stats:\n    pvalue = 1e-9\n\nclass Point:\n    stats = Stats()\n\n"
        "def compute_change_points(values, max_pvalue):\n"
        "    assert None not in values and max_pvalue == 1e-4\n"
        "    found = []\n"
        "    for index in (10, len(values) - 1):\n"
        "        point = Point(); point.index = index; found.append(point)\n"
        "    return found, None\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    yield python


def test_otava_is_asked_without_gaps_and_its_last_points_and_small_ones_are_not_told(pretended: Path) -> None:
    runs = [f"r{place}" for place in range(30)]
    stepped: list[float | None] = [1.0 + (0.5 if place >= 12 else 0.0) for place in range(30)]
    stepped[3] = stepped[5] = None
    small: list[float | None] = [1.0 + (0.01 if place >= 10 else 0.0) for place in range(30)]
    found = otava.change_points(str(pretended), runs, [stepped, [1.0] * 30, small, [1.0, 2.0]], least=0.05)
    assert [[(one.place, one.run) for one in points] for points in found] == [[(12, "r12")], [], [], []]
    assert found[0][0].times == pytest.approx(1.5)


def test_an_interpreter_without_otava_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('otava'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if done.stdout.strip() != "None":
        pytest.skip("Otava is installed here")
    runs = [str(place) for place in range(20)]
    with pytest.raises(BadInput, match="could not be asked") as raised:
        otava.change_points(sys.executable, runs, [[float(place) for place in range(20)]], least=0.05)
    assert "\n" not in raised.value.brief
    assert otava.interpreter(None) is None


def test_a_terminal_without_blocks_is_given_other_characters_for_them(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "history", "boot", "--host", "h1", "--store", str(store)],
        capture_output=True, check=True, env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin", "COLUMNS": "120"},
        cwd=Path(__file__).parents[3], timeout=120,
    )  # fmt: skip
    told = done.stdout.decode("ascii")
    assert "?" not in told.split("metric")[1].split("- ")[0]
