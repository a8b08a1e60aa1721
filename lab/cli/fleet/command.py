"""`lab fleet`: a job on each host of an inventory."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lab.cli.fleet.asked import Asked
from lab.errors import BadInput, LabError
from lab.fleet.hosts import read_hosts
from lab.fleet.jobs import Fleet, HostJob, Job, State
from lab.fleet.setup import play_setup
from lab.run.runner import new_run_id
from lab.show.fleet import render_hosts, render_jobs
from lab.show.listing import plain_table
from lab.show.terminal import printable
from lab.store.database import Store
from lab.store.importing.file import read_file
from lab.store.record import RunRecord
from lab.units import parse_seconds

_OURS = ("--store", "--html", "--json", "--config", "--dry-run", "--help")
"""Options of `lab run` that would end up on the host, where nobody looks."""
_BAD_INPUT = 2
_LEAST_S, _MOST_S = 0.5, 7 * 24 * 3600.0


def fleet_run(
    asked: Asked,
    words: Sequence[str],
    *,
    serial: int | None,
    times: Mapping[str, str],
    store: str | None,
    as_json: bool,
) -> int:
    """Returns the exit code. Raises BadInput, LabError, StoreError."""
    for word in words:
        if word.partition("=")[0] in _OURS:
            raise BadInput(
                f"{word.partition('=')[0]} is of no use to the hosts of a fleet",
                resolution="options of `lab fleet run` itself stand before the scenario",
            )
    seconds = {name: _seconds(name, text) for name, text in times.items()}
    fleet = _fleet(asked)
    console = Console(stderr=True)
    with Store.open(store) as local, tempfile.TemporaryDirectory(prefix="lab-fleet-") as into:
        job = Job(
            id=new_run_id(),
            fleet=fleet,
            words=words,
            limit_s=seconds["limit_each"],
            patience_s=seconds["patience"],
            every_s=seconds["every"],
            at_once=serial or len(fleet.hosts),
            into=Path(into),
            say=lambda text: _say(console, text),
        )
        _say(console, f"job {job.id}: lab run {' '.join(words)} on {len(fleet.hosts)} hosts, {job.at_once} at a time")
        try:
            done = job.run()
        finally:
            found = _enter(list(job.jobs.values()), local, console)
            _forget(fleet, job, console)
    return _show(done, found, as_json=as_json)


def fleet_collect(asked: Asked, *, store: str | None, as_json: bool) -> int:
    """Returns the exit code: 1 where a host is away, or a job was lost. Raises BadInput, LabError, StoreError."""
    fleet = _fleet(asked)
    console = Console(stderr=True)
    jobs: list[HostJob] = []
    found: dict[str, RunRecord] = {}
    with Store.open(store) as local, tempfile.TemporaryDirectory(prefix="lab-fleet-") as into:
        for host, answer in fleet.ask("ask", fleet.hosts, word="list", job="").items():
            if answer.away or answer.failed:
                jobs.append(HostJob(host=host, state=State.AWAY, why=answer.away or answer.failed))
                continue
            for number, told in enumerate(answer.said.get("ask") or []):
                place = Path(into) / str(number)
                place.mkdir(exist_ok=True)
                one = Job(
                    id=_job_id(told),
                    fleet=Fleet(inventory=fleet.inventory, hosts=[host], forks=1),
                    words=(),
                    limit_s=0,
                    patience_s=0,
                    every_s=0,
                    at_once=1,
                    into=place,
                    say=lambda text: _say(console, text),
                )
                ended = one.take(host, told)
                jobs.append(ended)
                found |= _enter([ended], local, console)
                _forget(one.fleet, one, console)
    return _show(jobs, found, as_json=as_json)


def fleet_doctor(asked: Asked, *, as_json: bool) -> int:
    """Returns the exit code: 1 where a host is away or has no lab. Raises BadInput, LabError."""
    fleet = _fleet(asked)
    answers = _lab(fleet, ["doctor", "--json"])
    rows, told = [], {}
    names: dict[str, None] = {}
    for host, (why, version, output) in answers.items():
        engines = {
            str(one.get("name")): _standing(one) for one in (output or {}).get("engines", ()) if isinstance(one, dict)
        }
        names |= dict.fromkeys(engines)
        rows.append((host, why or version, engines))
        told[host] = {"why": why, "version": version, "doctor": output}
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        table = plain_table("host", *names, "lab", text_columns=2 + len(names))
        for host, lab, engines in rows:
            table.add_row(*(printable(text) for text in (host, *(engines.get(name, "") for name in names), lab)))
        Console().print(table)
    return int(any(why for why, _, _ in answers.values()))


def fleet_clean(asked: Asked, *, cancel: bool, as_json: bool) -> int:
    """Returns the exit code: 1 where something may be left. Raises BadInput, LabError."""
    fleet = _fleet(asked)
    rows: list[tuple[str, str, str, str]] = []
    left = False
    for host, answer in fleet.ask("ask", fleet.hosts, word="list", job="").items():
        if answer.away or answer.failed:
            rows.append((host, State.AWAY.value, "", answer.away or answer.failed))
            left = True
            continue
        own = Fleet(inventory=fleet.inventory, hosts=[host], forks=1)
        for told in answer.said.get("ask") or []:
            name = _job_id(told)
            running = told.get("state") == "running"
            word = ("cancel" if cancel else "poll") if running else "remove"
            said = (own.ask("ask", [host], word=word, job=name)[host].said.get("ask")) or {}
            gone = bool(said.get("removed"))
            left |= not gone
            what = "removed" if gone else "is told to end: clean again" if running and cancel else "runs (--cancel)"
            rows.append((host, str(told.get("state")), name, what))
    for host, (why, _, output) in _lab(fleet, ["clean", "--yes", "--json"]).items():
        if not any(row[0] == host and row[1] == State.AWAY.value for row in rows):
            rows.append((host, "lab clean", "", why or _cleaned(output)))
            left |= bool(why)
    if as_json:
        told_of = [dict(zip(("host", "state", "job", "said"), row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps(told_of, indent=2) + "\n")
    else:
        Console().print(render_jobs(rows))
    return int(left)


def fleet_setup(asked: Asked, *, engines: str) -> int:
    """Returns the exit code: 1 where a host was not set up. Raises BadInput, LabError."""
    fleet = _fleet(asked)
    found = play_setup(fleet.inventory, fleet.hosts, forks=asked.forks, engines=engines)
    Console().print(
        render_jobs([(host, "set up" if not why else "not set up", "", why) for host, why in found.items()])
    )
    return int(any(found.values()))


def _fleet(asked: Asked) -> Fleet:
    return Fleet(inventory=asked.inventory, hosts=read_hosts(asked.inventory, asked.limit), forks=asked.forks)


def _seconds(name: str, text: str) -> float:
    option = f"--{name.replace('_', '-')}"
    try:
        found = float(parse_seconds(text))
    except ValueError as error:
        raise BadInput(f"{option} {text!r}: {error}") from None
    if not _LEAST_S <= found <= _MOST_S:
        raise BadInput(f"{option} {text} is not between half a second and a week")
    return found


def _lab(fleet: Fleet, words: Sequence[str]) -> dict[str, tuple[str, str, Any]]:
    """By host: why there is no answer, the lab's version, and its JSON."""
    asked = base64.b64encode(json.dumps(list(words)).encode()).decode()
    found = {}
    for host, answer in fleet.ask("lab", fleet.hosts, asked=asked).items():
        there, told = answer.said.get("find") or {}, answer.said.get("lab") or {}
        why = (
            answer.away
            or answer.failed
            or str(there.get("why", ""))
            or ("" if "output" in told else str(told.get("why")))
        )
        found[host] = (why, str(there.get("version", "")), told.get("output"))
    return found


def _standing(engine: Mapping[str, Any]) -> str:
    return "yes" if engine.get("info") else "no"


def _cleaned(output: Any) -> str:
    count = len(output) if isinstance(output, list) else len((output or {}).get("removed", ()))
    return f"removed {count}" if count else "nothing was left"


def _job_id(told: Mapping[str, Any]) -> str:
    """Raises LabError for a name that no job of ours has: it comes from the host."""
    name = str(told.get("job", ""))
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise LabError("a host tells of a job whose name is none of the lab's")
    return name


def _enter(jobs: Sequence[HostJob], local: Store, console: Console) -> dict[str, RunRecord]:
    """The runs that were brought home, by host, after they are in the store."""
    found = {}
    for job in jobs:
        if job.export is None:
            continue
        try:
            record = read_file(job.export)
            local.import_run(record)
        except LabError as error:
            _say(console, f"{job.host}: its run was not taken: {error}")
            job.export = None
        else:
            found[job.host] = record
    return found


def _forget(fleet: Fleet, job: Job, console: Console) -> None:
    """Remove the jobs' folders from the hosts that have nothing more to give: the run is in the store."""
    over = [one.host for one in job.jobs.values() if one.export or one.state in (State.REFUSED, State.LOST)]
    for host, answer in fleet.ask("ask", over, word="remove", job=job.id).items():
        if answer.away or answer.failed:
            _say(console, f"{host}: the job's folder is still there: {answer.away or answer.failed} (lab fleet clean)")


def _show(jobs: Sequence[HostJob], found: Mapping[str, RunRecord], *, as_json: bool) -> int:
    if as_json:
        told = [{**job.to_json(), "run": found[job.host].run.id if job.host in found else None} for job in jobs]
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        console = Console()
        rows = [
            (job.host, job.state.value, found[job.host].run.id if job.host in found else "", job.why) for job in jobs
        ]
        console.print(render_jobs(rows))
        console.print(render_hosts(found))
    if jobs and all(job.state is State.REFUSED for job in jobs):
        return _BAD_INPUT
    return int(any(job.state is not State.DONE for job in jobs))


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
