"""Does `compare` alarm as often as it says, and does it find what is there? (docs/method.md, rule 20)

    python tests/accept/alarms.py [--pairs 400] [--found 100] [--seed N]

Made-up runs of three targets with their phases go through `compare_runs`, whole. A/A: 400 seeded pairs with equal noise
(lognormal, with an occasional outlier), half of n = 10 and half of n = 20; an alarm is a pair in which any total is
called different. Goal: 8 to 35 alarms at 5 %. A/B: 100 pairs in which one target of 300 ms with 8 % noise is 50 ms
slower in B. Goal: called slower in 95. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Mapping

from lab.figures.compared import RunComparison
from lab.figures.comparison import compare_runs
from lab.figures.stats import binomial_interval
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import SERVICE_CHAIN, Phase

# Milliseconds of each step of the service's chain.
_SEEN = [phase for phase in SERVICE_CHAIN if phase is not Phase.USERSPACE]  # no guest here is a whole one
STEPS_MS: Mapping[str, tuple[float, ...]] = {
    "process": (0.0, 0.0, 2.0, 0.2, 0.6),
    "docker": (0.0, 0.0, 298.0, 0.2, 1.8),
    "libvirt:q35": (900.0, 1700.0, 100.0, 2.0, 30.0),
}
DELAYED = "docker"
DELAY_MS = 50.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--found", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20_260_101)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    say(f"seed {options.seed}")
    good = [equal_pairs(chance, options.pairs), delayed_pairs(chance, options.found, n=20, goal=True)]
    for n, outliers in ((20, 0.03), (10, 0.0), (10, 0.03)):
        delayed_pairs(chance, options.found, n=n, outliers=outliers, goal=False)
    return 0 if all(good) else 1


def equal_pairs(chance: random.Random, pairs: int) -> bool:
    """Compare runs that differ by chance alone."""
    found = {10: 0, 20: 0}
    slower = 0
    for pair in range(pairs):
        n = (10, 20)[pair % 2]
        comparison = compared(chance, n, noise=0.08, outliers=0.03, delay_ms=0.0)
        found[n] += bool(comparison.alarms)
        slower += bool(comparison.regressions)
    alarms = sum(found.values())
    low, high = 8 * pairs / 400, 35 * pairs / 400
    good = low <= alarms <= high
    told = f"{found[10]} of n = 10, {found[20]} of n = 20; {slower} would fail --fail-on-regression"
    say(line(f"A/A: {alarms} alarms in {pairs} pairs ({told})", alarms, pairs, f"{low:.0f} to {high:.0f}", good))
    return good


def delayed_pairs(chance: random.Random, pairs: int, *, n: int, goal: bool, outliers: float = 0.0) -> bool:
    """Compare runs of which one target has become slower."""
    found = 0
    for _ in range(pairs):
        comparison = compared(chance, n, noise=0.08, outliers=outliers, delay_ms=DELAY_MS)
        found += any(row.target == DELAYED for row in comparison.regressions)
    needed = 0.95 * pairs
    text = f"{DELAY_MS:.0f} ms in 300 ms, n = {n}, {outliers:.0%} outliers: found in {found} of {pairs}"
    say(line(text, found, pairs, f"at least {needed:.0f}" if goal else "none, for information", found >= needed))
    return found >= needed


def compared(chance: random.Random, n: int, *, noise: float, outliers: float, delay_ms: float) -> RunComparison:
    """Two runs that differ by `delay_ms`, compared."""
    return compare_runs(
        made_run(chance, "a", n=n, noise=noise, outliers=outliers, delay_ms=0.0),
        made_run(chance, "b", n=n, noise=noise, outliers=outliers, delay_ms=delay_ms),
    )


def made_run(chance: random.Random, name: str, *, n: int, noise: float, outliers: float, delay_ms: float) -> RunRecord:
    """A run of `boot` of three targets, n launches each, as the scenario would have measured it."""
    samples = [
        sample
        for iteration in range(n)
        for target in STEPS_MS
        for sample in launch(
            chance,
            target,
            iteration,
            noise=noise,
            outliers=outliers,
            delay_ms=delay_ms if target == DELAYED else 0.0,
        )
    ]
    run = Run(
        id=name,
        scenario="boot",
        started_at="",
        ended_at="",
        status=RunStatus.DONE,
        owner="",
        lab_version="",
        parameters={"spec": {"image": "made up"}},
    )
    targets = [TargetRecord(target=target, outcome=Outcome.OK) for target in STEPS_MS]
    return RunRecord(run=run, host={}, targets=targets, samples=samples, launches=[])


def launch(
    chance: random.Random, target: str, iteration: int, *, noise: float, outliers: float, delay_ms: float
) -> list[Sample]:
    """One launch's samples: the whole launch is slow or fast by `noise`, and now and then 1.5 to 4 times as long."""
    factor = chance.lognormvariate(0, noise) * (chance.uniform(1.5, 4) if chance.random() < outliers else 1.0)
    steps = [ms * factor for ms in STEPS_MS[target]]
    steps[2] += delay_ms
    seen = [(start, end, ms) for (start, end), ms in zip(itertools.pairwise(_SEEN), steps, strict=True) if ms]
    named = [("boot_s", sum(steps) / 1e3, {"wait_method": "made up"})]
    # The parts vary against each other as well.
    named += [
        ("phase_s", ms * chance.lognormvariate(0, noise) / 1e3, {"from": start.value, "to": end.value})
        for start, end, ms in seen
    ]
    return [
        Sample(target=target, metric=metric, value=value, unit="s", iteration=iteration, dimensions=dimensions)
        for metric, value, dimensions in named
    ]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def line(text: str, found: int, n: int, goal: str, good: bool) -> str:
    low, high = binomial_interval(found, n)
    verdict = "" if goal.startswith("none") else (" -> met" if good else " -> MISSED")
    return f"{text}: {found / n:.1%} (95 % interval {low:.1%} to {high:.1%}); goal {goal}{verdict}"


if __name__ == "__main__":
    sys.exit(main())
