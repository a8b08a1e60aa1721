"""`lab cost` as typed: which runs it takes, what it prints, and the one line for what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_cost import make_run
from typer.testing import CliRunner

from lab.cli import command_cost
from lab.cli.main import app
from lab.errors import BadInput, IncomparableRuns, LabError
from lab.figures.cost.measured import CALLS, INIT, WARM
from lab.host.facts import host_facts
from lab.host.ownership import Owner
from lab.store.database import Store
from lab.store.record import RunRecord, RunStatus
from lab.units import MIB

ME = str(Owner.current())


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return dict(host_facts())


def keep(store: Path, *records: RunRecord) -> None:
    with Store.open(str(store), is_alive=lambda _: False) as opened:
        for record in records:
            opened.begin(record.run, record.host)
            for target in record.targets:
                opened.set_target(record.run.id, target)
            opened.add_samples(record.run.id, record.samples)
            opened.finish(record.run.id, record.run.status, "2026-01-01T10:05:00+00:00")


def runs(here: dict[str, Any]) -> list[RunRecord]:
    of_init, of_warm = CALLS[INIT], CALLS[WARM]
    init = make_run("coldstart", {("lambda", of_init[0]): [[0.1]] * 8}, dimensions=dict([of_init]), host=here, owner=ME)
    warm = make_run(
        "coldstart", {("lambda", of_warm[0]): [[0.002, 0.003]] * 8}, dimensions=dict([of_warm]), host=here, owner=ME
    )
    held = {("docker", "pss_bytes"): [[15.0 * MIB]] * 8, ("docker", "idle_cpus"): [[0.001]] * 8}
    return [
        replace(warm, samples=[*init.samples, *warm.samples]),
        make_run("memory", held, host=here, owner=ME),
        make_run("overhead", {("docker", "request_s"): [[0.001]] * 8}, host=here, owner=ME),
    ]


def lab(*arguments: str) -> str:
    """What it prints; its errors are raised, which `main` makes an exit code of."""
    result = CliRunner().invoke(app, ["cost", *arguments], catch_exceptions=False, standalone_mode=False)
    if isinstance(result.exception, LabError):
        raise result.exception
    return result.output


def test_the_last_runs_of_this_host_are_taken_and_named(tmp_path: Path, here: dict[str, Any]) -> None:
    store = tmp_path / "lab.db"
    elsewhere = make_run("memory", {("docker", "pss_bytes"): [[1.0]] * 8}, run_id="elsewhere", owner="far:boot:1:1")
    elsewhere = replace(elsewhere, run=replace(elsewhere.run, started_at="2026-03-01T10:00:00+00:00"))
    broken = make_run(
        "overhead",
        {("docker", "request_s"): [[9.0]]},
        run_id="broken",
        host=here,
        owner=ME,
        status=RunStatus.INTERRUPTED,
    )
    broken = replace(broken, run=replace(broken.run, started_at="2026-03-01T10:00:00+00:00"))
    keep(store, *runs(here), elsewhere, broken)
    told = json.loads(lab("--store", str(store), "--json"))
    assert told["runs"] == ["memory 20260101-memory", "overhead 20260101-overhead", "coldstart 20260101-coldstart"]
    assert told["currency"] == "USD"
    kinds = {line["kind"]: line for line in told["lines"] if not line["reason"]}
    assert set(kinds) == {"container", "function"}
    assert len(told["break_even"]) == 2
    for one in told["break_even"]:
        assert one["calls_per_hour"]["n"] == 8 and one["never_dearer"] is False
        assert 0 < one["calls_per_hour"]["low"] <= one["calls_per_hour"]["value"] <= one["calls_per_hour"]["high"]
    assert all(price["source"] and price["date"] for price in told["prices"])


def test_runs_that_are_named_are_taken_and_no_others(tmp_path: Path, here: dict[str, Any]) -> None:
    store = tmp_path / "lab.db"
    keep(store, *runs(here))
    told = json.loads(lab("20260101-overhead", "--store", str(store), "--json"))
    assert told["runs"] == ["overhead 20260101-overhead"]
    assert told["break_even"] == []


def test_the_table_and_the_page_say_the_same(
    tmp_path: Path, here: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    store, page = tmp_path / "lab.db", tmp_path / "cost.html"
    keep(store, *runs(here))
    machine = ["--machine-price", "800", "--machine-years", "4", "--machine-watts", "35"]
    printed = lab("--store", str(store), "--html", str(page), "--rates", "1,1000", *machine)
    shown = _words(page.read_text())
    for needed in (
        "AWS Fargate (Linux/x86)",
        "AWS Lambda (x86)",
        "docker, 0.25 vCPU, 0.5 GB",
        "every call cold",
        "lambda, every call warm",
        "own machine",
        "what a cloud would do",
        "730 h",
        "USD",
        "2026-01-19",
        "https://aws.amazon.com/lambda/pricing/",
        "20260101-memory",
        "at 1,000/h",
    ):
        assert needed in printed, needed
        assert needed in shown, needed
    assert 'id="cost"' in page.read_text()
    assert "break-even" in page.read_text()


def _words(text: str) -> str:
    words: list[str] = []

    class Reader(HTMLParser):
        inside = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag

        def handle_data(self, data: str) -> None:
            if self.inside not in ("script", "style"):
                words.append(data)

    Reader().feed(text)
    return " ".join(" ".join(words).split())


def test_a_table_of_ones_own_takes_the_place_of_the_other(tmp_path: Path, here: dict[str, Any]) -> None:
    store, mine = tmp_path / "lab.db", tmp_path / "mine.toml"
    keep(store, *runs(here))
    mine.write_text(lab("--print-prices").replace('currency = "USD"', 'currency = "CHF"'))
    assert json.loads(lab("--store", str(store), "--prices", str(mine), "--json"))["currency"] == "CHF"


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["--rates", "0"], "--rates"),
        (["--rates", "many"], "--rates"),
        (["--rates", "1,2,3,4,5,6,7"], "--rates"),
        (["--cold-share", "120%"], "--cold-share"),
        (["--cold-share", "some"], "5%"),
        (["--function-memory", "much"], "128M"),
        (["--machine-price", "-1", "--machine-years", "4", "--machine-watts", "1"], "--machine-price"),
        (["--machine-price", "800"], "belong together"),
        (["--kwh-price", "nan"], "--kwh-price"),
        (["--prices", "/not/there.toml"], "/not/there.toml"),
        (["no-such-run"], "no-such-run"),
    ],
)
def test_what_is_wrong_is_told_on_one_line(
    arguments: list[str], told: str, tmp_path: Path, here: dict[str, Any]
) -> None:
    store = tmp_path / "lab.db"
    keep(store, *runs(here))
    with pytest.raises(BadInput) as caught:
        lab(*arguments, "--store", str(store))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_runs_of_two_hosts_are_not_put_together(tmp_path: Path, here: dict[str, Any]) -> None:
    store = tmp_path / "lab.db"
    elsewhere = make_run("memory", {("docker", "pss_bytes"): [[1.0]] * 8}, run_id="elsewhere", owner="far:boot:1:1")
    keep(store, *runs(here), elsewhere)
    with pytest.raises(IncomparableRuns, match="different hosts"):
        lab("elsewhere", "20260101-overhead", "--store", str(store))


def test_an_empty_store_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lab run memory"):
        lab("--store", str(tmp_path / "lab.db"))


def test_the_defaults_are_those_that_help_tells() -> None:
    assert command_cost.CostOptions().rates == [10, 1000, 100_000]
