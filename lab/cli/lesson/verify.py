"""`lab lesson verify`: whether what students handed in is as it was signed, and whether two of them share a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lab.lesson.report.handed_in import Verdict, verify
from lab.lesson.signing import read_key
from lab.show.terminal import printable


def verify_files(files: Sequence[Path], *, key_file: Path | None, as_json: bool) -> int:
    """Returns 0 where nothing is the matter, else 1. Raises BadInput for a file that is none of these."""
    found = verify(files, read_key(key_file) if key_file else None)
    if as_json:
        sys.stdout.write(json.dumps([_json(one) for one in found], indent=2, ensure_ascii=False) + "\n")
    else:
        console = Console()
        for one in found:
            _print(console, one)
    return 1 if any(one.problems for one in found) else 0


def _json(one: Verdict) -> dict[str, object]:
    return {
        "file": one.file,
        "student": one.progress.student,
        "lesson": one.progress.lesson,
        "host_id": one.progress.host.id,
        "points": one.progress.points,
        "max_points": one.progress.max_points,
        "runs": one.run_ids,
        "figures": len(one.progress.figures),
        "problems": one.problems,
    }


def _print(console: Console, one: Verdict) -> None:
    told = one.progress
    who = f"{told.student or '(no name)'}, {told.lesson}, {told.points:g}/{told.max_points:g}, host {told.host.id[:12]}"
    said = "not as signed, or not alone" if one.problems else f"as signed ({len(told.figures)} figures)"
    console.print(printable(f"{one.file}: {who}: {said}"), markup=False, highlight=False, soft_wrap=True)
    for problem in one.problems:
        console.print(printable(f"  {problem}"), markup=False, highlight=False, soft_wrap=True)
