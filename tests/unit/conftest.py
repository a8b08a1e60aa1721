"""What all tests without an engine share."""

from __future__ import annotations

import pytest


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

MakeRecord = Callable[..., RunRecord]


def _launch(target: str, iteration: int, warmup: bool, at: Mapping[str, float]) -> tuple[LaunchRecord, list[Sample]]:
    marks = [
        MarkRecord(phase=Phase(phase), ns=round(ms * MS), clock=Clock.HOST, source=Source.LAB)
        for phase, ms in {"requested": 0.0, **at}.items()
    ]
    timeline = Timeline(marks)
    launch = LaunchRecord(
        target=target, iteration=iteration, warmup=warmup, outcome=Outcome.OK, timeline=timeline, facts={"pid": 4711}
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


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service's program, built once for all tests."""
    return build_service(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about the p-values themselves."""
    monkeypatch.setattr("lab.figures.stats.RESAMPLES", 999)
