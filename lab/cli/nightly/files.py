"""What is written of a night for others, and what its exit code says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from lab.cli.nightly.night import Part, Result
from lab.errors import BadInput
from lab.figures.nights.confirm import Confirmed, Outcome
from lab.figures.nights.verdict import Judged, State
from lab.figures.series import EXPLAINING
from lab.show import formats
from lab.show.formats.told import Case, Standing, Told, of_targets
from lab.show.terminal import printable
from lab.store.place import write_whole

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that GitHub Actions shows of a step; several steps add to it."""
_SHARED = "prometheus"
"""The format whose reader is another user than the lab's."""


class NightExit(IntEnum):
    """The exit codes of `lab nightly`, the gravest first."""

    INTERRUPTED = 130
    BAD_INPUT = 2
    REGRESSION = 3
    TARGET_FAILED = 1
    VOID = 4
    OK = 0

    @property
    def about(self) -> str:
        """What it says, in words."""
        return _ABOUT[self]


_ABOUT = {
    NightExit.INTERRUPTED: "interrupted",
    NightExit.BAD_INPUT: "a target was left out for bad input",
    NightExit.REGRESSION: "a regression was seen, and seen again",
    NightExit.TARGET_FAILED: "a target failed, or a required one was not there as required",
    NightExit.VOID: "void: tonight tells nothing for or against a change",
    NightExit.OK: "nothing to be woken up for",
}


def exit_of(night: Result) -> NightExit:
    """What the night comes to."""
    if night.interrupted:
        return NightExit.INTERRUPTED
    if night.bad_input:
        return NightExit.BAD_INPUT
    standings = {case.standing for part in night.parts for case in cases(part, night)}
    if Standing.REGRESSION in standings:
        return NightExit.REGRESSION
    if Standing.FAILED in standings:
        return NightExit.TARGET_FAILED
    ran = any(part.record is not None for part in night.parts)
    return NightExit.VOID if not ran or standings & {Standing.VOID, Standing.SUSPECT} else NightExit.OK


def make_folders(files: Mapping[str, Path]) -> None:
    """Make where the files go, before a night is measured for nothing. Raises BadInput."""
    for folder in dict.fromkeys(path.parent for path in files.values()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise BadInput(
                f"{folder} cannot be written to: {error.strerror}", resolution="name another folder"
            ) from error


def write_files(night: Result, files: Mapping[str, Path]) -> list[Path]:
    """Write the night in each format to its file, whole or not at all, and add the summary to $GITHUB_STEP_SUMMARY
    where that is set. Raises BadInput for a place that cannot be written to, DriverError for what is not installed."""
    written = list(_for_formats(night))
    for name, path in files.items():
        write_whole(path, formats.format_of(name).write(written))
        if name == _SHARED:
            path.chmod(0o644)
    if summary := os.environ.get(STEP_SUMMARY):
        _append(Path(summary), formats.FORMATS["markdown"].write(written))
    return list(files.values())


def summary(night: Result) -> str:
    """The night in a few lines, for a terminal or a job's log."""
    lines = []
    for one in _for_formats(night):
        lines.append(one.scenario)
        for case in one.cases:
            text = f": {case.text}" if case.text else ""
            lines.append(f"  {case.standing}  {case.target} {case.metric}".rstrip() + text)
        lines += [f"  - {note}" for note in one.notes]
    return "\n".join(map(printable, lines))


def to_json(night: Result) -> dict[str, Any]:
    """The object of `lab nightly --json`."""
    return {
        "exit_code": int(exit_of(night)),
        "noisy": list(night.noisy),
        "scenarios": [
            {
                "scenario": one.scenario,
                "run": one.record.run.id if one.record is not None else None,
                "cases": [
                    {"target": case.target, "total": case.metric, "standing": str(case.standing), "text": case.text}
                    for case in one.cases
                ],
                "notes": list(one.notes),
            }
            for one in _for_formats(night)
        ],
    }


def cases(part: Part, night: Result) -> list[Case]:
    """A case for each total that was judged, and each target that was left out, failed, or lacks what is required."""
    if part.record is None:
        why = part.left_out or f"too noisy to measure: {'; '.join(night.noisy)}"
        lacking = [_failure(target, text) for target, text in part.lacking.items()]
        standing = Standing.VOID if night.noisy else Standing.SKIPPED
        others = [name for name in part.wanted.options.targets if name not in part.lacking]
        return [*lacking, *(Case(target=name, standing=standing, text=why) for name in others)]
    found = list(_totals(part))
    found += [case for case in of_targets(part.record) if not _names(part.lacking, case.target)]
    return found + [_failure(target, text) for target, text in part.lacking.items()]


def _for_formats(night: Result) -> Iterator[Told]:
    for part in night.parts:
        name = part.wanted.scenario.name
        yield Told(scenario=name, record=part.record, cases=cases(part, night), notes=list(_notes(part)))


def _totals(part: Part) -> Iterator[Case]:
    for one in part.verdict.series if part.verdict is not None else ():
        if one.metric not in EXPLAINING and one.value is not None:
            standing, text = _standing(one, part)
            yield Case(target=one.label, metric=one.name, standing=standing, text=text)


def _standing(one: Judged, part: Part) -> tuple[Standing, str]:
    if one.state is State.VOID:
        return Standing.VOID, one.why
    if one.state in (State.FEW, State.UNJUDGED):
        return Standing.NOT_JUDGED, f"{one.state}: {one.why}" if one.why else str(one.state)
    if one.state is not State.SUSPECT:
        return Standing.PASSED, _change(one) if one.state is not State.STEADY else ""
    return _confirmed(one, part)


def _confirmed(one: Judged, part: Part) -> tuple[Standing, str]:
    """Of a suspect, by what the second look found."""
    second = next((other for other in part.confirmed if _same(one, other)), None)
    text = _times(one)
    if second is None or second.outcome is Outcome.VOID:
        why = second.why if second is not None else part.unconfirmed
        return Standing.SUSPECT, f"{text}; not looked into: {why}"
    again = f"{second.change or 0:.2f} times " + ("the accepted build's" if second.against_accepted else "that")
    if second.outcome is Outcome.CONFIRMED:
        since = one.since if part.record is not None and one.since != part.record.run.id else ""
        return Standing.REGRESSION, "; ".join([f"{text}, and once more {again}", *_what_since(one, since)])
    return Standing.PASSED, f"{text}; not seen again: {again}, {second.why}"


def _same(one: Judged, other: Confirmed) -> bool:
    return (one.label, one.metric, one.name) == (other.label, other.metric, other.name)


def _what_since(one: Judged, since: str) -> Iterator[str]:
    if since:
        yield f"since run {since}"
    if one.host_changes:
        yield f"different from then on: {', '.join(one.host_changes)}"


def _change(one: Judged) -> str:
    return f"{one.state}: {_times(one)}"


def _times(one: Judged) -> str:
    return f"{one.change or 0:.2f} times what it was in {one.reference} nights"


def _names(lacking: Mapping[str, str], label: str) -> bool:
    """Whether `label`, a target's with its qualifiers, is one of `lacking`."""
    return label.partition(" ")[0] in lacking


def _failure(target: str, text: str) -> Case:
    return Case(target=target, standing=Standing.FAILED, text=f"required: {text}")


def _notes(part: Part) -> Iterator[str]:
    if part.left_out:
        yield f"left out: {part.left_out}"
    if part.unconfirmed:
        yield f"the suspicion was not looked into: {part.unconfirmed}"
    if part.verdict is not None:
        if part.verdict.why:
            yield f"{part.verdict.state}: {part.verdict.why}"
        if part.verdict.host_changes:
            yield f"different from the night before: {'; '.join(part.verdict.host_changes)}"
    yield from part.notes


def _append(path: Path, text: str | bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))
    except OSError as error:
        raise BadInput(
            f"${STEP_SUMMARY} ({path}) cannot be added to: {error.strerror}", resolution="unset it"
        ) from error
