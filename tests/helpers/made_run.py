"""A run made up of whole cloth, for the tests of what stores, compares and shows runs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline

MS = 1_000_000
HOST = {"cpu": {"model": "Test CPU", "cores": 2}, "kernel": {"release": "6.1.0"}, "load": [0.1, 0.2, 0.3]}
SPEC = {"image": "stratalab/service", "cpus": 1.0, "memory_bytes": 128 * 1024 * 1024}

# Milliseconds from `requested`, as seen on a real host; the engine's chain is beside the service's.
_PROCESS = {"main": 2.1, "listening": 2.3, "ready": 2.9}
_DOCKER = {"created": 12.0, "main": 265.0, "listening": 265.2, "ready": 266.0, "started": 268.0}
_Q35 = {"started": 400.0, "kernel": 900.0, "init": 2600.0, "main": 2700.0, "listening": 2702.0, "ready": 2730.0}
INSTANTS: Mapping[str, Mapping[str, float]] = {"process": _PROCESS, "docker": _DOCKER, "libvirt:q35": _Q35}
_INFO: Mapping[str, Mapping[str, Any]] = {
    "process": {"engine": "Linux", "version": "6.1.0", "isolation": "none", "qualifiers": {}},
    "docker": {"engine": "Docker", "version": "20.10.24", "isolation": "namespaces", "qualifiers": {}},
    "libvirt:q35": {"engine": "QEMU", "version": "7.2.0", "isolation": "hardware", "qualifiers": {"accel": "tcg"}},
}
_CHAINS = {
    "engine": ("requested", "created", "started"),
    "service": ("requested", "kernel", "init", "main", "listening", "ready"),
}


def make_record(
    run_id: str = "20260101-aaaa",
    *,
    n: int = 10,
    warmup: int = 1,
    seed: int = 1,
    noise: float = 0.05,
    delays_ms: Mapping[str, float] | None = None,
    instants: Mapping[str, Mapping[str, float]] = INSTANTS,
    **run_fields: Any,
) -> RunRecord:
    """A run of `boot`: `delays_ms` are added before `main` of a target, `noise` is the values' relative one."""
    chance = random.Random(seed)
    launches: list[LaunchRecord] = []
    samples: list[Sample] = []
    order = []
    for iteration in range(warmup + n):
        names = list(instants)
        chance.shuffle(names)
        order.append(names)
        for name in names:
            at = {key: ms * chance.lognormvariate(0, noise) for key, ms in instants[name].items()}
            delay = (delays_ms or {}).get(name, 0.0)
            chain = [phase for phase in _CHAINS["service"] if phase in at]
            # Instants of one chain keep their order; the delay comes before `main`.
            gaps = [instants[name][b] - instants[name].get(a, 0.0) for a, b in itertools.pairwise(["", *chain])]
            now = 0.0
            for phase, gap in zip(chain, gaps, strict=True):
                now += gap * chance.lognormvariate(0, noise) + (delay if phase == "main" else 0.0)
                at[phase] = now
            launch, found = _launch(name, iteration, iteration < warmup, at)
            launches.append(launch)
            samples += found
    run = Run(
        id=run_id,
        scenario="boot",
        started_at="2026-01-01T10:00:00+00:00",
        ended_at="2026-01-01T10:05:00+00:00",
        status=RunStatus.DONE,
        owner="machine:boot:1:1",
        lab_version="0.1.0",
        parameters={"seed": seed, "rounds": n, "warmup": warmup, "spec": SPEC},
        order=order,
    )
    targets = [
        TargetRecord(target=name, outcome=Outcome.OK, info={"features": [], "facts": {}, **_INFO.get(name, {})})
        for name in instants
    ]
    return RunRecord(run=replace(run, **run_fields), host=HOST, targets=targets, samples=samples, launches=launches)


def _launch(target: str, iteration: int, warmup: bool, at: Mapping[str, float]) -> tuple[LaunchRecord, list[Sample]]:
    marks = [
        MarkRecord(phase=Phase(phase), ns=round(ms * MS), clock=Clock.HOST, source=Source.LAB)
        for phase, ms in {"requested": 0.0, **at}.items()
    ]
    timeline = Timeline(marks)
    launch = LaunchRecord(
        target=target,
        iteration=iteration,
        warmup=warmup,
        outcome=Outcome.OK,
        timeline=timeline,
        facts={"pid": 4711, "cgroup": "x"},
    )

    def sample(metric: str, value: float, **dimensions: str) -> Sample:
        return Sample(
            target=target,
            metric=metric,
            value=value,
            unit="s",
            iteration=iteration,
            warmup=warmup,
            dimensions={**_INFO.get(target, {}).get("qualifiers", {}), **dimensions},
        )

    wait = "marker" if target.startswith("libvirt") else "poll"
    found = [sample("boot_s", at["ready"] / 1e3, wait_method=wait)]
    for name, chain in _CHAINS.items():
        steps = timeline.steps(tuple(Phase(name) for name in chain))
        found += [sample("phase_s", value, **{"from": start, "to": end, "chain": name}) for start, end, value in steps]
    if "started" in at:
        lead = (at["main"] - at["started"]) / 1e3
        found.append(sample("lead_s", lead, **{"from": "started", "to": "main"}))
    found += [sample("stop_s", 0.01 * at["ready"] / 1e3), sample("delete_s", 0.02 * at["ready"] / 1e3)]
    found.append(sample("wait_cpu_s", 0.0004))
    return launch, found
