"""A run of a scenario through the whole pipeline: plan, runner, store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verdict import say

from lab.cli.options import RunOptions
from lab.cli.start import execute, intent
from lab.registry import make_scenario
from lab.run.estimate import Span
from lab.store.database import Store
from lab.store.record import LaunchRecord, Outcome, RunRecord, TargetRecord
from lab.store.sample import Sample


def run_scenario(
    store: Store, scenario: str, targets: Sequence[str], rounds: int, parameters: Mapping[str, str]
) -> RunRecord:
    """What `store` keeps of it. Raises LabError."""
    options = RunOptions(targets=list(targets), rounds=rounds, warmup=0, param=dict(parameters))
    with intent(make_scenario(scenario, options.param), options, {}) as plan:
        execute(plan, store, _Silent())
        return store.load(plan.run.id)


class _Silent:
    """Watches a run and says nothing but what went wrong."""

    def preparing(self, target: str) -> None:
        """Nothing to say."""

    def launching(self, target: str, iteration: int, warmup: bool) -> None:
        """Nothing to say."""

    def committed(self, launch: LaunchRecord, samples: Sequence[Sample]) -> None:
        if launch.outcome is Outcome.FAILED:
            say(f"  {launch.target}, round {launch.iteration} failed: {launch.error}")

    def turned(self, left: Span) -> None:
        """Nothing to say."""

    def round_over(self, iteration: int, left: Span) -> None:
        """Nothing to say."""

    def target_changed(self, record: TargetRecord) -> None:
        """It is in the record."""

    def cleaning(self) -> None:
        """Nothing to say."""

    def problem(self, text: str) -> None:
        say(f"  {text}")
