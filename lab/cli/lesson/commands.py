"""What the commands of lessons do. Each ends with what to type next."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from lab.cli.lesson import shown
from lab.errors import BadInput, LabError
from lab.lesson import answers, kept
from lab.lesson.ahead import ahead, reading_s
from lab.lesson.checking import Checker
from lab.lesson.kept import Kind, Work
from lab.lesson.lesson import Lesson, Step, find, is_folder, read, shipped
from lab.lesson.record import Progress, State
from lab.lesson.report.formats import classroom as classroom_of
from lab.lesson.report.formats import gradescope as gradescope_of
from lab.lesson.report.formats import points as points_of
from lab.lesson.signing import read_key
from lab.lesson.text import WITHOUT
from lab.lesson.words import ENGLISH, Words, from_environment
from lab.lesson.words import languages as spoken
from lab.spec import Target
from lab.store.database import Store
from lab.store.place import write_whole
from lab.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_ERROR_OF_THE_CHECKER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A lesson, what was done of it, and the store: what a command works with."""

    lesson: Lesson
    work: Work
    words: Words
    checker: Checker
    console: Console

    def step(self, name: str) -> Step:
        return self.lesson.step(name)


def list_lessons(*, store: str | None, as_json: bool) -> None:
    """All lessons with what was done of each."""
    words = Words(_own_language(spoken()))
    begun = {work.lesson: work for work in kept.begun()}
    places = [*shipped(), *(work.folder for work in begun.values() if work.folder)]
    rows = []
    with Store.open(store) as opened:
        for place in places:
            try:
                lesson = find(place)
            except BadInput as error:  # a folder that was moved away since
                rows.append(
                    {"lesson": place, "title": error.brief, "minutes": 0, "steps": 0, "passed": 0, "state": "error"}
                )
                continue
            work = begun.get(lesson.name)
            passed, state = 0, "open"
            if work is not None:
                done = Checker(lesson=lesson, work=work, store=opened, words=words).check()
                passed = sum(step.state is State.PASSED for step in done.steps)
                state = "passed" if passed == len(done.steps) else "begun"
            rows.append(
                {
                    "lesson": lesson.name,
                    "title": lesson.text(words.language).title,
                    "minutes": round(reading_s(lesson, words.language) / 60),
                    "steps": len(lesson.steps),
                    "passed": passed,
                    "state": state,
                }
            )
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    console = Console()
    cells = [
        [row["lesson"], row["title"], words("{minutes} min", minutes=row["minutes"]), f"{row['passed']}/{row['steps']}"]
        for row in rows
    ]
    headings = [words("lesson"), words("about"), words("reading and thinking"), words("steps passed")]
    console.print(shown.table_of(cells, headings))
    states = {str(row["lesson"]): row["state"] for row in rows}
    current = next((name for name in begun if states.get(name) == "begun"), None)
    fresh = (
        "boot" if states.get("boot") == "open" else next((name for name in states if states[name] == "open"), "boot")
    )
    command = f"{shown.prog()} lesson next {current}" if current else f"{shown.prog()} lesson start {fresh}"
    console.print(Text.assemble("\n", (words("Type next:"), "bold"), "\n  ", (command, "cyan")))


def start_lesson(name: str, *, lang: str | None, student: str | None, consent: str | None, store: str | None) -> None:
    """Begin, or go on, and show the introduction and the step at hand."""
    lesson = _find(name)
    known = kept.load(lesson.name)
    language = _language(lesson, lang, known)
    new = known is None
    kept.start(lesson, language=language, student=student, consent=_consent(consent))
    with _desk(lesson, store) as desk:
        console, words = desk.console, desk.words
        text = lesson.text(language)
        shown.print_title(console, text.title)
        shown.print_markdown(console, text.introduction)
        _print_time(desk)
        if not new:
            console.print(words("You have begun this lesson before; your predictions and answers are kept."))
        _print_at_hand(desk, desk.checker.check())


def show_step(name: str | None, step: str | None, *, store: str | None) -> None:
    """A step's question, and what follows it once it has passed."""
    with _desk(_begun(name), store) as desk:
        done = desk.checker.check()
        if step is None:
            _print_at_hand(desk, done)
            return
        wanted = desk.step(step)
        shown.print_step(desk.console, desk.lesson, wanted, desk.words)
        told = next(one for one in done.steps if one.id == wanted.id)
        if told.state is State.PASSED:
            shown.print_after(desk.console, desk.lesson, wanted, desk.words)
        shown.print_ahead(desk.console, ahead(desk.lesson, done, desk.words, prog=shown.prog()), desk.words)


def next_step(name: str | None, *, store: str | None) -> int:
    """Check the step at hand; returns 0 unless something failed."""
    with _desk(_begun(name), store) as desk:
        done = desk.checker.check()
        found = ahead(desk.lesson, done, desk.words, prog=shown.prog())
        _print_passed(desk, done, until=found.step.id if found.step else None)
        if found.step is None or found.step.state is State.OPEN:
            _print_at_hand(desk, done, ran=True)
            return 0
        shown.print_checks(desk.console, found.step, desk.words)
        shown.print_ahead(desk.console, found, desk.words)
        return _ERROR_OF_THE_CHECKER if found.step.state is State.ERROR else 1


def keep_prediction(name: str, step: str, value: str, *, store: str | None) -> None:
    """Keep what the student expects, and say what to type next."""
    lesson = _begun(name)
    wanted = lesson.step(step)
    if wanted.table.predict is None:
        raise BadInput(
            f"the step '{step}' asks for no prediction", resolution=f"{shown.prog()} lesson show {lesson.name}"
        )
    if why := answers.refuse(value, wanted.table.predict):
        example = _example(wanted.table.predict.unit, wanted.table.predict.choices)
        raise BadInput(f"no prediction: {why}", resolution=f"write it as: {example}")
    work = kept.load(lesson.name)
    earlier = work.predictions(step) if work else []
    kept.add(lesson.name, Kind.PREDICTION, step, value)
    with _desk(lesson, store) as desk:
        words, console = desk.words, desk.console
        console.print(words("Kept: you predict {value}.", value=value), markup=False, highlight=False)
        if earlier:
            console.print(
                words("Your first prediction, {value}, stays the one that counts.", value=earlier[0].value),
                markup=False,
                highlight=False,
            )
        done = desk.checker.check()
        told = next(one for one in done.steps if one.id == step)
        if told.state is State.PASSED:
            _print_outcome(desk, done, step)
        else:
            shown.print_ahead(console, ahead(lesson, done, words, prog=shown.prog()), words)


def keep_answer(name: str, step: str, value: str, *, store: str | None) -> int:
    """Keep an answer, and check it. Returns 0 where it passes."""
    lesson = _begun(name)
    wanted = lesson.step(step)
    if wanted.table.answer is None:
        raise BadInput(f"the step '{step}' asks for no answer", resolution=f"{shown.prog()} lesson show {lesson.name}")
    if why := answers.refuse(value, wanted.table.answer):
        raise BadInput(f"no answer: {why}", resolution=f"see {shown.prog()} lesson show {lesson.name} {step}")
    run_id = ""
    with _desk(lesson, store) as desk:
        before = next(one for one in desk.checker.check().steps if one.id == step)
        if before.state is State.NOT_REACHED or any(
            check.state is not State.PASSED and check.name not in ("answered", "answer") for check in before.checks
        ):
            shown.print_checks(desk.console, before, desk.words)
            found = ahead(lesson, desk.checker.check(), desk.words, prog=shown.prog())
            shown.print_ahead(desk.console, found, desk.words)
            return 1
        newest = desk.checker.newest(wanted)
        run_id = newest.record.run.id if newest and newest.record else ""
    kept.add(lesson.name, Kind.ANSWER, step, value, run_id=run_id)
    with _desk(lesson, store) as desk:
        done = desk.checker.check()
        return _print_outcome(desk, done, step)


def check_lesson(
    name: str, *, gradescope: Path | None, classroom: Path | None, store: str | None, as_json: bool
) -> int:
    """All steps. Returns the exit code."""
    lesson = _find(name)
    if is_folder(name) and kept.load(lesson.name) is None:
        return _told_to_author(lesson, store, as_json=as_json)
    with _desk(lesson, store) as desk:
        done = desk.checker.check()
        for path, made in ((gradescope, gradescope_of), (classroom, classroom_of)):
            if path is not None:
                write_whole(path, json.dumps(made(done), indent=2, ensure_ascii=False) + "\n")
        if as_json:
            sys.stdout.write(json.dumps(points_of(done), indent=2, ensure_ascii=False) + "\n")
        else:
            _print_all(desk, done)
    if any(step.state is State.ERROR for step in done.steps):
        return _ERROR_OF_THE_CHECKER
    return 0 if all(step.state is State.PASSED for step in done.steps) else 1


def write_report(
    name: str,
    *,
    html: Path | None,
    pdf: Path | None,
    json_file: Path | None,
    student: str | None,
    consent: str | None,
    key_file: Path | None,
    store: str | None,
) -> None:
    """Write what is asked for. Raises BadInput where nothing is."""
    if not (html or pdf or json_file):
        raise BadInput("no file was named", resolution=f"{shown.prog()} lesson report {name} --html FILE")
    key = read_key(key_file) if key_file else None
    lesson = _begun(name)
    work = kept.load(lesson.name)
    if work is not None and (student is not None or consent is not None):
        kept.start(lesson, language=work.language, student=student, consent=_consent(consent))
    with _desk(lesson, store, key=key) as desk:
        done = desk.checker.check()
        page = ""
        if html or pdf:
            from lab.lesson.report.page import render

            page = render(lesson, done, desk.words, beside=_beside(desk))
        if json_file is not None:
            write_whole(json_file, done.model_dump_json(indent=2) + "\n")
        if html is not None:
            write_whole(html, page)
        if pdf is not None:
            from lab.lesson.report.pdf import write_pdf

            write_pdf(page, pdf)
        for path in filter(None, (html, pdf, json_file)):
            desk.console.print(str(path), markup=False, highlight=False, soft_wrap=True)
        if not done.student:
            desk.console.print(desk.words("It bears no name yet: add --student 'YOUR NAME'."), markup=False)


def _find(name: str) -> Lesson:
    """By name or folder; by name also one of the user's own that was begun."""
    if not is_folder(name) and name not in shipped():
        work = kept.load(name) if name.replace("-", "").isalnum() else None
        if work is not None and work.folder:
            return read(Path(work.folder))
    return find(name)


def _begun(name: str | None) -> Lesson:
    """That lesson, or the one that was worked on last. Raises BadInput where there is none, or it was not begun."""
    if name is None:
        works = kept.begun()
        if not works:
            raise BadInput("no lesson was begun yet", resolution=f"{shown.prog()} lesson start boot")
        name = works[0].lesson
    lesson = _find(name)
    if kept.load(lesson.name) is None:
        raise kept.not_begun(name)
    return lesson


@contextmanager
def _desk(lesson: Lesson, store: str | None, *, key: bytes | None = None) -> Iterator[Desk]:
    """Raises BadInput where the lesson was not begun; StoreError."""
    work = kept.load(lesson.name)
    if work is None:
        raise kept.not_begun(lesson.name)
    words = Words(work.language)
    with Store.open(store) as opened:
        checker = Checker(lesson=lesson, work=work, store=opened, words=words, key=key)
        yield Desk(lesson=lesson, work=work, words=words, checker=checker, console=Console())


def _print_at_hand(desk: Desk, done: Progress, *, ran: bool = False) -> None:
    """The step at hand with what to type."""
    found = ahead(desk.lesson, done, desk.words, prog=shown.prog())
    if found.step is not None:
        shown.print_step(desk.console, desk.lesson, desk.step(found.step.id), desk.words)
        if found.again or (ran and any(check.name == "run" for check in found.step.checks)):
            desk.console.print()
            shown.print_checks(desk.console, found.step, desk.words)
    shown.print_ahead(desk.console, found, desk.words)


def _print_passed(desk: Desk, done: Progress, *, until: str | None) -> None:
    """The last step that passed before the one at hand, with its explanation."""
    ids = [step.id for step in desk.lesson.steps]
    place = ids.index(until) if until else len(ids)
    if place and done.steps[place - 1].state is State.PASSED:
        _print_step_passed(desk, done, ids[place - 1])


def _print_step_passed(desk: Desk, done: Progress, step_id: str) -> None:
    words, console, step = desk.words, desk.console, desk.step(step_id)
    told = next(one for one in done.steps if one.id == step_id)
    console.print(Text.assemble((f"✓ {words('passed')}", "bold green"), f": {told.title}"))
    if told.lost:
        console.print(
            words("This machine has nothing to show for it ({why}); it counts for nothing.", why=told.lost),
            markup=False,
        )
    beside = _beside(desk).get(step_id, "")
    if beside:
        first = told.predictions[0].value if told.predictions else ""
        console.print(
            words("You predicted {prediction}. Measured: {figure}.", prediction=first, figure=beside),
            markup=False,
            highlight=False,
        )
    for check in told.checks:
        if check.name == "answer" and check.expected:
            console.print(f"{words('expected')}: {check.expected}", markup=False, highlight=False)
    shown.print_after(console, desk.lesson, step, words)


def _print_outcome(desk: Desk, done: Progress, step_id: str) -> int:
    """What became of a step after something was said; returns 0 where it passed."""
    told = next(one for one in done.steps if one.id == step_id)
    if told.state is State.PASSED:
        _print_step_passed(desk, done, step_id)
        _print_at_hand(desk, done)
        return 0
    shown.print_checks(desk.console, told, desk.words)
    shown.print_ahead(desk.console, ahead(desk.lesson, done, desk.words, prog=shown.prog()), desk.words)
    return _ERROR_OF_THE_CHECKER if told.state is State.ERROR else 1


def _print_all(desk: Desk, done: Progress) -> None:
    words, console = desk.words, desk.console
    for step in done.steps:
        shown.print_title(console, f"{step.id}: {step.title}")
        console.print(f"{shown.state_word(step.state, words)}, {step.points:g} / {step.max_points:g}", highlight=False)
        if step.lost:
            console.print(
                words("This machine has nothing to show for it ({why}); it counts for nothing.", why=step.lost),
                markup=False,
            )
        if step.state is not State.PASSED:
            shown.print_checks(console, step, words)
    console.print()
    console.print(
        words("Points: {points} of {all}", points=f"{done.points:g}", all=f"{done.max_points:g}"), highlight=False
    )
    shown.print_ahead(console, ahead(desk.lesson, done, words, prog=shown.prog()), words)


def _print_time(desk: Desk) -> None:
    """How long it takes here, and what it loses."""
    from lab.cli.lesson.planned import plan

    lesson, words, console = desk.lesson, desk.words, desk.console
    reading = reading_s(lesson, desk.work.language)
    running, known = 0.0, True
    skipped: dict[str, str] = {}
    for command in lesson.commands:
        try:
            planned = plan(command, desk.checker.store)
        except LabError as error:
            skipped["?"] = str(error)
            continue
        running += planned.seconds
        known = known and planned.runs > 0
        skipped |= planned.skipped
    by = words("as earlier runs here took") if known else words("a guess, before the first such run here")
    console.print()
    if lesson.commands:
        sentence = words(
            "About {all}: {reading} to read, think and type, and {running} of measuring ({by}).",
            all=duration(reading + running),
            reading=duration(reading),
            running=duration(running),
            by=by,
        )
    else:
        sentence = words("About {all} to read, think and type; nothing is measured.", all=duration(reading))
    console.print(sentence, markup=False, highlight=False, width=min(88, console.width))
    _print_losses(desk, skipped)


def _print_losses(desk: Desk, skipped: Mapping[str, str]) -> None:
    words, console = desk.words, desk.console
    sections = desk.lesson.text(desk.work.language).sections
    for target, why in skipped.items():
        console.print()
        console.print(
            words("Not on this machine: {target}: {why}", target=target, why=why), markup=False, highlight=False
        )
        section = sections.get(f"{WITHOUT}{_driver(target)}")
        if section is not None:
            shown.print_markdown(console, section.question)


def _driver(target: str) -> str:
    try:
        return Target.parse(target).driver
    except BadInput:
        return ""


def _told_to_author(lesson: Lesson, store: str | None, *, as_json: bool) -> int:
    """That a folder is a lesson, for who writes one."""
    from lab.cli.lesson.planned import plan

    with Store.open(store) as opened:
        planned = {command.text: plan(command, opened) for command in lesson.commands}
    told: dict[str, Any] = {
        "lesson": lesson.name,
        "steps": [step.id for step in lesson.steps],
        "languages": sorted(lesson.texts),
        "minutes": {code: round(reading_s(lesson, code) / 60, 1) for code in sorted(lesson.texts)},
        "commands": [
            {"command": text, "seconds": one.seconds, "runs": one.runs, "skipped": dict(one.skipped)}
            for text, one in planned.items()
        ],
        "points": sum(step.table.points for step in lesson.steps),
    }
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return 0
    console = Console()
    console.print(f"{lesson.folder} is a lesson: {lesson.name}", markup=False, highlight=False)
    for key in ("steps", "languages"):
        console.print(f"  {key}: {', '.join(told[key])}", markup=False, highlight=False)
    for text, one in planned.items():
        by = f"as {one.runs} earlier runs here took" if one.runs else "a guess"
        console.print(f"  {text}: {duration(one.seconds)} ({by})", markup=False, highlight=False, soft_wrap=True)
    minutes = ", ".join(f"{code} {value:g}" for code, value in told["minutes"].items())
    console.print(f"  minutes of reading: {minutes}", markup=False, highlight=False)
    console.print(Text.assemble("\nType next:\n  ", (f"{shown.prog()} lesson start {lesson.folder}", "cyan")))
    return 0


def _beside(desk: Desk) -> dict[str, str]:
    """By step with a prediction, what was measured of it; also by the next step whose run shows it."""
    found = {}
    for step in desk.lesson.steps:
        predict = step.table.predict
        record = desk.checker.run_of(step)
        if predict is not None and record is not None and (told := answers.told_beside(predict, record, desk.words)):
            found[step.id] = told
    return found


def _language(lesson: Lesson, lang: str | None, known: Work | None) -> str:
    if lang is not None:
        if lang not in lesson.texts:
            raise BadInput(
                f"the lesson {lesson.name} is not there in '{lang}'", resolution=f"there are: {', '.join(lesson.texts)}"
            )
        return lang
    return known.language if known and known.language in lesson.texts else _own_language(list(lesson.texts))


def _own_language(there: list[str]) -> str:
    return next((code for code in from_environment() if code in there), ENGLISH if ENGLISH in there else there[0])


def _consent(given: str | None) -> bool | None:
    if given is None:
        return None
    if given not in ("yes", "no"):
        raise BadInput(f"--consent is yes or no, and not '{given}'")
    return given == "yes"


def _example(unit: str | None, choices: list[str]) -> str:
    from lab.lesson.values import EXAMPLES

    return " or ".join(choices) if choices else EXAMPLES[unit or ""]
