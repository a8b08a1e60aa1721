"""Lessons in the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.lesson.ahead import Ahead
from lab.lesson.lesson import Lesson, Step
from lab.lesson.mistakes import told
from lab.lesson.record import Check, State
from lab.lesson.record import Step as Checked
from lab.lesson.words import Words
from lab.show.terminal import printable

_WIDTH = 88  # lines of text that are read, and not looked through
_STYLES = {State.PASSED: "green", State.FAILED: "red", State.ERROR: "magenta", State.OPEN: "yellow"}


def prog() -> str:
    """How this user calls the lab: by its name, or where that is another's or nobody's, by the way it was called."""
    called = Path(sys.argv[0])
    found = shutil.which("lab")
    if called.name != "lab":
        return "lab" if found else f"{sys.executable} -m lab"
    if found and Path(found).resolve() == called.resolve():
        return "lab"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def print_markdown(console: Console, text: str) -> None:
    """A lesson's own words; of a stranger's lesson, nothing that a terminal would obey."""
    shown = "\n".join(printable(line) for line in text.splitlines())
    console.print(Markdown(shown, hyperlinks=False), width=min(_WIDTH, console.width))


def print_step(console: Console, lesson: Lesson, step: Step, words: Words) -> None:
    """The question."""
    section = lesson.section(step.id, words.language)
    number = 1 + [one.id for one in lesson.steps].index(step.id)
    print_title(
        console, words("Step {number} of {all}: {title}", number=number, all=len(lesson.steps), title=section.title)
    )
    print_markdown(console, section.question)


def print_after(console: Console, lesson: Lesson, step: Step, words: Words) -> None:
    """Explanation, what others get wrong, and sources: what is read once the step has passed."""
    for title, text in lesson.section(step.id, words.language).parts.values():
        console.print()
        console.print(Text(printable(title), style="bold underline"))
        print_markdown(console, text)


def print_title(console: Console, title: str) -> None:
    console.print()
    console.print(Text(printable(title), style="bold"))
    console.print(Text("─" * min(len(title), _WIDTH), style="dim"))


def print_checks(console: Console, step: Checked, words: Words) -> None:
    """What was looked at in a step that has not passed: expected and actual, and what the mistake is called."""
    for check in step.checks:
        if check.state is State.NOT_REACHED and check.name != "ground":
            continue
        line = Text.assemble(
            (f"{state_word(check.state, words)}  ", _STYLES.get(check.state, "dim")), check_name(check, words)
        )
        console.print(line)
        if check.state is State.PASSED:
            continue
        for label, value in ((words("expected"), check.expected), (words("actual"), check.actual)):
            if value:
                console.print(
                    Padding(Text(f"{label}: {printable(value)}"), (0, 0, 0, 4)), width=min(_WIDTH, console.width)
                )
        if check.mistake is not None:
            said = Text(f"{told(check.mistake, words)} [{check.mistake}]", style="italic")
            console.print(Padding(said, (0, 0, 0, 4)), width=min(_WIDTH, console.width))


def print_ahead(console: Console, found: Ahead, words: Words) -> None:
    """What to type next, each line by itself so that it can be copied."""
    console.print()
    again = found.again and found.step is not None
    heading = words("Type this again:") if again else words("Type next:")
    if found.step is None:
        heading = words("All steps have passed. For the report that you hand in, type:")
    console.print(Text(heading, style="bold"))
    for command in found.commands:
        console.print(Text(f"  {command}", style="cyan"), soft_wrap=True)
    if found.hint:
        console.print(Text(f"  ({found.hint})", style="dim"))


def table_of(rows: Sequence[Sequence[Any]], headings: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, header_style="bold")
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    return table


def state_word(state: State, words: Words) -> str:
    """A state, for a reader."""
    return {
        State.PASSED: words("passed"),
        State.FAILED: words("failed"),
        State.NOT_REACHED: words("not reached"),
        State.ERROR: words("error of the checker"),
        State.OPEN: words("open"),
    }[state]


def check_name(check: Check, words: Words) -> str:
    """What a check looks at, for a reader."""
    names = {
        "ground": words("what this step stands on"),
        "predicted": words("your prediction"),
        "kept": words("what was kept of this lesson"),
        "run": words("your run"),
        "tool": words("the tool that measured"),
        "scenario": words("the question of the run"),
        "host": words("the machine"),
        "order": words("predicted first, run then"),
        "end-of-run": words("the run came to its end"),
        "targets": words("the targets"),
        "launches": words("failed launches"),
        "rounds": words("the number of rounds"),
        "warm-up": words("warm-up"),
        "ends": words("until when was measured"),
        "terms": words("equal terms"),
        "unedited": words("as the lab stored it"),
        "answered": words("your answer"),
        "answer": words("your answer"),
        "checker": words("the checker itself"),
    }
    return names.get(check.name, check.name)
