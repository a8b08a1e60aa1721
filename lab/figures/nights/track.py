"""One series over the nights: its reference, what it has moved to since, and what tonight says of it.

The model: the logarithm of a night's figure is a constant, plus a weight from 0 to 1 times the control's of the same
night, plus an error of that night. Constant, weight and the errors' spread are found from the reference nights alone,
robustly. What tonight's window of nights deviates is held against the t distribution of a new observation in a
regression: it knows that the reference is of few nights, and that a control far from its usual place tells less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.figures.nights import levels, robust
from lab.figures.nights.levels import LEAST_NIGHTS, LOCATION_EFFICIENCY, WINDOWS

_NOTHING = 1e-9
"""Logarithms nearer to each other than this are the same: what rounding leaves."""
_MANY = 24


@dataclass(frozen=True, slots=True)
class Point:
    """A night that counts: its place among all nights, the figure's logarithm, and the control's (0 without one)."""

    night: int
    y: float
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the nights before were: `centre` and `spread` of the errors, `weight` of the control."""

    n: int
    weight: float
    centre: float
    spread: float
    freedom: int
    x_centre: float
    x_square: float

    def deviation(self, window: Sequence[Point]) -> float:
        """By how much the window's nights are away, in logarithms."""
        return robust.location([one.y - self.weight * one.x for one in window]) - self.centre

    def error(self, window: Sequence[Point]) -> float:
        """The standard error of that, where nothing has changed."""
        fixed = 1 / len(window) + 1 / self.n / LOCATION_EFFICIENCY
        away = sum(one.x for one in window) / len(window) - self.x_centre
        leverage = away * away / self.x_square if self.x_square > 0 else 0.0
        return self.spread * math.sqrt(fixed + leverage)

    def usual_error(self, nights: int) -> float:
        """The standard error of a window of so many nights whose control is where it mostly is."""
        return self.spread * math.sqrt(1 / nights + 1 / self.n / LOCATION_EFFICIENCY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one window shows: its `deviation` and `error` in logarithms, and the chance of as much, one-sided."""

    nights: int
    deviation: float
    error: float
    p: float
    reference: Reference

    @property
    def margin(self) -> float:
        """Half the 95 % interval of the deviation."""
        return levels.quantile((1 - levels.CONFIDENCE) / 2, self.reference.freedom) * self.error


@dataclass(slots=True)
class Episode:
    """Nights that are away: the place where the window that first spoke began, the place of the night when it did, how
    many nights it had, and what it showed, in logarithms. `kept` is where the nights end that are in a reference:
    before it, and earlier where something else was away already."""

    began: int
    spoke: int
    nights: int
    deviation: float
    kept: int
    suspect: bool


@dataclass(slots=True)
class Track:
    """The points of one series so far, and where the present level began among them, which is `offset` away from what
    was accepted."""

    points: list[Point] = field(default_factory=list)
    began: int = 0
    offset: float = 0.0
    episode: Episode | None = None
    known: tuple[tuple[int, int], Reference] | None = None
    """The last reference, which is asked for several times a night."""

    def add(self, point: Point) -> None:
        """Enter tonight."""
        self.points.append(point)

    def reference(self, before: int, *, with_control: bool) -> Reference | None:
        """Of the nights of the present level before the last `before`, without those that are away; None where they are
        too few."""
        end = len(self.points) - before
        if self.episode is not None:
            end = min(end, self.episode.kept)
        if end - self.began < LEAST_NIGHTS:
            return None
        if self.known is None or self.known[0] != (self.began, end):
            used = self.points[self.began : end]
            self.known = (self.began, end), reference_of(used, with_control=with_control)
        return self.known[1]

    def steps(self, *, with_control: bool) -> list[Step]:
        """What each window shows, the shortest first; none where there are not enough nights."""
        found = []
        longest = self.reference(WINDOWS[-1], with_control=with_control)
        for nights in WINDOWS:
            # With many nights the few between the windows tell nothing more.
            many = longest is not None and longest.n >= _MANY
            used = longest if many else self.reference(nights, with_control=with_control)
            if used is None:
                break
            found.append(step_of(self.points[len(self.points) - nights :], used))
        return found

    def tonight(self, *, with_control: bool) -> Step | None:
        """What the last night alone shows."""
        steps = self.steps(with_control=with_control)
        return steps[0] if steps else None

    def take_back(self) -> Point:
        """Let tonight not have been."""
        last = len(self.points) - 1
        if self.episode is not None and self.episode.spoke == last:
            self.episode = None
        return self.points.pop()

    def move_to(self, points: Sequence[Point]) -> None:
        """These nights are where the series is from now on."""
        self.begin_anew(len(self.points), 0.0)
        self.points += points

    def speak(self, step: Step, *, suspect: bool) -> bool:
        """A window has spoken: its nights, and all from now on, are in no reference. Whether that is news: a suspect is
        also where something else was away already."""
        known = self.episode
        if known is not None and (known.suspect or not suspect):
            return False
        end = len(self.points)
        began = end - step.nights
        kept = began if known is None else min(began, known.kept)
        self.episode = Episode(began, end - 1, step.nights, step.deviation, kept, suspect)
        return True

    def since_then(self, *, with_control: bool) -> Step | None:
        """What the nights after the first that spoke show, which chance did not choose; None where there are none."""
        if self.episode is None or self.episode.spoke + 1 >= len(self.points):
            return None
        reference = self.reference(0, with_control=with_control)
        return None if reference is None else step_of(self.points[self.episode.spoke + 1 :], reference)

    def settle(self, after: Step) -> bool:
        """End the episode where the nights `after` it spoke are plainly nearer to where the series was: what was away
        was chance, or has passed. Its nights are then as good as any other: to leave out what chance made large would
        make the spread too small. Whether it has ended."""
        episode = self.episode
        if episode is None or after.nights <= 2 * episode.nights:
            return False
        if after.deviation * math.copysign(1.0, episode.deviation) >= abs(episode.deviation) / 3:
            return False
        self.episode = None
        return True

    def begin_anew(self, place: int, offset: float) -> None:
        """The present level begins at the point `place`, `offset` away from what was accepted."""
        self.began = place
        self.offset = offset
        self.episode = None


def reference_of(points: Sequence[Point], *, with_control: bool) -> Reference:
    """Of at least three points."""
    x, y = [one.x for one in points], [one.y for one in points]
    weight = min(1.0, max(0.0, robust.slope(x, y))) if with_control else 0.0
    errors = [one.y - weight * one.x for one in points]
    n = len(points)
    freedom = n - 2 if with_control else n - 1
    x_centre = sum(x) / n
    return Reference(
        n=n,
        weight=weight,
        centre=robust.location(errors),
        spread=robust.spread(errors) * math.sqrt((n - 1) / freedom),
        freedom=freedom,
        x_centre=x_centre,
        x_square=sum((one - x_centre) ** 2 for one in x) if with_control else 0.0,
    )


def step_of(window: Sequence[Point], reference: Reference) -> Step:
    """What the window's nights show against the reference."""
    deviation = reference.deviation(window)
    error = reference.error(window)
    if abs(deviation) <= _NOTHING:
        p = 1.0
    else:
        p = levels.beyond(abs(deviation) / error if error > 0 else math.inf, reference.freedom)
    return Step(nights=len(window), deviation=deviation, error=error, p=p, reference=reference)
