"""`lab run`: shows the plan, runs, shows the result."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab.cli.command_forward import forward_ended
from lab.cli.options import RunOptions, read_options
from lab.cli.required import shortfalls, skipped
from lab.cli.start import Intent, company_of, execute, intent
from lab.errors import with_remedy
from lab.figures.notes import slow_launch
from lab.figures.series import label
from lab.launch.ends import last_lines
from lab.registry import make_scenario
from lab.run.company import Company, Other
from lab.run.estimate import Span
from lab.run.events import Events, Several, telling
from lab.run.lock import host_lock
from lab.run.runner import now_iso
from lab.scenario import Scenario
from lab.show.terminal import printable
from lab.store.database import Store
from lab.store.forwarding import Destination
from lab.store.record import LaunchRecord, Outcome, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Phase
from lab.units import duration

DEFAULT_TARGETS = ("process", "docker", "libvirt:microvm", "libvirt:q35")
"""What runs unless targets are named: those that change nothing of the engines themselves (a swarm would be begun)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line said; `given` holds `RunOptions` fields, None where not given."""

    scenario: str
    given: Mapping[str, Any]
    config: Path | None
    store: str | None
    html: Path | None
    dry_run: bool
    wait: bool
    as_json: bool
    forward: str | None = None
    events: str | None = None


def run_scenario(request: Request) -> int:
    """Returns the exit code: 0 done, 1 a target failed, 2 one was left out for bad input, 130 interrupted.

    Raises LabError.
    """
    with telling(request.events) as events:
        return _run(request, Console(stderr=True), events)


def _run(request: Request, errors: Console, events: Events | None) -> int:
    given = dict(request.given)
    if request.config is None and given["targets"] is None:
        given["targets"] = DEFAULT_TARGETS
    options = read_options(given, request.config)
    scenario = make_scenario(request.scenario, options.scenario_param)
    destination = Destination(request.forward) if request.forward else None
    with (
        Store.open(request.store) as store,
        planned(errors, scenario, options, store, wait=request.wait, events=events) as (plan, company),
    ):
        if destination is not None:
            destination.require_other(store)
        others = company.look()
        _show_plan(errors, plan, others)
        if events is not None:
            events.say("plan", **_plan_json(plan, others))
        if request.dry_run:
            if request.as_json:
                sys.stdout.write(json.dumps(_plan_json(plan, others), indent=2) + "\n")
            return 1 if _complained(errors, skipped([one.record for one in plan.entrants], options.require)) else 0
        status, problems = carry_out(errors, plan, store, company, wait=request.wait, events=events)
        if events is not None:
            events.say("ended", run=plan.run.id, status=status.value)
        record = store.load(plan.run.id)
        lacking = shortfalls_of(record, options, store)
    _show_result(errors, record, request)
    if destination is not None:  # with the machine free again, since a store that is away is waited for
        with Store.open(request.store) as store:
            forward_ended(destination, store, [record.run.id], errors)
    if status is RunStatus.INTERRUPTED:
        return 130
    if any(entrant.bad_input for entrant in plan.entrants):
        return 2
    return 1 if _complained(errors, lacking) or problems or _failed(record) else 0


@contextlib.contextmanager
def planned(
    errors: Console, scenario: Scenario, options: RunOptions, store: Store, *, wait: bool, events: Events | None = None
) -> Iterator[tuple[Intent, Company]]:
    """A run about to start, and the others on its engines. Raises BadInput."""
    with _intent(errors, scenario, options) as intended:
        plan = intended.learn(store)
        yield plan, company_of(plan, wait=wait, on_wait=partial(_tell_waiting, errors, events))


def carry_out(
    errors: Console, plan: Intent, store: Store, company: Company, *, wait: bool, events: Events | None = None
) -> tuple[RunStatus, int]:
    """Do it, once this host is free. How it ended, and how many things it could not clean up. Raises LabError."""
    with _alone(plan, company, wait=wait, tell=partial(_tell_waiting, errors, events)):
        begun = replace(plan, run=replace(plan.run, started_at=now_iso()))  # it may have waited for long
        if events is not None:
            events.say("begun", run=begun.run.id, started_at=begun.run.started_at)
        return _execute(errors, begun, store, company, events)


def shortfalls_of(record: RunRecord, options: RunOptions, store: Store) -> dict[str, str]:
    """What of the required targets the run lacks, each in one line. Raises StoreError."""
    if not options.require:
        return {}
    return shortfalls(
        record, options.require, store.history(record.run.scenario, host_id=record.run.host_id, metrics=())
    )


def _tell_waiting(errors: Console, events: Events | None, holder: str) -> None:
    if events is not None:
        events.say("waiting", text=holder)
    errors.print(f"waiting: {holder}", markup=False, highlight=False, soft_wrap=True)


def _complained(errors: Console, lacking: Mapping[str, str]) -> bool:
    for target, why in lacking.items():
        errors.print(f"lab: required {target}: {printable(why)}", markup=False, highlight=False, soft_wrap=True)
    return bool(lacking)


@contextlib.contextmanager
def _alone(plan: Intent, company: Company, *, wait: bool, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold this host, and have its engines to oneself, where there is anything to do on it."""
    if not any(entrant.running for entrant in plan.entrants):
        yield
        return
    with host_lock(plan.run.id, wait=wait, on_wait=tell):
        company.await_alone()
        yield


def _intent(errors: Console, scenario: Scenario, options: RunOptions) -> AbstractContextManager[Intent]:
    def say(text: str) -> None:
        errors.print(text, highlight=False, markup=False, soft_wrap=True)

    return intent(scenario, options, options.driver_options, say)


def _execute(
    errors: Console, plan: Intent, store: Store, company: Company, events: Events | None
) -> tuple[RunStatus, int]:
    """How the run ended, and how many things it could not clean up."""
    with _watcher(errors, plan) as watcher:
        if events is None:
            return execute(plan, store, watcher, company), watcher.problems
        both = Several((watcher, events))
        return execute(plan, store, both, company, on_launch=events.on_launch), watcher.problems


def _show_plan(console: Console, plan: Intent, others: Sequence[Other]) -> None:
    running = [str(entrant.target) for entrant in plan.entrants if entrant.running]
    likely = f", likely {_told(plan.likely)} ({plan.likely_by})" if running else ""
    console.print(
        f"run {plan.run.id}: {plan.scenario.name} on {', '.join(running) or 'nothing'}; at most {plan.launches} "
        f"launches, {plan.peak_memory_bytes >> 20} MiB at a time{likely}",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
    for change in plan.changes():
        console.print(f"  {change}", highlight=False, soft_wrap=not console.is_terminal)
    for other in others:
        what = "waits for" if other.busy else "beside"
        console.print(f"  {what} {printable(str(other))}", highlight=False, markup=False, soft_wrap=True)
    for entrant in plan.entrants:
        if not entrant.running:
            record = entrant.record
            console.print(
                f"  skipped {record.target}: {with_remedy(record.reason, record.remedy)}",
                highlight=False,
                markup=False,
                soft_wrap=not console.is_terminal,
            )


def _told(time: Span) -> str:
    least, most = duration(time.least_s), duration(time.most_s)
    return most if least == most else f"{least} to {most}"


def _plan_json(plan: Intent, others: Sequence[Other]) -> dict[str, Any]:
    options = plan.options
    return {
        "run": plan.run.id,
        "scenario": plan.scenario.name,
        "headline": plan.scenario.headline,
        "rounds": options.most_rounds,
        "warmup": options.warmup_rounds,
        "targets": [str(entrant.target) for entrant in plan.entrants if entrant.running],
        "skipped": [
            {"target": entrant.record.target, "reason": entrant.record.reason, "remedy": entrant.record.remedy}
            for entrant in plan.entrants
            if not entrant.running
        ],
        "labels": {str(one.target): label(one.record) for one in plan.entrants if one.running},
        "launches": plan.launches,
        "memory_bytes": plan.peak_memory_bytes,
        "likely": {
            "least_s": plan.likely.least_s,
            "most_s": plan.likely.most_s,
            "earlier_runs": {target: found.runs for target, found in plan.turns.items()},
        },
        "changes": plan.changes(),
        "others": [str(other) for other in others],
    }


def _show_result(errors: Console, record: RunRecord, request: Request) -> None:
    if request.html is not None:
        from lab.show.report import write_html

        write_html(record, request.html)
    if request.as_json:
        sys.stdout.write(json.dumps(record.to_json(), indent=2) + "\n")
    else:
        from lab.show.table import render_run

        Console().print(render_run(record))
    if request.html is not None:
        errors.print(f"report: {request.html.resolve()}", highlight=False, markup=False, soft_wrap=True)


def _failed(record: RunRecord) -> bool:
    """A target failed: it was given up, or nothing of it was measured; or no target could run at all."""
    good = {launch.target for launch in record.launches if launch.outcome is Outcome.OK and not launch.warmup}
    good |= {sample.target for sample in record.samples if not sample.warmup}
    ran = [target for target in record.targets if target.outcome is not Outcome.SKIPPED]
    return not ran or any(t.outcome is Outcome.FAILED or t.target not in good for t in ran)


@contextlib.contextmanager
def _watcher(console: Console, plan: Intent) -> Iterator[_Lines]:
    if not console.is_terminal:
        yield _Lines(console, plan, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),  # what the others leave of the line
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    # Few refreshes: the lab watches with the CPUs that it measures.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        yield _Lines(console, plan, bar, bar.add_task("", total=plan.launches, left=""))


class _Lines:
    """Progress as a live line on a terminal; elsewhere a line per committed launch, and one per round with the time
    that is left."""

    def __init__(self, console: Console, plan: Intent, bar: Progress | None, task: Any = None) -> None:
        self._console = console
        self._plan = plan
        self._bar = bar
        self._task = task
        self._started_s: dict[str, list[float]] = {}
        self.problems = 0

    def preparing(self, target: str) -> None:
        self._say(f"preparing {target}")

    def launching(self, target: str, iteration: int, warmup: bool) -> None:
        if self._bar is not None:
            round_name = "warm-up" if warmup else f"round {iteration}"
            self._bar.update(self._task, description=f"{round_name} · {target}")

    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
        if Phase.STARTED in launch.timeline:
            started_s = launch.timeline.duration_s(Phase.REQUESTED, Phase.STARTED)
            self._started_s.setdefault(launch.target, []).append(started_s)
        totals = [f"{sample.metric} {sample.value:.6f}" for sample in samples if sample.metric == "boot_s"]
        text = f"failed: {launch.error}" if launch.outcome is Outcome.FAILED else " ".join(totals)
        if self._bar is None or launch.outcome is Outcome.FAILED:
            self._print(f"committed {launch.target} round {launch.iteration} samples {len(samples)} {text}".rstrip())
        for line in last_lines(launch.logs.encode()).splitlines() if launch.outcome is Outcome.FAILED else ():
            self._print(f"  | {line}")

    def turned(self, left: Span) -> None:
        if self._bar is not None:
            self._bar.update(self._task, left=f"about {_told(left)} left")

    def round_over(self, iteration: int, left: Span) -> None:
        if self._bar is None:
            self._print(f"{self._round(iteration)} is over, about {_told(left)} left")
        if iteration + 1 == max(self._plan.options.warmup_rounds, 1):
            self._tell_what_is_slow()

    def _round(self, iteration: int) -> str:
        options = self._plan.options
        if iteration >= options.warmup_rounds:
            most = "at most " if options.until_ci else ""
            return f"round {iteration + 1 - options.warmup_rounds} of {most}{options.most_rounds}"
        return "warm-up" if options.warmup_rounds == 1 else f"warm-up {iteration + 1} of {options.warmup_rounds}"

    def _tell_what_is_slow(self) -> None:
        """While the run can still be broken off and mended; the notes under its table say it again."""
        for entrant in self._plan.entrants:
            started_s = self._started_s.get(str(entrant.target))
            if told := slow_launch(entrant.record, statistics.median(started_s)) if started_s else "":
                self._print(told)

    def target_changed(self, record: TargetRecord) -> None:
        self._print(f"{record.target} {record.outcome}: {with_remedy(record.reason, record.remedy)}")

    def cleaning(self) -> None:
        self._say("cleaning up what this run made")

    def problem(self, text: str) -> None:
        self.problems += 1
        self._print(text)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text, left="")
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
