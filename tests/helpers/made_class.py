"""What a class of any size hands in, made up by a seed: students' runs, and the files that they are exported as."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from made_run import INSTANTS, make_record

from lab.figures import stats
from lab.lesson.record import Figure, HostFacts, Progress, Step
from lab.lesson.signing import sign
from lab.store.record import RunRecord

CPUS = ("AMD Ryzen 5 5600U", "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", "Intel(R) Core(TM) i7-1165G7 @ 2.80GHz")
SCENARIOS: Mapping[str, tuple[str, str, float]] = {  # metric, unit, and times the seconds of a boot
    "boot": ("boot_s", "s", 1.0),
    "wake": ("wake_s", "s", 0.4),
    "memory": ("pss_bytes", "bytes", 60e6),
    "recover": ("recovery_s", "s", 1.3),
    "rollout": ("rollout_s", "s", 2.0),
    "scale": ("scaled_s", "s", 4.0),
}


def student_runs(number: int, *, rounds: int = 10, seed: int = 1) -> Iterator[RunRecord]:
    """One run of each scenario by the student of that number, whose laptop has a speed of its own."""
    chance = random.Random(f"{seed} {number}")
    host_id = f"{chance.randrange(2**48):012x}"
    cpu, speed, has_kvm = chance.choice(CPUS), chance.lognormvariate(0, 0.3), chance.random() < 0.7
    times = {name: chance.lognormvariate(0, 0.15) for name in INSTANTS}
    if has_kvm:
        times["libvirt:q35"] *= 0.2
    instants = {name: {phase: ms * speed * times[name] for phase, ms in at.items()} for name, at in INSTANTS.items()}
    for place, scenario in enumerate(SCENARIOS):
        record = make_record(
            f"20260301-{number:06d}-{place:04d}",
            n=rounds,
            seed=chance.randrange(2**31),
            noise=0.1,
            instants=instants,
            host_id=host_id,
            host_name=f"laptop-{number}",
        )
        yield _as(record, scenario, cpu, accel="kvm" if has_kvm else "tcg")


def write_class(folder: Path, *, students: int, rounds: int = 10, seed: int = 1) -> list[Path]:
    """Each student's exports in a folder of its own."""
    paths = []
    for number in range(students):
        own = folder / f"student-{number:03d}"
        own.mkdir(parents=True)
        for record in student_runs(number, rounds=rounds, seed=seed):
            paths.append(own / f"{record.run.scenario}.json")
            paths[-1].write_text(json.dumps(record.to_json(), indent=2))
    return paths


def _as(record: RunRecord, scenario: str, cpu: str, *, accel: str) -> RunRecord:
    metric, unit, times = SCENARIOS[scenario]

    def under(dimensions: Mapping[str, str]) -> dict[str, str]:
        return {key: accel if key == "accel" else value for key, value in dimensions.items()}

    samples = [
        replace(one, metric=metric, unit=unit, value=one.value * times, dimensions=under(one.dimensions))
        if one.metric == "boot_s"
        else replace(one, dimensions=under(one.dimensions))
        for one in record.samples
    ]
    targets = [replace(one, info={**one.info, "qualifiers": under(one.info["qualifiers"])}) for one in record.targets]
    host: dict[str, Any] = {**record.host, "cpu": {**record.host["cpu"], "model": cpu}}
    return replace(record, run=replace(record.run, scenario=scenario), host=host, targets=targets, samples=samples)


def make_progress(
    student: str = "",
    *,
    consent: bool = False,
    run: RunRecord | None = None,
    steps: Sequence[Mapping[str, Any]] = (),
    updated_at: str = "2026-03-01T11:00:00+00:00",
) -> Progress:
    """A student's work on the lesson `boot`, with the figures of a run."""
    values: dict[str, list[float]] = {}
    for sample in run.samples if run else ():
        if sample.metric == "boot_s" and not sample.warmup:
            values.setdefault(sample.target, []).append(sample.value)
    return Progress(
        lab_version="0.1.0",
        lesson="boot",
        lesson_digest="0123456789abcdef",
        language="en",
        student=student,
        consent=consent,
        started_at="2026-03-01T10:00:00+00:00",
        updated_at=updated_at,
        host=HostFacts(
            id=run.run.host_id if run else f"host-{student}",
            name=run.run.host_name if run else "laptop",
            cpu_model="Test CPU",
        ),
        steps=[Step.model_validate({"title": one["id"], **one}) for one in steps],
        figures=[_figure(run, target, values[target]) for target in values] if run else [],
    )


def again_as(record: RunRecord, run_id: str, **fields: Any) -> RunRecord:
    """The same values under another id."""
    return replace(record, run=replace(record.run, id=run_id, **fields))


def _figure(run: RunRecord, target: str, values: Sequence[float]) -> Figure:
    found = stats.estimate(tuple(values))
    told: dict[str, Any] = {"target": target, "metric": "boot_s", "dimensions": {}, "unit": "s", "values": list(values)}
    signature = sign(run_id=run.run.id, host_id=run.run.host_id, **told)
    return Figure(
        **told,
        label=target,
        n=found.n,
        low=found.low,
        mid=found.median,
        high=found.high,
        run_id=run.run.id,
        host_id=run.run.host_id,
        signature=signature,
    )
