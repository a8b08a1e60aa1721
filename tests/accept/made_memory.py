"""Made-up runs of `memory` and `density`, with the noise that real ones had: for alarms and for what must be found.

`memory`: PSS varies by 2 % from launch to launch, and one launch in a hundred has 1.2 to 2 times as much, from a
process that comes along. `density`: each reading of MemAvailable is off by 1 MiB, drifts as the machine does, and now
and then some other program takes or returns 40 MiB in the middle of a walk.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from lab.figures.density import AVAILABLE, LAB, LEVEL, PSS
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.units import MIB

PSS_MIB: Mapping[str, float] = {"process": 0.8, "docker": 15.0, "libvirt:microvm": 190.0}
MARGINAL_MIB: Mapping[str, float] = {"process": 0.9, "docker": 16.0}
TOP = 8


def memory_run(chance: random.Random, name: str, *, n: int, more_mib: Mapping[str, float] | None = None) -> RunRecord:
    """A run of `memory` with n launches a target; `more_mib` is held by the services of these targets."""
    samples = []
    for iteration in range(n):
        for target, mib in PSS_MIB.items():
            outlier = chance.uniform(1.2, 2.0) if chance.random() < 0.01 else 1.0
            held = (more_mib or {}).get(target, 0.0)
            value = (mib * chance.lognormvariate(0, 0.02) * outlier + held) * MIB
            samples.append(Sample(target=target, metric="pss_bytes", value=value, unit="bytes", iteration=iteration))
            dimensions = {"role": "service", "after": "ready"}
            part = value * chance.lognormvariate(0, 0.02)
            samples.append(
                Sample(
                    target=target,
                    metric="role_pss_bytes",
                    value=part,
                    unit="bytes",
                    iteration=iteration,
                    dimensions=dimensions,
                )
            )
    return _record(name, "memory", list(PSS_MIB), samples)


def density_run(
    chance: random.Random, name: str, *, rounds: int, more_mib: Mapping[str, float] | None = None
) -> RunRecord:
    """A run of `density` up to 8 instances, two walks a round."""
    samples = []
    for iteration in range(rounds):
        for target, mib in MARGINAL_MIB.items():
            each_mib = mib + (more_mib or {}).get(target, 0.0)
            for walk in chance.sample(["up", "down"], 2):
                samples += _walk(chance, target, iteration, walk, each_mib)
    return _record(name, "density", list(MARGINAL_MIB), samples)


def _walk(chance: random.Random, target: str, iteration: int, walk: str, each_mib: float) -> list[Sample]:
    samples = []
    base_mib, drift_mib = 20_000 + chance.gauss(0, 200), chance.gauss(0, 0.3)
    jump_at = chance.randrange(1, TOP) if chance.random() < 0.1 else None
    jump_mib = chance.choice([-40.0, 40.0])
    order = range(TOP + 1) if walk == "up" else range(TOP, -1, -1)
    for visit, level in enumerate(order):
        other_mib = drift_mib * visit + (jump_mib if jump_at is not None and visit >= jump_at else 0.0)
        lab_mib = 90 + 0.05 * level
        available_mib = base_mib - level * each_mib - lab_mib - other_mib + chance.gauss(0, 1.0)
        told = {AVAILABLE: available_mib, LAB: lab_mib, PSS: level * each_mib * 0.95}
        for of, mib in told.items():
            dimensions = {"of": of, "level": str(level), "walk": walk, "visit": str(visit)}
            samples.append(
                Sample(
                    target=target,
                    metric=LEVEL,
                    value=mib * MIB,
                    unit="bytes",
                    iteration=iteration,
                    dimensions=dimensions,
                )
            )
    return samples


def _record(name: str, scenario: str, targets: list[str], samples: list[Sample]) -> RunRecord:
    run = Run(
        id=name,
        scenario=scenario,
        started_at="",
        ended_at="",
        status=RunStatus.DONE,
        owner="",
        lab_version="",
        parameters={"spec": {"image": "made up"}},
    )
    records = [TargetRecord(target=target, outcome=Outcome.OK) for target in targets]
    return RunRecord(run=run, host={}, targets=records, samples=samples, launches=[])
