"""What a night comes to: its exit code, and what others read of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import junitparser
import pytest
from made_run import make_record

from lab.cli.nightly.config import Wanted
from lab.cli.nightly.files import NightExit, cases, exit_of, make_folders, summary, to_json, write_files
from lab.cli.nightly.night import Part, Result
from lab.errors import BadInput
from lab.figures.nights.confirm import Confirmed, Outcome
from lab.figures.nights.verdict import Judged, State, Verdict
from lab.show.formats.told import Standing

WANTED = cast(
    "Wanted", SimpleNamespace(scenario=SimpleNamespace(name="boot"), options=SimpleNamespace(targets=["docker"]))
)


def judged(state: State, *, metric: str = "boot_s", **told: Any) -> Judged:
    return Judged(
        target="docker",
        label="docker",
        metric=metric,
        name=metric,
        unit="s",
        dimensions={},
        state=state,
        value=0.3,
        change=1.25,
        reference=9,
        **told,
    )


def confirmed(outcome: Outcome, *, against: bool = False) -> Confirmed:
    return Confirmed(
        target="docker",
        label="docker",
        metric="boot_s",
        name="boot_s",
        outcome=outcome,
        why="" if outcome is Outcome.CONFIRMED else "because",
        change=1.2,
        against_accepted=against,
    )


def part(*series: Judged, **told: Any) -> Part:
    record = make_record()
    verdict = Verdict(run=record.run.id, at=record.run.started_at, state=State.STEADY, series=series)
    return Part(wanted=WANTED, record=record, verdict=verdict, **told)


def night(*parts: Part, **told: Any) -> Result:
    return Result(parts=parts, **told)


STEADY, SUSPECT = judged(State.STEADY), judged(State.SUSPECT, since="night-1", host_changes=["kernel 1 → 2"])
REGRESSION = part(SUSPECT, confirmed=[confirmed(Outcome.CONFIRMED)])
LACKING = part(STEADY, lacking={"podman": "skipped: gone"})
VOID = part(judged(State.VOID, why="the control moved"))


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([part(STEADY)], NightExit.OK),
        ([part(judged(State.FEW, why="3 nights"))], NightExit.OK),
        ([part(judged(State.BETTER)), part(judged(State.SMALL)), part(judged(State.MOVED))], NightExit.OK),
        ([part(SUSPECT, confirmed=[confirmed(Outcome.NOT_AGAIN)])], NightExit.OK),
        ([part(judged(State.SUSPECT, metric="phase_s"))], NightExit.OK),
        ([REGRESSION], NightExit.REGRESSION),
        ([LACKING], NightExit.TARGET_FAILED),
        ([VOID], NightExit.VOID),
        ([part(SUSPECT, unconfirmed="no time")], NightExit.VOID),
        ([part(SUSPECT, confirmed=[confirmed(Outcome.VOID)])], NightExit.VOID),
        ([Part(wanted=WANTED, left_out="no time")], NightExit.VOID),
        ([part(STEADY), Part(wanted=WANTED, left_out="no time")], NightExit.OK),
        ([part(STEADY), Part(wanted=WANTED, left_out="no time", lacking={"docker": "x"})], NightExit.TARGET_FAILED),
        ([VOID, LACKING], NightExit.TARGET_FAILED),
        ([VOID, LACKING, REGRESSION], NightExit.REGRESSION),
    ],
)
def test_the_gravest_is_the_exit_code(parts: Sequence[Part], code: NightExit) -> None:
    assert exit_of(night(*parts)) is code
    assert to_json(night(*parts))["exit_code"] == code


def test_what_ended_the_night_counts_before_all() -> None:
    assert exit_of(night(REGRESSION, bad_input=True)) is NightExit.BAD_INPUT
    assert exit_of(night(REGRESSION, bad_input=True, interrupted=True)) is NightExit.INTERRUPTED
    noisy = night(Part(wanted=WANTED), noisy=["load average is 9.00"])
    assert exit_of(noisy) is NightExit.VOID
    assert "void docker: too noisy to measure: load average is 9.00" in " ".join(summary(noisy).split())


@pytest.mark.parametrize(
    ("one", "standing", "text"),
    [
        (part(STEADY), Standing.PASSED, ""),
        (part(judged(State.BETTER)), Standing.PASSED, "better: 1.25 times what it was in 9 nights"),
        (VOID, Standing.VOID, "the control moved"),
        (part(judged(State.FEW, why="3 nights")), Standing.NOT_JUDGED, "not enough nights: 3 nights"),
        (
            REGRESSION,
            Standing.REGRESSION,
            "1.25 times what it was in 9 nights, and once more 1.20 times that; since run night-1; "
            "different from then on: kernel 1 → 2",
        ),
        (
            part(SUSPECT, confirmed=[confirmed(Outcome.NOT_AGAIN, against=True)]),
            Standing.PASSED,
            "1.25 times what it was in 9 nights; not seen again: 1.20 times the accepted build's, because",
        ),
        (
            part(SUSPECT, unconfirmed="no time"),
            Standing.SUSPECT,
            "1.25 times what it was in 9 nights; not looked into: no time",
        ),
    ],
)
def test_each_total_has_its_standing_and_why(one: Part, standing: Standing, text: str) -> None:
    (case,) = cases(one, night(one))
    assert (case.target, case.metric, case.standing, case.text) == ("docker", "boot_s", standing, text)


def test_a_required_target_that_was_skipped_is_one_failure() -> None:
    (first, lacking) = cases(LACKING, night(LACKING))
    assert first.standing is Standing.PASSED
    assert (lacking.target, lacking.standing, lacking.text) == ("podman", Standing.FAILED, "required: skipped: gone")


def test_the_summary_is_added_to_the_steps_own_and_files_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tmp_path / "step.md"
    step.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step))
    files = {"junit": tmp_path / "new" / "folder" / "junit.xml", "prometheus": tmp_path / "lab.prom"}
    make_folders(files)
    assert write_files(night(REGRESSION), files) == list(files.values())
    assert step.read_text().startswith("before\n### boot") and "❌ regression" in step.read_text()
    assert junitparser.JUnitXml.fromfile(str(files["junit"])).failures == 1
    assert [path.stat().st_mode & 0o777 for path in files.values()] == [0o600, 0o644]


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file cannot be written to"):
        make_folders({"junit": tmp_path / "file" / "junit.xml"})
    with pytest.raises(BadInput, match=r"/proc/1 cannot be written to"):
        make_folders({"junit": Path("/proc/1/junit.xml")})
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "step.md"))
    with pytest.raises(BadInput, match=r"\$GITHUB_STEP_SUMMARY .* cannot be added to"):
        write_files(night(REGRESSION), {})
