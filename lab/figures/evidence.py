"""What a scenario about isolation saw: facts in words beside its figures, each from inside an instance or outside it.

A fact is a sample like any other (metric `fact`, value 1): what was looked at is its dimension `probe`, what was found
`said`. A figure tells by the dimension `seen` from which side it was read, the same for all of a metric; without it, it
is of both sides, or of neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lab.figures import series
from lab.figures.series import FACT, SEEN
from lab.store.record import RunRecord

if TYPE_CHECKING:
    from lab.scenario import Bench  # which launches, where this only reads


class Seen(StrEnum):
    """From where something was read."""

    INSIDE = "inside"
    OUTSIDE = "outside"


class Shown(StrEnum):
    """Of facts that are shown with a column for each target: those on which targets differ, or all of them."""

    DIFFERING = "differing"
    ALL = "all"


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
    meanings: Mapping[str, Meaning]  # of its facts, by probe, or by what stands before a colon in its name

    @property
    def done(self) -> Sequence[str]:
        """What the lab did, a sentence each, with the parameters as they were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one probe found on every target that was looked at, by its label; in the run's order of targets.
    `shown` says that it is a row with a column for each."""

    seen: Seen
    probe: str
    said: Mapping[str, str]
    shown: Shown | None = None

    @property
    def hidden(self) -> bool:
        """Whether it is shown only where targets differ, and they do not. Of one target alone nothing is hidden."""
        return self.shown is Shown.DIFFERING and len(self.said) > 1 and len(set(self.said.values())) == 1

    def groups(self) -> Mapping[str, Sequence[str]]:
        """What was found, each with the targets that agree in it."""
        found: dict[str, list[str]] = {}
        for label, said in self.said.items():
            found.setdefault(said, []).append(label)
        return found

    def against(self, references: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The targets that differ from any of `references`, each with those that it differs from."""
        known = {name: self.said[name] for name in references if name in self.said}
        found = {
            label: [name for name, told in known.items() if name != label and told != said]
            for label, said in self.said.items()
        }
        return {label: names for label, names in found.items() if names}


def tell(bench: Bench, seen: Seen, probe: str, said: str, *, shown: Shown | None = None) -> None:
    """Keep a fact of this target and round; `shown` has it shown as a row with a column for each target."""
    if shown is None:
        bench.emit(FACT, 1, "", probe=probe, said=said, **{SEEN: seen})
    else:
        bench.emit(FACT, 1, "", probe=probe, said=said, shown=shown, **{SEEN: seen})


def findings(record: RunRecord) -> list[Finding]:
    """All facts, warm-up left out: those from inside first, else as they were first told. Where rounds differ, each
    finding is told with the number of rounds that had it."""
    told: dict[tuple[Seen, str], dict[str, Counter[str]]] = {}
    shown: dict[tuple[Seen, str], Shown] = {}
    for sample in record.samples:
        if sample.metric == FACT and not sample.warmup:
            key = Seen(sample.dimensions[SEEN]), sample.dimensions["probe"]
            each = told.setdefault(key, {}).setdefault(sample.target, Counter())
            each[sample.dimensions["said"]] += 1
            if "shown" in sample.dimensions:
                shown[key] = Shown(sample.dimensions["shown"])
    labels = {target.target: series.label(target) for target in record.targets}
    return [
        Finding(
            seen=seen,
            probe=probe,
            said={labels[name]: _joined(each[name]) for name in labels if name in each},
            shown=shown.get((seen, probe)),
        )
        for (seen, probe), each in sorted(told.items(), key=lambda item: item[0][0])
    ]


def references(record: RunRecord) -> list[str]:
    """The targets that others are told against: the control, and a plain Docker container."""
    return [series.label(target) for target in record.targets if target.target in (series.CONTROL, "docker")]


def meaning(claims: Claims, probe: str) -> Meaning | None:
    """What the scenario has to say of a probe."""
    return claims.meanings.get(probe) or claims.meanings.get(probe.partition(":")[0])


def _joined(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{said} ({count} of {counts.total()})" for said, count in counts.most_common())
