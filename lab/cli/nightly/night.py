"""One night: the machine's calm first, then each scenario as far as the time allows, its verdict, and where that is a
suspicion, the same once more before anybody is woken (docs/method.md, rule 25)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from lab.cli.command_run import carry_out, planned, shortfalls_of
from lab.cli.nightly.against import Build, build_of
from lab.cli.nightly.config import Job, Wanted
from lab.errors import BadInput, LabError
from lab.figures import density
from lab.figures.nights.confirm import Confirmed, confirm_against, confirm_by_repetition
from lab.figures.nights.judge import judge
from lab.figures.nights.night import CONFIRMS, Night, night_of, nights_of
from lab.figures.nights.verdict import Verdict
from lab.run import gate
from lab.run.lock import host_lock
from lab.store.database import Store
from lab.store.record import RunRecord, RunStatus
from lab.units import duration

BLOCKS = 4
"""Tonight's build and the accepted one are measured in so many pairs of blocks, AB BA AB BA, so that a drift of the
machine falls on both."""
_LEAST_ROUNDS = 2
_TWICE, _THRICE = 2, 3
"""What a scenario may need of the time: itself and its confirmation, which is two builds' where one is kept."""
_INTERRUPTED = "the night was interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of one scenario. `left_out` says why it did not run; `lacking` by required target what it lacks;
    `unconfirmed` why a suspicion could not be looked into; `notes` what else is to be known."""

    wanted: Wanted
    record: RunRecord | None = None
    verdict: Verdict | None = None
    confirmed: Sequence[Confirmed] = ()
    unconfirmed: str = ""
    left_out: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The whole night; `noisy` tells why nothing of it counts."""

    parts: Sequence[Part]
    noisy: Sequence[str] = ()
    interrupted: bool = False
    bad_input: bool = False


@dataclass(slots=True, kw_only=True)
class Nightly:
    """Carries out a job. `say` is told of what happens, a line each."""

    job: Job
    store: Store
    errors: Console
    folder: Path
    now: Callable[[], float] = time.monotonic
    measured: list[str] = field(default_factory=list)
    """The runs that it made, confirmations among them, each as soon as it has ended."""
    _began_s: float = 0.0
    _build: Build | None = None
    _build_problem: str = ""
    _interrupted: bool = False

    def run(self) -> Result:
        """Raises LabError where the store cannot be used, or what is to be set beside tonight's build is nothing."""
        self._began_s = self.now()
        self._find_build()
        options = self.job.gate
        noisy = gate.await_calm(
            lambda: [*_held(), *gate.look(options.limits(), window_s=options.window)],
            wait_s=min(options.wait, self._left_s()),
            say=self.say,
        )
        if noisy:
            self.say(f"void: too noisy to measure: {'; '.join(noisy)}")
            return Result(parts=[Part(wanted=one) for one in self.job.wanted], noisy=noisy)
        parts: list[Part] = []
        bad_input = False
        for wanted in self.job.wanted:
            if self._interrupted:
                parts.append(Part(wanted=wanted, left_out=_INTERRUPTED))
                continue
            part, bad = self._scenario(wanted)
            bad_input |= bad
            parts.append(part)
        return Result(parts=parts, interrupted=self._interrupted, bad_input=bad_input)

    def say(self, text: str) -> None:
        """A line for whoever reads the job's log."""
        self.errors.print(text, markup=False, highlight=False, soft_wrap=True)

    def _find_build(self) -> None:
        if not self.job.against:
            return
        try:
            self._build = build_of(self.job.against, self.job.wanted, self._measured_as_confirmation, self.folder)
        except BadInput:
            raise
        except LabError as error:  # the night is none the worse for what may not be needed
            self._build_problem = f"the accepted build cannot be run beside tonight's: {error}"
            self.say(self._build_problem)

    def _left_s(self) -> float:
        return math.inf if self.job.budget_s is None else self.job.budget_s - (self.now() - self._began_s)

    def _scenario(self, wanted: Wanted) -> tuple[Part, bool]:
        """What became of it, and whether a target was left out for bad input."""
        share = _THRICE if self._build is not None else _TWICE
        bounded = self._bounded(wanted, share)
        with planned(self.errors, wanted.scenario, bounded.options, self.store, wait=True) as (plan, company):
            needed = plan.likely.most_s * share
            left_s = self._left_s()
            if needed > left_s:
                why = (
                    f"it needs about {duration(needed)} with what may be to be confirmed, and "
                    f"{duration(max(left_s, 0))} of the budget are left"
                )
                self.say(f"left out {wanted.scenario.name}: {why}")
                return self._left_out(wanted, why), False
            self.say(f"measuring {wanted.scenario.name}, likely {duration(plan.likely.most_s)}")
            status, problems = carry_out(self.errors, plan, self.store, company, wait=True)
            bad_input = any(entrant.bad_input for entrant in plan.entrants)
            record = self.store.load(plan.run.id)
            self.measured.append(plan.run.id)
        part = Part(
            wanted=wanted,
            record=record,
            lacking=shortfalls_of(record, wanted.options, self.store),
            notes=[f"{problems} things could not be cleaned up: see `lab clean`"] if problems else [],
        )
        if status is RunStatus.INTERRUPTED:
            self._interrupted = True
            return replace(part, notes=[*part.notes, "the run was interrupted"]), bad_input
        return self._judged(part, record), bad_input

    def _left_out(self, wanted: Wanted, why: str) -> Part:
        lacking = dict.fromkeys(wanted.options.require, f"{wanted.scenario.name} was left out: {why}")
        return Part(wanted=wanted, left_out=why, lacking=lacking)

    def _bounded(self, wanted: Wanted, share: int = 1) -> Wanted:
        """With what is left of the budget, or an equal share of it, as the longest time."""
        left_s, own_s = self._left_s() / share, wanted.options.max_time
        if math.isinf(left_s) or (own_s is not None and own_s <= left_s):
            return wanted
        return replace(wanted, options=wanted.options.model_copy(update={"max_time": max(left_s, 1.0)}))

    def _judged(self, part: Part, record: RunRecord) -> Part:
        nights = self._nights(record)
        if not nights:
            return replace(part, notes=[*part.notes, "it measured nothing that could be judged"])
        verdict = judge(nights, least=part.wanted.least)
        part = replace(part, verdict=verdict)
        for one in verdict.suspects:
            self.say(
                f"suspect: {one.title} is {one.change or 0:.2f} times what it was in {one.reference} nights before"
            )
        if not verdict.suspects:
            return part
        if self._left_s() <= 0:
            return replace(part, unconfirmed="the budget of time was used up")
        try:
            return self._confirmed(part, verdict, record, nights)
        except LabError as error:
            return replace(part, unconfirmed=str(error))
        except KeyboardInterrupt:
            self._interrupted = True
            return replace(part, unconfirmed=_INTERRUPTED)

    def _nights(self, record: RunRecord) -> list[Night]:
        """The nights of this host up to `record`'s, which is the last."""
        runs = self.store.history(record.run.scenario, host_id=record.run.host_id)
        if any(sample.metric == density.LEVEL for sample in record.samples):  # slopes over rounds, which no history has
            found = [night_of(self.store.load(one.run.id)) for one in runs if CONFIRMS not in one.run.parameters]
        else:
            found = nights_of(runs)
        return found if found and found[-1].run == record.run.id else []

    def _confirmed(self, part: Part, verdict: Verdict, record: RunRecord, nights: Sequence[Night]) -> Part:
        wanted, notes, least = part.wanted, list(part.notes), part.wanted.least
        if self._build is None:
            notes += [self._build_problem] if self._build_problem else []
            self.say(f"measuring {wanted.scenario.name} once more")
            again = night_of(self._measure(wanted, record))
            found = confirm_by_repetition(nights, verdict, again, least=least)
        else:
            self.say(f"measuring {wanted.scenario.name} once more, in turns with {self._build.name}")
            found = confirm_against(verdict.suspects, *self._in_turns(wanted, record, self._build), least=least)
            notes.append(f"looked into in turns with {self._build.name}")
        for one in found:
            self.say(f"{one.outcome}: {one.title}" + (f", {one.why}" if one.why else ""))
        return replace(part, confirmed=found, notes=notes)

    def _in_turns(self, wanted: Wanted, record: RunRecord, build: Build) -> tuple[list[RunRecord], list[RunRecord]]:
        """AB BA AB BA."""
        warmup = int(record.run.parameters.get("warmup") or 0)
        measured = len(record.run.order) - warmup
        rounds = max(_LEAST_ROUNDS, math.ceil(measured / BLOCKS))
        again: list[RunRecord] = []
        accepted: list[RunRecord] = []
        for block in range(BLOCKS):
            for of_tonight in ((True, False), (False, True))[block % 2]:
                left_s = self._left_s()
                max_s = None if math.isinf(left_s) else max(left_s, 1.0)
                if of_tonight:
                    paced = wanted.paced(rounds=rounds, warmup=warmup, max_s=max_s)
                    again.append(self._measure(paced, record))
                else:
                    accepted.append(build.run(wanted, rounds=rounds, warmup=warmup, max_s=max_s))
        return again, accepted

    def _measure(self, wanted: Wanted, of: RunRecord | None) -> RunRecord:
        """A run that is no night of its own, and is kept as what it is."""
        bounded = self._bounded(wanted)
        with planned(self.errors, wanted.scenario, bounded.options, self.store, wait=True) as (plan, company):
            parameters = {**plan.run.parameters, CONFIRMS: of.run.id if of is not None else "another build"}
            marked = replace(plan, run=replace(plan.run, parameters=parameters))
            status, _ = carry_out(self.errors, marked, self.store, company, wait=True)
            self.measured.append(plan.run.id)
            if status is RunStatus.INTERRUPTED:
                raise KeyboardInterrupt
            return self.store.load(plan.run.id)

    def _measured_as_confirmation(self, wanted: Wanted) -> RunRecord:
        return self._measure(wanted, None)


def _held() -> list[str]:
    """Who else measures on this host: waited for as noise is, and no longer."""
    try:
        with host_lock("nightly"):
            return []
    except LabError as error:
        return [error.brief]
