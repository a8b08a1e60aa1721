"""The host kernel's part: does a repeat show the same functions, a launch more than a request, and the mix each call?

The mix itself fails a round where a single call of it was not seen; here its rounds are counted.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scenario_run import run_scenario
from verdict import Goal, Verdict, report, say

from lab.host.tracing.traces import unpack
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, RunRecord

TARGETS = ("process", "docker")
ACTS = ("launch", "request", "mix")
ROUNDS = 7
ALIKE = 0.9
MORE = Goal(text="more than 1", low=1.0 + 1e-9)


def hostkernel(rounds: int) -> list[Verdict]:
    """Measure and print. Raises LabError."""
    with tempfile.TemporaryDirectory() as directory, Store.open(str(Path(directory) / "accept.db")) as store:
        record = run_scenario(store, "hostkernel", TARGETS, rounds, {})
    verdicts: list[Verdict] = []
    for target in TARGETS:
        (told,) = [one for one in record.targets if one.target == target]
        launches = [one for one in record.launches if one.target == target]
        if told.outcome is Outcome.SKIPPED:
            say(f"  {target}: not run: {told.reason} {told.remedy}")
            verdicts.append(Verdict.NOT_RUN)
            continue
        good = [one for one in launches if one.outcome is Outcome.OK]
        disturbed = [one for one in launches if one.error.startswith("the engine was not idle")]
        whole = Verdict.INCONCLUSIVE if disturbed else Verdict.MET
        if len(good) + len(disturbed) < rounds:
            whole = Verdict.MISSED
        say(
            f"  {target}: rounds with every call of the mix seen, and no event lost: {len(good)} of {rounds}, others' "
            f"use of the engine having spoilt {len(disturbed)} -> {whole}"
        )
        verdicts.append(whole)
        if not good:
            continue
        for act in ACTS:
            verdicts.append(_alike(target, act, [_functions(one, act) for one in good]))
        counts = {act: _values(record, target, act) for act in ACTS}
        for act in ACTS:
            report(f"{target}: functions, {act}", counts[act], "")
        if target == "docker":
            ratios = [a / b for a, b in zip(counts["launch"], counts["request"], strict=True)]
            verdicts.append(report(f"{target}: launch over request", ratios, "", MORE) or Verdict.NOT_RUN)
    return verdicts


def jaccard(repeats: Sequence[frozenset[str]]) -> list[float]:
    """The similarity of each two of `repeats`, by the functions that at least half of them have."""
    half = {name for name in frozenset().union(*repeats) if 2 * sum(name in one for one in repeats) >= len(repeats)}
    return [
        len(a & b & half) / len((a | b) & half) if (a | b) & half else 0.0
        for a, b in itertools.combinations(repeats, 2)
    ]


def _alike(target: str, act: str, repeats: Sequence[frozenset[str]]) -> Verdict:
    found = jaccard(repeats)
    if not found:
        return Verdict.INCONCLUSIVE
    median = statistics.median(found)
    verdict = Verdict.MET if median >= ALIKE else Verdict.MISSED
    say(
        f"  {target}: Jaccard similarity of {act}, over functions seen in at least half of {len(repeats)}: median "
        f"{median:.3f}, least {min(found):.3f}; goal at least {ALIKE} -> {verdict}"
    )
    return verdict


def _functions(launch: LaunchRecord, act: str) -> frozenset[str]:
    kept = launch.facts["hostkernel"][act]
    return unpack(kept["functions"]) - unpack(kept["idle_functions"])


def _values(record: RunRecord, target: str, act: str) -> list[float]:
    return [
        one.value
        for one in record.samples
        if (one.target, one.metric, one.dimensions.get("act")) == (target, "functions", act)
    ]
