"""A lesson: one folder with `lesson.toml` and `text.LANGUAGE.md`. Nothing else is read, and nothing outside of it."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.errors import BadInput
from lab.lesson.command import Command
from lab.lesson.command import parse as parse_command
from lab.lesson.record import Mistake
from lab.lesson.text import WITHOUT, LessonText, Section
from lab.lesson.text import parse as parse_text
from lab.lesson.words import ENGLISH

SHIPPED = Path(__file__).parent / "lessons"
TABLE, TEXT = "lesson.toml", re.compile(r"text\.([a-z]{2,3})\.md")

_LARGEST_BYTES = 300_000
_SMALLEST_N = 6
_NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
_SEE = "see docs/lessons.md"

Name = Annotated[str, Field(pattern=_NAME, max_length=40)]
Choice = Annotated[str, Field(pattern=r"^[a-z0-9]+$", max_length=20)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Model):
    """Which row of the run is meant: of the first of the targets `of` that was measured, the metric, and of its
    dimensions those in `where`. `over`: its ratio to the bare process's of the same run."""

    of: Annotated[list[str], Field(min_length=1)]
    metric: str
    where: dict[str, str] = Field(default_factory=dict)
    over: bool = False


class Predict(_Model):
    """What is predicted: a value in `unit`, of `row` where the lesson is to show both together, or one of `choices`."""

    unit: Literal["s", "bytes", "x", ""] | None = None
    choices: list[Choice] = Field(default_factory=list)
    row: Row | None = None

    @model_validator(mode="after")
    def _one(self) -> Predict:
        if (self.unit is None) == (not self.choices):
            raise ValueError("give either 'unit' or 'choices'")
        return self


class Answer(_Model):
    """What is to be answered, and how that is checked.

    `interval`: the own 95 % interval of `row`. `order`: whether `row` is `more` or `less` than the bare process's, or
    `unclear`. `accel`: what the virtual machine of `row` ran on: `kvm`, `tcg`, or `none`. `choice`: what is in
    `correct`, all of them; `mistakes` tells of a wrong choice which mistake it is. `words`: at least `least` words,
    which a person reads.
    """

    kind: Literal["interval", "order", "accel", "choice", "words"]
    row: Row | None = None
    choices: list[Choice] = Field(default_factory=list)
    correct: list[Choice] = Field(default_factory=list)
    mistakes: dict[Choice, Mistake] = Field(default_factory=dict)
    least: Annotated[int, Field(ge=1, le=500)] = 5

    @model_validator(mode="after")
    def _fitting(self) -> Answer:
        if (self.kind in ("interval", "order", "accel")) != (self.row is not None):
            raise ValueError("'row' belongs to interval, order and accel, and they need it")
        if (self.kind == "choice") != bool(self.choices) or (self.kind == "choice") != bool(self.correct):
            raise ValueError("'choices' and 'correct' belong to choice, which needs them")
        if strange := {*self.correct, *self.mistakes} - {*self.choices}:
            raise ValueError(f"there is no choice {', '.join(sorted(strange))}")
        return self


class StepTable(_Model):
    """One step of the TOML. `after` are its grounds; without, the step before it. `run` is the command that is typed;
    `uses` names the step whose run is meant."""

    id: Name
    after: list[Name] | None = None
    points: Annotated[float, Field(ge=0, le=100)] = 1.0
    predict: Predict | None = None
    run: str | None = None
    uses: Name | None = None
    answer: Answer | None = None


class Table(_Model):
    """The whole TOML."""

    format: Literal[1]
    name: Name
    steps: Annotated[list[StepTable], Field(min_length=1, max_length=50)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: what the TOML says of it, its grounds, and its command taken apart."""

    table: StepTable
    after: Sequence[str]
    command: Command | None

    @property
    def id(self) -> str:
        return self.table.id

    @property
    def row(self) -> Row | None:
        """The row that it is about."""
        answer, predict = self.table.answer, self.table.predict
        return (answer.row if answer else None) or (predict.row if predict else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A whole one. `steps` are in the order of the file; `order` is one in which grounds come first. `digest` tells its
    versions apart."""

    name: str
    folder: Path
    steps: Sequence[Step]
    order: Sequence[str]
    texts: Mapping[str, LessonText]
    digest: str

    @property
    def shipped(self) -> bool:
        return self.folder.parent == SHIPPED

    def step(self, wanted: str) -> Step:
        """Raises BadInput."""
        for step in self.steps:
            if step.id == wanted:
                return step
        known = [step.id for step in self.steps]
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}"
        raise BadInput(f"the lesson {self.name} has no step '{wanted}'", resolution=hint)

    def text(self, language: str) -> LessonText:
        """In that language, or else in English, or else in the first there is."""
        return self.texts.get(language) or self.texts.get(ENGLISH) or next(iter(self.texts.values()))

    def section(self, step_id: str, language: str) -> Section:
        return self.text(language).sections[step_id]

    def running(self, step: Step) -> Step:
        """The step whose run `step` is about: itself, or the one that it uses."""
        return self.step(step.table.uses) if step.table.uses else step

    @property
    def commands(self) -> list[Command]:
        return [step.command for step in self.steps if step.command is not None]


def shipped() -> list[str]:
    """The names of the lessons that ship with the lab."""
    return sorted(path.name for path in SHIPPED.iterdir() if (path / TABLE).is_file())


def is_folder(wanted: str) -> bool:
    """Whether a user means a folder: by its form, or since there is one with a lesson and none ships of that name."""
    return "/" in wanted or wanted in (".", "..") or (wanted not in shipped() and (Path(wanted) / TABLE).is_file())


def find(wanted: str) -> Lesson:
    """The lesson of that name, or in that folder. Raises BadInput."""
    if is_folder(wanted):
        return read(Path(wanted))
    known = shipped()
    if wanted in known:
        return read(SHIPPED / wanted)
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(known)}; or name a folder: ./{wanted}"
    raise BadInput(f"there is no lesson '{wanted}'", resolution=hint)


def read(folder: Path) -> Lesson:
    """The lesson in a folder. Raises BadInput, which says in one line what is wrong with it."""
    try:
        root = folder.resolve(strict=True)
        names = sorted(path.name for path in root.iterdir())
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{folder} is no lesson's folder: {error}", resolution=_SEE) from error
    table_text = _content(root, TABLE)
    try:
        table = Table.model_validate(tomllib.loads(table_text))
        steps, order = _steps(table)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{folder / TABLE} is no TOML: {error}", resolution=_SEE) from error
    except ValidationError as error:
        raise BadInput(f"{folder / TABLE}: {_said(error)}", resolution=_SEE) from error
    except ValueError as error:
        raise BadInput(f"{folder / TABLE}: {error}", resolution=_SEE) from error
    texts: dict[str, LessonText] = {}
    digest = hashlib.sha256(table_text.encode())
    for name in names:
        if (found := TEXT.fullmatch(name)) is not None:
            content = _content(root, name)
            digest.update(content.encode())
            try:
                texts[found[1]] = _fitting(parse_text(content), steps)
            except ValueError as error:
                raise BadInput(f"{folder / name}: {error}", resolution=_SEE) from error
    if not texts:
        raise BadInput(f"{folder} has no text.en.md", resolution=f"write the lesson's words there: {_SEE}")
    return Lesson(name=table.name, folder=root, steps=steps, order=order, texts=texts, digest=digest.hexdigest()[:16])


def _content(root: Path, name: str) -> str:
    """A file's, which lies in the folder itself."""
    path = root / name
    try:
        if path.resolve(strict=True).parent != root or not path.is_file():
            raise BadInput(f"{path} leads out of the lesson's folder", resolution="put the file itself there")
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise BadInput(f"{path} has more than {_LARGEST_BYTES:,} bytes", resolution=_SEE)
        return content.decode("utf-8")
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadInput(f"{path} cannot be read: {why}", resolution=_SEE) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8", resolution="save it as UTF-8") from error


def _steps(table: Table) -> tuple[list[Step], list[str]]:
    """Raises ValueError."""
    ids = [step.id for step in table.steps]
    if twice := next((name for name in ids if ids.count(name) > 1), None):
        raise ValueError(f"the step '{twice}' is there twice")
    if taken := next((name for name in ids if name.startswith(WITHOUT)), None):
        raise ValueError(f"a step's id does not begin with '{WITHOUT}', as '{taken}' does")
    before: Mapping[str, list[str]] = {name: ids[place - 1 : place] if place else [] for place, name in enumerate(ids)}
    steps = [_step(one, before[one.id], ids) for one in table.steps]
    try:
        order = list(TopologicalSorter({step.id: step.after for step in steps}).static_order())
    except CycleError as error:
        raise ValueError(f"steps stand on each other in a circle: {' → '.join(reversed(error.args[1]))}") from error
    running = {step.id: step for step in steps if step.command is not None}
    for step in steps:
        _require_run(step, running)
    return steps, order


def _step(table: StepTable, before: Sequence[str], ids: Sequence[str]) -> Step:
    after = before if table.after is None else table.after
    if strange := [name for name in [*after, *filter(None, [table.uses])] if name not in ids]:
        raise ValueError(f"step '{table.id}': there is no step '{strange[0]}'")
    if table.run is not None and table.uses is not None:
        raise ValueError(f"step '{table.id}': it has a run of its own, or uses another's, and not both")
    if table.predict is None and table.run is None and table.answer is None:
        raise ValueError(f"step '{table.id}': it asks for nothing: give predict, run or answer")
    try:
        return Step(table=table, after=list(after), command=parse_command(table.run) if table.run else None)
    except ValueError as error:
        raise ValueError(f"step '{table.id}': {error}") from error


def _require_run(step: Step, running: Mapping[str, Step]) -> None:
    """Raises ValueError where what it asks needs a run, and there is none, or not one of so many rounds or targets."""
    source = running.get(step.table.uses or step.id)
    if step.table.uses and source is None:
        raise ValueError(f"step '{step.id}': the step '{step.table.uses}' has no run")
    if step.table.uses and step.table.uses not in step.after:
        raise ValueError(f"step '{step.id}': it uses the run of '{step.table.uses}', which must be among 'after'")
    answer = step.table.answer
    for row in filter(None, (step.table.predict.row if step.table.predict else None, answer.row if answer else None)):
        if source is None or source.command is None:
            if answer is not None and answer.row is row:
                raise ValueError(f"step '{step.id}': its row is of a run: give 'run', or 'uses'")
            continue
        if strange := [name for name in row.of if name not in source.command.targets]:
            raise ValueError(f"step '{step.id}': {', '.join(strange)} is none of the run's targets")
        if answer is not None and answer.kind == "interval" and source.command.rounds < _SMALLEST_N:
            raise ValueError(f"step '{step.id}': an interval needs {_SMALLEST_N} rounds")


def _fitting(text: LessonText, steps: Sequence[Step]) -> LessonText:
    """Raises ValueError where it lacks a section, or a choice."""
    ids = {step.id for step in steps}
    if lacking := [step.id for step in steps if step.id not in text.sections]:
        raise ValueError(f"it has no section '## {lacking[0]}: …'")
    if strange := [name for name in text.sections if name not in ids and not name.startswith(WITHOUT)]:
        raise ValueError(f"there is no step '{strange[0]}'")
    for step in steps:
        asked = [one.choices for one in (step.table.predict, step.table.answer) if one is not None]
        told = text.sections[step.id].choices
        for choices in asked:
            if choices and sorted(choices) != sorted(told):
                raise ValueError(f"step '{step.id}' offers {', '.join(told) or 'nothing'}, not {', '.join(choices)}")
    return text


def _said(error: ValidationError) -> str:
    """The first of what is wrong, in one line, by the step's own name where there is one."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    said: Any = problem["msg"]
    if problem["type"] == "extra_forbidden":
        said = "there is no such key"
    return f"{where}: {str(said).removeprefix('Value error, ')}" if where else str(said)
