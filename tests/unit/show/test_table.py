"""What a terminal shows: the right figures, in any width, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from lab.figures import series
from lab.figures.comparison import compare_runs
from lab.figures.series import chain, series_of
from lab.figures.stats import Ratio
from lab.show.listing import render_runs
from lab.show.table import bar, render_comparison, render_run
from lab.store.record import LaunchRecord, Outcome, RunRecord, TargetRecord
from lab.store.sample import Sample
from lab.timeline import Timeline
from lab.units import quantity, share, span

Make = Callable[..., RunRecord]


def shown(renderable: RenderableType, width: int = 120, *, colour: bool = False) -> str:
    out = StringIO()
    Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None).print(
        renderable
    )
    return out.getvalue()


def line(text: str, start: str) -> str:
    """The first line, of the table of totals, that begins so; its cells parted by one blank."""
    found = next(row for row in text.splitlines() if row.startswith(start))
    return " ".join(found.split())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (0.00235, "s", "2.35 ms"),
        (0.9996, "s", "1.00 s"),
        (0.0009996, "s", "1.00 ms"),
        (99.96, "s", "100 s"),
        (9.996, "s", "10.0 s"),
        (1234.0, "s", "1,234 s"),
        (-0.0026, "s", "-2.60 ms"),
        (4.2e-8, "s", "42.0 ns"),
        (128 * 1024 * 1024, "bytes", "128 MiB"),
        (12, "bytes", "12.0 B"),
        (0.5, "1", "0.500 1"),
        (7, "", "7"),
        (7, "x", "7.00 x"),
        (2657, "processes", "2,657 processes"),
        (2.5, "processes", "2.50 processes"),
    ],
)
def test_quantities_have_three_digits_and_a_unit_that_suits(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_spans_shares_and_ratios() -> None:
    assert span(0.0009, 0.0021, "s", like=0.0015) == "0.900-2.10"
    assert span(-0.019, 0.024, "s", like=0.002) == "-19.0 to 24.0"
    assert [share(0, 1), share(0.001, 1), share(0.5, 1), share(1, 0)] == ["0%", "<1%", "50%", ""]
    assert series.times(Ratio(value=91.2, low=88.4, high=95.0)) == "91.2x (88.4-95.0)"
    assert series.times(Ratio(value=0.9, low=None, high=None)) == "0.900x"


def test_a_run_shows_its_totals(make_record: Make) -> None:
    record = make_record()
    text = shown(render_run(record))
    docker = next(row for row in series_of(record) if row.target == "docker" and row.metric == "boot_s")
    ordered = sorted(docker.values)
    median = (ordered[4] + ordered[5]) / 2
    cells = line(text, "docker  ").split()
    assert cells[1:3] == quantity(median, "s").split()
    assert cells[3] == span(ordered[1], ordered[8], "s", like=median)
    assert cells[4] == span(ordered[0], ordered[9], "s", like=median)
    assert cells[5] == "10"
    assert cells[6].endswith("x")
    assert "libvirt:q35 (tcg)" in text
    assert "emulated" in text
    assert "marker: libvirt:q35 (tcg)" in " ".join(text.split())
    assert "failed" not in text


def test_phases_of_the_two_chains_are_apart(make_record: Make) -> None:
    record = make_record(noise=0.0)
    rows = series_of(record)
    assert [(s.start, s.end) for s in chain(rows, "docker", "service")] == [
        ("requested", "main"),
        ("main", "listening"),
        ("listening", "ready"),
    ]
    text = shown(render_run(record))
    assert "engine requested → created 12.0 ms 12.0-12.0 n 10" in " ".join(text.split())
    assert "between started → main -3.00 ms" in " ".join(text.split())


def test_a_bar_has_its_parts_in_proportion(make_record: Make) -> None:
    steps = chain(series_of(make_record(noise=0.0)), "libvirt:q35", "service")
    text = bar(steps, 273).plain
    assert {glyph: text.count(glyph) for glyph in dict.fromkeys(text)} == {"░": 90, "▒": 170, "█": 10, "▓": 3}
    assert len(bar(steps, 60).plain) == 60
    assert bar([], 60).plain == ""


def test_the_steps_that_most_launches_saw_are_drawn(make_record: Make) -> None:
    record = make_record()
    lost = [
        replace(s, dimensions={**s.dimensions, "from": "requested"})
        if s.metric == "phase_s" and s.dimensions["from"] == "kernel" and s.iteration == 5
        else s
        for s in record.samples
        if not (s.iteration == 5 and s.dimensions.get("to") == "kernel")
    ]
    steps = chain(series_of(replace(record, samples=lost)), "libvirt:q35", "service")
    assert [step.end for step in steps] == ["kernel", "init", "main", "listening", "ready"]


def test_quantiles_come_with_enough_values(make_record: Make) -> None:
    one = {"process": {"main": 1.0, "ready": 2.0}}
    assert "p95" not in shown(render_run(make_record(n=71, instants=one)))
    text = shown(render_run(make_record(n=72, instants=one)))
    assert "p95" in text
    assert "range" not in text


def test_few_values_have_no_interval(make_record: Make) -> None:
    text = shown(render_run(make_record(n=5)))
    assert "n < 6" in line(text, "docker  ")
    assert "Fewer than 6 values" in text


def test_what_failed_or_was_skipped_is_there(make_record: Make) -> None:
    record = make_record()
    skipped = TargetRecord(
        target="libvirt:microvm", outcome=Outcome.SKIPPED, reason="no kernel", remedy="give --kernel"
    )
    failed = [
        LaunchRecord(
            target="docker", iteration=i, warmup=False, outcome=Outcome.FAILED, timeline=Timeline(), error="it ended"
        )
        for i in range(5)
    ]
    record = replace(record, targets=[*record.targets, skipped], launches=[*record.launches, *failed])
    text = shown(render_run(record))
    assert line(text, "libvirt:microvm") == "libvirt:microvm skipped no kernel give --kernel"
    assert "docker, round 2 failed: it ended" in text
    assert "docker, round 3" not in text
    assert "2 more failed; lab export" in text
    assert line(text, "docker  ").split()[6] == "5"


def test_a_target_without_an_end_is_absent_and_not_zero(make_record: Make) -> None:
    record = make_record()
    record = replace(
        record, samples=[s for s in record.samples if s.target != "docker" or s.metric in ("phase_s", "stop_s")]
    )
    text = shown(render_run(record))
    assert "docker absent" in " ".join(text.split())
    assert "docker has no total" in text
    told = {"of": "boot_s", "why": "nobody looked"}
    missing = Sample(target="docker", metric=series.ABSENT, value=1, unit="", iteration=1, dimensions=told)
    text = shown(render_run(replace(record, samples=[*record.samples, missing])))
    assert "docker has no boot_s, or not of every round: nobody looked" in text and "no total" not in text


def test_a_run_of_nothing_is_shown(make_record: Make) -> None:
    assert "0 rounds" in shown(render_run(make_record(n=0, warmup=0)))


def test_another_scenarios_metrics_have_a_row_each(make_record: Make) -> None:
    record = make_record(n=0, warmup=0, scenario="memory")
    samples = [
        Sample(target=t, metric="pss_bytes", value=v * (100 + i), unit="bytes", iteration=i, dimensions={"role": role})
        for t, role, v in (("process", "service", 1024.0), ("docker", "service", 2048.0), ("docker", "shim", 4096.0))
        for i in range(8)
    ]
    text = shown(render_run(replace(record, samples=samples)))
    assert line(text, "docker role=shim").startswith("docker role=shim 414 KiB")
    assert "+104 KiB" in line(text, "docker role=service")  # memory: how much more, not how many times as much


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal(make_record: Make, width: int) -> None:
    a, b = make_record("a"), make_record("b", seed=2, delays_ms={"docker": 50})
    comparison = compare_runs(a, b)
    for renderable in (render_run(a), render_runs([a.run, b.run]), render_comparison(comparison)):
        text = shown(renderable, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
    assert "libvirt:q35 (tcg)" in shown(render_run(a), width)


def test_colour_adds_nothing_but_colour(make_record: Make) -> None:
    record = make_record()
    coloured = shown(render_run(record), colour=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown(render_run(record))


def test_a_terminal_obeys_nothing_of_a_log(make_record: Make) -> None:
    hostile = "\x1b]0;owned\x07 [red]x[/red] [/] \x9b2J\r\n\u202e"
    record = make_record()
    targets = [
        *(replace(t, info={**t.info, "qualifiers": {"accel": hostile}}) for t in record.targets),
        TargetRecord(target=hostile, outcome=Outcome.FAILED, reason=hostile, remedy=hostile),
    ]
    failed = LaunchRecord(
        target=hostile, iteration=0, warmup=False, outcome=Outcome.FAILED, timeline=Timeline(), error=hostile
    )
    host = {"warnings": [{"text": hostile, "remedy": hostile}]}
    record = replace(record, targets=targets, launches=[failed], host=host, run=replace(record.run, id=hostile))
    comparison = compare_runs(record, replace(make_record("b", seed=2), targets=targets, host={hostile: hostile}))
    for renderable in (render_run(record), render_runs([record.run]), render_comparison(comparison)):
        text = shown(renderable, 300)
        assert not set("\x1b\x07\x9b\r\u202e") & set(text)
        assert "[red]x[/red]" in text


def test_a_comparison_says_what_it_found(make_record: Make) -> None:
    a, b = make_record("a", noise=0.02), make_record("b", seed=2, noise=0.02, delays_ms={"docker": 50})
    text = shown(render_comparison(compare_runs(a, replace(b, host={"kernel": {"release": "7"}}))))
    assert text.rstrip().endswith("B against A: slower: docker.")
    assert "slower" in line(text, "docker  ")
    assert line(text, "host.kernel") == "host.kernel.release 6.1.0 7"
    same = shown(render_comparison(compare_runs(a, replace(a, run=replace(a.run, id="c")))))
    assert same.rstrip().endswith("No difference seen in the totals.")


def test_a_target_of_one_run_has_one_line(make_record: Make) -> None:
    a = make_record("a")
    b = replace(a, targets=a.targets[:2], samples=[s for s in a.samples if s.target != "libvirt:q35"])
    text = shown(render_comparison(compare_runs(a, b)), 80)
    assert "\nlibvirt:q35 (tcg): not in B\n" in re.sub(" +\n", "\n", text)
    assert line(text, "libvirt:q35 (tcg)") == "libvirt:q35 (tcg) 10, 0 2.78 s not compared"
    assert text.count("kernel → init") == 0
    assert max(map(len, text.splitlines())) <= 80
    # A ratio for each but the signed difference between the chains, which has none.
    assert text.count("none seen") == text.count("1.00x") + 1


def test_no_runs_yet() -> None:
    assert "no runs yet" in shown(render_runs([]))


@pytest.mark.parametrize("width", [120, 40])
def test_any_number_of_runs_is_listed_in_columns(make_record: Make, width: int) -> None:
    run = make_record().run
    many = [replace(run, id=f"2026-{i:04}", scenario=("boot", "überall", "日本")[i % 3]) for i in range(3000)]
    text = shown(render_runs(many), width)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(one.id in text for one in many) or width == 40
    if width == 120:
        assert len(lines) == 2 + 3000
        assert {cell_len(one[: one.index("2026-01-01 10:00:00")]) for one in lines[2:]} == {21}
        assert line(text, "2026-0001") == "2026-0001 überall 2026-01-01 10:00:00 done 0.1.0"


def test_what_was_counted_inside_is_one_table_of_targets_and_facts(make_record: Make) -> None:
    record = make_record(n=2, warmup=0)
    counts = {"process": (0, 0), "docker": (5, 60), "libvirt:q35": (8, 0)}

    def sample(target: str, metric: str, value: float, iteration: int) -> Sample:
        return Sample(
            target=target, metric=metric, value=value, unit="", iteration=iteration, dimensions={"seen": "inside"}
        )

    samples = [
        sample(
            target, metric, value + (iteration if target == "docker" and metric == "calls_refused" else 0), iteration
        )
        for target, values in counts.items()
        for metric, value in zip(("namespaces_own", "calls_refused"), values, strict=True)
        for iteration in (0, 1)
        if (target, metric) != ("libvirt:q35", "calls_refused")
    ]
    text = shown(render_run(replace(record, samples=samples)))
    lines = [line.split() for line in text.splitlines()]
    assert ["docker", "5", "60-61"] in lines and ["process", "0", "0"] in lines
    assert ["libvirt:q35", "(tcg)", "8", "absent"] in lines
    assert "median" not in text and text.count("namespaces") == 1


def test_the_last_line_names_what_was_asked_for_and_is_not_there(make_record: Make) -> None:
    record = make_record()
    assert "Asked for" not in shown(render_run(record))
    absent = TargetRecord(target="swarm", outcome=Outcome.SKIPPED, reason="no engine", remedy="start one")
    last = shown(render_run(replace(record, targets=[*record.targets, absent]))).rstrip().splitlines()[-1]
    assert last.strip() == "Asked for and not measured: swarm (skipped)."


def test_an_images_health_check_is_told_beside_ready(make_record: Make) -> None:
    record = make_record(n=3, warmup=0)
    told = {"reported": {"health": "starting", "health_interval_s": "30"}}
    launches = [replace(one, facts=told) if one.target == "docker" else one for one in record.launches]
    said = " ".join(shown(render_run(replace(record, launches=launches)), 400).split())
    assert "docker: the image has a health check, asked every 30 s" in said and "'starting' in 3 of 3 launches" in said
    assert "health check" not in shown(render_run(record))


def test_what_each_launch_loses_is_told_with_what_mends_it_and_only_where_a_reason_is_known(make_record: Make) -> None:
    record = make_record()
    assert "pass before the engine has started it" not in shown(render_run(record))
    slow = {"facts": {"slow_launch": {"why": "it looks anew", "remedy": "chmod it"}}}
    targets = [replace(t, info=t.info | slow) if t.target == "libvirt:q35" else t for t in record.targets]
    said = " ".join(shown(render_run(replace(record, targets=targets)), 400).split())
    assert re.search(r"libvirt:q35 \(tcg\): \d+ ms of a launch pass before .* it looks anew \(chmod it\)", said)


def test_what_a_variant_leaves_out_is_told_below_its_row(make_record: Make) -> None:
    record = make_record()
    assert "starts without" not in shown(render_run(record))
    lean = {"facts": {"left_out": ["tracing", "IPv6"]}}
    targets = [replace(t, info=t.info | lean) if t.target == "libvirt:q35" else t for t in record.targets]
    said = " ".join(shown(render_run(replace(record, targets=targets)), 400).split())
    assert "libvirt:q35 (tcg) starts without: tracing; IPv6. What it gains is what they cost." in said
