"""The command line as a script and a person see it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest
from lab_command import Lab, make_lab

from lab.errors import LabError
from lab.run.lock import host_lock
from lab.store.database import Store

exact = pytest.mark.alone
"""An attempt to reach a fake service is made in real time: where others keep the CPUs busy, a figure is not the same
each time."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Runs the real command with a fake and a broken driver installed, its state in a directory of this test's."""
    return make_lab(tmp_path)


@exact
def test_a_run_is_stored_shown_and_exported(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake", "--rounds", "6", "--json")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert set(told) == {"format", "version", "run", "host", "targets", "samples", "timelines"}
    assert set(told["samples"][0]) == {"target", "metric", "value", "unit", "iteration", "warmup", "dimensions"}
    assert {sample["value"] for sample in told["samples"] if sample["metric"] == "boot_s"} == {0.0615}
    phases = {(s["dimensions"]["from"], s["dimensions"]["to"]) for s in told["samples"] if s["metric"] == "phase_s"}
    assert ("main", "listening") in phases and ("requested", "created") in phases
    (row,) = json.loads(lab("runs", "--json").stdout)
    assert {"id", "scenario", "started_at", "status", "host", "accepted_at", "notes"} <= set(row)
    assert row["status"] == "done" and row["host"]["id"] == told["run"]["host_id"] != ""
    assert json.loads(lab("export", row["id"], "--format", "json").stdout) == told
    lines = lab("export", "last", "--format", "csv").stdout.splitlines()
    assert len(lines) == 1 + len(told["samples"]) and lines[0].startswith("target,metric,value,unit,iteration,warmup")
    shown = lab("show", row["id"][:12]).stdout
    assert "fake" in shown and "61.5" in shown


def test_what_is_not_there_is_a_row_with_its_remedy_and_the_others_go_on(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake,broken", "--rounds", "2")
    assert ran.returncode == 0
    assert "the engine is not there" in ran.stdout and "install it" in ran.stdout
    assert lab("run", "boot", "-t", "broken", "--rounds", "2").returncode == 1


def test_a_target_that_fails_gives_1_and_its_failures_are_kept(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake", "--rounds", "5", "--json", FAIL_LAUNCHES="100")
    assert ran.returncode == 1
    told = json.loads(ran.stdout)
    assert [launch["outcome"] for launch in told["timelines"]] == ["failed"] * 3
    assert told["timelines"][0]["logs"] == "said so"


@exact
def test_a_slower_run_is_a_regression_and_an_equal_one_is_not(lab: Lab) -> None:
    for main_s in ("0.03", "0.03", "0.08"):
        assert lab("run", "boot", "-t", "fake", "--rounds", "10", MAIN_S=main_s).returncode == 0
    slower, equal, first = (row["id"] for row in json.loads(lab("runs", "--json").stdout))
    same = lab("compare", first, equal, "--fail-on-regression")
    assert same.returncode == 0, same.stdout + same.stderr
    worse = lab("compare", first, slower, "--fail-on-regression")
    assert worse.returncode == 3, worse.stdout + worse.stderr
    assert lab("compare", first, slower).returncode == 0
    assert lab("compare", slower, first, "--fail-on-regression").returncode == 0


def test_runs_that_cannot_be_compared_give_4(lab: Lab) -> None:
    lab("run", "boot", "-t", "fake", "--rounds", "6")
    lab("run", "boot", "-t", "fake", "--rounds", "6", "--memory", "256M")
    a, b = (row["id"] for row in json.loads(lab("runs", "--json").stdout))
    ran = lab("compare", a, b)
    assert ran.returncode == 4 and "memory" in ran.stderr and "Traceback" not in ran.stderr


def test_no_value_of_env_stands_anywhere_and_a_change_is_seen(lab: Lab, tmp_path: Path) -> None:
    secret = "hush-hush-4711"
    (tmp_path / "env").write_text(f"IN_FILE={secret}\n")
    given = ("--env", f"TOKEN={secret}", "--env", "PASSED_ON", "--env-file", str(tmp_path / "env"), "--rounds", "6")
    page = tmp_path / "boot.html"
    ran = lab("run", "boot", "-t", "fake", *given, "--json", "--html", str(page), PASSED_ON=secret)
    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)["run"]["parameters"]["spec"]["environment"]) == {"TOKEN", "PASSED_ON", "IN_FILE"}
    lab("run", "boot", "-t", "fake", *given, PASSED_ON=secret)
    lab("run", "boot", "-t", "fake", *given, PASSED_ON="another")
    changed, again, first = (row["id"] for row in json.loads(lab("runs", "--json").stdout))
    same, differing = lab("compare", first, again), lab("compare", first, changed)
    assert "environment" not in same.stdout
    assert "environment.PASSED_ON" in differing.stdout and "environment.TOKEN" not in differing.stdout
    told = [ran.stdout, ran.stderr, page.read_text(), same.stdout, differing.stdout]
    told += [lab(*words, "last").stdout for words in (("show",), ("show", "--json"), ("export",))]
    kept = [path.read_bytes().decode(errors="replace") for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert kept and not [text for text in (*told, *kept) if secret in text]


def test_an_older_runs_values_are_not_exported(lab: Lab, tmp_path: Path) -> None:
    assert lab("run", "boot", "-t", "fake", "--rounds", "2", "--env", "TOKEN=x").returncode == 0
    with sqlite3.connect(tmp_path / "state/stratalab/lab.db") as database:
        (text,) = database.execute("select parameters from lab_runs").fetchone()
        older = json.loads(text)
        older["spec"]["environment"] = {"TOKEN": "hush-hush"}
        database.execute("update lab_runs set parameters = ?", (json.dumps(older),))
    for words in (("show", "--json"), ("export", "last"), ("show",)):
        shown = lab(*words)
        assert shown.returncode == 0 and "hush" not in shown.stdout
    assert lab("report", "last", "--html", str(tmp_path / "page.html")).returncode == 0
    assert "hush" not in (tmp_path / "page.html").read_text()


def test_the_report_opens_without_a_network(lab: Lab, tmp_path: Path) -> None:
    page = tmp_path / "boot.html"
    assert lab("run", "boot", "-t", "fake", "--rounds", "3", "--html", str(page)).returncode == 0
    assert "fake" in page.read_text() and 'src="http' not in page.read_text()
    again = tmp_path / "again.html"
    assert lab("report", "last", "--html", str(again)).returncode == 0
    assert again.stat().st_size > 100_000


@pytest.mark.parametrize(
    "arguments,named",
    [
        (["run", "boot", "-t", "nonsense"], "nonsense"),
        (["run", "boot", "-t", "fake:nope", "--rounds", "1"], "nope"),
        (["run", "bot", "-t", "fake"], "boot"),
        (["run", "boot", "-t", "fake", "--rounds", "0"], "rounds"),
        (["run", "boot", "-t", "fake", "--memory", "lots"], "memory"),
        (["run", "boot", "-t", "fake", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (["run", "boot", "-t", "fake", "-o", "nonsense"], "KEY=VALUE"),
        (["run", "boot", "--rounds", "many"], "--rounds"),
        (["show", "19990101-nothing"], "19990101"),
        (["export", "last", "--format", "xml"], "xml"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_2(lab: Lab, arguments: list[str], named: str) -> None:
    if arguments[0] == "export":
        lab("run", "boot", "-t", "fake", "--rounds", "1")
    ran = lab(*arguments)
    assert ran.returncode == 2, ran.stderr
    assert named in ran.stderr and "Traceback" not in ran.stderr
    assert ran.stdout == ""


@pytest.mark.engine("libvirt")
@exact
def test_a_missing_kernel_is_one_clear_line_and_the_other_targets_go_on(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake,libvirt:q35", "--kernel", "/no/such/kernel", "--rounds", "2", "--json")
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    told = json.loads(ran.stdout)
    outcome = {target["target"]: target for target in told["targets"]}
    assert "/no/such/kernel" in outcome["libvirt:q35"]["reason"] and outcome["libvirt:q35"]["outcome"] == "skipped"
    assert sum(launch["target"] == "fake" for launch in told["timelines"]) == 3


def test_a_store_that_is_no_database_is_one_clear_line_and_left_as_it_is(lab: Lab, tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear reader, " * 2000)
    before = letter.read_bytes()
    ran = lab("run", "boot", "-t", "fake", "--store", str(letter))
    assert ran.returncode in (1, 2) and "letter.txt" in ran.stderr and "Traceback" not in ran.stderr
    assert letter.read_bytes() == before


def test_a_port_in_use_is_one_clear_line(lab: Lab) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = lab("run", "boot", "-t", "fake", "--host-port", port)
    assert ran.returncode == 2 and port in ran.stderr and "Traceback" not in ran.stderr


def test_a_run_left_open_by_a_dead_process_is_shown_as_interrupted(lab: Lab, tmp_path: Path) -> None:
    lab("run", "boot", "-t", "fake", "--rounds", "1")
    database = tmp_path / "state" / "stratalab" / "lab.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE lab_runs SET status = 'running', ended_at = NULL")
    (row,) = json.loads(lab("runs", "--json").stdout)
    assert row["status"] == "interrupted"


def test_dry_run_shows_the_plan_and_leaves_no_run(lab: Lab) -> None:
    ran = lab("run", "boot", "-t", "fake,broken", "--rounds", "4", "--dry-run")
    assert ran.returncode == 0 and "5 launches" in " ".join(ran.stderr.split())
    assert json.loads(lab("runs", "--json").stdout) == []


def test_doctor_tells_what_works_and_what_mends_the_rest(lab: Lab) -> None:
    told = json.loads(lab("doctor", "--json").stdout)
    engines = {engine["name"]: engine for engine in told["engines"]}
    assert engines["fake"]["info"]["engine"] == "fake"
    assert engines["broken"]["remedy"] == "install it" and not engines["broken"]["info"]
    assert "install it" in lab("doctor").stdout


def test_clean_asks_before_it_removes(lab: Lab) -> None:
    told = json.loads(lab("clean", "--dry-run", "--json").stdout)
    assert set(told) == {"found", "removed", "problems", "not_looked_at", "cache"} and told["removed"] == []
    assert told["not_looked_at"]["broken"] == "the engine is not there"


@exact
def test_calibration_a_known_delay_comes_out_of_every_end(lab: Lab, tmp_path: Path) -> None:
    """20 + 10 + 1 + 0.5 ms of fixed steps and a `main` that takes 468.5 ms: 500 ms in store, table, CSV and report."""
    for main_s in ("0.4685", "0.5185"):
        assert lab("run", "boot", "-t", "fake", "--rounds", "8", MAIN_S=main_s).returncode == 0
    second, first = (row["id"] for row in json.loads(lab("runs", "--json").stdout))
    with Store.open(str(tmp_path / "state" / "stratalab" / "lab.db")) as store:
        kept = [sample.value for sample in store.load(first).samples if sample.metric == "boot_s"]
    assert kept == [0.5] * 9
    exported = lab("export", first, "--format", "csv").stdout
    assert exported.count("fake,boot_s,0.5,s,") == 9
    assert "500 ms" in lab("show", first).stdout
    compared = json.loads(lab("compare", first, second, "--json").stdout)
    (total,) = [row for row in compared["rows"] if row["metric"] == "boot_s"]
    assert total["ratio"]["value"] == pytest.approx(1.1)
    page = tmp_path / "page.html"
    lab("report", first, "--html", str(page))
    assert "500 ms" in page.read_text()


@pytest.mark.alone  # it holds the lock of the whole host
def test_a_run_with_nothing_to_do_waits_for_nobody_and_prints_no_empty_brackets(lab: Lab, tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        with contextlib.suppress(LabError):  # a run of somebody else's holds this host: as good
            held.enter_context(host_lock("another"))
        started = time.monotonic()
        ran = lab("run", "boot", "-t", "broken", "--wait", REMEDY="")
        assert time.monotonic() - started < 60
    assert ran.returncode == 1
    assert "waiting" not in ran.stderr and "skipped broken: the engine is not there" in ran.stderr
    assert "()" not in ran.stderr + ran.stdout
