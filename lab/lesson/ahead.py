"""What a student types next, and how long a lesson takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.lesson import values
from lab.lesson.lesson import Lesson, Row, Step
from lab.lesson.record import Check, Progress, State
from lab.lesson.record import Step as Checked
from lab.lesson.words import Words

_WORDS_PER_MIN = 150.0
"""Of a text that one learns from, and not in one's own field yet."""
_EACH_S = 45.0
"""To think of a prediction or an answer, and to type it."""
_TYPING_S = 10.0
_PLACES: Mapping[str, str] = {"order": "more|less|unclear", "accel": "kvm|tcg|none", "interval": "LOW-HIGH"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Of the step that is next: what to type, line by line, with `places` where the student's own words go. Without a
    step all is done. `again`: something was done, and has to be done once more."""

    step: Checked | None
    commands: Sequence[str]
    hint: str = ""
    again: bool = False


def ahead(lesson: Lesson, progress: Progress, words: Words, *, prog: str) -> Ahead:
    """What is next: of the first step that was reached and has not passed."""
    for told in progress.steps:
        if told.state not in (State.PASSED, State.NOT_REACHED):
            step = lesson.step(told.id)
            waits = next(check for check in told.checks if check.state is not State.PASSED)
            commands, hint = _commands(lesson, step, waits, words, prog)
            return Ahead(step=told, commands=commands, hint=hint, again=told.state is not State.OPEN)
    return Ahead(step=None, commands=[f"{prog} lesson report {lesson.name} --html {lesson.name}-report.html"])


def _commands(lesson: Lesson, step: Step, waits: Check, words: Words, prog: str) -> tuple[list[str], str]:
    go_on = f"{prog} lesson next {lesson.name}"
    if waits.name == "predicted" and step.table.predict is not None:
        asked = step.table.predict
        place = "|".join(asked.choices) or values.EXAMPLES[asked.unit or ""]
        hint = (
            words("one of them") if asked.choices else words("with your own value instead of {example}", example=place)
        )
        return [f"{prog} lesson predict {lesson.name} {step.id} {_quoted(place)}"], hint
    if waits.name in ("answered", "answer") and step.table.answer is not None:
        answer = step.table.answer
        if answer.kind == "choice":
            several = len(answer.correct) > 1
            place = words("LETTERS") if several else words("LETTER")
            hint = words("those that you choose, with commas") if several else words("the one that you choose")
        elif answer.kind == "words":
            place, hint = words("YOUR WORDS"), words("in your own words")
        else:
            place, hint = _PLACES[answer.kind], words("one of them")
        if answer.kind == "interval" and answer.row is not None:
            hint = words("both ends with their unit, such as {example}", example=_example(answer.row))
        return [f"{prog} lesson answer {lesson.name} {step.id} {_quoted(place)}"], hint
    running = lesson.running(step)
    if running.command is not None and waits.name not in ("checker", "kept"):
        return [running.command.text.replace("lab", prog, 1), go_on], words("one after the other")
    return [go_on], ""


def _example(row: Row) -> str:
    """An interval as it is written in the row's unit."""
    if row.over or row.metric.startswith("slowdown"):
        return "10.8-32.4x"
    return "14.9-15.3MiB" if row.metric.endswith("_bytes") else "300-375ms"


def _quoted(place: str) -> str:
    return f"'{place}'" if set(place) & set(" |") else place


def reading_s(lesson: Lesson, language: str) -> float:
    """How long it takes to read, think and type, without what the commands take."""
    text = lesson.text(language)
    count = len(f"{text.title} {text.introduction}".split())
    count += sum(text.sections[step.id].words for step in lesson.steps)
    asked = sum((step.table.predict is not None) + (step.table.answer is not None) for step in lesson.steps)
    return count / _WORDS_PER_MIN * 60 + asked * _EACH_S + len(lesson.commands) * _TYPING_S


def step_reading_s(lesson: Lesson, step: Step, language: str) -> float:
    """Likewise of one step."""
    section = lesson.section(step.id, language)
    asked = (step.table.predict is not None) + (step.table.answer is not None)
    return section.words / _WORDS_PER_MIN * 60 + asked * _EACH_S + (_TYPING_S if step.command else 0.0)
