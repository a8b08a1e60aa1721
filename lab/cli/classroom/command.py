"""`lab class`: what a class has handed in, as a page for the room and a terminal for the teacher."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lab.classroom.handed import Class
from lab.classroom.overview import overview_of
from lab.classroom.reading import read_files
from lab.classroom.report import write_html
from lab.classroom.stored import read_store
from lab.classroom.table import render_class
from lab.errors import BadInput
from lab.show.terminal import printable

_SOME_LEFT_OUT = 1


def show_class(files: Sequence[Path], *, store: str | None, html: Path | None, as_json: bool) -> int:
    """The exit code. Raises BadInput where nothing could be read, StoreError."""
    if not files and store is None:
        raise BadInput("there is nothing to gather", resolution="lab class FILES… --html class.html, or --store URL")
    found = read_files(files)
    if store is not None:
        found = _with(found, read_store(store))
    for one in found.left_out:
        print(f"lab: left out {printable(one.source)}: {printable(one.why)}", file=sys.stderr)  # noqa: T201
    if not found.runs and not found.lessons:
        what = f"none of the {len(files)} could be read" if len(files) > 1 else "it could not be read"
        what = what if files else f"the store {store} has no ended runs of the lab's own"
        raise BadInput(what, resolution="have students write them: lab export last --output NAME.json")
    overview = overview_of(found)
    if html is not None:
        write_html(overview, html)
    if as_json:
        sys.stdout.write(json.dumps(overview.to_json(), indent=2, allow_nan=False) + "\n")
    else:
        Console().print(render_class(overview))
        if html is not None:
            Console().print(f"\n{html}", markup=False, highlight=False, soft_wrap=True)
    return _SOME_LEFT_OUT if found.left_out else 0


def _with(files: Class, stored: Class) -> Class:
    """Of a run that is in both, the file's."""
    known = {run.run_id for run in files.runs if not run.of_lesson}
    more = [run for run in stored.runs if run.run_id not in known]
    there = {run.run_id for run in more}
    return Class(
        runs=[*(run for run in files.runs if not (run.of_lesson and run.run_id in there)), *more],
        lessons=files.lessons,
        left_out=[*files.left_out, *stored.left_out],
        twice=files.twice,
        changed=files.changed,
    )
