"""How long a lesson's commands take on this machine, and what it lacks for them: by the plan that `lab run` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.cli.options import read_options
from lab.cli.start import intent
from lab.errors import with_remedy
from lab.lesson.command import Command
from lab.registry import make_scenario
from lab.store.database import Store

AROUND_S = 2.0
"""What `lab run` takes beside its turns, once all is prepared: starting, asking engines, looking at what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Of one command: `seconds` in all, by how many earlier `runs` at least (0: a guess), and the targets that would be
    skipped, each with the reason."""

    seconds: float
    runs: int
    skipped: Mapping[str, str]


def plan(command: Command, store: Store) -> Planned:
    """What `lab run` would plan now. Raises LabError."""
    given = {
        "targets": list(command.targets),
        "rounds": command.rounds,
        "warmup": command.warmup,
        "param": dict(command.given),
        "driver_options": list(command.driver_options) or None,
    }
    options = read_options(given, None)
    with intent(make_scenario(command.scenario, command.given), options, options.driver_options) as found:
        learnt = found.learn(store)
        turns = learnt.turns
        skipped = {
            one.record.target: with_remedy(one.record.reason, one.record.remedy)
            for one in learnt.entrants
            if not one.running
        }
        seconds = learnt.likely.most_s if turns else 0.0
        return Planned(
            seconds=seconds + AROUND_S, runs=min((one.runs for one in turns.values()), default=0), skipped=skipped
        )
