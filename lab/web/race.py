"""The race: what a run tells by its events, as what the page shows of it. It computes and draws nothing else.

The phases of a launch are those of its last: by the rules of lab/timeline.py, so that the page draws what a report
would. The service's chain is a bar; what the engine says stands beside it, since between the two chains a difference is
signed (docs/method.md, rule 1). Places are given once every target that runs has an interval, and never after one
round; targets share a place where their intervals leave it open who is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab import units
from lab.errors import MeasurementError
from lab.figures import stats
from lab.figures.compared import worse_side
from lab.timeline import ENGINE_CHAIN, SERVICE_CHAIN, Clock, MarkRecord, Phase, Source, Timeline

_NEEDED = next(n for n in range(1, 100) if stats.order_interval(n, 0.5))
"""Values from which on a median has an interval."""
_SAID = 2000
"""Characters of what was told last that are kept of each problem."""
_MOST_PROBLEMS = 20


@dataclass(slots=True, kw_only=True)
class Lane:
    """One target: its last launch, and its figures so far."""

    target: str
    label: str
    state: str = "waits"
    why: str = ""
    launch: int | None = None
    launches: int = 0
    warmup: bool = False
    over: bool = False
    timeline: Timeline = field(default_factory=Timeline)
    values: list[float] = field(default_factory=list)
    dimensions: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    unit: str = ""
    failed: int = 0

    def shown(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "target": self.target,
            "label": self.label,
            "state": self.state,
            "why": self.why,
            "warmup": self.warmup,
            "over": self.over,
            "service": list(self._service()),
            "engine": list(self._engine()),
            "n": len(self.values),
            "failed": self.failed,
            "median": self._median(),
        }

    def _service(self) -> Iterator[dict[str, Any]]:
        """The steps of the service's chain from `requested`, one after the other."""
        try:
            steps = self.timeline.steps(SERVICE_CHAIN)
        except MeasurementError:
            return  # a negative step is an error of the launch, which the run tells
        for start, end, seconds in steps:
            at_s = self.timeline.duration_s(Phase.REQUESTED, end)
            yield {
                "phase": end.value,
                "from_s": self.timeline.duration_s(Phase.REQUESTED, start),
                "at_s": at_s,
                "took": units.quantity(seconds, "s"),
                "at": units.quantity(at_s, "s"),
            }

    def _engine(self) -> Iterator[dict[str, Any]]:
        if Phase.REQUESTED not in self.timeline:
            return
        for phase in ENGINE_CHAIN[1:]:
            if phase in self.timeline and self.timeline.mark(phase).clock is not Clock.GUEST:
                at_s = (self.timeline.mark(phase).ns - self.timeline.mark(Phase.REQUESTED).ns) / 1e9
                yield {"phase": phase.value, "at_s": at_s, "at": units.quantity(at_s, "s")}

    def _median(self) -> str:
        if not self.values:
            return ""
        found = stats.estimate(self.values)
        if found.low is None or found.high is None:
            return ""
        between = units.span(found.low, found.high, self.unit, like=found.median)
        return f"{units.quantity(found.median, self.unit)} ({between})"


class Race:
    """A run that was started from the page, by what it tells. `typed` is its command, as a user would type it."""

    def __init__(self, typed: str, headline: str = "") -> None:
        self.state = "starting"
        self.typed = typed
        self.run = ""
        self.told = ""
        self.code: int | None = None
        self._lanes: dict[str, Lane] = {}
        self._headline = headline
        self._scenario = ""
        self._rounds = self._warmup = 0
        self._round: int | None = None
        self._left_s: Sequence[float] = ()
        self._holder = ""
        self._problems: list[str] = []
        self._of_launch: dict[int, str] = {}

    @property
    def over(self) -> bool:
        """Whether its process has ended."""
        return self.code is not None

    def hear(self, told: Mapping[str, Any]) -> None:
        """One event, as docs/serve.md has it; one of another kind is passed over."""
        heard = getattr(self, f"_hear_{told.get('event')}", None)
        if heard is not None:
            heard(told)

    def stopping(self) -> None:
        """It was asked to end."""
        if not self.over:
            self.state = "stopping"

    def ended(self, code: int, told: str) -> None:
        """Its process ended, having printed `told`."""
        self.code, self.told = code, told
        self.state = {0: "done", 130: "stopped"}.get(code, "failed")
        for lane in self._lanes.values():
            if lane.state in ("turn", "prepares", "waits"):
                lane.state = "done"

    def shown(self) -> dict[str, Any]:
        """All of it as JSON values; it holds no more for a long run than for a short one."""
        return {
            "state": self.state,
            "typed": self.typed,
            "run": self.run,
            "scenario": self._scenario,
            "headline": self._headline,
            "round": self._round_name(),
            "left": self._left(),
            "holder": self._holder,
            "lanes": [lane.shown() for lane in self._lanes.values()],
            "podium": self._podium(),
            "problems": self._problems,
            "told": self.told,
            "code": self.code,
        }

    def _hear_plan(self, told: Mapping[str, Any]) -> None:
        self.run, self._scenario, self._headline = told["run"], told["scenario"], told["headline"]
        self._rounds, self._warmup = told["rounds"], told["warmup"]
        labels = told["labels"]
        self._lanes = {one: Lane(target=one, label=labels.get(one, one)) for one in told["targets"]}
        for one in told["skipped"]:
            why = f"{one['reason']} ({one['remedy']})" if one["remedy"] else one["reason"]
            self._lanes[one["target"]] = Lane(target=one["target"], label=one["target"], state="skipped", why=why)

    def _hear_waiting(self, told: Mapping[str, Any]) -> None:
        self.state, self._holder = "waiting", told["text"]

    def _hear_begun(self, told: Mapping[str, Any]) -> None:  # noqa: ARG002
        self.state, self._holder = "measuring", ""

    def _hear_preparing(self, told: Mapping[str, Any]) -> None:
        for lane in self._lanes.values():
            lane.state = "waits" if lane.state == "prepares" else lane.state
        self._lanes[told["target"]].state = "prepares"

    def _hear_turn(self, told: Mapping[str, Any]) -> None:
        self._round = told["iteration"]
        for lane in self._lanes.values():
            lane.state = "waits" if lane.state in ("turn", "prepares") else lane.state
        lane = self._lanes[told["target"]]
        lane.state, lane.launches = "turn", 0

    def _hear_launch(self, told: Mapping[str, Any]) -> None:
        self._of_launch[told["launch"]] = told["target"]
        lane = self._lanes[told["target"]]
        lane.launch, lane.warmup, lane.over, lane.timeline = told["launch"], told["warmup"], False, Timeline()
        lane.launches += 1

    def _hear_mark(self, told: Mapping[str, Any]) -> None:
        lane = self._lanes.get(self._of_launch.get(told["launch"], ""))
        if lane is not None and lane.launch == told["launch"]:
            lane.timeline.add(
                MarkRecord(
                    phase=Phase(told["phase"]),
                    ns=told["ns"],
                    clock=Clock(told["clock"]),
                    source=Source(told["source"]),
                )
            )

    def _hear_committed(self, told: Mapping[str, Any]) -> None:
        lane = self._lanes[told["target"]]
        self._of_launch.pop(told["launch"], None)
        lane.over = lane.over or lane.launch == told["launch"]
        if told["outcome"] == "failed":
            lane.failed += not told["warmup"]
            self._note(f"{lane.label}: {told['error']}")
        if told["warmup"]:
            return
        for sample in told["samples"]:
            if sample["metric"] == self._headline:
                lane.values.append(sample["value"])
                lane.unit = sample["unit"]
                lane.dimensions.add(tuple(sorted(sample["dimensions"].items())))

    def _hear_turned(self, told: Mapping[str, Any]) -> None:
        self._left_s = told["left_s"]

    def _hear_target(self, told: Mapping[str, Any]) -> None:
        lane = self._lanes[told["target"]]
        lane.state = told["outcome"]
        lane.why = f"{told['reason']} ({told['remedy']})" if told["remedy"] else told["reason"]

    def _hear_cleaning(self, told: Mapping[str, Any]) -> None:  # noqa: ARG002
        self.state = "cleaning"

    def _hear_problem(self, told: Mapping[str, Any]) -> None:
        self._note(told["text"])

    def _note(self, text: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(text[:_SAID])

    def _round_name(self) -> str:
        if self._round is None:
            return ""
        if self._round < self._warmup:
            return "warm-up" if self._warmup == 1 else f"warm-up {self._round + 1} of {self._warmup}"
        return f"round {self._round + 1 - self._warmup} of {self._rounds}"

    def _left(self) -> str:
        if self.state != "measuring" or len(self._left_s) != 2:
            return ""
        least, most = (units.duration(one) for one in self._left_s)
        return f"about {most if least == most else f'{least} to {most}'} left"

    def _podium(self) -> dict[str, Any]:
        """Who stands where, or from when on that can be said; nothing for a question whose targets have no one figure
        each, or whose figures are neither good nor bad."""
        racing = [lane for lane in self._lanes.values() if lane.state not in ("skipped", "failed") or lane.values]
        if not racing or (self.over and not any(lane.values for lane in racing)):
            return {"places": [], "waits": "", "notes": []}
        side = worse_side(self._headline, next((lane.unit for lane in racing if lane.unit), "s"))
        if side == 0 or any(len(lane.dimensions) > 1 for lane in racing):
            return {"places": [], "waits": "", "notes": ["This question has no one figure per target: see the report."]}
        racing = [lane for lane in racing if lane.values] if self.over else racing
        fewest = min(len(lane.values) for lane in racing)
        if fewest < _NEEDED:
            waits = f"Places come with intervals, after {_NEEDED} rounds; {fewest} so far."
            return {"places": [], "waits": "" if len(racing) < 2 and self.over else waits, "notes": []}
        found = [(lane, stats.estimate(lane.values)) for lane in racing]
        bounds = {id(lane): (side * float(one.low or 0), side * float(one.high or 0)) for lane, one in found}
        spans = {key: (min(pair), max(pair)) for key, pair in bounds.items()}
        places = {key: 1 + sum(high < low for _, high in spans.values()) for key, (low, _) in spans.items()}
        order = sorted(found, key=lambda pair: (places[id(pair[0])], side * pair[1].median))
        return {
            "places": [
                {
                    "place": places[id(lane)],
                    "shared": sum(one == places[id(lane)] for one in places.values()) > 1,
                    "label": lane.label,
                    "median": units.quantity(one.median, lane.unit),
                    "interval": units.span(one.low or 0, one.high or 0, lane.unit, like=one.median),
                    "n": one.n,
                }
                for lane, one in order
            ],
            "waits": "",
            "notes": list(_notes([lane for lane, _ in order])),
        }


def _notes(lanes: Sequence[Lane]) -> Iterator[str]:
    """What a reader of the podium must know beside it."""
    if any("tcg" in lane.label for lane in lanes):
        yield "Guests titled (tcg) are emulated: their figures say nothing of virtual machines in general."
    waited = {lane.label: dict(one).get("wait_method", "") for lane in lanes for one in lane.dimensions}
    if len(set(waited.values()) - {""}) > 1:
        yield "Waited for in different ways: " + ", ".join(f"{name} by {how}" for name, how in waited.items()) + "."
