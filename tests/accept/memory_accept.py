"""Memory: smem over the same processes, 20 MiB more in a real service, and the alarms of made-up runs.

The real runs go through the whole pipeline: scenario, store, comparison. Each pair is a run as it is and one whose
services hold 20 MiB more.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from labside import lab_side
from made_memory import density_run, memory_run
from programs import ProgramFailed
from scenario_run import run_scenario
from verdict import Verdict, say

from lab.errors import LabError
from lab.features import OnThisHost
from lab.figures import density, series, stats
from lab.figures.compared import RunComparison
from lab.figures.comparison import compare_runs
from lab.host.memory import Account, account
from lab.store.database import Store
from lab.store.record import Outcome, RunRecord
from lab.units import MIB

TARGETS = ("process", "docker")
HELD_MIB = 20
SLACK_BYTES, SLACK_SHARE = 256 * 1024, 0.02
PAIRS, FOUND = 400, 100
_SMEM_TIMEOUT_S = 120.0

# Scenario, target, rounds of each run, parameters: as few launches as let a test reach 5 %. A guest hands the first 20
# MiB out of what its kernel has touched and freed while it booted, so that they would not show on the host: its service
# holds 30 MiB in either run.
SEEDED: Sequence[tuple[str, str, int, Mapping[str, str]]] = (
    ("memory", "docker", 5, {"settle": "0.5", "alloc": "0", "requests": "0"}),
    ("memory", "libvirt:microvm", 5, {"settle": "0.5", "alloc": "0", "requests": "0", "hold": "30"}),
    ("density", "docker", 6, {"settle": "0.5", "max": "6"}),
    ("density", "libvirt:microvm", 4, {"settle": "0.5", "max": "2", "hold": "30"}),
)


def memory(pairs: int, chance: random.Random) -> list[Verdict]:
    """All of it, on the engines that are here; `pairs` made-up pairs of equals. Raises LabError, ProgramFailed."""
    verdicts = [_attempt(target, lambda target=target: _beside_smem(target)) for target in TARGETS]
    for scenario, target, rounds, parameters in SEEDED:
        verdicts.append(_attempt(target, lambda given=(scenario, target, rounds, parameters): _seeded(*given)))
    return [*verdicts, *_made_up(pairs, chance)]


def _attempt(target: str, part: Callable[[], Verdict]) -> Verdict:
    try:
        return part()
    except LabError as error:
        say(f"  {target}: not run: {error}")
        return Verdict.NOT_RUN


def _beside_smem(target: str) -> Verdict:
    """The lab's sums over a target's processes, and smem's over the same, read just after."""
    smem = shutil.which("smem")
    if smem is None:
        say(f"  {target}: smem is not installed (apt-get install smem) -> not run")
        return Verdict.NOT_RUN
    with lab_side() as side, side.prepare(target).launched() as session:
        instance = session.instance
        if not isinstance(instance, OnThisHost):
            return Verdict.NOT_RUN
        ours = account(instance.host_pids)
        theirs = _smem(smem, ours)
    good = True
    for name, value in (("PSS", ours.pss_bytes), ("USS", ours.uss_bytes), ("RSS", ours.rss_bytes)):
        other = theirs[name.lower()]
        near = abs(value - other) <= max(SLACK_BYTES, SLACK_SHARE * other)
        good = good and near
        say(f"  {target}: {name} {value / MIB:.2f} MiB by the lab, {other / MIB:.2f} MiB by smem")
    verdict = Verdict.MET if good else Verdict.MISSED
    say(f"  {target}: {len(ours.by_pid)} processes; goal within 2 % or 256 KiB each -> {verdict}")
    return verdict


def _smem(program: str, over: Account) -> dict[str, int]:
    try:
        output = subprocess.run(
            [program, "-H", "-c", "pid pss uss rss"],
            capture_output=True,
            text=True,
            timeout=_SMEM_TIMEOUT_S,
            check=True,
        ).stdout
    except subprocess.SubprocessError as error:
        raise ProgramFailed(f"smem failed: {error}") from error
    rows = [[int(word) for word in line.split()] for line in output.splitlines()]
    mine = [row for row in rows if row[0] in over.by_pid]
    return {name: 1024 * sum(row[place] for row in mine) for place, name in enumerate(("pss", "uss", "rss"), 1)}


def _seeded(scenario: str, target: str, rounds: int, parameters: Mapping[str, str]) -> Verdict:
    """Whether a run whose services hold 20 MiB more is told from one whose services do not."""
    with tempfile.TemporaryDirectory() as folder, Store.open(str(Path(folder) / "accept.db")) as store:
        plain = run_scenario(store, scenario, [target], rounds, parameters)
        held = run_scenario(
            store, scenario, [target], rounds, {**parameters, "hold": str(int(parameters.get("hold", 0)) + HELD_MIB)}
        )
        if reason := next((t.reason for run in (plain, held) for t in run.targets if t.outcome is not Outcome.OK), ""):
            say(f"  {scenario}, {target}: {reason} -> not run")
            return Verdict.NOT_RUN
        found = compare_runs(plain, held)
    # A label is the target with its qualifiers, `libvirt:microvm (tcg)`, and the run has one target.
    row = next(row for row in found.rows if row.can_alarm)
    told = " and ".join(f"{one.median / MIB:.1f} MiB (n = {one.n})" for one in (row.a, row.b) if one is not None)
    p = "no test" if row.p_corrected is None else f"p = {row.p_corrected:.3f}"
    verdict = Verdict.MET if row in found.regressions else _unseen(plain, held, row.metric)
    say(f"  {scenario}, {target}, {HELD_MIB} MiB more: {told}, {p}; goal called higher -> {verdict}")
    return verdict


def _unseen(plain: RunRecord, held: RunRecord, metric: str) -> Verdict:
    """What was not found: missed, unless other programs' memory made so much noise that a slope is not resolved."""
    rows = [row for run in (plain, held) for row in series.series_of(run) if row.metric == metric]
    if metric == density.MARGINAL and not all(density.resolved(stats.estimate(row.values)) for row in rows):
        say("  a slope is not resolved: other programs take and return too much memory")
        return Verdict.INCONCLUSIVE
    return Verdict.MISSED


def _made_up(pairs: int, chance: random.Random) -> list[Verdict]:
    verdicts = []
    for name, n, make in (
        ("memory, n = 10", 10, lambda who, **more: memory_run(chance, who, n=10, **more)),
        ("density, 10 walks", 5, lambda who, **more: density_run(chance, who, rounds=5, **more)),
    ):
        alarms = sum(bool(compare_runs(make("a"), make("b")).alarms) for _ in range(pairs))
        low, high = 8 * pairs / PAIRS, 35 * pairs / PAIRS
        verdicts.append(_counted(f"{name}: A/A alarms", alarms, pairs, f"{low:.0f} to {high:.0f}", low, high))
        for target in ("docker", "libvirt:microvm")[: 2 if n == 10 else 1]:
            more = {target: float(HELD_MIB)}
            found = sum(_found(compare_runs(make("a"), make("b", more_mib=more)), target) for _ in range(FOUND))
            text = f"{name}: {HELD_MIB} MiB more on {target} found"
            verdicts.append(_counted(text, found, FOUND, "at least 95", 0.95 * FOUND, FOUND))
    return verdicts


def _found(comparison: RunComparison, target: str) -> bool:
    return any(row.target == target for row in comparison.regressions)


def _counted(text: str, found: int, n: int, goal: str, low: float, high: float) -> Verdict:
    least, most = stats.binomial_interval(found, n)
    verdict = Verdict.MET if low <= found <= high else Verdict.MISSED
    say(f"  {text}: {found} of {n} (95 % interval {least:.1%} to {most:.1%}); goal {goal} -> {verdict}")
    return verdict
