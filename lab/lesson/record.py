"""What `lab lesson report NAME --json FILE` writes, and who gathers a class reads: one student's work on one lesson.

Whoever reads such a file reads a stranger's: every field is checked, and nothing unknown is taken.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.errors import BadInput

FORMAT: Final = "stratalab lesson"
VERSION: Final = 1

LARGEST_BYTES = 4_000_000
"""A larger file is no student's work on one lesson."""


class State(enum.StrEnum):
    """What became of a step, or of one check of it. `open`: it waits for the student. `not-reached`: what it stands on
    has not passed. `error`: the checker itself could not judge, which is nobody's mistake."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not-reached"
    ERROR = "error"


class Mistake(enum.StrEnum):
    """The common mistakes, by ids that stay the same."""

    NO_PREDICTION = "no-prediction"
    PREDICTION_AFTER_RUN = "prediction-after-run"
    NO_RUN = "no-run"
    OTHER_HOST = "other-host"
    OTHER_TOOL = "other-tool"
    UNFINISHED_RUN = "unfinished-run"
    MISSING_TARGET = "missing-target"
    FAILED_LAUNCHES = "failed-launches"
    TOO_FEW_ROUNDS = "too-few-rounds"
    NO_WARM_UP = "no-warm-up"
    WRONG_END = "wrong-end"
    UNEQUAL_TERMS = "unequal-terms"
    EDITED = "edited"
    SINGLE_NUMBER = "single-number"
    NO_UNIT = "no-unit"
    WRONG_UNIT = "wrong-unit"
    RANGE_AS_INTERVAL = "range-as-interval"
    OTHER_TARGETS_FIGURE = "other-targets-figure"
    AGAINST_OWN_INTERVAL = "against-own-interval"
    TCG_AS_KVM = "tcg-as-kvm"
    WRONG_CHOICE = "wrong-choice"
    MISSED_CHOICE = "missed-choice"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Text = Annotated[str, Field(max_length=4000)]
Word = Annotated[str, Field(max_length=200)]
Time = Annotated[str, Field(max_length=40)]


class Given(_Model):
    """What a student said at a time (ISO 8601, UTC); an answer also about which run."""

    value: Text
    at: Time
    run_id: Word = ""


class Check(_Model):
    """One check of a step: `name` is its kind, the other words are in the lesson's language."""

    name: Word
    state: State
    expected: Text = ""
    actual: Text = ""
    mistake: Mistake | None = None


class Step(_Model):
    """One step. The first of `predictions` is the one that counts; the last of `answers`. `expected` and `actual` are
    those of the first check that did not pass; `mistakes` also tell of answers that
    were corrected since; `lost` says why this machine has nothing to show for it, and then `max_points` is 0."""

    id: Word
    title: Text
    state: State
    predictions: list[Given] = Field(default_factory=list, max_length=1000)
    answers: list[Given] = Field(default_factory=list, max_length=1000)
    expected: Text = ""
    actual: Text = ""
    checks: list[Check] = Field(default_factory=list, max_length=100)
    mistakes: list[Mistake] = Field(default_factory=list, max_length=100)
    run_ids: list[Word] = Field(default_factory=list, max_length=100)
    points: Annotated[float, Field(ge=0, le=1000)] = 0.0
    max_points: Annotated[float, Field(ge=0, le=1000)] = 0.0
    lost: Text = ""


class Relative(_Model):
    """A median over the control's of the same run, with its interval where there is one."""

    to: Word
    mid: float
    low: float | None = None
    high: float | None = None


class Figure(_Model):
    """One row of a run: the median of `values` with its 95 % interval (None below n = 6), in `unit`. `signature` is
    over the run's id, the host's, and the raw values: see lab/lesson/signing.py."""

    target: Word
    label: Word
    metric: Word
    dimensions: dict[Word, Word] = Field(default_factory=dict, max_length=20)
    unit: Word
    n: Annotated[int, Field(ge=1)]
    low: float | None
    mid: float
    high: float | None
    relative: Relative | None = None
    values: list[float] = Field(max_length=10_000)
    run_id: Word
    host_id: Word
    signature: Word


class HostFacts(_Model):
    """The machine: `id` is the store's fingerprint of it. `accel` is `kvm` or `tcg` where a virtual machine was
    measured, and else empty."""

    id: Word
    name: Word = ""
    cpu_model: Word = ""
    accel: Literal["", "kvm", "tcg"] = ""


class Progress(_Model):
    """One student's work on one lesson. `lesson_digest` tells two versions of a lesson apart. Without `consent` nobody
    but the one who was given the file is to be told who it is of."""

    format: Literal["stratalab lesson"] = FORMAT
    version: Literal[1] = VERSION
    lab_version: Word
    lesson: Word
    lesson_digest: Word
    language: Word
    student: Word = ""
    consent: bool = False
    started_at: Time
    updated_at: Time
    host: HostFacts
    steps: list[Step] = Field(max_length=100)
    figures: list[Figure] = Field(default_factory=list, max_length=1000)

    @property
    def points(self) -> float:
        return sum(step.points for step in self.steps)

    @property
    def max_points(self) -> float:
        return sum(step.max_points for step in self.steps)

    @property
    def mistakes(self) -> Mapping[Mistake, int]:
        """How often each was made."""
        found: dict[Mistake, int] = {}
        for step in self.steps:
            for mistake in step.mistakes:
                found[mistake] = found.get(mistake, 0) + 1
        return found


def is_progress(document: object) -> bool:
    """Whether a JSON document says that it is one of these."""
    return isinstance(document, Mapping) and document.get("format") == FORMAT


def parse(text: str | bytes, *, name: str) -> Progress:
    """The progress that `text`, the content of the file `name`, tells. Raises BadInput."""
    try:
        return Progress.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{name} is no lesson's export: {f'{where}: ' if where else ''}{first['msg']}",
            resolution="have it written by `lab lesson report NAME --json FILE`",
        ) from error


def read(path: Path) -> Progress:
    """The progress in a file. Raises BadInput."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", resolution="name a lesson's export") from error
    if len(content) > LARGEST_BYTES:
        raise BadInput(f"{path} has more than {LARGEST_BYTES:,} bytes", resolution="name a lesson's export")
    return parse(content, name=str(path))
