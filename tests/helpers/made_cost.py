"""Runs and prices made up of whole cloth, for the tests of what a service costs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from lab.figures.cost.prices import Prices
from lab.store.record import Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.units import MIB

HOST = {
    "cpu": {"model": "Test CPU", "threads_online": 4},
    "memory": {"memory_total_bytes": 8 * 1024 * MIB},
}
SPEC = {"image": "stratalab/service", "cpus": 0.25, "memory_bytes": 128 * MIB}

Values = Mapping[tuple[str, str], Sequence[Sequence[float]]]


def make_run(
    scenario: str,
    values: Values,
    *,
    run_id: str = "",
    host: Mapping[str, Any] = HOST,
    spec: Mapping[str, Any] = SPEC,
    owner: str = "machine:boot:1:1",
    qualifiers: Mapping[str, Mapping[str, str]] | None = None,
    skipped: Mapping[str, str] | None = None,
    dimensions: Mapping[str, Mapping[str, str]] | None = None,
    status: RunStatus = RunStatus.DONE,
) -> RunRecord:
    """A run of `scenario`: by target and metric, the values of each round; round 0 is one of warm-up, far off."""
    targets = list(dict.fromkeys(target for target, _ in values))
    samples = [
        Sample(
            target=target,
            metric=metric,
            value=value * (1000 if warmup else 1),
            unit="s",
            iteration=0 if warmup else place + 1,
            warmup=warmup,
            dimensions=(dimensions or {}).get(metric, {}),
        )
        for (target, metric), rounds in values.items()
        for warmup in (True, False)
        for place, calls in enumerate(rounds[:1] if warmup else rounds)
        for value in calls
    ]
    run = Run(
        id=run_id or f"20260101-{scenario}",
        scenario=scenario,
        started_at="2026-01-01T10:00:00+00:00",
        ended_at="2026-01-01T10:05:00+00:00",
        status=status,
        owner=owner,
        lab_version="0.1.0",
        parameters={"spec": dict(spec)},
    )
    records = [
        TargetRecord(target=name, outcome=Outcome.OK, info={"qualifiers": (qualifiers or {}).get(name, {})})
        for name in targets
    ]
    records += [
        TargetRecord(target=name, outcome=Outcome.SKIPPED, reason=reason) for name, reason in (skipped or {}).items()
    ]
    return RunRecord(run=run, host=host, targets=records, samples=samples, launches=[])


def price(amount: float) -> dict[str, object]:
    return {"amount": amount, "source": "https://example.org/prices", "date": datetime.date(2026, 1, 2)}


def table(**changes: object) -> dict[str, Any]:
    """A table of prices as TOML gives it, round enough to be reckoned with by hand."""
    return {
        "currency": "EUR",
        "functions": [
            {
                "name": "Made functions",
                "drivers": ["made"],
                "gigabyte": "GiB",
                "billed_step_ms": 1.0,
                "least_memory_mib": 128,
                "most_memory_mib": 10240,
                "init_is_billed": True,
                "per_million_requests": price(0.20),
                "per_gigabyte_second": price(0.000016),
            }
        ],
        "containers": [
            {
                "name": "Made containers",
                "drivers": ["docker"],
                "gigabyte": "GiB",
                "sizes": [{"vcpus": 0.25, "memory": [0.5, 1]}, {"vcpus": 1, "memory": [2]}],
                "per_vcpu_hour": price(0.04),
                "per_gigabyte_hour": price(0.004),
            }
        ],
        **changes,
    }


def prices(**changes: object) -> Prices:
    return Prices.model_validate(table(**changes))
