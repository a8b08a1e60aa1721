"""What is said of nights, the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator

from lab import units
from lab.figures.nights import levels
from lab.figures.nights.past import Line, Past
from lab.figures.nights.verdict import AWAY, Judged, State


def headline(past: Past) -> str:
    """The last night's verdict in one line."""
    last = past.last
    told = f"Night {when(last.at)}, run {last.run}: {last.state}"
    if last.why:
        return f"{told}. {sentence(last.why)}"
    if last.state is State.SUSPECT:
        return f"{told}: {', '.join(one.title for one in last.suspects)}."
    return f"{told}."


def notes(past: Past) -> Iterator[str]:
    """What a reader must know beside the table."""
    yield from past.left_out and (f"Left out, being of another kind: {'; '.join(past.left_out)}.",)
    for line in past.lines:
        one = past.last_of(line)
        if one is not None and one.state in AWAY:
            yield moved(one)
    for verdict in past.verdicts:
        if verdict.host_changes:
            yield f"From {when(verdict.at)}, run {verdict.run}: {'; '.join(verdict.host_changes)}."
    void = [verdict for verdict in past.verdicts if verdict.state is State.VOID]
    if void:
        yield f"{len(void)} of {len(past.verdicts)} nights are void: {', '.join(when(one.at) for one in void)}."
    for line in past.lines:
        for point in line.change_points:
            at = when(past.verdicts[point.place].at)
            yield f"Apache Otava: {line.last.title} is x {units.digits(point.times)} from {at}, run {point.run} on."
    finding = [one for line in past.lines if (one := past.last_of(line)) and one.smallest and not one.is_control]
    if finding:
        told = "; ".join(f"{one.title} {smallest(one)}" for one in finding)
        yield f"With a power of 95 %, the 1st, 3rd and 7th night find a step of: {told}."
    yield rule(past)


def moved(one: Judged) -> str:
    """A series that is not where it was, in a sentence."""
    told = f"{one.title} is {times(one)} of what it was in {one.reference} nights before"
    if one.relative:
        told += ", at an equal control"
    told += (
        f": {one.state}, seen over the last {one.window} night{'s' if one.window > 1 else ''}, since run {one.since}"
    )
    if one.host_changes:
        told += f". From then on other: {'; '.join(one.host_changes)}"
    return told + "."


def rule(past: Past) -> str:
    """The levels that the judge holds, in words."""
    return (
        f"A suspect is worse by at least {past.least:.0%} and by more than the nights before explain; at most "
        f"{levels.SUSPECTS_PER_YEAR:g} a year are so by chance, over all series, and once confirmed at most "
        f"{levels.FALSE_ALARMS_PER_YEAR:g} (docs/nights.md)."
    )


def smallest(one: Judged) -> str:
    """The steps that are found by the 1st, 3rd and 7th night: `15 %, 8 %, 6 %`."""
    return ", ".join(f"{step:.0%}" for step in one.smallest.values())


def times(one: Judged) -> str:
    """A change with its interval: `x 1.08 (1.05-1.11)`."""
    if one.change is None or one.change_low is None or one.change_high is None:
        return ""
    return f"x {one.change:.3f} ({one.change_low:.3f}-{one.change_high:.3f})"


def band(one: Judged) -> str:
    """The band of A/A in the unit of the value."""
    if one.low is None or one.high is None or one.value is None:
        return ""
    factor, unit = units.scale(one.value, one.unit)
    return f"{units.digits(one.low / factor)}-{units.digits(one.high / factor)} {unit}".rstrip()


def value(one: Judged) -> str:
    """The night's figure."""
    return "" if one.value is None else units.quantity(one.value, one.unit)


def when(at: str) -> str:
    """A night by its date and minute."""
    return at[:16].replace("T", " ")


def sentence(words: str) -> str:
    """Words as a sentence of their own."""
    return f"{words[:1].upper()}{words[1:]}."


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(line: Line, cells: int) -> str:
    """The line's nights at an equal control from the lowest to the highest, at most `cells` of them; a dot is a night
    that is void or has no figure. Of more nights each cell is the mean of some."""
    values = line.at_equal_control()
    parts = [values[place * len(values) // cells : (place + 1) * len(values) // cells] for place in range(cells)]
    if len(values) <= cells:
        parts = [[one] for one in values]
    means = [sum(known) / len(known) if (known := [one for one in part if one is not None]) else None for part in parts]
    known = [one for one in means if one is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    across = high - low
    return "".join(
        "·" if one is None else _BARS[3] if across <= 0 else _BARS[min(7, int(8 * (one - low) / across))]
        for one in means
    )
