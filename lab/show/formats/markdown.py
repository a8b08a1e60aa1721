"""A summary in GitHub's Markdown, for `$GITHUB_STEP_SUMMARY` and for a merge request's comment: a table a scenario."""

from __future__ import annotations

from collections.abc import Sequence

from lab.figures import notes
from lab.show.formats.told import Case, Standing, Told
from lab.show.terminal import printable
from lab.units import quantity, span

_MARKS = {
    Standing.PASSED: "✅",
    Standing.REGRESSION: "❌",
    Standing.FAILED: "❌",
    Standing.SUSPECT: "⚠️",
    Standing.SKIPPED: "⚠️",
    Standing.VOID: "⚪",
    Standing.NOT_JUDGED: "⚪",
}
_SPECIAL = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_{}[]<>|#~$@"})
"""What would be markup within a cell (GFM 6.1, 4.10), and `@`, which would call somebody by name."""


def markdown(told: Sequence[Told]) -> str:
    """The summary, the judgements first in each table."""
    return "\n".join(line for one in told for line in _scenario(one))


def escaped(text: str) -> str:
    """`text` as it stands, in one line, whatever is in it."""
    return printable(text).translate(_SPECIAL)


def _scenario(told: Told) -> list[str]:
    lines = [f"### {escaped(told.scenario)}", ""]
    lines += [escaped(notes.headline(told.record)), ""] if told.record is not None else []
    lines += ["| target | total | median | 95 % interval | n | judged |", "|---|---|--:|--:|--:|---|"]
    left = list(told.cases)
    for total in told.totals:
        row, found = total.row, total.estimate
        case = next((one for one in left if (one.target, one.metric) == (row.label, row.name)), None)
        if case is not None:
            left.remove(case)
        low, high = found.low, found.high
        interval = "" if low is None or high is None else span(low, high, row.unit, like=found.median)
        figures = [quantity(found.median, row.unit), interval, str(found.n)]
        lines.append(_row(row.label, row.name, *figures, _judged(case)))
    lines += [_row(case.target, case.metric, "", "", "", _judged(case)) for case in left]
    lines += ["", *(f"- {escaped(note)}" for note in told.notes)]
    return [*lines, ""] if told.notes else lines


def _judged(case: Case | None) -> str:
    if case is None:
        return ""
    return " ".join(filter(None, [_MARKS[case.standing], str(case.standing) + (":" if case.text else ""), case.text]))


def _row(*cells: str) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"
