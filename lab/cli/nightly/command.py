"""`lab nightly`: reads the job's file, has its night, writes what others read of it, and shows it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from lab.cli.command_forward import forward_ended
from lab.cli.command_run import planned
from lab.cli.nightly.config import Job, read_job
from lab.cli.nightly.files import exit_of, make_folders, summary, to_json, write_files
from lab.cli.nightly.night import Nightly
from lab.store.database import Store
from lab.store.forwarding import Destination
from lab.units import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line said; what it names counts before the file."""

    config: Path
    against: str | None
    folder: Path | None
    store: str | None
    forward: str | None
    dry_run: bool
    as_json: bool


def run_nightly(request: Request) -> int:
    """Returns the exit code, see `NightExit`. Raises LabError."""
    errors = Console(stderr=True)
    job = read_job(request.config, folder=request.folder)
    if request.against is not None:
        job = replace(job, against=request.against)
    forward = request.forward or job.forward
    destination = Destination(forward) if forward else None
    with Store.open(request.store or job.store) as store:
        if destination is not None:
            destination.require_other(store)
        nightly = Nightly(job=job, store=store, errors=errors, folder=request.config.parent)
        if request.dry_run:
            _show_job(nightly)
            return 0
        make_folders(job.files)
        night = nightly.run()
        written = write_files(night, job.files)
        if destination is not None:
            forward_ended(destination, store, nightly.measured, errors)
    if request.as_json:
        sys.stdout.write(json.dumps(to_json(night), indent=2) + "\n")
    else:
        Console().print(summary(night), highlight=False, markup=False, soft_wrap=True)
    for path in written:
        nightly.say(f"written: {path}")
    code = exit_of(night)
    nightly.say(f"exit {int(code)}: {code.about}")
    return int(code)


def _show_job(nightly: Nightly) -> None:
    """What the night would be, without any launch."""
    job: Job = nightly.job
    budget = "no budget of time" if job.budget_s is None else f"a budget of {duration(job.budget_s)}"
    nightly.say(f"a night of {len(job.wanted)} scenarios, {budget}; alarms from {_least(job)} on")
    for wanted in job.wanted:
        with planned(nightly.errors, wanted.scenario, wanted.options, nightly.store, wait=True) as (plan, _):
            running = [str(one.target) for one in plan.entrants if one.running]
            skipped = [one.record.target for one in plan.entrants if not one.running]
            left = f", without {', '.join(skipped)}" if skipped else ""
            nightly.say(
                f"  {wanted.scenario.name} on {', '.join(running) or 'nothing'}{left}: "
                f"likely {duration(plan.likely.most_s)} ({plan.likely_by})"
            )
    for name, path in job.files.items():
        nightly.say(f"  writes {name} to {path}")


def _least(job: Job) -> str:
    return ", ".join(dict.fromkeys(f"{one.least:.0%}" for one in job.wanted))
