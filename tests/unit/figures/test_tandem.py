"""From which burst and which pause on one arrangement is better: what is proven, and what is a direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from lab.figures import tandem
from lab.figures.series import Series
from lab.figures.tandem import Crossing, crossings


def row(
    metric: str, arrangement: str, burst: int, values: Sequence[float], pause: str = "long", first: int = 1, **told: str
) -> Series:
    return Series(
        target="docker" if arrangement in ("within", "beside") else "lambda",
        label="docker" if arrangement in ("within", "beside") else "lambda",
        metric=metric,
        unit="s",
        dimensions={"arrangement": arrangement, "burst": str(burst), "pause": pause, **told},
        values=tuple(values),
        rounds=tuple(range(first, first + len(values))),
    )


def last(ratios: Mapping[int, Sequence[float]]) -> Crossing:
    """The function's last job against the service's own, by the rounds' ratios at each size of burst."""
    rows = []
    for burst, each in ratios.items():
        own = [1.0 + 0.1 * number for number in range(len(each))]
        rows.append(row("last_job_s", "within", burst, own))
        rows.append(row("last_job_s", "function", burst, [base * x for base, x in zip(own, each, strict=True)]))
    (found,) = crossings(rows)
    assert (found.who, found.base, found.by, found.at) == ("lambda", "within", "burst", "pause long")
    return found


def test_a_cross_over_lies_between_the_last_that_is_worse_and_the_first_that_is_better() -> None:
    found = last({16: [0.5] * 10, 1: [8.0] * 10, 4: [2.0] * 10})
    assert found.proven and (found.above, found.from_on) == (4, 16)
    assert found.said == "4-16 jobs"
    assert tandem.ratios(found) == "1: 8.00x worse, 4: 2.00x worse, 16: 0.500x better"


def test_what_goes_both_ways_is_open_and_widens_the_interval() -> None:
    found = last({1: [8.0] * 10, 4: [0.9, 1.1] * 5, 16: [0.5] * 10})
    assert [point.verdict for point in found.points] == ["worse", "open", "better"]
    assert found.said == "1-16 jobs"
    unproven = last({1: [0.9, 1.1] * 5, 16: [0.5] * 10})
    assert unproven.above is None and unproven.said == "16 jobs at the latest"


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({1: [0.9] * 10, 4: [0.5] * 10}, "1 job, the least tried"),
        ({1: [2.0] * 10, 4: [3.0] * 10}, "not within 1-4 jobs"),
        ({1: [0.5] * 10, 4: [3.0] * 10}, "not within 1-4 jobs"),  # better, and then not: no size from which on it is
        ({4: [3.0] * 10}, "not within 4 jobs"),
    ],
)
def test_where_there_is_none_or_it_is_better_throughout(ratios: Mapping[int, Sequence[float]], said: str) -> None:
    assert last(ratios).said == said


def test_few_rounds_tell_a_direction_and_say_that_it_proves_nothing() -> None:
    found = last({1: [8.0] * 3, 4: [2.0, 2.0, 0.9], 16: [0.5] * 3})
    assert not found.proven
    assert [point.verdict for point in found.points] == ["worse", "open", "better"]
    assert "each of at most 3 rounds, which proves nothing" in tandem.too_few([found])
    assert found.said == "perhaps 1-16 jobs"
    assert tandem.ratios(found) == "1: 8.00x higher, 4: 2.00x open, 16: 0.500x lower"
    one = last({1: [8.0] * 2, 16: [0.5] * 2})
    assert {point.verdict for point in one.points} == {"open"}, "two rounds are no direction either"
    assert not tandem.too_few([last({1: [8.0] * 10})])


def test_all_sizes_of_a_question_are_corrected_together() -> None:
    alone = last({1: [0.5] * 8})
    assert alone.points[0].verdict == "better" and alone.points[0].p == pytest.approx(2 / 2**8)
    among = last({size: [0.5] * 8 for size in range(1, 8)})
    assert not among.proven, "seven sizes of eight rounds cannot all be told"
    assert among.points[0].p == pytest.approx(7 * 2 / 2**8)
    one_against = last({1: [0.5] * 9 + [2.0], 2: [0.5] * 10, 3: [0.5] * 10})
    assert [point.verdict for point in one_against.points] == ["better", "better", "better"]
    many = last({1: [0.5] * 9 + [2.0]} | {size: [0.9, 1.1] * 5 for size in range(2, 10)})
    assert many.proven and many.points[0].verdict == "open"


def test_only_rounds_in_which_both_were_measured_are_compared() -> None:
    rows = [
        row("last_job_s", "within", 1, [1.0, 1.0, 1.0, 1.0]),
        row("last_job_s", "function", 1, [0.5, 0.5, 0.5, 0.5], first=3),
    ]
    assert crossings(rows)[0].points[0].n == 2


def test_answers_are_compared_while_jobs_are_done_and_memory_by_the_pause_against_what_is_always_there() -> None:
    ten = [1.0] * 10
    rows = [
        row("steady_p99_s", "within", 4, [0.040] * 10, window="during"),
        row("steady_p99_s", "function", 4, [0.001] * 10, window="during"),
        row("steady_p99_s", "function", 4, [9.0] * 10, window="after"),
        *(row("mean_held_bytes", "beside", 4, ten, pause=pause) for pause in ("1", "10")),
        row("mean_held_bytes", "function", 4, [3.0] * 10, pause="1"),
        row("mean_held_bytes", "function", 4, [0.4] * 10, pause="10"),
        row("mean_held_bytes", "within", 4, [0.1] * 10, pause="10"),
    ]
    answers, held = crossings(rows)
    assert (answers.metric, answers.said) == ("steady_p99_s", "4 jobs, the least tried")
    assert (held.metric, held.base, held.by, held.at, held.said) == (
        "mean_held_bytes",
        "beside",
        "pause",
        "burst 4",
        "1-10 s",
    )


def test_a_burst_that_only_one_does_is_its_and_nothing_else_of_it_is_compared() -> None:
    ten = [1.0] * 10
    rows = [
        row("last_job_s", "within", 1, ten),
        row("last_job_s", "function", 1, [2.0] * 10),
        row("last_job_s", "function", 20, [9.0] * 10),
        row("failed_jobs", "within", 1, [0.0] * 10),
        row("failed_jobs", "within", 20, [4.0] * 10),
        row("failed_jobs", "function", 20, [0.0] * 10),
        row("steady_p99_s", "within", 20, ten, window="during"),
        row("steady_p99_s", "function", 20, [25.0] * 10, window="during"),
    ]
    (found,) = crossings(rows)
    assert found.metric == "last_job_s", "its answers were of less work"
    assert found.said == "1-20 jobs"
    assert tandem.ratios(found) == "1: 2.00x worse, 20: done alone, better"
    neither = [one for one in rows if one.dimensions["burst"] == "20"]
    neither = [one for one in neither if one.metric == "failed_jobs" and one.dimensions["arrangement"] == "within"]
    assert not crossings([*neither, row("failed_jobs", "function", 20, [1.0] * 10)])


def test_who_is_told_by_its_arrangement_where_one_target_has_several() -> None:
    assert tandem.who(row("last_job_s", "beside", 1, [1.0])) == "docker beside"
    assert tandem.who(row("last_job_s", "function", 1, [1.0])) == "lambda"


def test_looking_at_memory_says_what_it_took() -> None:
    shares = [row("look_share", "within", 1, [0.02, 0.04]), row("look_share", "function", 1, [0.1])]
    assert "docker within 3.0%, lambda 10.0%" in tandem.looking(shares)
    assert not tandem.looking([])
