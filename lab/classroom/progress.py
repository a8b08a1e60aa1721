"""How far the class is, and what goes wrong often: counted, and told of somebody only where that one has consented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.classroom.handed import Class, Handed, Lesson
from lab.classroom.points import has_control
from lab.figures import series
from lab.lesson.record import Mistake, Progress, State, Step

STUCK_AFTER = 2
"""Who has answered a step so often, and has not passed it, is stuck."""
DONE = "done"
_NO_CONTROL = "no-control"
_LEAST_FOR_AN_INTERVAL = 6

WORDS: Mapping[str, str] = {
    Mistake.NO_PREDICTION: "no prediction was written down",
    Mistake.PREDICTION_AFTER_RUN: "the prediction was written after the run",
    Mistake.NO_RUN: "there was no run to check",
    Mistake.OTHER_HOST: "the run is another machine's",
    Mistake.OTHER_TOOL: "the figures are another tool's",
    Mistake.UNFINISHED_RUN: "the run was broken off",
    Mistake.MISSING_TARGET: "a target that was asked for is missing",
    Mistake.FAILED_LAUNCHES: "launches failed",
    Mistake.TOO_FEW_ROUNDS: "fewer than 6 rounds, so that there is no interval",
    Mistake.NO_WARM_UP: "no warm-up",
    Mistake.WRONG_END: "another end than the first answer",
    Mistake.UNEQUAL_TERMS: "the targets had unequal terms",
    Mistake.EDITED: "figures were changed by hand",
    Mistake.SINGLE_NUMBER: "a single number, without an interval",
    Mistake.NO_UNIT: "no unit",
    Mistake.WRONG_UNIT: "a wrong unit",
    Mistake.RANGE_AS_INTERVAL: "the range was taken for the interval",
    Mistake.OTHER_TARGETS_FIGURE: "the figure of another target",
    Mistake.AGAINST_OWN_INTERVAL: "the claim is against the own interval",
    Mistake.TCG_AS_KVM: "emulation (TCG) was taken for KVM",
    Mistake.WRONG_CHOICE: "a wrong answer was chosen",
    Mistake.MISSED_CHOICE: "a right answer was not chosen",
    _NO_CONTROL: "no bare process in the run, so that it stands beside no other machine's",
}


@dataclass(frozen=True, slots=True)
class Common:
    """A mistake, how many students made it (of runs: how many runs have it), and how often in all."""

    what: str
    by: int
    times: int
    of_runs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AtStep:
    """A step of a lesson: how many are at it now, how many of those are stuck, and the names of those who consented."""

    step: str
    title: str
    states: Mapping[str, int]
    here: int
    here_names: Sequence[str]
    stuck: int
    stuck_names: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonOf:
    """A lesson as the class does it; two versions of one are two."""

    lesson: str
    digest: str
    students: int
    done: int
    done_names: Sequence[str]
    steps: Sequence[AtStep]


def lessons_of(found: Class) -> list[LessonOf]:
    """By lesson, its steps in their order."""
    by_lesson: dict[tuple[str, str], list[Progress]] = {}
    for lesson in found.lessons:
        by_lesson.setdefault((lesson.progress.lesson, lesson.progress.lesson_digest), []).append(lesson.progress)
    return [
        LessonOf(
            lesson=lesson,
            digest=digest[:8],
            students=len(mine),
            done=sum(_at(one) is None for one in mine),
            done_names=_names(one for one in mine if _at(one) is None),
            steps=[_at_step(step, mine) for step in _steps(mine)],
        )
        for (lesson, digest), mine in sorted(by_lesson.items())
    ]


def common_mistakes(found: Class) -> list[Common]:
    """The most common first: of mistakes that is no ranking of anybody."""
    by: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for lesson in found.lessons:
        for mistake, count in lesson.progress.mistakes.items():
            by[mistake] += 1
            times[mistake] += count
    told = [Common(WORDS[mistake], by[mistake], times[mistake], False) for mistake in by]
    runs = Counter(mistake for run in found.runs if not run.of_lesson for mistake in _of_run(run))
    told += [Common(WORDS[mistake], count, count, True) for mistake, count in runs.items()]
    return sorted(told, key=lambda one: (one.of_runs, -one.by, one.what))


def consenting(lessons: Iterable[Lesson]) -> dict[str, str]:
    """By the ids of their runs, the names of the students who have consented; a run that two claim has none's."""
    names: dict[str, set[str]] = {}
    for lesson in lessons:
        progress = lesson.progress
        told = {figure.run_id for figure in progress.figures} | {one for step in progress.steps for one in step.run_ids}
        for run_id in told:
            names.setdefault(run_id, set()).add(_name(progress))
    return {run_id: next(iter(found)) for run_id, found in names.items() if len(found) == 1 and "" not in found}


def who(count: int, names: Sequence[str]) -> str:
    """Those who consented by name, the others counted: `Ada, Mia, 3 more`."""
    rest = count - len(names)
    return ", ".join([*names, f"{rest} more" if names else str(rest)] if rest or not names else names)


def _steps(mine: Sequence[Progress]) -> list[Step]:
    """One of each id, in the order of the first who has it."""
    found: dict[str, Step] = {}
    for progress in mine:
        for step in progress.steps:
            found.setdefault(step.id, step)
    return list(found.values())


def _at_step(step: Step, mine: Sequence[Progress]) -> AtStep:
    states = Counter(str(one.state) for progress in mine for one in progress.steps if one.id == step.id)
    here = [(progress, at) for progress in mine if (at := _at(progress)) is not None and at.id == step.id]
    stuck = [progress for progress, at in here if _is_stuck(at)]
    return AtStep(
        step=step.id,
        title=step.title,
        states=dict(states),
        here=len(here),
        here_names=_names(progress for progress, _ in here),
        stuck=len(stuck),
        stuck_names=_names(stuck),
    )


def _at(progress: Progress) -> Step | None:
    """The first step that has not passed; what this machine has nothing to show for is passed over."""
    return next((step for step in progress.steps if step.state is not State.PASSED and not step.lost), None)


def _is_stuck(step: Step) -> bool:
    return step.state is State.FAILED and len(step.answers) >= STUCK_AFTER


def _names(mine: Iterable[Progress]) -> list[str]:
    return sorted(filter(None, map(_name, mine)))


def _name(progress: Progress) -> str:
    return progress.student.strip() if progress.consent else ""


def _of_run(run: Handed) -> Iterator[str]:
    if run.unfinished:
        yield Mistake.UNFINISHED_RUN
    if run.failed_launches:
        yield Mistake.FAILED_LAUNCHES
    if not has_control(run):
        yield _NO_CONTROL
    if any(len(row.values) < _LEAST_FOR_AN_INTERVAL for row in run.rows if row.metric not in series.COUNTED):
        yield Mistake.TOO_FEW_ROUNDS
