"""The verdict of nights: whole years of them, made up by a seed, and this machine's own values resampled.

A year as the goal has it: 365 nights of six targets and the control, one step of 8 % in a hidden night, two of 3 %, a
kernel change in another (with 10 % on everything), ten disturbed nights; night effect 5 to 15 %, noise within a night 5
to 20 %, ten launches. It is imported into a store and judged by `lab history --json`, a process of its own. Each
suspect that is news is then confirmed as `lab nightly` would: the accepted build and the night's in turn, made up by
the same noise. The same years are put to other rules, as a table.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from made_nights import CONTROL, USUAL_S, Plan, Step, night_of_values, nights_of, record_of, records_of, values_of
from verdict import Verdict, say

from lab.figures.nights import levels, otava
from lab.figures.nights.confirm import Outcome, confirm_against
from lab.figures.nights.judge import judge, judge_each
from lab.figures.nights.verdict import State
from lab.figures.stats import binomial_interval
from lab.store.database import Store

YEARS = 5
SEED = 20_261_130
TIMEOUT_S = 300.0
MOST_S = 20.0
STEP, SMALL = 1.08, 1.03
STEPPED, SMALL_ONES = "docker", ("swarm", "libvirt:q35")
WITHIN = dict(zip(USUAL_S, (0.05, 0.05, 0.05, 0.10, 0.10, 0.15, 0.20), strict=True))
OWN = 0.01
CONFIRMING = 40
"""Launches of each build in a confirmation."""
SEQUENCES = 100
OTAVA = os.environ.get("LAB_OTAVA", "")
"""An interpreter that has Apache Otava; without it its lines are left out."""


def nights(years: int, *, seed: int = SEED) -> list[Verdict]:
    """Measure, print and judge."""
    say(f"  seed {seed}; night effect 5 to 15 % common and {OWN:.0%} a target's own; ten launches a night")
    verdicts = _years(years, seed)
    verdicts += _steps(seed)
    verdicts += [_levels_of_real_values(seed)]
    return verdicts


def year_of(number: int, seed: int) -> Plan:
    """A year with its hidden nights."""
    chance = random.Random(f"{seed} {number}")
    stepped, first, second, kernel = sorted(chance.sample(range(40, 330), 4), key=lambda _: chance.random())
    quiet = {place for at in (stepped, first, second, kernel) for place in range(at - 1, at + 8)}
    disturbed = frozenset(chance.sample([place for place in range(20, 365) if place not in quiet], 10))
    return Plan(
        seed=chance.randrange(1 << 30),
        common=chance.uniform(0.05, 0.15),
        own=OWN,
        within=WITHIN,
        steps=(
            Step(target=STEPPED, night=stepped, times=STEP),
            Step(target=SMALL_ONES[0], night=first, times=SMALL),
            Step(target=SMALL_ONES[1], night=second, times=SMALL),
        ),
        kernel_night=kernel,
        kernel_times=1.10,
        disturbed=disturbed,
    )


def _years(years: int, seed: int) -> list[Verdict]:
    lab = Path(sys.executable).with_name("lab")
    verdicts, false, confirmed = [], 0, 0
    taken: list[tuple[float, float]] = []
    tally = {rule: Tally() for rule in RULES}
    for number in range(years):
        plan = year_of(number, seed)
        with tempfile.TemporaryDirectory(prefix="lab-nights-") as folder:
            began, used = time.monotonic(), _cpu_s()
            path = str(Path(folder) / "lab.db")
            with Store.open(path) as store:
                for record in records_of(plan):
                    store.import_run(record)
            imported = time.monotonic()
            words = [str(lab), "history", "boot", "--last", "365", "--json", "--store", path]
            done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            judged = time.monotonic()
        taken.append((judged - began, _cpu_s() - used))
        told = json.loads(done.stdout)["hosts"][0]
        news = _news(told)
        mine = [(night, target) for night, target in news if target == STEPPED and night >= plan.steps[0].night]
        small = [(night, target) for night, target in news if _is_small(plan, night, target)]
        others = [one for one in news if one not in mine and one not in small]
        after = mine[0][0] - plan.steps[0].night + 1 if mine else None
        false += len(others)
        confirmed += sum(_confirmed(plan, night, target) for night, target in others)
        void = {place for place, one in enumerate(told["nights"]) if one["state"] == "void"}
        changed = [one["host_changes"] for one in told["nights"] if one["host_changes"]]
        again = bool(mine) and _confirmed(plan, *mine[0])
        say(
            f"  year {number + 1}: the 8 % step of night {plan.steps[0].night} "
            f"{f'found in its night {after}' if after else 'not found'}{', confirmed' if again else ''}; "
            f"of the 3 % steps {len(small)} suspects; {len(others)} other suspects; "
            f"{len(plan.disturbed & void)} of {len(plan.disturbed)} disturbed nights void, "
            f"{len(void - plan.disturbed)} others; told as changed: {changed}; {imported - began:.1f} s to make and "
            f"import, {judged - imported:.1f} s to judge"
        )
        for rule, alarms in RULES.items():
            tally[rule].add(plan, alarms(plan))
    limit = _most(levels.SUSPECTS_PER_YEAR * years)
    alarms = _most(levels.FALSE_ALARMS_PER_YEAR * years)
    verdicts.append(_goal(f"suspects without a step in {years} years: {false}", false <= limit, f"at most {limit}"))
    text = f"false alarms (such suspects that were confirmed) in {years} years: {confirmed}"
    verdicts.append(_goal(text, confirmed <= alarms, f"at most {alarms}, the stated rate's 99 % bound"))
    verdicts.append(_in_time(taken))
    say("  the same years by other rules, each night's median as it is unless said:")
    say(
        "  | rule | alarms without a step, a year | 8 % found within 3 nights | within 7 | at all | a 3 % step alarms |"
    )
    say("  |---|---|---|---|---|---|")
    for rule, found in tally.items():
        say(f"  | {rule} | {found.row(years)} |")
    return verdicts


def _in_time(taken: Sequence[tuple[float, float]]) -> Verdict:
    """By the clock; where that is too long and the processors' time is not, another's load may be why."""
    wall, cpu = (max(one) for one in zip(*taken, strict=True))
    verdict = Verdict.MET if wall <= MOST_S else Verdict.INCONCLUSIVE if cpu <= MOST_S else Verdict.MISSED
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    say(f"  slowest year {wall:.1f} s, {cpu:.1f} s of CPU ({load}); goal at most {MOST_S:g} s -> {verdict}")
    return verdict


def _cpu_s() -> float:
    """Of this process and of those that it waited for."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def _news(told: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The nights in which a series became a suspect, and of which target."""
    places = {one["run"]: place for place, one in enumerate(told["nights"])}
    return [
        (places[one["run"]], line["label"])
        for line in told["series"]
        for one in line["nights"]
        if one["state"] == "suspect" and one["is_new"]
    ]


def _is_small(plan: Plan, night: int, target: str) -> bool:
    return any(step.target == target and step.times == SMALL and night >= step.night for step in plan.steps)


def _confirmed(plan: Plan, night: int, target: str) -> bool:
    """Whether the suspect is confirmed: both builds in turn, in one hour of that night."""
    level = math.prod(step.times for step in plan.steps if step.target == target and night >= step.night)
    hour = replace(plan, nights=1, launches=CONFIRMING, steps=(), kernel_night=None, disturbed=frozenset())
    found = []
    for times in (1.0, level):
        step = (Step(target=target, night=0, times=times),)
        # One hour has one night's effects; the launches' noise is each build's own.
        values = values_of(replace(hour, steps=step, seed=plan.seed + night, noise_seed=int(1e6 * times) + night))[0]
        found.append(record_of(night, {target: values[target]}, kernel=""))
    suspect = next(one for one in judge(nights_of(replace(plan, nights=12))).series if one.label == target)
    accepted, again = found
    return confirm_against([suspect], [again], [accepted])[0].outcome is Outcome.CONFIRMED


def _steps(seed: int) -> list[Verdict]:
    """How soon the 8 % step is found, by the noise within a night and the launches."""
    verdicts = []
    for within, launches, goal in ((0.05, 10, 95), (0.10, 10, 0), (0.10, 40, 0), (0.20, 10, 0)):
        nights_after = []
        for number in range(SEQUENCES):
            chance = random.Random(f"{seed} {within} {launches} {number}")
            at = chance.randrange(30, 60)
            plan = Plan(
                seed=chance.randrange(1 << 30),
                nights=at + 7,
                common=chance.uniform(0.05, 0.15),
                own=OWN,
                within=dict.fromkeys(USUAL_S, within),
                launches=launches,
                steps=(Step(target=STEPPED, night=at, times=STEP),),
            )
            suspects = [
                place
                for place, verdict in enumerate(judge_each(nights_of(plan)))
                if place >= at and any(one.label == STEPPED for one in verdict.suspects)
            ]
            nights_after.append(suspects[0] - at + 1 if suspects else 99)
        first, third, seventh = (sum(one <= most for one in nights_after) for most in levels.WINDOWS)
        low, high = binomial_interval(third, SEQUENCES)
        text = (
            f"8 % with {within:.0%} within a night and {launches} launches: found by the 1st night in {first}, the "
            f"3rd in {third} ({low:.0%} to {high:.0%}), the 7th in {seventh} of {SEQUENCES}"
        )
        if goal:
            verdicts.append(_goal(text, third >= goal, f"at least {goal} by the 3rd"))
        else:
            say(f"  {text}; no goal, for information")
    return verdicts


def _levels_of_real_values(seed: int) -> Verdict:
    """This machine's own boots, drawn again and again: no night is another than the others, so every suspect is
    chance. Without a store that has enough of them it is not run."""
    store = os.environ.get("LAB_STORE")
    values: dict[str, list[float]] = {}
    with Store.open(store) as opened:
        for one in opened.history("boot"):
            for (target, metric, _, _), told in one.series.items():
                if metric == "boot_s" and len(told) >= 8:
                    # Brought to one location: runs of other days and companies are no common distribution.
                    middle = statistics.median(told)
                    values.setdefault(target, []).extend(value / middle for value in told)
    values = {target: told for target, told in values.items() if len(told) >= 8}
    if CONTROL not in values or len(values) < 2:
        say("  replayed real launches: the store has no boot of process and others with 8 rounds or more -> not run")
        return Verdict.NOT_RUN
    chance = random.Random(seed)
    years, false = 3, 0
    for _ in range(years):
        made = []
        for place in range(levels.NIGHTS_PER_YEAR):
            common = chance.gauss(0, 0.1)
            drawn = {
                target: [math.exp(common) * USUAL_S.get(target, 1.0) * chance.choice(told) for _ in range(10)]
                for target, told in values.items()
            }
            made.append(night_of_values(place, drawn))
        false += sum(one.is_new and one.state is State.SUSPECT for v in judge_each(made) for one in v.series)
    limit = _most(levels.SUSPECTS_PER_YEAR * years)
    names = ", ".join(f"{target} ({len(told)})" for target, told in values.items())
    text = f"{years} years of this machine's own launches, drawn again: {names}: {false} suspects"
    return _goal(text, false <= limit, f"at most {limit}")


@dataclass(slots=True)
class Tally:
    """What a rule did over the years."""

    false: int = 0
    soon: int = 0
    week: int = 0
    ever: int = 0
    small: int = 0
    asked: int = 0

    def add(self, plan: Plan, alarms: Sequence[tuple[int, str]] | None) -> None:
        if alarms is None:
            return
        self.asked += 1
        at = plan.steps[0].night
        mine = [night for night, target in alarms if target == STEPPED and night >= at - 1]
        small = [one for one in alarms if _is_small(plan, one[0] + 1, one[1])]
        self.false += len(alarms) - len(mine) - len(small)
        self.soon += any(night < at + 3 for night in mine)
        self.week += any(night < at + 7 for night in mine)
        self.ever += bool(mine)
        self.small += len({target for _, target in small})

    def row(self, years: int) -> str:
        if not self.asked:
            return " | ".join(["not asked: LAB_OTAVA names no interpreter", *["-"] * 4])
        return (
            f"{self.false / years:.1f} | {self.soon} of {years} | {self.week} of {years} | {self.ever} of {years} | "
            f"{self.small} of {2 * years}"
        )


def _by_the_judge(plan: Plan) -> list[tuple[int, str]]:
    return [
        (place, one.label)
        for place, verdict in enumerate(judge_each(nights_of(plan)))
        for one in verdict.series
        if one.is_new and one.state is State.SUSPECT
    ]


def _judged_and_confirmed(plan: Plan) -> list[tuple[int, str]]:
    return [one for one in _by_the_judge(plan) if _confirmed(plan, *one)]


def _medians(plan: Plan) -> Iterator[tuple[str, list[float]]]:
    values = values_of(plan)
    for target in USUAL_S:
        if target != CONTROL:
            yield target, [statistics.median(night[target]) for night in values]


def _twice_the_last(plan: Plan) -> list[tuple[int, str]]:
    """As github-action-benchmark alerts by default: 200 % of the value before."""
    return [
        (place, target)
        for target, told in _medians(plan)
        for place in range(1, len(told))
        if told[place] > 2 * told[place - 1]
    ]


def _three_sigma(plan: Plan) -> list[tuple[int, str]]:
    """Beyond three standard deviations above the mean of all nights before, of which there are eight at least."""
    found = []
    for target, told in _medians(plan):
        for place in range(8, len(told)):
            mean, sd = statistics.fmean(told[:place]), statistics.stdev(told[:place])
            if told[place] > mean + 3 * sd:
                found.append((place, target))
    return found


def _by_otava(plan: Plan) -> list[tuple[int, str]] | None:
    """Change points upwards over the whole year, at an equal control, as `lab history --otava` tells them: afterwards,
    and not by a night's end."""
    if not OTAVA:
        return None
    void = {place for place, one in enumerate(judge_each(nights_of(plan))) if one.state is State.VOID}
    values = values_of(plan)
    names = [target for target in USUAL_S if target != CONTROL]
    series = [
        [
            None if place in void else statistics.median(night[target]) / statistics.median(night[CONTROL])
            for place, night in enumerate(values)
        ]
        for target in names
    ]
    found = otava.change_points(OTAVA, [str(place) for place in range(plan.nights)], series, least=levels.LEAST)
    return [
        (point.place, target)
        for target, points in zip(names, found, strict=True)
        for point in points
        if point.times > 1
    ]


RULES: Mapping[str, Callable[[Plan], list[tuple[int, str]] | None]] = {
    "the lab's, suspects": _by_the_judge,
    "the lab's, confirmed": _judged_and_confirmed,
    "Apache Otava, p 1e-4, at an equal control, void nights dropped, at least 5 %; told afterwards": _by_otava,
    "mean + 3 standard deviations of all nights before": _three_sigma,
    "200 % of the last value": _twice_the_last,
}


def _most(expected: float) -> int:
    """The number that a Poisson count of that mean stays at or below with 99 %."""
    from scipy.stats import poisson

    return int(poisson.ppf(0.99, expected))


def _goal(text: str, good: bool, goal: str) -> Verdict:
    verdict = Verdict.MET if good else Verdict.MISSED
    say(f"  {text}; goal {goal} -> {verdict}")
    return verdict
