"""One job on each host of a fleet: started, asked after, brought home.

A host takes its own lock for the run (lab/run/lock.py), which is the lease: two jobs never measure on one host. What a
host does not finish leaves the others as they are.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.fleet.play import Answer, play

_BAD_INPUT = 2
_INTERRUPTED = 130
EXPORT_LIMIT_BYTES = 1 << 30
"""A larger export is left where it is."""


class State(StrEnum):
    """What has become of a host's job."""

    WAITING = "waiting"  # its turn has not come
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # `lab run` said so
    REFUSED = "refused"  # the command is wrong for this host
    NO_LAB = "no lab"
    AWAY = "away"  # never reached
    OUT_OF_TOUCH = "out of touch"  # its job runs, or has ended, and it cannot be reached
    LOST = "lost"  # the host was started anew, or the job's keeper was killed
    CANCELLED = "cancelled"


@dataclass(slots=True, kw_only=True)
class HostJob:
    """One host's job. `why` is what the host or its lab said last; `export` is the file that was brought home."""

    host: str
    state: State = State.WAITING
    why: str = ""
    code: int | None = None
    version: str = ""
    export: Path | None = None
    silent_since: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "host": self.host,
            "state": self.state.value,
            "why": self.why,
            "exit_code": self.code,
            "version": self.version,
        }


@dataclass(slots=True, kw_only=True)
class Fleet:
    """Some hosts of an inventory, and how they are reached. Raises what `play` does."""

    inventory: Path
    hosts: Sequence[str]
    forks: int

    def ask(self, name: str, hosts: Sequence[str], **variables: str) -> Mapping[str, Answer]:
        """Play `name` on `hosts`, if there are any."""
        return play(name, self.inventory, hosts, forks=self.forks, variables=variables) if hosts else {}


@dataclass(slots=True, kw_only=True)
class Job:
    """A `lab run` on every host of `fleet`: `words` is what it takes, `limit_s` what each may take of time,
    `patience_s` how long a host may be out of touch before it is given up, `at_once` on how many it runs at a time.
    `into` is where exports are brought. `say` is told each change, in a line."""

    id: str
    fleet: Fleet
    words: Sequence[str]
    limit_s: float
    patience_s: float
    at_once: int
    every_s: float
    into: Path
    say: Callable[[str], None]
    jobs: dict[str, HostJob] = field(default_factory=dict)

    def run(self) -> Sequence[HostJob]:
        """Every host's job, once each has ended or is given up. Ctrl-C has them all end, and waits for that."""
        self.jobs = {host: HostJob(host=host) for host in self.fleet.hosts}
        try:
            self._until_done()
        except KeyboardInterrupt:
            self.say("ending the jobs on all hosts")
            self._cancel()
            self._until_done()
            raise
        return list(self.jobs.values())

    def take(self, host: str, told: Mapping[str, Any]) -> HostJob:
        """The job of a host that has told of it: brought home where it has ended."""
        self.jobs[host] = HostJob(host=host, state=State.RUNNING)
        self._learn({host: told})
        return self.jobs[host]

    def _until_done(self) -> None:
        while True:
            running, waiting = self._those(State.RUNNING), self._those(State.WAITING)
            self._start(waiting[: max(0, self.at_once - len(running))])
            if not self._those(State.RUNNING) and not self._those(State.WAITING):
                return
            if self._those(State.RUNNING):
                time.sleep(self.every_s)
                self._look()

    def _start(self, hosts: Sequence[str]) -> None:
        said: dict[str, Mapping[str, Any]] = {}
        asked = base64.b64encode(json.dumps({"words": list(self.words), "limit_s": self.limit_s}).encode()).decode()
        for host, answer in self.fleet.ask("start", hosts, job=self.id, asked=asked).items():
            found = answer.said.get("find") or {}
            self.jobs[host].version = str(found.get("version", ""))
            told = answer.said.get("start") or {}
            if answer.away or answer.failed:
                self._now(host, State.AWAY if answer.away else State.FAILED, answer.away or answer.failed)
            elif found.get("state") == "no lab":
                self._now(host, State.NO_LAB, f"{found.get('why')}: lab fleet setup")
            elif told.get("state") == "running":
                self._now(host, State.RUNNING)
            else:
                said[host] = told
        self._learn(said)

    def _look(self) -> None:
        said: dict[str, Mapping[str, Any]] = {}
        running = self._those(State.RUNNING)
        for host, answer in self.fleet.ask("ask", running, job=self.id, word="poll").items():
            job = self.jobs[host]
            if answer.away or answer.failed:
                now = time.monotonic()
                if job.silent_since is None:
                    job.silent_since = now
                    self.say(f"{host}: cannot be reached now: {answer.away or answer.failed}")
                elif now - job.silent_since > self.patience_s:
                    self._now(host, State.OUT_OF_TOUCH, answer.away or answer.failed)
                continue
            if job.silent_since is not None:
                job.silent_since = None
                self.say(f"{host}: is there again")
            said[host] = answer.said.get("ask") or {}
        self._learn(said)

    def _learn(self, said: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what hosts say of their jobs, and bring the runs of those home that have ended."""
        ended = {host: told for host, told in said.items() if told.get("state") == "ended"}
        self._bring(
            [host for host, told in ended.items() if 0 < int(told.get("export_bytes", 0)) <= EXPORT_LIMIT_BYTES]
        )
        for host, told in said.items():
            if host in ended:
                code = self.jobs[host].code = int(told.get("code", 1))
                why = str(told.get("why") or told.get("said") or "")
                self._now(host, _state_of(code, cancelled=told.get("why") == "cancelled"), why if code else "")
            elif told.get("state") != "running":
                self._now(host, State.LOST, str(told.get("why") or "the host knows of no such job"))

    def _bring(self, hosts: Sequence[str]) -> None:
        for host, answer in self.fleet.ask("collect", hosts, job=self.id, into=str(self.into)).items():
            file = self.into / f"{export_name(host)}.json"
            if file.is_file() and not answer.failed and not answer.away:
                self.jobs[host].export = file
            else:
                self.say(f"{host}: its run could not be fetched: {answer.failed or answer.away}")

    def _cancel(self) -> None:
        for host in self._those(State.WAITING):
            self._now(host, State.CANCELLED)
        self.fleet.ask("ask", self._those(State.RUNNING), job=self.id, word="cancel")

    def _those(self, state: State) -> list[str]:
        return [host for host, job in self.jobs.items() if job.state is state]

    def _now(self, host: str, state: State, why: str = "") -> None:
        self.jobs[host].state, self.jobs[host].why = state, why
        self.say(f"{host}: {state.value}{f': {why}' if why else ''}")


def _state_of(code: int, *, cancelled: bool) -> State:
    if cancelled:
        return State.CANCELLED
    return {0: State.DONE, _BAD_INPUT: State.REFUSED, _INTERRUPTED: State.CANCELLED}.get(code, State.FAILED)


def export_name(host: str) -> str:
    """What a host's file is called here, whatever the host is called: as `collect.yml` does."""
    return hashlib.sha256(host.encode()).hexdigest()
