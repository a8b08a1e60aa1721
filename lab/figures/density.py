"""What one more instance costs: slopes over the number of instances, out of raw readings, computed when shown.

A walk goes through the levels 0 to N once, up or down; each round has one of either, so that what drifts with time
raises one slope as much as it lowers the other. Every walk gives one slope by least squares: readings within a walk
depend on each other, whole walks do not, and the interval of their median is by order statistics like every other
figure's (docs/method.md, rules 8 and 15). The lab's own memory at each level is taken out of what is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.figures import stats
from lab.store.sample import Sample

LEVEL = "level_bytes"
MARGINAL = "marginal_bytes"
PART = "marginal_part_bytes"
AVAILABLE, LAB, PSS, CGROUP, FLOOR = "available", "lab", "pss", "cgroup", "floor"
RESOLVED = 0.25
"""The largest half-width of the 95 % interval, as a share of the slope, at which it counts as resolved
(docs/method.md, rule 15)."""

GIB = 1 << 30
_POSITION = ("level", "walk", "visit", "of")
_DISAGREEMENTS = {"available-less-pss": (None, PSS), "cgroup-less-pss": (CGROUP, PSS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many instances would fit, extrapolated; `low` and `high` are from the ends of the slope's interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One reading: at `level` instances, `used_bytes` more were used than at none in the same walk."""

    level: int
    used_bytes: float
    walk: str


def derived(samples: Iterable[Sample]) -> list[Sample]:
    """The slopes of every walk, as samples like any other: `marginal_bytes` of what is used, `marginal_part_bytes` of
    each sum beside it (`of`), and of where two of these disagree."""
    walks: dict[tuple[object, ...], dict[str, dict[int, float]]] = {}
    like: dict[tuple[object, ...], Sample] = {}
    for sample in samples:
        if sample.metric == LEVEL:
            key = _walk(sample)
            walks.setdefault(key, {}).setdefault(sample.dimensions["of"], {})[_level(sample)] = sample.value
            like.setdefault(key, sample)
    found = []
    for key, sums in walks.items():
        one = like[key]
        slopes = {of: slope for of, levels in sums.items() if (slope := _slope(levels)) is not None}
        used = _slope(_used(sums))
        if used is not None:
            found.append(_made(one, MARGINAL, used))
        found += [_made(one, PART, slopes[of], of=of) for of in slopes if of not in (AVAILABLE, LAB)]
        for name, (of, less) in _DISAGREEMENTS.items():
            whole = used if of is None else slopes.get(of)
            if whole is not None and less in slopes:
                found.append(_made(one, PART, whole - slopes[less], of=name))
    return found


def points(samples: Iterable[Sample], target: str) -> list[Point]:
    """The readings of `target`, warm-up left out, each against its own walk's reading without instances."""
    walks: dict[tuple[object, ...], dict[str, dict[int, float]]] = {}
    for sample in samples:
        if sample.metric == LEVEL and sample.target == target and not sample.warmup:
            levels = walks.setdefault(_walk(sample), {}).setdefault(sample.dimensions["of"], {})
            levels[_level(sample)] = sample.value
    found = []
    for key, sums in walks.items():
        used = _used(sums)
        if 0 in used:
            found += [Point(level=n, used_bytes=y - used[0], walk=str(key[-1])) for n, y in sorted(used.items())]
    return found


def resolved(slope: stats.Estimate) -> bool:
    """Whether the slope's interval is narrow enough for a figure (docs/method.md, rule 15)."""
    width = slope.relative_half_width
    return width is not None and width <= RESOLVED


def per_gib(slope: stats.Estimate) -> Capacity | None:
    """Instances per GiB; None where the slope is not resolved."""
    return _fitting(GIB, slope)


def on_this_machine(samples: Iterable[Sample], target: str, slope: stats.Estimate) -> Capacity | None:
    """Instances in what was available without any, down to the floor; None where the slope is not resolved."""
    mine = [one for one in samples if one.metric == LEVEL and one.target == target and one.dimensions["level"] == "0"]
    available = [one.value for one in mine if one.dimensions["of"] == AVAILABLE and not one.warmup]
    floors = [one.value for one in mine if one.dimensions["of"] == FLOOR]
    if not available or not floors:
        return None
    return _fitting(max(0.0, stats.estimate(available).median - max(floors)), slope)


def default_floor_bytes(total_bytes: int) -> int:
    """Below how much available memory no instance is added: a tenth of the machine, and 256 MiB at least."""
    return max(GIB // 4, total_bytes // 10)


def _fitting(room_bytes: float, slope: stats.Estimate) -> Capacity | None:
    if not resolved(slope) or slope.low is None or slope.high is None or slope.low <= 0:
        return None
    return Capacity(value=room_bytes / slope.median, low=room_bytes / slope.high, high=room_bytes / slope.low)


def _used(sums: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """What is used at each level but for a constant: less is available, and the lab itself took some of that."""
    available, lab = sums.get(AVAILABLE, {}), sums.get(LAB, {})
    return {level: -(available[level] + lab[level]) for level in available if level in lab}


def _slope(levels: Mapping[int, float]) -> float | None:
    if len(levels) < 2:
        return None
    import statistics  # with its fractions and decimals, which only a walk needs

    return statistics.linear_regression(list(levels.keys()), list(levels.values())).slope


def _walk(sample: Sample) -> tuple[object, ...]:
    """What makes readings one walk's: the walk's name is the last."""
    rest = tuple((key, value) for key, value in sample.dimensions.items() if key not in _POSITION)
    return sample.target, sample.iteration, sample.warmup, rest, sample.dimensions["walk"]


def _level(sample: Sample) -> int:
    return int(sample.dimensions["level"])


def _made(like: Sample, metric: str, value: float, **dimensions: str) -> Sample:
    kept = {key: text for key, text in like.dimensions.items() if key not in _POSITION}
    return Sample(
        target=like.target,
        metric=metric,
        value=value,
        unit="bytes",
        iteration=like.iteration,
        warmup=like.warmup,
        dimensions={**kept, **dimensions},
    )


def parts_of(names: Sequence[str]) -> list[str]:
    """The names of `marginal_part_bytes` in the order in which a reader wants them: sums, disagreements, parts."""
    first = [PSS, CGROUP, *_DISAGREEMENTS]
    return [*(name for name in first if name in names), *sorted(name for name in names if name not in first)]
