"""The scenario `wake` on the model's containers, which are real processes: what it measures, and what it does not
believe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lab.driver import Context, Instance, Mark
from lab.errors import BadInput, LaunchError, MeasurementError
from lab.features import SleepState
from lab.figures.series import ABSENT, FACT, series_of
from lab.registry import make_scenario
from lab.show.report import render
from lab.show.table import render_run
from lab.spec import Endpoint, Spec
from lab.store.record import Outcome, RunRecord
from lab.testing import BREAKAGES, ModelDriver, model_engine_of
from scenarios.wake import Wake
from scenarios.wake.identity import Copy, Told, require_the_right_one, uniqueness

Measure = Callable[[type[ModelDriver]], RunRecord]
TOLD = Told(
    token="a", served=3, boot_id="b", monotonic_ns=10**9, realtime_ns=10**18, host_ns=5 * 10**9, host_realtime_ns=10**18
)


@pytest.fixture
def asleep(tmp_path: Path, binary: Path, measure: Callable[..., RunRecord], monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measures a class of the model's drivers, and leaves nothing of it."""
    monkeypatch.setattr("lab.testing.model.build_service", lambda _: binary)

    def run(made: type[ModelDriver], **parameters: object) -> RunRecord:
        driver = made("", Context(run_dir=tmp_path, cache_dir=tmp_path / "cache"))
        try:
            return measure(Wake(asleep=0.1, within=2.0, answers=5, **parameters), driver)  # type: ignore[arg-type]
        finally:
            model_engine_of(Context(run_dir=tmp_path, cache_dir=tmp_path / "cache")).shut_down()

    return run  # type: ignore[return-value]


def values(record: RunRecord, metric: str) -> dict[str, float]:
    return {one.dimensions.get("state", ""): one.value for one in record.samples if one.metric == metric}


def errors(record: RunRecord) -> list[str]:
    return [one.error for one in record.launches if one.outcome is Outcome.FAILED]


def shown(record: RunRecord) -> str:
    console = Console(file=StringIO(), width=140, record=True)
    console.print(render_run(record))
    return console.export_text()


def test_each_state_is_measured_beside_a_cold_boot_and_told_with_its_proofs(asleep: Measure) -> None:
    class Slow(ModelDriver):
        class made(ModelDriver.made):  # type: ignore[name-defined,misc]  # noqa: N801  an attribute of the driver
            def wake(self, state: SleepState) -> None:
                time.sleep(0.3 if state is SleepState.STOPPED else 0)  # more than a busy machine takes for the other
                super().wake(state)

    record = asleep(Slow)
    assert not errors(record)
    assert len([one for one in record.samples if one.metric == "boot_s"]) == 2  # of each state's own launch
    for metric in ("wake_s", "sleep_s", "asleep_pss_bytes"):
        assert set(values(record, metric)) == {"paused", "stopped"}, metric
    assert 0.3 < values(record, "wake_s")["stopped"] < 3.0
    assert values(record, "wake_s")["paused"] < values(record, "wake_s")["stopped"]
    held = values(record, "asleep_pss_bytes")
    assert held["paused"] > held["stopped"]  # what follows its log is there in both
    assert values(record, "asleep_disk_bytes")["stopped"] > 0
    assert all(abs(late_s) < 0.1 for late_s in values(record, "clock_late_s").values())
    answers = [one for one in record.samples if one.metric == "woken_answer_s"]
    assert [one.dimensions["answer"] for one in answers[:5]] == ["1", "2", "3", "4", "5"] and len(answers) == 10
    assert {row.dimensions.get("answer") for row in series_of(record) if row.metric == "answer_s"} == {"1", "2-5"}
    facts = {one.dimensions["probe"]: one.dimensions["said"] for one in record.samples if one.metric == FACT}
    assert facts["paused: asleep"] == "its processes are stopped"
    assert facts["stopped: asleep"] == "no process of it is left"
    assert facts["paused: who answers"].startswith("the same:")
    assert facts["stopped: who answers"].startswith("a new one:")


def test_one_table_tells_what_sleep_costs_who_woke_and_what_cannot_be(asleep: Measure) -> None:
    record = asleep(ModelDriver)
    (absent,) = [one for one in record.samples if one.metric == ABSENT]
    assert absent.dimensions["of"] == "wake_s state=saved" and "to a file" in absent.dimensions["why"]
    text = shown(record)
    assert "model has no wake_s state=saved" in text and "writes no container's memory to a file" in text
    page = render(record)
    assert "cannot be: the model engine writes" in page
    chart = page[page.index('id="awake"') :].partition("</script>")[0]
    assert "model paused" in chart and "its cold boot" in chart
    table = text[text.index("asleep and awake") :].split("\n\n")[0]
    first, second = sorted([(table.index("paused"), "the same"), (table.index("stopped"), "a new one")])
    assert "x its boot" in table and table.index(first[1]) < table.index(second[1])


@pytest.mark.parametrize(
    ("breakage", "state", "said"),
    [
        ("it is started anew where it was to be woken", "paused", "was not restored: its token is another"),
        ("it is kept in memory where it was to be stopped", "stopped", "its processes are stopped, not gone"),
        ("asleep it goes on", "paused", "its processes run"),
    ],
)
def test_what_is_not_what_it_says_is_a_failed_launch_and_no_figure(
    asleep: Measure, breakage: str, state: str, said: str
) -> None:
    record = asleep(BREAKAGES[breakage])
    assert any(said in error for error in errors(record)), errors(record)
    assert state not in values(record, "wake_s")


def test_one_that_does_not_wake_in_time_has_failed_and_the_other_states_are_measured(asleep: Measure) -> None:
    class Deaf(ModelDriver):
        class made(ModelDriver.made):  # type: ignore[name-defined,misc]  # noqa: N801  an attribute of the driver
            def wake(self, state: SleepState) -> None:
                if state is not SleepState.PAUSED:
                    super().wake(state)

    record = asleep(Deaf)
    assert [one for one in errors(record) if "2 s" in one] and list(values(record, "wake_s")) == ["stopped"]


def test_where_the_second_launch_fails_the_round_ends_with_what_it_has(asleep: Measure) -> None:
    class Once(ModelDriver):
        launched = 0

        def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
            type(self).launched += 1
            if self.launched > 1:
                raise LaunchError("the engine has had enough")
            return super().launch(spec, endpoint, mark)

    record = asleep(Once)
    assert len(values(record, "wake_s")) == 1 and Once.launched == 2
    assert errors(record) == ["the engine has had enough"]


def test_what_this_user_may_not_look_into_is_absent_and_the_waking_is_measured(
    asleep: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MeasurementError("this user may not look into the memory of process 1")

    monkeypatch.setattr("scenarios.wake.cycle.account", refuse)
    record = asleep(ModelDriver)
    assert not errors(record) and set(values(record, "wake_s")) == {"paused", "stopped"}
    absent = {one.dimensions["of"]: one.dimensions["why"] for one in record.samples if one.metric == ABSENT}
    assert "may not look" in absent["asleep_pss_bytes state=paused"] and not values(record, "asleep_pss_bytes")


@pytest.mark.parametrize(
    ("state", "after", "said"),
    [
        (SleepState.SAVED, replace(TOLD, token="b", served=1), "was not restored"),
        (SleepState.SAVED, replace(TOLD, served=3), "from 3 to 3"),
        (SleepState.PAUSED, replace(TOLD, served=9), "from 3 to 9"),
        (SleepState.ZERO, replace(TOLD, served=4), "had never ended"),
        (SleepState.STOPPED, replace(TOLD, token="b", served=7), "is not new"),
    ],
)
def test_token_and_counter_must_both_agree(state: SleepState, after: Told, said: str) -> None:
    with pytest.raises(MeasurementError, match=said):
        require_the_right_one(state, TOLD, after, asked=2)


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (SleepState.SAVED, replace(TOLD, served=4)),
        (SleepState.PAUSED, replace(TOLD, served=5)),
        (SleepState.ZERO, replace(TOLD, token="b", served=1)),
    ],
)
def test_what_both_agree_on_is_believed(state: SleepState, after: Told) -> None:
    require_the_right_one(state, TOLD, after, asked=2)


def test_a_guests_clocks_tell_how_long_it_stood_still() -> None:
    after = replace(
        TOLD,
        monotonic_ns=TOLD.monotonic_ns + 500_000_000,
        realtime_ns=TOLD.realtime_ns + 500_000_000,
        host_ns=TOLD.host_ns + 3_500_000_000,
        host_realtime_ns=TOLD.host_realtime_ns + 3_500_000_000,
    )
    assert after.monotonic_lost_s(TOLD) == pytest.approx(3.0) == after.late_s(TOLD)


def test_a_state_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadInput, match="there is no state 'frozen': there are paused, stopped, saved, zero"):
        make_scenario("wake", {"states": "paused,frozen"})
    assert make_scenario("wake", {"states": "saved, paused,saved"}).launches == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("second", "shared"),
    [
        (Copy(told=TOLD, random="x"), "token, boot id of their kernel and first random bytes"),
        (Copy(told=TOLD, random="y"), "token and boot id of their kernel"),
        (Copy(told=replace(TOLD, boot_id="c"), random="y"), "token"),
        (Copy(told=replace(TOLD, boot_id="c", token="b"), random="y"), ""),
    ],
)
def test_two_copies_of_what_was_saved_are_told_by_what_they_share(second: Copy, shared: str) -> None:
    said = uniqueness(Copy(told=TOLD, random="x"), second)
    same = f"no: two copies that were woken of it had the same {shared}"
    assert said == (same if shared else "yes: two copies had nothing alike")
