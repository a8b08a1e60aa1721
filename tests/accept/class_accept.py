"""What a class's page takes: 200 made-up students with six runs each, from files and from a store, each a process.

Judged is the time by the clock, which is what a teacher waits for; beside it stands what it used of the processor.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from verdict import Goal, Verdict, report, say

from lab.store.database import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from made_class import SCENARIOS, student_runs, write_class

STUDENTS = 200
TURNS = 6
TIMEOUT_S = 120.0
UNDER_5_S = Goal(text="under 5 s", high=5.0)


def class_page(turns: int, seed: int) -> list[Verdict]:
    """Make the class, gather it so many times from either, and judge."""
    lab = Path(sys.executable).with_name("lab")
    with tempfile.TemporaryDirectory(prefix="lab-class-") as folder:
        base = Path(folder)
        files = write_class(base / "in", students=STUDENTS, seed=seed)
        with Store.open(str(base / "class.db")) as store:
            for number in range(STUDENTS):
                for record in student_runs(number, seed=seed):
                    store.import_run(record)
        size_mb = sum(path.stat().st_size for path in files) / 1e6
        say(f"  {STUDENTS} students, {len(SCENARIOS)} runs each: {len(files):,} files of {size_mb:.0f} MB")
        page = base / "class.html"
        ways = {"from files": [str(path) for path in files], "from a store": ["--store", str(base / "class.db")]}
        found: dict[str, list[float]] = {name: [] for name in ways}
        used: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(turns):
            for name, words in ways.items():
                before, begun = _cpu_s(), time.monotonic()
                _gather([str(lab), "class", *words, "--html", str(page)])
                found[name].append(time.monotonic() - begun)
                used[name].append(_cpu_s() - before)
                if not page.read_text().count("<h2>") >= len(SCENARIOS):
                    raise OSError(f"the page {name} lacks charts")
                page.unlink()
        verdicts = []
        for name in ways:
            report(f"{name}, of processor time", used[name], "s")
            verdicts.append(report(f"{name}, by the clock", found[name], "s", UNDER_5_S) or Verdict.NOT_RUN)
        return verdicts


def _gather(words: Sequence[str]) -> None:
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, timeout=TIMEOUT_S)


def _cpu_s() -> float:
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime
