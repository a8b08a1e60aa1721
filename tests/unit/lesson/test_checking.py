"""Each lesson's checks with a right, a wrong and a dishonest result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_lesson import HOST, made_run, right_answer

from lab.figures import stats
from lab.figures.series import series_of
from lab.lesson import kept
from lab.lesson.ahead import ahead
from lab.lesson.checking import Checker
from lab.lesson.kept import Kind
from lab.lesson.lesson import Lesson, Step, find, shipped
from lab.lesson.record import Mistake, Progress, State
from lab.lesson.record import Step as Checked
from lab.lesson.words import Words
from lab.store.database import Store
from lab.store.record import RunRecord, RunStatus

LESSONS = {name: find(name) for name in shipped()}
MEASURED = [name for name, lesson in LESSONS.items() if lesson.commands]
PREDICTED = {"s": "50ms", "bytes": "20MiB", "x": "2x", "": "3"}


class Student:
    """Somebody who works on a lesson, with a store of their own."""

    def __init__(self, name: str, folder: Path, language: str = "en") -> None:
        self.lesson: Lesson = LESSONS[name]
        self.store = Store.open(str(folder / "lab.db"), host_id=HOST)
        kept.start(self.lesson, language=language, student="A. Student", consent=True)

    def predict(self, step: Step | str) -> None:
        found = self.lesson.step(step) if isinstance(step, str) else step
        if found.table.predict is not None:
            value = (
                found.table.predict.choices[0]
                if found.table.predict.choices
                else PREDICTED[found.table.predict.unit or ""]
            )
            kept.add(self.lesson.name, Kind.PREDICTION, found.id, value)

    def answer(self, step: str, value: str, run: RunRecord | None = None) -> None:
        kept.add(self.lesson.name, Kind.ANSWER, step, value, run_id=run.run.id if run else "")

    def import_(self, record: RunRecord) -> RunRecord:
        self.store.import_run(record)
        return record

    def check(self) -> Progress:
        work = kept.load(self.lesson.name)
        assert work is not None
        words = Words(work.language)
        return Checker(lesson=self.lesson, work=work, store=self.store, words=words, host_id=HOST).check()

    def step(self, step: str) -> Checked:
        return next(one for one in self.check().steps if one.id == step)

    @property
    def running(self) -> Step:
        """The first step that has a run."""
        return next(step for step in self.lesson.steps if step.command is not None)

    def do_all(self, **run: Any) -> None:
        """All of it, rightly."""
        records: dict[str, RunRecord] = {}
        for number, step in enumerate(self.lesson.steps):
            self.predict(step)
            if step.command is not None:
                records[step.id] = self.import_(made_run(self.lesson, step, seed=number + 1, **run))
            record = records.get(self.lesson.running(step).id)
            if step.table.answer is not None:
                self.answer(step.id, right_answer(step, record), record)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def student(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Student]:
    made = Student(getattr(request, "param", "boot"), tmp_path)
    with made.store:
        yield made


@pytest.mark.parametrize("student", shipped(), indirect=True)
def test_the_right_result_passes_with_all_points(student: Student) -> None:
    student.do_all()
    done = student.check()
    assert [(step.id, step.state, step.actual) for step in done.steps if step.state is not State.PASSED] == []
    assert done.points == done.max_points > 0 and not done.mistakes
    assert ahead(student.lesson, done, Words(), prog="lab").step is None
    assert bool(done.figures) == bool(student.lesson.commands)
    assert all(one.host_id == HOST for one in done.figures)


@pytest.mark.parametrize("student", ["boot"], indirect=True)
def test_nothing_is_reached_before_its_ground(student: Student) -> None:
    done = student.check()
    assert [step.state for step in done.steps] == [State.OPEN, *[State.NOT_REACHED] * (len(done.steps) - 1)]
    assert done.points == 0 and not done.mistakes


RUN_FAULTS: list[tuple[dict[str, Any], Mistake]] = [
    ({"rounds": 1}, Mistake.TOO_FEW_ROUNDS),
    ({"warmup": 0}, Mistake.NO_WARM_UP),
    ({"without": ["process"]}, Mistake.MISSING_TARGET),
    ({"host_id": "another-host"}, Mistake.OTHER_HOST),
    ({"host_id": ""}, Mistake.OTHER_HOST),
    ({"after_s": 2.0}, Mistake.PREDICTION_AFTER_RUN),
    ({"spec": {"image": "stratalab/service", "ready": "tcp"}}, Mistake.WRONG_END),
    ({"spec": {"image": "nginx"}}, Mistake.UNEQUAL_TERMS),
    ({"cold": True}, Mistake.UNEQUAL_TERMS),
    ({"skipped": ["process", "docker", "libvirt:microvm", "socket", "lambda"]}, Mistake.MISSING_TARGET),
]


@pytest.mark.parametrize(
    ("wrong", "mistake"), RUN_FAULTS, ids=[f"{mistake}-{place}" for place, (_, mistake) in enumerate(RUN_FAULTS)]
)
@pytest.mark.parametrize("student", MEASURED, indirect=True)
def test_a_wrong_run_fails_by_its_mistake(student: Student, wrong: dict[str, Any], mistake: Mistake) -> None:
    step = student.running
    assert step.command is not None
    if mistake is Mistake.NO_WARM_UP and not step.command.warmup:
        pytest.skip("this scenario has no warm-up")
    if mistake is Mistake.TOO_FEW_ROUNDS and step.command.rounds == 1:
        wrong = {"rounds": 0}
    if "process" not in step.command.targets and wrong.get("without"):
        wrong = {"without": step.command.targets[:1]}
    if mistake is Mistake.PREDICTION_AFTER_RUN:  # the run first, a second or more before the prediction
        student.import_(made_run(student.lesson, step, **wrong))
        _predicted_later(student, step, seconds=5)
    else:
        student.predict(step)
        student.import_(made_run(student.lesson, step, **wrong))
    found = student.step(step.id)
    assert (found.state, found.mistakes) == (State.FAILED, [mistake])
    assert found.expected and found.actual and found.points == 0
    assert {one.state for one in student.check().steps if step.id in student.lesson.step(one.id).after} <= {
        State.NOT_REACHED
    }


def _predicted_later(student: Student, step: Step, *, seconds: int) -> None:
    """A prediction that was given some seconds from now, in a chain that holds."""
    student.predict(step)
    path = kept.folder() / f"{student.lesson.name}.json"
    told = json.loads(path.read_text())
    entry = told["entries"][-1]
    entry["at"] = (datetime.fromisoformat(entry["at"]) + timedelta(seconds=seconds)).isoformat()
    entry["chain"] = kept.Entry.model_validate(entry).chained(told["started_at"])
    path.write_text(json.dumps(told))


def _edit_values(record: RunRecord) -> RunRecord:
    return replace(record, samples=[replace(one, value=one.value / 2) for one in record.samples])


def _drop_a_round(record: RunRecord) -> RunRecord:
    kept_samples = [one for one in record.samples if one.iteration != 3]
    return replace(record, samples=kept_samples, launches=[one for one in record.launches if one.iteration != 3])


def _cheap_rounds(record: RunRecord) -> RunRecord:
    """Rounds copied so that n looks larger."""
    more = [replace(one, iteration=one.iteration + 100) for one in record.samples if not one.warmup]
    return replace(record, samples=[*record.samples, *more])


def _warm_up_counted(record: RunRecord) -> RunRecord:
    some = [
        replace(one, warmup=False) if one.iteration == 0 and one.metric == "phase_s" else one for one in record.samples
    ]
    return replace(record, samples=some)


@pytest.mark.parametrize("edit", [_edit_values, _drop_a_round, _cheap_rounds, _warm_up_counted])
def test_an_edited_export_is_seen(student: Student, edit: Any) -> None:
    step = student.running
    student.predict(step)
    student.import_(edit(made_run(student.lesson, step, rounds=12)))
    found = student.step(step.id)
    assert (found.state, found.mistakes) == (State.FAILED, [Mistake.EDITED]), found.actual


@pytest.mark.parametrize("student", [one for one in MEASURED if one not in ("boot", "isolation")], indirect=True)
@pytest.mark.parametrize("edit", [_drop_a_round, _cheap_rounds])
def test_an_edited_export_is_seen_in_every_lesson(student: Student, edit: Any) -> None:
    step = student.running
    student.predict(step)
    student.import_(edit(made_run(student.lesson, step, rounds=9)))
    assert student.step(step.id).mistakes == [Mistake.EDITED]


def test_a_run_that_another_tool_measured_or_that_was_broken_off_does_not_count(student: Student) -> None:
    step = student.running
    student.predict(step)
    record = made_run(student.lesson, step)
    student.import_(replace(record, run=replace(record.run, status=RunStatus.INTERRUPTED)))
    assert student.step(step.id).mistakes == [Mistake.UNFINISHED_RUN]
    other = made_run(student.lesson, step, seed=2)
    student.import_(replace(other, run=replace(other.run, id="f", origin="hyperfine")))
    assert student.step(step.id).mistakes == [Mistake.UNFINISHED_RUN]  # one's own comes first


def test_a_later_run_that_fits_is_found_beside_one_that_does_not(student: Student) -> None:
    step = student.running
    student.predict(step)
    student.import_(made_run(student.lesson, step, seed=1))
    student.import_(made_run(student.lesson, step, seed=2, rounds=1, after_s=100))
    assert student.step(step.id).state is State.PASSED


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ("150ms", Mistake.SINGLE_NUMBER),
        ("100-200", Mistake.NO_UNIT),
        ("100-200MiB", Mistake.WRONG_UNIT),
        ("1-2ms", Mistake.AGAINST_OWN_INTERVAL),
        ("RANGE", Mistake.RANGE_AS_INTERVAL),
        ("PROCESS", Mistake.OTHER_TARGETS_FIGURE),
        ("STARTED", Mistake.WRONG_END),
        ("MILLI", Mistake.WRONG_UNIT),
    ],
)
def test_a_wrong_claim_fails_by_its_mistake(student: Student, value: str, mistake: Mistake) -> None:
    student.predict("measure")
    record = student.import_(made_run(student.lesson, student.running))
    rows = series_of(record)
    of = {(row.target, row.metric, row.dimensions.get("to", "")): stats.estimate(row.values) for row in rows}
    docker, process = of["docker", "boot_s", ""], of["process", "boot_s", ""]
    created = of["docker", "phase_s", "created"]
    told = {
        "RANGE": f"{docker.minimum:.4f}-{docker.maximum:.4f}s",
        "PROCESS": f"{process.low:.5f}-{process.high:.5f}s",
        "STARTED": f"{created.low:.5f}-{created.high:.5f}s",
        "MILLI": f"{docker.low:.5f}-{docker.high:.5f}ms",
    }
    student.answer("interval", told.get(value, value), record)
    found = student.step("interval")
    assert (found.state, found.mistakes) == (State.FAILED, [mistake])
    assert f"{docker.low:.4f}"[:5] not in found.expected  # it is for the student to find


@pytest.mark.parametrize(
    ("accel", "said", "mistake"),
    [
        ("tcg", "kvm", [Mistake.TCG_AS_KVM]),
        ("tcg", "tcg", []),
        ("kvm", "kvm", []),
        ("kvm", "none", [Mistake.WRONG_CHOICE]),
    ],
)
def test_emulation_is_not_taken_for_kvm(student: Student, accel: str, said: str, mistake: list[Mistake]) -> None:
    student.predict("measure")
    record = student.import_(made_run(student.lesson, student.running, accel=accel))
    student.answer("machine", said, record)
    assert student.step("machine").mistakes == mistake
    assert student.check().host.accel == accel


@pytest.mark.parametrize("student", ["neighbour", "memory"], indirect=True)
def test_a_claim_against_ones_own_interval_fails(student: Student) -> None:
    student.do_all()
    wanted = "slower" if student.lesson.name == "neighbour" else "more"
    step = student.lesson.step(wanted)
    record = student.store.load(student.step(wanted).run_ids[0])
    right = right_answer(step, record)
    for said in {"more", "less", "unclear"} - {right}:
        student.answer(wanted, said, record)
        assert student.step(wanted).mistakes == [Mistake.AGAINST_OWN_INTERVAL]


@pytest.mark.parametrize(
    ("said", "mistake"),
    [("c", Mistake.WRONG_CHOICE), ("a,b", Mistake.MISSED_CHOICE), ("a,b,c,d,e", Mistake.WRONG_CHOICE)],
)
@pytest.mark.parametrize("student", ["bad-benchmark"], indirect=True)
def test_a_wrong_choice_fails_and_does_not_tell_the_right_one(student: Student, said: str, mistake: Mistake) -> None:
    student.answer("look", said)
    found = student.step("look")
    assert found.mistakes == [mistake] and found.expected == "4 of the choices"
    student.answer("look", "e d a b")
    assert student.step("look").state is State.PASSED
    assert student.step("look").mistakes == [mistake]  # it was made, and is counted


@pytest.mark.parametrize("student", MEASURED, indirect=True)
def test_a_laptop_without_the_engines_completes_the_lesson(student: Student) -> None:
    targets = {target for command in student.lesson.commands for target in command.targets}
    student.do_all(skipped=sorted(targets - {"process", "socket"}))
    done = student.check()
    assert [(step.id, step.state, step.actual) for step in done.steps if step.state is not State.PASSED] == []
    assert all((step.max_points == 0) == bool(step.lost) for step in done.steps)
    lost = {step.id for step in done.steps if step.lost}
    assert lost == {"boot": {"times"}, "memory": {"more"}, "orchestration": {"back"}}.get(student.lesson.name, set())
    assert all("the engine is not there (install it)" in step.lost for step in done.steps if step.lost)


def test_the_first_prediction_counts_and_a_second_stands_beside_it(student: Student) -> None:
    student.predict("measure")
    kept.add("boot", Kind.PREDICTION, "measure", "9s")
    assert [one.value for one in student.step("measure").predictions] == ["50ms", "9s"]


def test_what_was_changed_by_hand_is_seen(student: Student) -> None:
    student.predict("measure")
    student.import_(made_run(student.lesson, student.running))
    assert student.step("measure").state is State.PASSED
    path = kept.folder() / "boot.json"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text(path.read_text().replace("50ms", "150ms"))
    assert student.step("measure").mistakes == [Mistake.EDITED]


def test_an_error_of_the_checker_is_told_apart_from_a_failure(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    student.predict("measure")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("lab.lesson.checking.find", broken)
    done = student.check()
    assert [step.state for step in done.steps][:2] == [State.ERROR, State.NOT_REACHED]
    assert done.steps[0].actual == "RuntimeError: a defect" and not done.mistakes


def test_an_answer_stays_with_the_run_that_it_was_about(student: Student) -> None:
    student.do_all()
    student.import_(made_run(student.lesson, student.running, seed=77, after_s=200))
    assert all(step.state is State.PASSED for step in student.check().steps)


def test_it_is_told_in_the_students_language(tmp_path: Path) -> None:
    german = Student("boot", tmp_path, "de")
    with german.store:
        found = german.step("measure")
    assert (found.title, found.actual) == ("Erst vorhersagen, dann messen", "noch keine")
