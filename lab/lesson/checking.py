"""All checks of a lesson, one after the other: they form a graph, each step standing on others.

A step whose ground has not passed is not reached. A checker that cannot judge is an error, and no failure of the
student's. Nothing here launches anything: the runs are those that the student made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab import __version__
from lab.errors import BadInput, LabError, one_line
from lab.host.facts import host_facts, host_identity
from lab.lesson import answers
from lab.lesson.figures import figures_of, row_of
from lab.lesson.kept import Work
from lab.lesson.lesson import Lesson, Step
from lab.lesson.record import Check, Figure, HostFacts, Mistake, Progress, State
from lab.lesson.record import Step as Checked
from lab.lesson.runs import Found, Ground, accel_of, find, not_here
from lab.lesson.words import Words
from lab.store.database import Store
from lab.store.record import RunRecord


@dataclass(slots=True, kw_only=True)
class Checker:
    """Of one student's work on one lesson. `found` are the runs that steps stand on, by step, after `check`."""

    lesson: Lesson
    work: Work
    store: Store
    words: Words
    key: bytes | None = None
    host_id: str = ""
    found: dict[str, Found] = field(default_factory=dict)
    _records: dict[str, RunRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.host_id = self.host_id or host_identity().id

    def check(self) -> Progress:
        """All of it. Raises nothing for what a student did; StoreError and the like become the state `error`."""
        done: dict[str, Checked] = {}
        for name in self.lesson.order:
            done[name] = self._checked(self.lesson.step(name), done)
        figures = self._figures(done)
        return Progress(
            lab_version=__version__,
            lesson=self.lesson.name,
            lesson_digest=self.lesson.digest,
            language=self.words.language,
            student=self.work.student,
            consent=self.work.consent,
            started_at=self.work.started_at,
            updated_at=self.work.updated_at,
            host=self._host(),
            steps=[done[step.id] for step in self.lesson.steps],
            figures=figures,
        )

    def run_of(self, step: Step) -> RunRecord | None:
        """The run that `step` is about, as far as it was found."""
        found = self.found.get(step.id)
        return found.record if found else None

    def newest(self, step: Step) -> Found | None:
        """What there is now for a step's run, whichever an answer was about; None where it is about none."""
        running = self.lesson.running(step)
        return find(self.store, self._ground(running), self.words) if running.command else None

    def _checked(self, step: Step, done: Mapping[str, Checked]) -> Checked:
        work, words = self.work, self.words
        checks: list[Check] = []
        lost = ""
        try:
            checks = self._grounds(step, done) or self._own(step)
            if not checks or all(check.state is State.PASSED for check in checks):
                lost = self._lost(step)
                checks += [] if lost else self._answer(step)
        except LabError as error:
            checks.append(Check(name="checker", state=State.ERROR, actual=str(error)[:2000]))
        except Exception as error:  # the checker's own defect is told as such, and the other steps are still checked
            told = f"{type(error).__name__}: {one_line(error)}"[:2000]
            checks.append(Check(name="checker", state=State.ERROR, actual=told))
        first = next((check for check in checks if check.state is not State.PASSED), None)
        state = first.state if first else State.PASSED
        record = self.run_of(step)
        return Checked(
            id=step.id,
            title=self.lesson.section(step.id, words.language).title,
            state=state,
            predictions=work.predictions(step.id),
            answers=work.answers(step.id),
            expected=first.expected if first else "",
            actual=first.actual if first else "",
            checks=checks,
            mistakes=list(dict.fromkeys([*(check.mistake for check in checks if check.mistake), *self._earlier(step)])),
            run_ids=[record.run.id] if record else [],
            points=0.0 if lost or state is not State.PASSED else step.table.points,
            max_points=0.0 if lost else step.table.points,
            lost=lost[:4000],
        )

    def _grounds(self, step: Step, done: Mapping[str, Checked]) -> list[Check]:
        """What keeps the step from being reached; nothing where it is."""
        lacking = [name for name in step.after if done[name].state is not State.PASSED]
        title = self.lesson.section(lacking[0], self.words.language).title if lacking else ""
        return [
            Check(
                name="ground",
                state=State.NOT_REACHED,
                expected=self.words("passed before: {step}", step=f"{name} ({title})"),
                actual=done[name].state,
            )
            for name in lacking[:1]
        ]

    def _own(self, step: Step) -> list[Check]:
        """Of the prediction and the run."""
        checks = []
        if step.table.predict is not None:
            checks.append(self._prediction(step))
            if checks[-1].state is not State.PASSED:
                return checks
        if self.work.changed_by_hand:
            expected = self.words("what was kept of this lesson, as the lab added it")
            actual = self.words("an entry was changed, moved or taken out")
            return [
                *checks,
                Check(name="kept", state=State.FAILED, expected=expected, actual=actual, mistake=Mistake.EDITED),
            ]
        if self.lesson.running(step).command is None:
            return checks
        found = self.found[step.id] = self._find(step)
        if found.record is not None:
            self._records[found.record.run.id] = found.record
        return [*checks, *(found.checks if step.command is not None else ())]

    def _prediction(self, step: Step) -> Check:
        given = self.work.predictions(step.id)
        expected = self.words("a prediction, kept before anything runs")
        if not given:
            return Check(name="predicted", state=State.OPEN, expected=expected, actual=self.words("none yet"))
        actual = ", ".join(one.value for one in given[:20])[:2000]
        return Check(name="predicted", state=State.PASSED, expected=expected, actual=actual)

    def _find(self, step: Step) -> Found:
        """The run that the last answer was about, and else the newest that fits."""
        running = self.lesson.running(step)
        said = self.work.answers(step.id)
        ground = self._ground(running)
        if said and said[-1].run_id:
            try:
                return find(self.store, ground, self.words, wanted=said[-1].run_id)
            except BadInput:
                pass  # it was pruned: another of the same kind may stand for it
        return find(self.store, ground, self.words)

    def _ground(self, running: Step) -> Ground:
        if running.command is None:
            raise ValueError(f"the step {running.id} has no run")
        times = [
            self.work.predictions(name)[0].at for name in self._standing_on(running) if self.work.predictions(name)
        ]
        return Ground(
            command=running.command,
            host_id=self.host_id,
            since=max(times, default=self.work.started_at),
            begun=self.work.started_at,
            predicted=bool(times),
        )

    def _standing_on(self, step: Step) -> Sequence[str]:
        """The step and all that it stands on."""
        found = [step.id]
        for name in found:
            found += [one for one in self.lesson.step(name).after if one not in found]
        return found

    def _lost(self, step: Step) -> str:
        """Why this machine has nothing to answer from, where the engines that would be needed are not here."""
        answer, record = step.table.answer, self.run_of(step)
        if answer is None or answer.row is None or answer.kind == "accel" or record is None:
            return ""
        return "" if row_of(record, answer.row) is not None else not_here(record, answer.row.of)

    def _answer(self, step: Step) -> list[Check]:
        answer = step.table.answer
        if answer is None:
            return []
        said = self.work.answers(step.id)
        if not said:
            expected = self.words("an answer")
            return [Check(name="answered", state=State.OPEN, expected=expected, actual=self.words("none yet"))]
        judged = answers.judge(answer, said[-1].value, self.run_of(step), self.words)
        state = State.FAILED if judged.mistake else State.PASSED
        return [
            Check(
                name="answer",
                state=state,
                expected=judged.expected,
                actual=judged.actual[:2000],
                mistake=judged.mistake,
            )
        ]

    def _earlier(self, step: Step) -> list[Mistake]:
        """Of answers that the student has corrected since: what a class learns from."""
        answer = step.table.answer
        found: list[Mistake] = []
        if answer is None:
            return found
        for said in self.work.answers(step.id)[:-1]:
            with contextlib.suppress(LabError, ValueError):
                judged = answers.judge(answer, said.value, self.run_of(step), self.words)
                found += [judged.mistake] if judged.mistake else []
        return found

    def _figures(self, done: Mapping[str, Checked]) -> list[Figure]:
        """Of every row that a step with a run is about, each once."""
        found: dict[tuple[str, str, str, str], Figure] = {}
        for step in self.lesson.steps:
            record, row = self.run_of(step), step.row
            if record is None or row is None or done[step.id].state is State.ERROR:
                continue
            for one in figures_of(record, row, self.key):
                found.setdefault((one.run_id, one.target, one.metric, str(sorted(one.dimensions.items()))), one)
        return list(found.values())

    def _host(self) -> HostFacts:
        identity = host_identity()
        cpu = host_facts().get("cpu")
        model = cpu.get("model") if isinstance(cpu, Mapping) else None
        targets = [(record, one.target) for record in self._records.values() for one in record.targets]
        ran_on = {accel_of(record, target) for record, target in targets}
        accel = "kvm" if "kvm" in ran_on else "tcg" if "tcg" in ran_on else ""
        return HostFacts.model_validate(
            {"id": self.host_id, "name": identity.name[:200], "cpu_model": str(model or "")[:200], "accel": accel}
        )
