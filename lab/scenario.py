"""A scenario: a procedure over instances that yields samples, measured once per target and round."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from lab.driver import Feature
from lab.session import Session


class Bench(Protocol):
    """What a scenario works with: one target in one round."""

    def session(self) -> AbstractContextManager[Session]:
        """A launched session. On leaving it is deleted, and its timeline and the samples emitted within are
        committed together. A failed launch is recorded and ends the round for this target."""

    def emit(self, metric: str, value: float, unit: str, **dimensions: str) -> None:
        """Keep a sample of this target and round."""


class Scenario(Protocol):
    """One question; its module's docstring says what each metric's start, end and unit are."""

    name: str
    question: str
    headline: str  # the metric by which an adaptive run stops and targets are ranked
    requires: frozenset[Feature]  # a target that lacks one is skipped, and shown so

    def measure(self, bench: Bench) -> None:
        """Measure one target once. Errors of launches are the bench's; anything else is a defect and propagates."""
