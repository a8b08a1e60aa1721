"""What a user types of lessons; the work is in `commands.py`."""

# No `from __future__ import annotations` here, as in main.py.
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.words import JsonOption, StoreOption, WholeSummaries

lesson = typer.Typer(cls=WholeSummaries, invoke_without_command=True)

LessonArgument = Annotated[str, typer.Argument(metavar="LESSON", help="Its name, or the folder of one of your own.")]
MaybeLesson = Annotated[
    str | None, typer.Argument(metavar="[LESSON]", help="Its name; without, the one that was worked on last.")
]
StepArgument = Annotated[str, typer.Argument(metavar="STEP", help="The step's name, as the lesson gives it.")]
KeyOption = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="The class key, by which figures are signed.")
]


def add_to(app: typer.Typer) -> None:
    """Have `app` take them."""
    app.add_typer(lesson, name="lesson")


@lesson.callback()
def lessons(ctx: typer.Context, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Guided lessons: a question, your prediction, your own measurement, and a check of it: `lab lesson start boot`."""
    if ctx.invoked_subcommand is None:
        from lab.cli.lesson.commands import list_lessons

        list_lessons(store=store, as_json=as_json)


@lesson.command()
def start(
    name: LessonArgument,
    lang: Annotated[str | None, typer.Option(metavar="LANGUAGE", help="Of the lesson: en, de. Default: yours.")] = None,
    student: Annotated[str | None, typer.Option(metavar="NAME", help="Your name, for the report.")] = None,
    consent: Annotated[
        str | None, typer.Option(metavar="yes|no", help="Whether the class page may name you. Default: no.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Begin a lesson, or go on with it, and see what to type next."""
    from lab.cli.lesson.commands import start_lesson

    start_lesson(name, lang=lang, student=student, consent=consent, store=store)


@lesson.command()
def show(
    name: MaybeLesson = None,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="That step; without, the one at hand.")] = None,
    store: StoreOption = None,
) -> None:
    """Read a step once more."""
    from lab.cli.lesson.commands import show_step

    show_step(name, step, store=store)


@lesson.command("next")
def go_on(name: MaybeLesson = None, store: StoreOption = None) -> None:
    """Check the step at hand, and go on where it passes."""
    from lab.cli.lesson.commands import next_step

    raise typer.Exit(next_step(name, store=store))


@lesson.command()
def predict(
    name: LessonArgument,
    step: StepArgument,
    value: Annotated[list[str], typer.Argument(metavar="VALUE...", help="What you expect, such as 50ms.")],
    store: StoreOption = None,
) -> None:
    """Say what you expect, before anything runs. It is kept, and never changed."""
    from lab.cli.lesson.commands import keep_prediction

    keep_prediction(name, step, " ".join(value), store=store)


@lesson.command()
def answer(
    name: LessonArgument,
    step: StepArgument,
    value: Annotated[list[str], typer.Argument(metavar="VALUE...", help="Your answer, such as 300-375ms.")],
    store: StoreOption = None,
) -> None:
    """Answer a step's question; it is checked against your own run at once."""
    from lab.cli.lesson.commands import keep_answer

    raise typer.Exit(keep_answer(name, step, " ".join(value), store=store))


@lesson.command(
    epilog="Exit codes: 0 every step has passed, 1 not all have, 2 bad input, 4 a check could not be judged."
)
def check(
    name: LessonArgument,
    gradescope: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write Gradescope's results.json.")
    ] = None,
    classroom: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a result for GitHub Classroom's reporter.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check all steps of a lesson, or, of a folder, also whether it is a lesson."""
    from lab.cli.lesson.commands import check_lesson

    raise typer.Exit(check_lesson(name, gradescope=gradescope, classroom=classroom, store=store, as_json=as_json))


@lesson.command()
def report(
    name: LessonArgument,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as a page.")] = None,
    pdf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as a PDF, where Chromium or Chrome is installed.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the export that `lab class` reads.")
    ] = None,
    student: Annotated[str | None, typer.Option(metavar="NAME", help="Your name, for the report.")] = None,
    consent: Annotated[
        str | None, typer.Option(metavar="yes|no", help="Whether the class page may name you. Default: no.")
    ] = None,
    key_file: KeyOption = None,
    store: StoreOption = None,
) -> None:
    """The report to hand in: predictions, your own figures with their intervals, answers; signed."""
    from lab.cli.lesson.commands import write_report

    write_report(
        name, html=html, pdf=pdf, json_file=json_file, student=student, consent=consent, key_file=key_file, store=store
    )


@lesson.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Reports (.html) or exports (.json).")],
    key_file: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """For teachers: whether reports are as they were signed, and whether two of them have the same run."""
    from lab.cli.lesson.verify import verify_files

    raise typer.Exit(verify_files(files, key_file=key_file, as_json=as_json))
