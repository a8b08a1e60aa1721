"""A class that hands in files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_class import student_runs

from lab.lesson.record import Progress
from lab.store.record import RunRecord


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Writes an export, or anything, to a file of that name."""

    def written(name: str, what: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, RunRecord):
            what = json.dumps(what.to_json())
        elif isinstance(what, Progress):
            what = what.model_dump_json()
        path.write_bytes(what if isinstance(what, bytes) else what.encode())
        return path

    return written


@pytest.fixture
def runs() -> Callable[..., Sequence[RunRecord]]:
    """The boots of so many students' machines, each a machine of its own."""

    def made(students: int, **more: Any) -> Sequence[RunRecord]:
        return [next(iter(student_runs(number, **more))) for number in range(students)]

    return made
