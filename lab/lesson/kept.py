"""What is kept of a student's work on a lesson: a file each, beside the store, to which things are only added.

A prediction that was given stays as it is; a second one stands beside it. Each entry bears a digest over itself and the
one before, so that an entry that was changed, moved or taken out by hand is seen. That stops nobody who makes all of
them anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.errors import BadInput, LabError
from lab.lesson.lesson import Lesson
from lab.lesson.record import Given
from lab.store.place import filling, state_dir, write_whole

_MOST = 2000


class Kind(StrEnum):
    PREDICTION = "prediction"
    ANSWER = "answer"


class Entry(BaseModel):
    """One thing that a student said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    step: str
    value: str
    at: str
    run_id: str = ""
    chain: str = ""

    def chained(self, before: str) -> str:
        told = json.dumps([before, self.kind, self.step, self.value, self.at, self.run_id])
        return hashlib.sha256(told.encode()).hexdigest()[:32]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["stratalab lesson work"] = "stratalab lesson work"
    version: Literal[1] = 1
    lesson: str
    folder: str = ""
    language: str
    student: str = ""
    consent: bool = False
    started_at: str
    updated_at: str
    entries: Annotated[list[Entry], Field(max_length=_MOST)] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """A student's work on one lesson, as it is in its file."""

    told: _File

    @property
    def lesson(self) -> str:
        return self.told.lesson

    @property
    def folder(self) -> str:
        """Where the lesson is, if it does not ship with the lab."""
        return self.told.folder

    @property
    def language(self) -> str:
        return self.told.language

    @property
    def student(self) -> str:
        return self.told.student

    @property
    def consent(self) -> bool:
        return self.told.consent

    @property
    def started_at(self) -> str:
        return self.told.started_at

    @property
    def updated_at(self) -> str:
        return self.told.updated_at

    def predictions(self, step: str) -> list[Given]:
        """The first is the one that counts."""
        return self._given(Kind.PREDICTION, step)

    def answers(self, step: str) -> list[Given]:
        """The last is the one that counts."""
        return self._given(Kind.ANSWER, step)

    @property
    def changed_by_hand(self) -> bool:
        """Whether an entry is not as it was added."""
        before = self.told.started_at
        for entry in self.told.entries:
            if entry.chain != entry.chained(before):
                return True
            before = entry.chain
        return False

    def _given(self, kind: Kind, step: str) -> list[Given]:
        found = [entry for entry in self.told.entries if entry.kind is kind and entry.step == step]
        return [Given(value=entry.value, at=entry.at, run_id=entry.run_id) for entry in found]


def folder() -> Path:
    """Where the files are, readable by their user alone. Raises LabError."""
    path = state_dir() / "lessons"
    with filling("what is kept of lessons", path.parent):
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def begun() -> list[Work]:
    """All that was begun, what was worked on last first. Raises BadInput for a file that cannot be read."""
    found = [_read(path) for path in folder().glob("*.json")]
    return sorted((work for work in found if work), key=lambda work: work.updated_at, reverse=True)


def load(name: str) -> Work | None:
    """What is kept of the lesson of that name; None where it was not begun. Raises BadInput."""
    return _read(folder() / f"{name}.json")


def start(lesson: Lesson, *, language: str, student: str | None, consent: bool | None) -> Work:
    """Begin a lesson, or go on with it, in that language. Raises BadInput, LabError."""
    with _alone():
        known = load(lesson.name)
        place = "" if lesson.shipped else str(lesson.folder)
        if known is not None and known.folder != place:
            raise BadInput(
                f"another lesson is called {lesson.name}: {known.folder or 'it ships with the lab'}",
                resolution=f"give yours another name in its {lesson.folder / 'lesson.toml'}",
            )
        now = now_precise()
        told = (
            known.told
            if known
            else _File(lesson=lesson.name, folder=place, language=language, started_at=now, updated_at=now)
        )
        changes: dict[str, object] = {"language": language, "updated_at": now}
        changes |= {} if student is None else {"student": student.strip()[:200]}
        changes |= {} if consent is None else {"consent": consent}
        return _write(Work(told.model_copy(update=changes)))


def add(name: str, kind: Kind, step: str, value: str, *, run_id: str = "") -> Work:
    """Keep what the student says now. Raises BadInput where the lesson was not begun; LabError."""
    with _alone():
        work = load(name)
        if work is None:
            raise not_begun(name)
        told = work.told
        if len(told.entries) >= _MOST:
            raise BadInput(f"more than {_MOST} entries in one lesson are not kept", resolution="begin another")
        now = now_precise()
        entry = Entry(kind=kind, step=step, value=value, at=now, run_id=run_id)
        before = told.entries[-1].chain if told.entries else told.started_at
        entry = entry.model_copy(update={"chain": entry.chained(before)})
        changed = told.model_copy(update={"entries": [*told.entries, entry], "updated_at": now})
        return _write(replace(work, told=changed))


def not_begun(name: str) -> BadInput:
    return BadInput(f"the lesson {name} was not begun", resolution=f"lab lesson start {name}")


def now_precise() -> str:
    """The time in UTC by ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read(path: Path) -> Work | None:
    try:
        return Work(_File.model_validate_json(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}", resolution="make it yours to read") from error
    except ValidationError as error:
        raise BadInput(
            f"{path} is not what the lab wrote: {error.errors()[0]['msg']}", resolution="move it away and begin anew"
        ) from error


def _write(work: Work) -> Work:
    write_whole(folder() / f"{work.lesson}.json", work.told.model_dump_json(indent=1) + "\n")
    return work


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two commands at a time add one after the other."""
    descriptor = os.open(folder() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def unseen(given: Sequence[Given]) -> str:
    """The values in the order in which they were given."""
    return ", then ".join(one.value for one in given)
