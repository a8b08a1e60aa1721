"""A busy neighbour on the victim's own CPU makes its slowest answers slower, and without one it is as fast as before.

Both are read from the scenario's own trials on real engines: the slowdown of the window with the antagonist, and the
drift from the quiet window before it to the quiet one after it. The median has no goal: it may even become faster, as a
CPU that is never idle need not wake up.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from scenario_run import run_scenario
from verdict import SAME, Goal, Verdict, report, say

from lab.figures import series
from lab.store.database import Store
from lab.store.record import Outcome

TARGETS = ("process", "docker")
ROUNDS = 8
PARAMETERS = {"antagonists": "busy", "share": "yes"}
SLOWER = Goal(text="over 1", low=1.0)


def neighbour(rounds: int) -> list[Verdict]:
    """Measure and print; windows in which the load's client was late give no value. Raises LabError."""
    with tempfile.TemporaryDirectory() as folder, Store.open(str(Path(folder) / "accept.db")) as store:
        record = run_scenario(store, "neighbour", TARGETS, rounds, PARAMETERS)
    verdicts = []
    for target in record.targets:
        if target.outcome is not Outcome.OK:
            say(f"  {target.target}: {target.reason} -> not run")
            verdicts.append(Verdict.NOT_RUN)
            continue
        values = {row.metric: row.values for row in series.series_of(record) if row.target == target.target}
        for metric, name, goal in (
            ("slowdown_p50", "p50 with a busy neighbour, over without", None),
            ("slowdown_p99", "p99 with a busy neighbour, over without", SLOWER),
            ("drift_p50", "p50 without one, after over before", SAME),
        ):
            verdict = report(f"{target.target}: {name}", values.get(metric, ()), "x", goal)
            verdicts += [verdict] if verdict is not None else []
    return verdicts
