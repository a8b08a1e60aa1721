"""The verdict of a night: has anything become slower since the last accepted change? (docs/method.md, rule 25)

1. The control first. Where a series of the bare process lies beyond the band of its own nights, and by at least what
   matters, the night is void for everything else.
2. Each target at an equal control: its logarithm less the control's of the same night, weighted by how far the two
   have gone together in the nights before (lab/figures/nights/track.py).
3. The error is the spread between the nights since the last accepted change; there must be eight of them.
4. The last night, the last three and the last seven are held against the nights before, at a level which keeps the
   suspects of a year without change below a stated number over all series (lab/figures/nights/levels.py), and only what
   is worse by the least size that matters is a suspect.
5. A suspect is no alarm yet: lab/figures/nights/confirm.py.

Nights of a window that has moved are in no later reference, so that nothing becomes the new normal by waiting. What
moved by less than matters, or for the better, becomes a level of its own after eight nights, so that the next step is
seen from there; the small steps are added up, and their sum is a suspect once it matters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.figures.compared import worse_side
from lab.figures.nights import levels
from lab.figures.nights.conditions import changes
from lab.figures.nights.levels import LEAST, LEAST_NIGHTS, WINDOWS
from lab.figures.nights.night import Figure, Night
from lab.figures.nights.track import Point, Reference, Step, Track
from lab.figures.nights.verdict import AWAY, Judged, State, Verdict
from lab.figures.series import CONTROL, SEEN, Key
from lab.units import RATIO

_ORDER = (State.SUSPECT, State.BETTER, State.MOVED, State.SMALL, State.STEADY, State.FEW, State.UNJUDGED)


def judge(nights: Sequence[Night], *, control: str = CONTROL, least: float = LEAST) -> Verdict:
    """The verdict of the last of `nights`, which are in their order and of one host. Nights of another group than the
    last one's are left out. Raises ValueError without nights."""
    if not nights:
        raise ValueError("there is no night to judge")
    mine = [one for one in nights if one.group == nights[-1].group]
    return deque(judge_each(mine, control=control, least=least), maxlen=1)[0]


def judge_each(nights: Iterable[Night], *, control: str = CONTROL, least: float = LEAST) -> Iterator[Verdict]:
    """The verdict of each night as it would have been given then, by the nights up to it. They are of one group."""
    judging = _Judging(control=control, least=least)
    for night in nights:
        yield judging.judge(night)


@dataclass(slots=True)
class _Judging:
    control: str
    least: float
    nights: list[Night] = field(default_factory=list)
    tracks: dict[Key, Track] = field(default_factory=dict)
    about: dict[Key, Figure] = field(default_factory=dict)
    related: set[Key] = field(default_factory=set)
    """Series that had a control beside them."""
    voided: dict[Key, list[Point]] = field(default_factory=dict)
    """By series of the control, the last nights in a row that it voided."""

    def judge(self, night: Night) -> Verdict:
        self.nights.append(night)
        self.about.update(night.figures)
        controls = [key for key, one in self.about.items() if one.target == self.control]
        others = [key for key in self.about if key not in controls]
        judged = {key: self._control(key, night, self._family(controls, night)) for key in controls}
        void = "; ".join(one.why for one in judged.values() if one.state is State.VOID)
        judged |= {key: self._other(key, night, void, self._family(others, night)) for key in others}
        if night.accepted:
            self._accept()
        answering = [key for key in others if self.about[key].can_alarm]
        states = {judged[key].state for key in answering or others}
        before = self.nights[-2].conditions if len(self.nights) > 1 else night.conditions
        return Verdict(
            run=night.run,
            at=night.at,
            state=State.VOID if void else next((one for one in _ORDER if one in states), State.FEW),
            why=void,
            series=tuple(judged[key] for key in self.about),
            host_changes=changes(before, night.conditions),
            accepted=night.accepted,
        )

    def _family(self, keys: Iterable[Key], night: Night) -> int:
        return max(1, sum(1 for key in keys if key in night.figures and night.figures[key].can_alarm))

    def _control(self, key: Key, night: Night, family: int) -> Judged:
        """The control's own series: where it moved it voids the night, and it alarms nobody."""
        figure = night.figures.get(key)
        if figure is None or figure.log is None:
            return replace(self._without(key, night), is_control=True)
        track = self.tracks.setdefault(key, Track())
        point = Point(len(self.nights) - 1, figure.log, 0.0)
        level = levels.void_level(family)
        found = replace(self._judged(figure, track, point, level, side=0, relative=False), is_control=True)
        tonight = track.tonight(with_control=False)
        if tonight is None or not figure.can_alarm or not self._voids(tonight, level):
            self.voided.pop(key, None)
            return found
        return replace(found, state=State.VOID, why=self._void(key, figure, track, tonight))

    def _voids(self, tonight: Step, level: float) -> bool:
        return tonight.p <= level and abs(tonight.deviation) >= math.log1p(self.least)

    def _void(self, key: Key, figure: Figure, track: Track, tonight: Step) -> str:
        """Why the night is void. A void night is in no window and no reference, but eight in a row are where the
        control is from now on."""
        in_a_row = self.voided.setdefault(key, [])
        in_a_row.append(track.take_back())
        if len(in_a_row) >= LEAST_NIGHTS:
            track.move_to(self.voided.pop(key))
        return (
            f"the control moved: {figure.title} is {_exp(tonight.deviation):.2f} times what it was in "
            f"{tonight.reference.n} nights before"
        )

    def _other(self, key: Key, night: Night, void: str, family: int) -> Judged:
        figure = night.figures.get(key)
        if figure is None or figure.log is None:
            return self._without(key, night)
        if void:
            return _bare(figure, State.VOID, void)
        beside = _beside(night, figure, self.control)
        if beside is not None and key not in self.related:
            self.related.add(key)  # nights without a control are none to be set beside those with one
            self.tracks.pop(key, None)
        if beside is None and key in self.related:
            return _bare(figure, State.VOID, "the control was not measured")
        track = self.tracks.setdefault(key, Track())
        point = Point(len(self.nights) - 1, figure.log, beside or 0.0)
        side = worse_side(figure.metric, figure.unit) if figure.can_alarm else 0
        level = levels.level_of(family)
        return self._judged(figure, track, point, level, side=side, relative=beside is not None)

    def _without(self, key: Key, night: Night) -> Judged:
        figure = night.figures.get(key)
        if figure is not None:
            return _bare(figure, State.UNJUDGED, "values of 0 or below, or yes and no, have no ratio")
        last = self.about[key]
        why = night.absent.get(last.target, "no figure tonight")
        others = [one.label for one in night.figures.values() if one.target == last.target and one.label != last.label]
        if others:
            why = f"tonight it was {others[0]}"
        return replace(_bare(last, State.UNJUDGED, why), value=None, n=0)

    def _judged(self, figure: Figure, track: Track, point: Point, level: float, *, side: int, relative: bool) -> Judged:
        track.add(point)
        steps = track.steps(with_control=relative)
        if not steps:
            why = f"{len(track.points) - track.began - 1} nights before this one, of at least {LEAST_NIGHTS}"
            beside = _exp(point.x) if relative else None
            return replace(_bare(figure, State.FEW, why), relative=relative, control_value=beside)
        state, step = self._state(track, steps, level, side)
        is_new = state in AWAY and step.p <= level and track.speak(step, suspect=state is State.SUSPECT)
        since = self._since(track) if state in AWAY else None
        tonight, reference = steps[0], steps[0].reference
        band = levels.quantile(level, reference.freedom) * tonight.error
        usual = reference.centre + reference.weight * point.x
        found = replace(
            _bare(figure, state, ""),
            relative=relative,
            control_value=_exp(point.x) if relative else None,
            weight=reference.weight,
            change=_exp(step.deviation),
            change_low=_exp(step.deviation - step.margin),
            change_high=_exp(step.deviation + step.margin),
            cumulated=_exp(track.offset + step.deviation),
            tonight=_exp(tonight.deviation),
            tonight_low=_exp(tonight.deviation - tonight.margin),
            tonight_high=_exp(tonight.deviation + tonight.margin),
            p_tonight=tonight.p if tonight.deviation * (side or 1) > 0 else 1 - tonight.p,
            low=_exp(usual - band),
            high=_exp(usual + band),
            window=step.nights,
            reference=step.reference.n,
            since="" if since is None else self.nights[since].run,
            is_new=is_new,
            host_changes=self._changed(since, figure.target),
            smallest=self._smallest(reference, level),
        )
        self._follow(track, level, side=side, relative=relative)
        return found

    def _state(self, track: Track, steps: Sequence[Step], level: float, side: int) -> tuple[State, Step]:
        """By the window that speaks most clearly; where none speaks, the last night's."""
        least = math.log1p(self.least)
        speaking = [step for step in steps if step.p <= level]
        step = min(speaking, key=lambda one: (one.p, -abs(one.deviation))) if speaking else steps[0]
        if not side:
            away = State.MOVED if abs(step.deviation) >= least else State.SMALL
            return (away if speaking else State.STEADY), step
        worse, before = step.deviation * side, track.offset * side
        if not speaking:
            return (State.SUSPECT if before >= least else State.STEADY), step
        if worse >= least or (worse > 0 and worse + before >= least):
            return State.SUSPECT, step
        return (State.BETTER if -worse >= least else State.SMALL), step

    def _follow(self, track: Track, level: float, *, side: int, relative: bool) -> None:
        """What has become of what was away: it has passed, or it is a level of its own, being less than matters or for
        the better. What is worse by as much as matters stays away until it is accepted."""
        after = track.since_then(with_control=relative)
        if track.episode is None or after is None or track.settle(after):
            return
        lasts = after.nights >= LEAST_NIGHTS and after.p <= level
        if lasts and (not side or after.deviation * side < math.log1p(self.least)):
            track.begin_anew(track.episode.spoke, track.offset + after.deviation)

    def _smallest(self, reference: Reference, level: float) -> Mapping[int, float]:
        """The step that is found with the stated power by the window's last night, of each window."""
        found = {}
        for nights in WINDOWS:
            error = reference.usual_error(nights)
            power = levels.quantile(1 - levels.POWER, reference.freedom) * error
            needed = max(levels.quantile(level, reference.freedom) * error, math.log1p(self.least))
            found[nights] = _exp(needed + power) - 1
        return found

    def _since(self, track: Track) -> int:
        """The night from which on the series is where it is."""
        return track.points[track.began if track.episode is None else track.episode.began].night

    def _changed(self, since: int | None, target: str) -> Sequence[str]:
        if not since:
            return ()
        return changes(self.nights[since - 1].conditions, self.nights[since].conditions, target=target)

    def _accept(self) -> None:
        """What is away tonight is the new normal from where it began; what is not keeps its nights."""
        for track in self.tracks.values():
            if track.episode is not None:
                track.begin_anew(track.episode.began, 0.0)
            elif len(track.points) - track.began <= LEAST_NIGHTS:
                track.begin_anew(max(track.began, len(track.points) - 1), 0.0)
            track.offset = 0.0


def _beside(night: Night, figure: Figure, control: str) -> float | None:
    """The control's logarithm that belongs to `figure`, chosen as `series.beside` does; None without one."""
    found = [
        one
        for one in night.figures.values()
        if one.target == control
        and one.log is not None
        and one.metric == figure.metric
        and (figure.unit != RATIO or one.dimensions == figure.dimensions)
    ]
    if not found or figure.dimensions.get(SEEN) == "inside":
        return None
    return max(found, key=lambda one: (one.dimensions == figure.dimensions, one.n)).log


def _bare(figure: Figure, state: State, why: str) -> Judged:
    return Judged(
        target=figure.target,
        label=figure.label,
        metric=figure.metric,
        name=figure.name,
        unit=figure.unit,
        dimensions=figure.dimensions,
        state=state,
        why=why,
        value=figure.value,
        n=figure.n,
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
