"""`lab run`: shows the plan, runs, shows the result."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lab.cli.options import RunOptions, read_options
from lab.cli.start import Intent, company_of, execute, intent
from lab.errors import with_remedy
from lab.launch.ends import last_lines
from lab.registry import make_scenario
from lab.run.company import Company, Other
from lab.run.lock import host_lock
from lab.run.runner import now_iso
from lab.scenario import Scenario
from lab.show.terminal import printable
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, RunRecord, RunStatus, TargetRecord
from lab.store.sample import Sample

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


def run_scenario(request: Request) -> int:
    """Returns the exit code: 0 done, 1 a target failed, 2 one was left out for bad input, 130 interrupted.

    Raises LabError.
    """
    errors = Console(stderr=True)
    given = dict(request.given)
    if request.config is None and given["targets"] is None:
        given["targets"] = DEFAULT_TARGETS
    options = read_options(given, request.config)
    scenario = make_scenario(request.scenario, options.param)
    with Store.open(request.store) as store, _intent(errors, scenario, options) as plan:

        def tell(holder: str) -> None:
            errors.print(f"waiting: {holder}", markup=False, highlight=False, soft_wrap=True)

        company = company_of(plan, wait=request.wait, on_wait=tell)
        _show_plan(errors, plan, company.look())
        if request.dry_run:
            return 0
        with _alone(plan, company, wait=request.wait, tell=tell):
            begun = replace(plan, run=replace(plan.run, started_at=now_iso()))  # it may have waited for long
            status, problems = _execute(errors, begun, store, company)
        record = store.load(plan.run.id)
    _show_result(errors, record, request)
    if status is RunStatus.INTERRUPTED:
        return 130
    if any(entrant.bad_input for entrant in plan.entrants):
        return 2
    return 1 if problems or _failed(record) else 0


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


def _execute(errors: Console, plan: Intent, store: Store, company: Company) -> tuple[RunStatus, int]:
    """How the run ended, and how many things it could not clean up."""
    with _watcher(errors, plan.launches) as watcher:
        return execute(plan, store, watcher, company), watcher.problems


def _show_plan(console: Console, plan: Intent, others: Sequence[Other]) -> None:
    running = [str(entrant.target) for entrant in plan.entrants if entrant.running]
    likely = time.strftime("%H:%M:%S", time.gmtime(plan.likely_s))
    console.print(
        f"run {plan.run.id}: {plan.scenario.name} on {', '.join(running) or 'nothing'}; at most {plan.launches} "
        f"launches, {plan.peak_memory_bytes >> 20} MiB at a time, likely {likely}",
        highlight=False,
    )
    for change in plan.changes():
        console.print(f"  {change}", highlight=False)
    for other in others:
        what = "waits for" if other.busy else "beside"
        console.print(f"  {what} {printable(str(other))}", highlight=False, markup=False, soft_wrap=True)
    for entrant in plan.entrants:
        if not entrant.running:
            record = entrant.record
            console.print(
                f"  skipped {record.target}: {with_remedy(record.reason, record.remedy)}", highlight=False, markup=False
            )


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
def _watcher(console: Console, launches: int) -> Iterator[_Lines]:
    if not console.is_terminal:
        yield _Lines(console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    # Few refreshes: the lab watches with the CPUs that it measures.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as bar:
        yield _Lines(console, bar, bar.add_task("", total=launches))


class _Lines:
    """Progress as a live line on a terminal, as one line per committed launch elsewhere."""

    def __init__(self, console: Console, bar: Progress | None, task: Any = None) -> None:
        self._console = console
        self._bar = bar
        self._task = task
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
        totals = [f"{sample.metric} {sample.value:.6f}" for sample in samples if sample.metric == "boot_s"]
        text = f"failed: {launch.error}" if launch.outcome is Outcome.FAILED else " ".join(totals)
        if self._bar is None or launch.outcome is Outcome.FAILED:
            self._print(f"committed {launch.target} round {launch.iteration} samples {len(samples)} {text}".rstrip())
        for line in last_lines(launch.logs.encode()).splitlines() if launch.outcome is Outcome.FAILED else ():
            self._print(f"  | {line}")

    def target_changed(self, record: TargetRecord) -> None:
        self._print(f"{record.target} {record.outcome}: {with_remedy(record.reason, record.remedy)}")

    def cleaning(self) -> None:
        self._say("cleaning up what this run made")

    def problem(self, text: str) -> None:
        self.problems += 1
        self._print(text)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
