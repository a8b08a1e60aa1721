"""Whether what a student answered is so: a key, or the student's own figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab import units
from lab.figures import stats
from lab.figures.series import Series, series_of
from lab.lesson import values
from lab.lesson.figures import over_control, row_of, rows_of
from lab.lesson.lesson import Answer, Predict, Row
from lab.lesson.record import Mistake
from lab.lesson.runs import accel_of, measured
from lab.lesson.words import Words
from lab.store.record import RunRecord
from lab.units import RATIO

MORE, LESS, UNCLEAR = "more", "less", "unclear"
KVM, TCG, NO_VM = "kvm", "tcg", "none"

_CLOSE = 0.01
"""Tables write three digits: half a unit of the last is 0.5 % at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was expected and what was said; without `mistake` the answer passes."""

    expected: str
    actual: str
    mistake: Mistake | None = None


def choices(text: str) -> list[str]:
    """`a,c` or `a c`, in order and each once."""
    return sorted({part.strip("`'\".").lower() for part in text.replace(",", " ").split()})


def refuse(text: str, asked: Answer | Predict) -> str:
    """Why `text` is not taken, since it is nothing that could be right or wrong; empty where it is."""
    offered = asked.choices or {"order": [MORE, LESS, UNCLEAR], "accel": [KVM, TCG, NO_VM]}.get(
        getattr(asked, "kind", ""), []
    )
    if offered:
        said = choices(text)
        if not said or set(said) - set(offered):
            return f"'{text}' is none of {', '.join(offered)}"
        alone = isinstance(asked, Predict) or asked.kind in ("order", "accel")
        return "name one" if alone and len(said) > 1 else ""
    if isinstance(asked, Answer) and asked.kind == "words":
        return "" if text.strip() else "it says nothing"
    try:
        values.parse(text)
    except ValueError as error:
        return f"'{text}': {error}"
    return ""


def judge(answer: Answer, text: str, record: RunRecord | None, words: Words) -> Judgement:
    """Whether the answer `text` is right of that run. Raises ValueError for what `refuse` would not have taken."""
    if answer.kind == "choice":
        return _choice(answer, text, words)
    if answer.kind == "words":
        count = len(text.split())
        expected = words("{n} words at least, which your teacher reads", n=answer.least)
        return Judgement(expected=expected, actual=str(count), mistake=_if(count < answer.least, Mistake.MISSED_CHOICE))
    if answer.row is None or record is None:
        raise ValueError(f"an answer of kind {answer.kind} needs a run")
    of_a_run: Mapping[str, Callable[[Row, str, RunRecord, Words], Judgement]] = {
        "interval": _interval,
        "order": _order,
        "accel": _accel,
    }
    return of_a_run[answer.kind](answer.row, text, record, words)


def told_beside(predict: Predict, record: RunRecord, words: Words) -> str:
    """The row that was predicted, for a reader: `0.24 s, 95 % interval 195-278 ms`; empty without one."""
    if predict.row is None or (row := row_of(record, predict.row)) is None:
        return ""
    low, mid, high, unit = _own(predict.row, row, record)
    return words("{target}: {figure}", target=row.label, figure=_shown(low, mid, high, unit, words))


def _if(so: bool, mistake: Mistake) -> Mistake | None:
    return mistake if so else None


def _choice(answer: Answer, text: str, words: Words) -> Judgement:
    said, correct = set(choices(text)), set(answer.correct)
    wrong = sorted(said - correct)
    mistake = answer.mistakes.get(wrong[0], Mistake.WRONG_CHOICE) if wrong else None
    if not wrong and said != correct:
        mistake = Mistake.MISSED_CHOICE
    # How many there are is told, and which only once they are all named: else there would be nothing to find out.
    expected = words("{n} of the choices", n=len(correct)) if mistake else ", ".join(sorted(correct))
    hint = words(" ({wrong} is not among them)", wrong=", ".join(wrong)) if wrong else ""
    return Judgement(expected=expected, actual=", ".join(sorted(said)) + hint, mistake=mistake)


def _interval(row: Row, text: str, record: RunRecord, words: Words) -> Judgement:
    claim = values.parse(text)
    found = _of(row, record)
    low, mid, high, unit = _own(row, found, record)
    # What it is is in the student's own table: it is told where to look.
    expected = words(
        "the 95 % interval of {metric} of {target} in run {run}",
        metric=words("the ratio to process") if row.over else found.name,
        target=found.label,
        run=record.run.id,
    )
    judged = Judgement(expected=expected, actual=text, mistake=_mistake_of(claim, row, found, record))
    if judged.mistake is None:
        told = f"{expected}: {_shown(low, mid, high, unit, words)}"
        return Judgement(expected=told, actual=text)
    return judged


def _mistake_of(claim: values.Claim, row: Row, found: Series, record: RunRecord) -> Mistake | None:
    low, _, high, unit = _own(row, found, record)
    if low is None or high is None:
        return Mistake.TOO_FEW_ROUNDS
    if claim.single:
        return Mistake.SINGLE_NUMBER
    if not claim.unit and unit in ("s", "bytes"):
        return Mistake.NO_UNIT
    if claim.unit not in ("", unit) and unit in ("s", "bytes", RATIO):
        return Mistake.WRONG_UNIT
    if _is(claim, low, high):
        return None
    return _instead(claim, row, found, record)


def _instead(claim: values.Claim, row: Row, found: Series, record: RunRecord) -> Mistake:
    """What was taken for the interval that was asked for."""
    low, _, high, _ = _own(row, found, record)
    ordered = stats.in_order(tuple(found.values))
    if not row.over and _is(claim, ordered[0], ordered[-1]):
        return Mistake.RANGE_AS_INTERVAL
    if low and high and any(_is(claim, low * factor, high * factor) for factor in (1e3, 1e-3, 1e6, 1e-6)):
        return Mistake.WRONG_UNIT
    for other in rows_of(record, row.metric, row.where):
        if other.target != found.target and _matches(claim, row, other, record):
            return Mistake.OTHER_TARGETS_FIGURE
    for other in series_of(record):
        if other.target == found.target and other.metric != found.metric and _matches(claim, row, other, record):
            return Mistake.WRONG_END
    return Mistake.AGAINST_OWN_INTERVAL


def _matches(claim: values.Claim, row: Row, other: Series, record: RunRecord) -> bool:
    low, _, high, _ = _own(row, other, record)
    return low is not None and high is not None and _is(claim, low, high)


def _order(row: Row, text: str, record: RunRecord, words: Words) -> Judgement:
    """Of a ratio whether it is more or less than 1, and of all else whether its ratio to the control's is."""
    found = _of(row, record)
    low, mid, high, _ = _own(row if found.unit == RATIO else row.model_copy(update={"over": True}), found, record)
    said = choices(text)[0]
    if low is None or high is None:
        truth, shown = UNCLEAR, words("no interval")
    else:
        truth = MORE if low > 1 else LESS if high < 1 else UNCLEAR
        shown = f"{units.digits(mid)}x ({units.between(low, high)})"
    expected = words("what the ratio of {target} says with its interval: {ratio}", target=found.label, ratio=shown)
    return Judgement(expected=expected, actual=said, mistake=_if(said != truth, Mistake.AGAINST_OWN_INTERVAL))


def _accel(row: Row, text: str, record: RunRecord, words: Words) -> Judgement:
    target = next((name for name in row.of if measured(record, name)), None)
    truth = (accel_of(record, target) or NO_VM) if target else NO_VM
    said = choices(text)[0]
    mistake = None
    if said != truth:
        mistake = Mistake.TCG_AS_KVM if (said, truth) == (KVM, TCG) else Mistake.WRONG_CHOICE
    expected = words("what stands in brackets behind the target's name in run {run}", run=record.run.id)
    return Judgement(expected=expected, actual=said, mistake=mistake)


def _of(row: Row, record: RunRecord) -> Series:
    found = row_of(record, row)
    if found is None:
        raise ValueError(f"run {record.run.id} has no {row.metric} of {', '.join(row.of)}")
    return found


def _own(row: Row, found: Series, record: RunRecord) -> tuple[float | None, float, float | None, str]:
    """Low, middle, high and unit of what is asked: the row's own interval, or that of its ratio to the control's."""
    if row.over:
        ratio = over_control(record, found)
        return (ratio.low, ratio.value, ratio.high, RATIO) if ratio else (None, math.nan, None, RATIO)
    estimate = stats.estimate(tuple(found.values))
    return estimate.low, estimate.median, estimate.high, found.unit


def _shown(low: float | None, mid: float, high: float | None, unit: str, words: Words) -> str:
    if low is None or high is None:
        return units.quantity(mid, unit)
    between = units.span(low, high, unit, like=mid)
    return words("{median}, 95 % interval {between}", median=units.quantity(mid, unit), between=between)


def _is(claim: values.Claim, low: float, high: float) -> bool:
    return _near(claim.low, low) and _near(claim.high, high)


def _near(said: float, own: float) -> bool:
    return math.isclose(said, own, rel_tol=_CLOSE, abs_tol=1e-12)
