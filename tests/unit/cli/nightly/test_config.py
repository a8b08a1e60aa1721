"""The file of a nightly job."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from lab.cli.nightly import config
from lab.cli.nightly.against import _toml
from lab.cli.nightly.config import Job, read_job
from lab.errors import BadInput
from lab.show.formats import FORMATS

LEAST_JOB = "[scenarios.boot]\ntargets = ['process']\n"


def read(tmp_path: Path, text: str) -> Job:
    path = tmp_path / "nightly.toml"
    path.write_text(text)
    return read_job(path)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, text)
    assert caught.value.resolution == "see docs/nightly.md"
    return [line.strip() for line in caught.value.brief.splitlines()[1:]]


def test_a_scenario_and_its_targets_are_enough(tmp_path: Path) -> None:
    job = read(tmp_path, LEAST_JOB)
    (wanted,) = job.wanted
    assert (wanted.scenario.name, wanted.options.targets, wanted.least) == ("boot", ["process"], 0.05)
    assert (job.budget_s, job.against, job.store, job.gate.wait) == (None, "", None, 1800.0)
    assert job.files["junit"] == tmp_path / "nightly" / "junit.xml" and "parquet" not in job.files


def test_what_is_said_for_all_holds_where_a_scenario_says_nothing(tmp_path: Path) -> None:
    job = read(
        tmp_path,
        """
        least = "10%"
        budget = "2h"
        folder = "out"
        against = "0.1.0"
        store = "nights.db"
        [gate]
        wait = "1m"
        pressure = "100%"
        [files]
        prometheus = "/var/lib/node/lab.prom"
        csv = "raw.csv"
        [run]
        targets = "process,docker"
        rounds = 20
        require = "docker"
        [scenarios.boot]
        [scenarios.memory]
        rounds = 6
        least = "20%"
        """,
    )
    boot, memory = job.wanted
    assert (boot.options.rounds, memory.options.rounds) == (20, 6)
    assert (boot.least, memory.least) == (0.1, 0.2)
    assert boot.options.targets == memory.options.targets == ["process", "docker"]
    assert boot.options.require == ["docker"] and "least" not in memory.given
    assert (job.budget_s, job.gate.wait, job.gate.limits().pressure) == (7200.0, 60.0, 1.0)
    assert job.store == str(tmp_path / "nights.db")
    assert job.files == {"prometheus": Path("/var/lib/node/lab.prom"), "csv": tmp_path / "out" / "raw.csv"}


def test_where_files_go_can_be_said_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "nightly.toml").write_text(LEAST_JOB)
    job = read_job(tmp_path / "nightly.toml", folder=tmp_path / "elsewhere")
    assert set(job.files.values()) == {tmp_path / "elsewhere" / FORMATS[name].file for name in job.files}


def test_each_mistake_has_its_line(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """
        budgett = "1h"
        least = "abc"
        [gate]
        wait = "x"
        widow = 1
        [files]
        junti = "x"
        [scenarios.boot]
        targets = ["process"]
        round = 3
        [scenarios.bot]
        targets = "process"
        [scenarios.memory]
        targets = ["process", "nope"]
        least = "x"
        [scenarios.overhead]
        targets = ["process"]
        require = ["docker"]
        [scenarios.density]
        targets = ["process"]
        param = { maxx = "3" }
        [scenarios.limits]
        targets = ["process"]
        rounds = -1
        """,
    )
    assert found == [
        "least: write a share such as 5%",
        "files: there is no format 'junti' (did you mean 'junit'?)",
        "gate.wait: write a time such as 90s, 5m or 1h",
        "gate.widow: there is no such key; did you mean 'window'?",
        "budgett: there is no such key; did you mean 'budget'?",
        "scenarios.boot.round: there is no such key; did you mean 'rounds'?",
        "scenarios.bot: there is no scenario 'bot' (did you mean 'boot'?)",
        "scenarios.memory.least: write a share such as 5%",
        next(line for line in found if line.startswith("scenarios.memory: there is no driver 'nope'")),
        "scenarios.overhead: --require docker: that is none of the run's targets, process",
        next(line for line in found if line.startswith("scenarios.density: density has no parameter 'maxx'")),
        "scenarios.limits.rounds: Input should be greater than or equal to 1",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "scenarios: Field required"),
        ("scenarios = 3", "scenarios: Input should be a valid dictionary"),
        ("scenarios = {}", "scenarios: Dictionary should have at least 1 item after validation, not 0"),
        ("[scenarios]\nboot = 3", "scenarios.boot: Input should be a valid dictionary"),
        ("run = 3\n" + LEAST_JOB, "run: Input should be a valid dictionary"),
        ("[scenarios.boot]\n", "scenarios.boot.targets: Field required"),
        ('budget = "0s"\n' + LEAST_JOB, "budget: Input should be greater than 0"),
        ('gate = { steal = "200%" }\n' + LEAST_JOB, "gate.steal: Input should be less than or equal to 1"),
    ],
)
def test_a_single_mistake_is_the_only_line(tmp_path: Path, text: str, said: str) -> None:
    assert mistakes(tmp_path, text) == [said]


def test_parquet_without_pyarrow_is_told_before_the_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = LEAST_JOB + "[files]\nparquet = 'a.parquet'\n"
    assert set(read(tmp_path, text).files) == {"parquet"}
    monkeypatch.setattr(config, "find_spec", lambda _: None)
    assert mistakes(tmp_path, text) == ["files: parquet needs pyarrow (pip install 'stratalab[parquet]')"]


@pytest.mark.parametrize("content", [b"[", b"\xff\xfe", None])
def test_what_is_no_toml_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "nightly.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"nightly\.toml cannot be read as TOML"):
        read_job(path)


def test_what_another_lab_is_given_is_what_the_file_had() -> None:
    given = tomllib.loads(
        """
        targets = ["process", "docker:host"]
        rounds = 3
        cpus = 0.5
        cold = false
        env = { A = "a \\"b\\" \\\\ ü\\u007f\\n", "b c" = "" }
        param = { parallel = "4" }
        """
    )
    assert tomllib.loads(_toml(given)) == given
