"""What figures from many values take: processor time and memory of the lab's commands, each a process of its own.

Two made-up runs of 102,500 samples each (2,500 rounds, four targets, 41 samples a round) are compared, shown, reported
and exported; the same values are compared by `pyperf compare_to`, which like `lab compare` reads them, tests each pair
of rows and prints a table. Runs of ten rounds, and a list of 10,000 runs, stand beside a process that does nothing but
`import sqlalchemy`. All take turns, so that what else the machine does meets each. Judged is the processor time (user
and system), which a busy machine stretches less than the clock.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import ProgramFailed
from sqlalchemy import insert
from verdict import Goal, Verdict, say

from lab.store import schema
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, Run, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Clock, MarkRecord, Phase, Source, Timeline

ROUNDS = 2500
FEW_ROUNDS = 10
RUNS = 10_000
LONG_TURNS = 3
SHORT_TURNS = 12
TIMEOUT_S = 900.0
MOST_MB = 200.0

# Milliseconds from `requested`; with the engine's chain, what is between, and the end: 41 samples a round.
_GUEST = {"created": 120, "started": 400, "kernel": 900, "init": 2600, "main": 2700, "listening": 2702, "ready": 2730}
TARGETS: Mapping[str, Mapping[str, float]] = {
    "process": {"main": 2.1, "listening": 2.3, "ready": 2.9},
    "docker": {"created": 12, "started": 268, "main": 265, "listening": 265.2, "ready": 266},
    "libvirt:microvm": _GUEST,
    "libvirt:q35": _GUEST,
}
CHAINS = {
    "engine": ("requested", "created", "started"),
    "service": ("requested", "kernel", "init", "main", "listening", "ready"),
}
SLOWER_MS = 2.0


@dataclass(frozen=True, slots=True)
class Use:
    """What one process used."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def figures(earlier: Path | None) -> list[Verdict]:
    """Measure, print the table and judge; `earlier` is another build's command `lab`."""
    lab = Path(sys.executable).with_name("lab")
    with tempfile.TemporaryDirectory(prefix="lab-figures-") as folder:
        base = Path(folder)
        # In a process of its own: the kernel counts what a child's parent held before it among the child's peak.
        made = [sys.executable, __file__, folder]
        ids = subprocess.run(made, capture_output=True, text=True, check=True, timeout=TIMEOUT_S).stdout.split()
        long = {
            "compare": (["compare", *ids, "--store", str(base / "long.db")], 1 / 40),
            "show": (["show", ids[0], "--store", str(base / "long.db")], 1 / 8),
            "report": (["report", ids[0], "--html", str(base / "r.html"), "--store", str(base / "long.db")], 1 / 5),
            "export": (["export", ids[0], "--format", "csv", "--store", str(base / "long.db")], 1 / 3),
        }
        short = {
            f"runs, {RUNS:,} of them": ["runs", "--store", str(base / "many.db")],
            f"show, {FEW_ROUNDS} rounds": ["show", "last", "--store", str(base / "short.db")],
            f"compare, {FEW_ROUNDS} rounds": ["compare", *ids, "--store", str(base / "short.db")],
        }
        verdicts = _long_ones(lab, earlier, long, [base / "a.json", base / "b.json"])
        verdicts += _short_ones(lab, earlier, short)
        return verdicts


def _long_ones(
    lab: Path, earlier: Path | None, commands: Mapping[str, tuple[list[str], float]], values: Sequence[Path]
) -> list[Verdict]:
    pyperf = [sys.executable, "-m", "pyperf", "compare_to", *map(str, values)]
    has_pyperf = (
        subprocess.run([sys.executable, "-c", "import pyperf"], capture_output=True, check=False).returncode == 0
    )
    verdicts = []
    for name, (words, share) in commands.items():
        today, before, other = [], [], []
        for turn in range(LONG_TURNS):
            today.append(_used([str(lab), *words]))
            if earlier and (turn == 0 or name != "compare"):  # which took a minute and a half
                before.append(_used([str(earlier), *words]))
            if name == "compare" and has_pyperf:
                other.append(_used(pyperf))
        say(f"  {name}, {ROUNDS:,} rounds: {_told(today)}")
        verdicts.append(
            _judged("memory", [one.peak_mb for one in today], Goal(text=f"under {MOST_MB:.0f} MB", high=MOST_MB))
        )
        if before:
            say(f"    an earlier lab: {_told(before)}")
            goal = Goal(text=f"at most {share:.3g} of it", high=share)
            verdicts.append(_judged("share of its time", _shares(today, before), goal))
        if other:
            say(f"    pyperf compare_to, the same values: {_told(other)}")
            verdicts.append(_judged("times its time", _shares(today, other), Goal(text="at most 4", high=4.0)))
        elif name == "compare":
            say("    pyperf is not installed: not compared with it")
            verdicts.append(Verdict.NOT_RUN)
    return verdicts


def _short_ones(lab: Path, earlier: Path | None, commands: Mapping[str, list[str]]) -> list[Verdict]:
    found: dict[str, list[Use]] = {name: [] for name in ("import sqlalchemy", *commands)}
    before: dict[str, list[Use]] = {name: [] for name in commands}
    for turn in range(SHORT_TURNS):
        found["import sqlalchemy"].append(_used([sys.executable, "-c", "import sqlalchemy"]))
        for name, words in commands.items():
            found[name].append(_used([str(lab), *words]))
            if earlier and turn < LONG_TURNS:
                before[name].append(_used([str(earlier), *words]))
    say(f"  import sqlalchemy, and nothing else: {_told(found['import sqlalchemy'])}")
    verdicts = []
    for name in commands:
        say(f"  {name}: {_told(found[name])}")
        if before[name]:
            say(f"    an earlier lab: {_told(before[name])}")
        goal = Goal(text="at most 2", high=2.0)
        verdicts.append(_judged("times that", _shares(found[name], found["import sqlalchemy"]), goal))
    return verdicts


def _shares(of: Sequence[Use], whole: Sequence[Use]) -> list[float]:
    """Turn by turn; a whole that was measured once stands for all."""
    return [one.cpu_s / other.cpu_s for one, other in zip(of, itertools.cycle(whole), strict=False)]


def _judged(what: str, values: Sequence[float], goal: Goal) -> Verdict:
    """By the median, of which the smallest and the largest tell how sure it is."""
    median = statistics.median(values)
    verdict = goal.judge(median, median)
    say(f"    {what}: {median:.3g} ({min(values):.3g}-{max(values):.3g}); goal {goal.text} -> {verdict}")
    return verdict


def _told(uses: Sequence[Use]) -> str:
    cpu, wall = [one.cpu_s for one in uses], statistics.median(one.wall_s for one in uses)
    return (
        f"{statistics.median(cpu):.2f} s of processor time ({min(cpu):.2f}-{max(cpu):.2f}), {wall:.2f} "
        f"s by the clock, {max(one.peak_mb for one in uses):.0f} MB; n = {len(uses)}"
    )


def _used(command: Sequence[str]) -> Use:
    """Run it to its end. Raises ProgramFailed where that is no good one."""
    begun = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, used = os.wait4(child.pid, 0)
    wall_s = time.monotonic() - begun
    said = child.stderr.read().decode(errors="replace") if child.stderr else ""
    child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if child.returncode != 0:
        raise ProgramFailed(f"{' '.join(command[:3])} ended with {child.returncode}: {said.strip()[-500:]}")
    return Use(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024)


def _make_long(store: Path, folder: Path) -> list[str]:
    """Both runs in `store`, and their values as pyperf's files a.json and b.json in `folder`; the runs' ids."""
    ids = []
    with Store.open(str(store)) as opened:
        for place, name in enumerate(("a", "b")):
            record = made_run(f"2026010{place + 1}-{name * 4}", ROUNDS, seed=place, slower_ms=SLOWER_MS * place)
            _enter(opened, record)
            (folder / f"{name}.json").write_text(json.dumps(_as_pyperf(record)))
            ids.append(record.run.id)
    return ids


def _make_short(few: Path, many: Path) -> None:
    """Two runs of ten rounds in `few`, and 10,000 runs without their samples in `many`."""
    with Store.open(str(few)) as opened:
        for place, name in enumerate(("a", "b")):
            _enter(opened, made_run(f"2026010{place + 1}-{name * 4}", FEW_ROUNDS, seed=place, slower_ms=0.0))
    record = made_run("", FEW_ROUNDS, seed=0, slower_ms=0.0)
    with Store.open(str(many)) as opened, opened._writing() as connection:
        connection.execute(insert(schema.runs), [_run_row(record, f"2026-{i:05}") for i in range(RUNS)])
        orders = [
            {"run_id": f"2026-{i:05}", "round": place, "visited": list(order)}
            for i in range(RUNS)
            for place, order in enumerate(record.run.order)
        ]
        connection.execute(insert(schema.rounds), orders)


def _run_row(record: RunRecord, run_id: str) -> dict[str, object]:
    run = record.run
    return {
        "id": run_id,
        "scenario": run.scenario,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "status": run.status.value,
        "owner": run.owner,
        "lab_version": run.lab_version,
        "parameters": dict(run.parameters),
        "host": dict(record.host),
    }


def _enter(store: Store, record: RunRecord) -> None:
    """All launches in one transaction: as many as the store's own calls make would take a minute."""
    store.begin(record.run, record.host)
    for target in record.targets:
        store.set_target(record.run.id, target)
    rows = [
        {
            "run_id": record.run.id,
            "target": launch.target,
            "iteration": launch.iteration,
            "warmup": False,
            "outcome": launch.outcome.value,
            "marks": launch.timeline.to_json(),
            "error": "",
            "logs": "",
            "facts": dict(launch.facts),
        }
        for launch in record.launches
    ]
    with store._writing() as connection:
        connection.execute(insert(schema.launches), rows)
    store.add_samples(record.run.id, record.samples)


def _as_pyperf(record: RunRecord) -> dict[str, object]:
    """pyperf's own format (version 1.0): one benchmark a row, with its values in one run."""
    rows: dict[str, list[float]] = {}
    for sample in record.samples:
        name = " ".join([sample.target, sample.metric, *sample.dimensions.values()])
        rows.setdefault(name, []).append(max(sample.value, 1e-9))  # pyperf has no signed values
    benchmarks = [{"metadata": {"name": name}, "runs": [{"values": values}]} for name, values in rows.items()]
    return {"version": "1.0", "metadata": {"unit": "second"}, "benchmarks": benchmarks}


def made_run(run_id: str, rounds: int, *, seed: int, slower_ms: float) -> RunRecord:
    """A run of `boot` with 5 % of noise; docker's `main` comes `slower_ms` later."""
    chance = random.Random(seed)
    launches: list[LaunchRecord] = []
    samples: list[Sample] = []
    order = []
    for iteration in range(rounds):
        order.append(chance.sample(list(TARGETS), len(TARGETS)))
        for target in order[-1]:
            factor = chance.lognormvariate(0, 0.05)
            marks = [MarkRecord(phase=Phase.REQUESTED, ns=0, clock=Clock.HOST, source=Source.LAB)]
            for phase, ms in TARGETS[target].items():
                later = slower_ms if target == "docker" and phase in ("main", "listening", "ready") else 0.0
                ns = round((ms * factor + later) * 1e6)
                marks.append(MarkRecord(phase=Phase(phase), ns=ns, clock=Clock.HOST, source=Source.LAB))
            timeline = Timeline(marks)
            launches.append(
                LaunchRecord(
                    target=target,
                    iteration=iteration,
                    warmup=False,
                    outcome=Outcome.OK,
                    timeline=timeline,
                    facts={"pid": 4711},
                )
            )
            samples += _samples(chance, target, iteration, timeline)
    run = Run(
        id=run_id,
        scenario="boot",
        started_at="2026-01-01T10:00:00+00:00",
        ended_at="2026-01-01T12:00:00+00:00",
        status=RunStatus.DONE,
        owner="",
        lab_version="made up",
        parameters={"rounds": rounds, "warmup": 0, "spec": {"image": "made up"}},
        order=order,
    )
    targets = [TargetRecord(target=target, outcome=Outcome.OK, info={"facts": {}}) for target in TARGETS]
    host = {"kernel": {"release": "made up"}, "warnings": []}
    return RunRecord(run=run, host=host, targets=targets, samples=samples, launches=launches)


def _samples(chance: random.Random, target: str, iteration: int, timeline: Timeline) -> list[Sample]:
    def sample(metric: str, value: float, **dimensions: str) -> Sample:
        return Sample(target=target, metric=metric, value=value, unit="s", iteration=iteration, dimensions=dimensions)

    found = [sample("boot_s", timeline.duration_s(Phase.REQUESTED, Phase.READY), wait_method="marker")]
    for name, chain in CHAINS.items():
        for start, end, _ in timeline.steps(tuple(map(Phase, chain))):
            # The parts vary against each other as well.
            value = timeline.duration_s(start, end) * chance.lognormvariate(0, 0.05)
            found.append(sample("phase_s", value, **{"from": start.value, "to": end.value, "chain": name}))
    if Phase.STARTED in timeline:
        lead_s = timeline.duration_s(Phase.STARTED, Phase.MAIN)
        found.append(sample("lead_s", lead_s, **{"from": "started", "to": "main"}))
    for metric, typical_s in (("stop_s", 0.03), ("delete_s", 0.05), ("wait_cpu_s", 0.0004)):
        found.append(sample(metric, typical_s * chance.lognormvariate(0, 0.05)))
    return found


if __name__ == "__main__":
    here = Path(sys.argv[1])
    say(" ".join(_make_long(here / "long.db", here)))
    _make_short(here / "short.db", here / "many.db")
