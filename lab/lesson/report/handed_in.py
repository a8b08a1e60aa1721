"""What teachers do with reports that were handed in: read them, hold their figures against their signatures, and find
those that two have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput
from lab.lesson import signing
from lab.lesson.record import LARGEST_BYTES, Progress, parse

_EMBEDDED = re.compile(rb'<script type="application/json" id="stratalab-lesson">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one file: what it tells, the runs that it is about, and what is the matter with it."""

    file: str
    progress: Progress
    run_ids: list[str]
    problems: list[str]


def embedded(progress: Progress) -> str:
    """The export as it stands within a report's page, where nothing in it ends the script."""
    told = json.dumps(progress.model_dump(mode="json"), ensure_ascii=True)
    told = told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="stratalab-lesson">{told}</script>'


def read_any(path: Path) -> Progress:
    """An export, or the one within a report. Raises BadInput."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", resolution="name a report or an export") from error
    if len(content) > LARGEST_BYTES:
        raise BadInput(f"{path} has more than {LARGEST_BYTES:,} bytes", resolution="name a report or an export")
    found = _EMBEDDED.findall(content)
    if len(found) > 1:
        raise BadInput(f"{path} holds more than one export", resolution="have it written anew")
    return parse(found[0] if found else content, name=str(path))


def verify(files: Sequence[Path], key: bytes | None) -> list[Verdict]:
    """Raises BadInput for the first file that is none of these."""
    told = [(str(path), read_any(path)) for path in files]
    runs = {name: sorted({*_runs(progress)}) for name, progress in told}
    verdicts = []
    for name, progress in told:
        problems = [
            f"{figure.metric} of {figure.label}, run {figure.run_id}: {why}"
            for figure in progress.figures
            if (why := signing.problem(figure, key))
        ]
        problems += [
            f"{figure.metric} of {figure.label} is of host {figure.host_id[:12]}, and the report of "
            f"{progress.host.id[:12]}"
            for figure in progress.figures
            if figure.host_id != progress.host.id
        ]
        signed = {figure.run_id for figure in progress.figures}
        problems += [f"run {run} is spoken of, and no figure of it is there" for run in runs[name] if run not in signed]
        for other, another in told:
            shared = [run for run in runs[name] if other != name and run in runs[other]]
            same_student = another.student and another.student == progress.student
            if shared and not (same_student and another.lesson != progress.lesson):
                problems.append(f"has run {', '.join(shared)} in common with {other}")
        verdicts.append(Verdict(file=name, progress=progress, run_ids=runs[name], problems=problems))
    return verdicts


def _runs(progress: Progress) -> list[str]:
    return [figure.run_id for figure in progress.figures] + [run for step in progress.steps for run in step.run_ids]
