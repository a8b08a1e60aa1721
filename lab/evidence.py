"""What a scenario about isolation saw: facts in words beside its figures, each from inside an instance or outside it.

A fact is a sample like any other (metric `fact`, value 1): what was looked at is its dimension `probe`, what was found
`said`. A figure tells by the dimension `seen` from which side it was read; without it, it was read by the lab itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from lab.scenario import Bench

FACT = "fact"
"""The metric of facts in words."""

SEEN = "seen"
"""The dimension that tells the side, a `Seen`."""


class Seen(StrEnum):
    """From where something was read."""

    INSIDE = "inside"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a probe looks at, why a difference in it matters, and the page of the kernel's (or engine's) documentation
    that says so."""

    what: str
    why: str
    page: str


@runtime_checkable
class Claims(Protocol):
    """A scenario that tests a claim: its report reads like evidence."""

    claim: str  # in the words of those who make it
    caveats: Sequence[str]  # what stands beside its figures, a sentence or two each
    meanings: Mapping[str, Meaning]  # of its facts' probes

    @property
    def done(self) -> Sequence[str]:
        """What the lab did, a sentence each, with the parameters as they were given."""


def tell(bench: Bench, seen: Seen, probe: str, said: str) -> None:
    """Keep a fact of this target and round."""
    bench.emit(FACT, 1, "", probe=probe, said=said, **{SEEN: seen})
