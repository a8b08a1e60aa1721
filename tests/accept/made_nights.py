"""Nights made up by a seed, for what judges them: what is common to a night, what is a target's own in it, and the
noise within.

The logarithm of one launch's time is the sum of: the target's usual; the night's common effect, which the control has
as well (`common`, the standard deviation between nights: page cache, thermal state, the cloud's neighbours); the
target's own effect of that night (`own`: its layout, its daemon's state); the launch's (`within`), now and then 1.5 to
4 times as long. All of them are independent of each other and from night to night.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.figures.nights.night import Figure, Night, figure_of
from lab.figures.series import Series
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample

CONTROL = "process"
USUAL_S = {"process": 0.003, "oci:runc": 0.067, "docker": 0.27, "docker:host": 0.18, "swarm": 0.52}
USUAL_S |= {"libvirt:microvm": 1.65, "libvirt:q35": 1.85}
"""The control, and six targets beside it."""
OUTLIERS = 0.02
DIMENSIONS = {"wait_method": "made up"}
FIRST_NIGHT = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
KERNELS = ("6.1.0-21-amd64", "6.1.0-25-amd64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From `night` on `target` takes `times` as long."""

    target: str
    night: int
    times: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What nights are made of. With a `noise_seed` the launches' noise is drawn apart from the nights' effects.
    `kernel_night` is when the kernel changes, and all times with it by `kernel_times`;
    `disturbed` are nights in which everything takes longer, each target and the control by another factor."""

    seed: int
    nights: int = 365
    common: float = 0.10
    own: float = 0.015
    within: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(USUAL_S, 0.05))
    launches: int = 10
    steps: Sequence[Step] = ()
    kernel_night: int | None = None
    kernel_times: float = 1.0
    disturbed: frozenset[int] = frozenset()
    noise_seed: int | None = None


def values_of(plan: Plan) -> list[dict[str, list[float]]]:
    """Of each night the times in seconds by target."""
    chance = random.Random(plan.seed)
    noise = chance if plan.noise_seed is None else random.Random(plan.noise_seed)
    found = []
    for night in range(plan.nights):
        common = chance.gauss(0, plan.common)
        if plan.kernel_night is not None and night >= plan.kernel_night:
            common += math.log(plan.kernel_times)
        told = {}
        for target, within in plan.within.items():
            middle = math.log(USUAL_S[target]) + common + (chance.gauss(0, plan.own) if target != CONTROL else 0.0)
            middle += sum(math.log(step.times) for step in plan.steps if step.target == target and night >= step.night)
            if night in plan.disturbed:
                middle += math.log(chance.uniform(1.8, 3.0) if target == CONTROL else chance.uniform(1.1, 3.0))
            told[target] = [math.exp(middle) * _launch(noise, within) for _ in range(plan.launches)]
        found.append(told)
    return found


def nights_of(plan: Plan) -> list[Night]:
    """The nights as the judge takes them."""
    return [night_of_values(place, values, kernel=_kernel(plan, place)) for place, values in enumerate(values_of(plan))]


def night_of_values(place: int, values: Mapping[str, Sequence[float]], *, kernel: str = "") -> Night:
    """One night of `boot_s`."""
    figures: dict[Any, Figure] = {}
    for target, times in values.items():
        row = Series(target=target, label=target, metric="boot_s", unit="s", dimensions=DIMENSIONS, values=())
        if (figure := figure_of(row, times)) is not None:
            figures[row.key] = figure
    return Night(run=run_id(place), at=_at(place), figures=figures, conditions={"kernel": kernel} if kernel else {})


def records_of(plan: Plan) -> Iterator[RunRecord]:
    """The nights as runs of `boot`, with all that a store keeps."""
    for place, values in enumerate(values_of(plan)):
        yield record_of(place, values, kernel=_kernel(plan, place))


def record_of(place: int, values: Mapping[str, Sequence[float]], *, kernel: str) -> RunRecord:
    """One night as a run."""
    samples = [
        Sample(
            target=target,
            metric="boot_s",
            value=value,
            unit="s",
            iteration=iteration,
            dimensions=DIMENSIONS,
        )
        for target, times in values.items()
        for iteration, value in enumerate(times)
    ]
    run = Run(
        id=run_id(place),
        scenario="boot",
        started_at=_at(place),
        ended_at=_at(place),
        status=RunStatus.DONE,
        owner="machine:boot:1:1",
        lab_version="0.1.0",
        parameters={"spec": {"image": "made up", "cpus": 1.0, "memory_bytes": 1 << 27}},
        host_id="0123456789ab",
        host_name="made-up",
    )
    host = {"kernel": {"release": kernel}, "cpu": {"model": "made up"}}
    targets = [TargetRecord(target=target, outcome=Outcome.OK) for target in values]
    return RunRecord(run=run, host=host, targets=targets, samples=samples, launches=[])


def run_id(place: int) -> str:
    """Of the night at `place`."""
    return f"{(FIRST_NIGHT + timedelta(days=place)):%Y%m%d-%H%M%S}-{place:04x}"


def _at(place: int) -> str:
    return (FIRST_NIGHT + timedelta(days=place)).isoformat(timespec="seconds")


def _kernel(plan: Plan, place: int) -> str:
    return KERNELS[plan.kernel_night is not None and place >= plan.kernel_night]


def _launch(chance: random.Random, within: float) -> float:
    return chance.lognormvariate(0, within) * (chance.uniform(1.5, 4) if chance.random() < OUTLIERS else 1.0)
