"""What a reader is told beside the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lab.figures import notes, series
from lab.store.record import Outcome, RunRecord

NOT_SET = "not set: it is the kubelet's podPidsLimit, not the pod's"


@pytest.mark.parametrize(
    ("docker", "told"),
    [
        (None, "docker ran without these limits: pids (it is the kubelet's podPidsLimit, not the pod's)."),
        ("set by the engine", "podPidsLimit, not the pod's, which process had)."),
        (NOT_SET, "docker ran without these limits: pids (it is the kubelet's podPidsLimit, not the pod's)."),
    ],
)
def test_a_limit_that_is_lacking_is_told_with_who_had_it(
    make_record: Callable[..., RunRecord], docker: str | None, told: str
) -> None:
    """`docker`: what the other target, process, says of its pids; None where it did not take part."""
    record = make_record()
    limits = {"docker": NOT_SET, "process": docker}
    targets = [
        replace(
            target,
            outcome=Outcome.SKIPPED if limits.get(target.target) is None else Outcome.OK,
            info={**target.info, "facts": {"limits": {"pids": limits.get(target.target) or "set by the engine"}}},
        )
        for target in record.targets
    ]
    record = replace(record, targets=targets)
    said = notes.of_run(record, series.series_of(record))
    (found,) = [text for text in said if text.startswith("docker ran without these limits")]
    assert found.endswith(told) or found == told
    assert "others had" not in found


def test_a_warning_without_a_remedy_has_no_empty_brackets(make_record: Callable[..., RunRecord]) -> None:
    record = make_record()
    told = [{"code": "load", "text": "the machine is busy", "remedy": ""}]
    assert notes.warnings(replace(record, host={"warnings": told})) == ["Host: the machine is busy"]


@pytest.mark.parametrize(("borne", "told"), [((8000, 8000), True), ((8000, 4000), False), ((4000, 4000), False)])
def test_a_highest_rate_that_is_the_highest_tried_is_told_to_be_a_bound(borne: tuple[int, int], told: bool) -> None:
    def row(metric: str, *values: float, **dimensions: str) -> series.Series:
        return series.Series(
            target="docker",
            label="docker",
            metric=metric,
            unit="",
            dimensions={"path": "bridge", **dimensions},
            values=values,
            rounds=tuple(range(len(values))),
        )

    curve = [row("curve_p50_s", 1e-3, rate=str(rate)) for rate in (500, 4000, 8000)]
    said = list(notes._never_too_much([*curve, row(series.HIGHEST_RATE, *borne)]))
    assert [text.startswith("The highest rate that was tried, 8,000 calls/s") for text in said] == [True] * told
    assert all("docker by bridge" in text for text in said)
