"""Change points over a whole series by Apache Otava, in a process of its own: it pins NumPy and SciPy lower than the
lab may have them, and brings gRPC.

What the lab sees to itself, since Otava 0.8 does not: gaps are dropped (a NaN hides a step, and None is filled with
the value before), a constant series is not asked about (it alarms at 1e-9), a change point among the last nights is not
told (it reports the very last point), and a change smaller than what matters is not told either. `max_pvalue` is 1e-4,
since at its default some 20 % of series without any change alarm within 60 nights.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import BadInput

MAX_PVALUE = 1e-4
LAST_NIGHTS = 3
"""A change point needs at least so many nights from it on."""
LEAST_NIGHTS = 12
_TIMEOUT_S = 120.0
_INSTALL = "pip install 'stratalab[otava]', or --otava /path/to/python of an environment that has apache-otava"
_PROGRAM = """
import json, sys
from otava.analysis import compute_change_points
asked = json.load(sys.stdin)
found = []
for values in asked["series"]:
    points, _ = compute_change_points(values, max_pvalue=asked["max_pvalue"])
    found.append([[int(one.index), float(one.stats.pvalue)] for one in points])
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoint:
    """From the night at `place` on a series is `times` as large, by the medians on both sides up to the next point."""

    place: int
    run: str
    times: float
    p: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def interpreter(asked: str | None) -> str | None:
    """The interpreter to ask: the one that a user names, else the lab's own where Otava is installed; else None. Raises
    BadInput for one that is no program."""
    if asked:
        if not Path(asked).expanduser().is_file():
            raise BadInput(f"there is no interpreter {asked}", resolution=_INSTALL)
        return str(Path(asked).expanduser())
    return sys.executable if importlib.util.find_spec("otava") is not None else None


def change_points(
    python: str, runs: Sequence[str], series: Sequence[Sequence[float | None]], *, least: float
) -> list[list[ChangePoint]]:
    """The change points of each series, whose values are one a run of `runs`, or None. Raises BadInput where the
    interpreter has no Otava or it fails."""
    kept = [[(place, value) for place, value in enumerate(values) if value is not None] for values in series]
    asked = [place for place, values in enumerate(kept) if _worth_asking([value for _, value in values])]
    found: list[list[ChangePoint]] = [[] for _ in series]
    if not asked:
        return found
    for place, points in zip(asked, _ask(python, [[value for _, value in kept[one]] for one in asked]), strict=True):
        found[place] = list(_told(kept[place], points, runs, least))
    return found


def _worth_asking(values: Sequence[float]) -> bool:
    return len(values) >= LEAST_NIGHTS and max(values) > min(values)


def _told(
    kept: Sequence[tuple[int, float]], points: Sequence[tuple[int, float]], runs: Sequence[str], least: float
) -> list[ChangePoint]:
    told = [(index, p) for index, p in sorted(points) if 0 < index <= len(kept) - LAST_NIGHTS]
    edges = [0, *(index for index, _ in told), len(kept)]
    found = []
    for number, (index, p) in enumerate(told, start=1):
        before = statistics.median(value for _, value in kept[edges[number - 1] : index])
        after = statistics.median(value for _, value in kept[index : edges[number + 1]])
        times = after / before
        if max(times, 1 / times) >= 1 + least:
            found.append(ChangePoint(place=kept[index][0], run=runs[kept[index][0]], times=times, p=p))
    return found


def _ask(python: str, series: Sequence[Sequence[float]]) -> list[list[tuple[int, float]]]:
    asked = json.dumps({"series": series, "max_pvalue": MAX_PVALUE})
    try:
        done = subprocess.run(
            [python, "-c", _PROGRAM], input=asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode == 0:
            return [[(int(index), float(p)) for index, p in points] for points in json.loads(done.stdout)]
        said = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
    except subprocess.TimeoutExpired:
        said = f"it took more than {_TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        said = str(error)
    raise BadInput(f"Apache Otava could not be asked with {python}: {said}", resolution=_INSTALL)
