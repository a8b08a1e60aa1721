"""Files that students handed in: each is read as far as it can be, and of what cannot be is told why, in one line.

They are strangers' files. None is read beyond a limit, packed or not; what is no plain file is not opened for long; no
value in one is trusted to be of its kind.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from lab.classroom.handed import NOT_SHOWN, Class, Handed, LeftOut, Lesson, handed_of_lesson, handed_of_record
from lab.errors import BadInput, LabError
from lab.lesson import record as lesson_record
from lab.lesson import signing
from lab.show.terminal import printable
from lab.store.importing import hyperfine, lab_json, pyperf
from lab.store.record import RunRecord
from lab.units import MIB

MOST_BYTES = 64 * MIB
"""Of a file, and of what a packed one unpacks to: a run of an hour has some megabytes."""
MOST_RUNS_IN_A_FILE = 1000

_LONGEST_WHY = 300
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
_CANNOT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What figures out of values of the wrong kind raise."""


_OTHERS = "it was measured by {tool}: a class is of the lab's own runs, each with its control"


def read_files(paths: Sequence[Path]) -> Class:
    """All that can be read of `paths`."""
    owners = _owners(paths)
    found = Gathering()
    seen: dict[Path, Path] = {}
    for path in paths:
        source = str(path)
        try:
            real = path.resolve()
            if real in seen:
                raise BadInput("it is given twice" if seen[real] == path else f"it is the same file as {seen[real]}")
            seen[real] = path
            for kind in _read(path):
                found.add(kind, source=source, owner=owners[path])
        except LabError as error:
            found.leave_out(source, error.brief)
        except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, as Python 3.11 and 3.12 tell it
            found.leave_out(source, f"it cannot be read: {getattr(error, 'strerror', None) or error}")
        except (MemoryError, RecursionError):
            found.leave_out(source, "it is too large, or nested too deep, to be read")
        except _CANNOT as error:  # such as a number of 5,000 digits, which cannot even be told of
            found.leave_out(source, f"a part of it is not of its kind: {error}")
    return found.taken()


class Gathering:
    """What was read so far, without what is there twice."""

    def __init__(self) -> None:
        self._runs: dict[str, Handed] = {}
        self._lessons: list[Lesson] = []
        self._left_out: list[LeftOut] = []
        self._twice: list[Handed] = []
        self._changed: list[LeftOut] = []

    def add(self, one: RunRecord | lesson_record.Progress, *, source: str, owner: str) -> None:
        """Raises BadInput where it is there already, or its figures cannot be computed."""
        if isinstance(one, RunRecord):
            self.add_run(_handed(one, source, owner))
            return
        whole = [figure for figure in one.figures if not self._problem(figure, source)]
        lesson = Lesson(source=source, owner=owner or one.student, progress=one.model_copy(update={"figures": whole}))
        self._lessons.append(lesson)

    def add_run(self, run: Handed) -> None:
        """Raises BadInput where it is there already."""
        known = self._runs.get(run.run_id)
        if known is None:
            self._runs[run.run_id] = run
            return
        self._twice.append(run)
        where = f"run {run.run_id} is in {known.source} already"
        if known.rows != run.rows or known.machine != run.machine:
            self._changed.append(LeftOut(run.source, f"{where}, with other figures: one of the two was changed"))
            where += ", with other figures"
        raise BadInput(where)

    def leave_out(self, source: str, why: str) -> None:
        line = printable(why)
        self._left_out.append(LeftOut(source, line if len(line) <= _LONGEST_WHY else f"{line[:_LONGEST_WHY]}…"))

    def taken(self) -> Class:
        """Runs that only a lesson's export tells of are added to those that were handed in whole; of a student's work
        on a lesson, the latest counts."""
        latest: dict[tuple[str, ...], Lesson] = {}
        for lesson in sorted(self._lessons, key=lambda one: one.progress.updated_at):
            progress = lesson.progress
            who = lesson.owner or progress.host.id or lesson.source
            latest[who, progress.host.id, progress.lesson, progress.lesson_digest] = lesson
        told = [run for lesson in latest.values() for run in handed_of_lesson(lesson)]
        lessons = sorted(latest.values(), key=lambda one: (one.progress.lesson, one.source))
        return Class(
            runs=[*self._runs.values(), *(run for run in told if run.run_id not in self._runs)],
            lessons=lessons,
            left_out=self._left_out,
            twice=self._twice,
            changed=self._changed,
        )

    def _problem(self, figure: lesson_record.Figure, source: str) -> bool:
        why = signing.problem(figure)
        if why:
            self._changed.append(LeftOut(source, f"{figure.metric} of {figure.target}: {why}"))
        return bool(why)


def _owners(paths: Sequence[Path]) -> Mapping[Path, str]:
    """Whose each file is: where they lie in several folders, the folder's name."""
    folders = {path: path.absolute().parent for path in paths}
    several = len(set(folders.values())) > 1
    return {path: folder.name if several else "" for path, folder in folders.items()}


def _read(path: Path) -> Iterator[RunRecord | lesson_record.Progress]:
    """Raises BadInput, OSError."""
    content = _content(path)
    try:
        document = from_json(content, allow_inf_nan=False)
    except ValueError as error:
        raise BadInput(f"it is no JSON: {error}") from error
    if lesson_record.is_progress(document):
        if len(content) > lesson_record.LARGEST_BYTES:
            raise BadInput(f"it is no lesson's export: it has more than {lesson_record.LARGEST_BYTES:,} bytes")
        yield lesson_record.parse(content, name="it")
        return
    several = isinstance(document, list)  # a night's `runs.json`
    if several and not 0 < len(document) <= MOST_RUNS_IN_A_FILE:
        raise BadInput(f"it is a list of {len(document)} things, and no export")
    for one in document if several else [document]:
        yield _run(one)


def _run(document: Any) -> RunRecord:
    found = lab_json.read(document, only=_is_shown)
    if found is None:
        tool = _tool_of(document)
        raise BadInput(_OTHERS.format(tool=tool) if tool else "it is neither a run's export nor a lesson's")
    if found.run.origin:
        raise BadInput(_OTHERS.format(tool=found.run.origin))
    return found


def _tool_of(document: Any) -> str:
    """Whose format it is, if another tool's that the lab knows."""
    for tool, read in (("hyperfine", hyperfine.read), ("pyperf", pyperf.read)):
        with contextlib.suppress(LabError, *_CANNOT):
            if read(document) is not None:
                return tool
    return ""


def _is_shown(metric: str) -> bool:
    return metric not in NOT_SHOWN


def _handed(record: RunRecord, source: str, owner: str) -> Handed:
    """What is only mappings by custom in an export may be anything in a stranger's. Raises BadInput."""
    try:
        return handed_of_record(record, source=source, owner=owner)
    except _CANNOT as error:
        raise BadInput(f"its figures cannot be computed: a part of it is not of its kind ({error})") from error


def _content(path: Path) -> bytes:
    """A plain file's content, unpacked where gzip packed it. Raises BadInput, OSError."""
    # Nothing waits for a pipe's other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise BadInput("it is a folder: name the files in it, as in FOLDER/*.json")
        if not stat.S_ISREG(mode):
            raise BadInput("it is no plain file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if content.startswith(_GZIP):
        content = _unpacked(content)
    if len(content) > MOST_BYTES:
        raise BadInput(f"it is larger than {MOST_BYTES // MIB} MiB, which no export is")
    if not content.strip():
        raise BadInput("it is empty")
    return content


def _unpacked(packed: bytes) -> bytes:
    """As far as MOST_BYTES and one more, whatever it would unpack to. Raises BadInput."""
    found = bytearray()
    try:
        while packed and len(found) <= MOST_BYTES:
            member = zlib.decompressobj(wbits=_GZIP_WINDOW)
            found += member.decompress(packed, MOST_BYTES + 1 - len(found))
            if not member.eof:
                if len(found) > MOST_BYTES:
                    break
                raise BadInput("it is a broken gzip file: it ends too early")
            packed = member.unused_data
    except zlib.error as error:
        raise BadInput(f"it is a broken gzip file: {error}") from error
    return bytes(found)
