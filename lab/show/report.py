"""A run as one HTML file that opens without a network: nothing in it is loaded from anywhere (see lab/show/page.py)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab import units
from lab.errors import LabError, with_remedy
from lab.figures import density, notes, series, stats
from lab.figures.evidence import Claims
from lab.figures.series import EXPLAINING, SEEN, Series
from lab.registry import make_scenario
from lab.show import charts_memory, report_evidence, table_memory, table_wake
from lab.show.application import table as application_table
from lab.show.calls import chart as calls_chart
from lab.show.calls import table as calls_table
from lab.show.charts import awake, distributions, growth, phases
from lab.show.page import chart as _chart
from lab.show.page import details as _details
from lab.show.page import listed as _list
from lab.show.page import page
from lab.show.page import table as _table
from lab.show.page import text as _text
from lab.show.talk import chart as talk_chart
from lab.show.talk import table as talk_table
from lab.show.tandem import chart as tandem_chart
from lab.show.tandem import table as tandem_table
from lab.store.place import write_whole
from lab.store.record import Outcome, RunRecord

METHOD = (
    "Every launch of a round visits all targets in an order shuffled anew; warm-up rounds are measured and left out.",
    "Medians have 95 % intervals by order statistics, which hold whatever the distribution. A quantile is shown only "
    "where n is large enough for its own interval (72 for p95, 368 for p99, 3,688 for p99.9), and the range elsewhere.",
    "Ratios are of medians, with 95 % percentile-bootstrap intervals.",
    "Each time is between two instants read from one clock. The service's chain (requested, kernel, init, main, "
    "listening, ready) and the engine's (requested, created, started) are apart, and never stacked together.",
    "A failed launch is counted and listed, never dropped.",
)


def write_html(record: RunRecord, path: Path) -> None:
    """Write the report of `record` to `path`, whole or not at all. Raises BadInput where it cannot be written."""
    write_whole(path, render(record))


def render(record: RunRecord) -> str:
    """The report as a page."""
    rows = series.series_of(record)
    claims = report_evidence.claims_of(record)
    title = f"{record.run.scenario}: run {record.run.id}"
    body = [
        f"<h1>{_text(title)}</h1>",
        *_lead(record),
        *_claim(claims),
        *_sides(record, rows),
        *_lessons(record, claims),
        *_totals(record, rows),
        *_application(record, rows),
        *_wake(record, rows),
        *_talk(record, rows),
        *_tandem(record, rows),
        *_list("What a reader must know", notes.of_run(record, rows)),
        *_where(record, rows),
        *_calls(record, rows),
        *_memory(record, rows),
        *_density(record, rows),
        *_growth(record, rows),
        *_spread(rows),
        *_rest(rows),
        *_failures(record),
        *_list("How it was measured", METHOD),
        *_facts("Parameters of the run", record.run.parameters),
        *_targets(record),
        *_facts("Facts of the host", record.host),
    ]
    return page(title, body)


def _application(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    if found := application_table.grid(record, rows):
        yield f"<h2>{_text(application_table.TITLE)}</h2>"
        yield _table(["target", *application_table.headings(), "timeline"], found, figures_from=3)


def _lead(record: RunRecord) -> Iterator[str]:
    # The scenario may be one that only the lab which measured it had: its figures are shown all the same.
    with contextlib.suppress(LabError):
        yield f'<p class="question">{_text(make_scenario(record.run.scenario).question)}</p>'
    yield f"<p>{_text(notes.headline(record))}; Stratalab {_text(record.run.lab_version)}</p>"


def _claim(claims: Claims | None) -> Iterator[str]:
    if claims is not None:
        yield f"<h2>The claim</h2><p>{_text(claims.claim)}</p>"
        yield from _list("What was done", claims.done)
        yield from _list("What to keep in mind", claims.caveats)


def _sides(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    for side in report_evidence.sides(record, rows):
        yield f"<h2>{_text(side.title)}</h2>"
        if side.facts:
            yield "<p>What differs from the first target is marked.</p>" if side.marked else ""
            yield _table(side.headings, side.facts, figures_from=len(side.headings), marked=side.marked)
        if side.counts:
            yield _table(side.counts[0], side.counts[1:], figures_from=1)
        if side.figures:
            body = [[row.label, row.name, *_figures(row)] for row in side.figures]
            yield _table(["target", "metric", "median", "95 % interval", "range or quantiles", "n"], body)


def _lessons(record: RunRecord, claims: Claims | None) -> Iterator[str]:
    found = list(report_evidence.lessons(record, claims)) if claims is not None else []
    if found:
        yield "<h2>What the differences mean</h2>"
    for lesson in found:
        differs = "".join(f"<li>{_text(one)}</li>" for one in lesson.differs)
        words = f"<p>{_text(lesson.words)} See {_text(lesson.page)}.</p>"
        yield _details(lesson.title, f"{words}<ul>{differs}</ul>", opened=True)


def _totals(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    answers = [row for row in rows if row.metric not in EXPLAINING]
    shown = [row for row in answers if SEEN not in row.dimensions and row.metric not in tandem_table.TOTALS]
    body = []
    for row in shown:
        base = series.beside(rows, row) if row.metric not in series.COUNTED else None
        failed = len(series.failures(record, row.target))
        body.append([row.label, row.name, *_figures(row), failed or "", series.against(base, row)])
    for target in record.targets:
        if target.outcome is not Outcome.OK:
            told = f"{target.outcome}: {with_remedy(target.reason, target.remedy)}"
            body.append([series.label(target), told])
        elif not any(row.target == target.target for row in answers):
            body.append([series.label(target), "no total: its end was not seen"])
    headings = ["target", "metric", "median", "95 % interval", "range or quantiles", "n", "failed"]
    if body:
        yield _table([*headings, series.related(shown)], body)


def _where(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    names = [target.target for target in record.targets if series.chain(rows, target.target, series.SERVICE)]
    if not names:
        return
    yield "<h2>Where the time goes</h2>"
    yield "<p>Medians of each step of the service's own chain, each bar one target's own whole.</p>"
    yield _chart("phases", phases(rows, names))
    body = []
    for row in rows:
        if row.metric in ("phase_s", "lead_s"):
            kind = "between the chains" if row.metric == "lead_s" else row.dimensions.get("chain", "")
            body.append([row.label, kind, row.name, *_figures(row)])
    yield _details(
        "All phases",
        _table(["target", "chain", "phase", "median", "95 % interval", "range or quantiles", "n"], body),
        opened=True,
    )


def _calls(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    names = [target.target for target in record.targets]
    if any(series.call_chain(rows, name, kind) for name in names for kind in calls_table.KINDS):
        yield "<h2>Where a call's time goes</h2>"
        yield (
            "<p>Medians of each step between the service's own instants, each bar the calls' own whole: cold, the "
            "first of an initialized worker, and warm. Marks are what the platform showed of the new worker, counted "
            "from the same instant; they are of another chain, and no part of the bar.</p>"
        )
        yield _chart("calls", calls_chart.calls(rows, names))
        body = [
            _phase_of_call(row)
            for row in rows
            if row.metric == "shown_s" or (row.metric == "phase_s" and series.CALL in row.dimensions)
        ]
        headings = ["target", "call", "phase", "told by", "median", "95 % interval", "range or quantiles", "n"]
        yield _details("All phases of calls", _table(headings, body, figures_from=4), opened=True)
    if any(row.metric == "kth_answer_s" for row in rows):
        yield "<h2>A burst from zero</h2>"
        yield (
            "<p>Medians, with their 95 % intervals where there are any, of the time from just before the first of the "
            "calls until the k-th of them has its answer. No worker was there before.</p>"
        )
        told = {"metric": "kth_answer_s", "what": "calls answered"}
        yield _chart("burst", growth(rows, names, **told, first_apart=False))
    lines = [
        [series.label(target), *line] for target in record.targets for line in calls_table.beside(rows, target.target)
    ]
    if lines:
        yield _table(["target", "what", "median", "interval or range", "n"], lines)


def _phase_of_call(row: Series) -> list[str]:
    told = row.dimensions
    phase = f"{told.get('from', 'request')} → {told['to']}"
    return [row.label, told[series.CALL], phase, told.get("source", "service"), *_figures(row)]


def _growth(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    if any(row.metric == "kth_ready_s" for row in rows):
        yield "<h2>From one replica to N</h2>"
        yield (
            "<p>Medians, with their 95 % intervals where there are any, of the time from asking for more than one "
            "until the k-th replica served its first request; the first was asked for by itself.</p>"
        )
        yield _chart("growth", growth(rows, [target.target for target in record.targets]))


def _memory(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    for after in dict.fromkeys(row.dimensions["after"] for row in rows if row.metric == "role_pss_bytes"):
        yield f"<h2>Memory by role, after {_text(after)}</h2>"
        if after == "ready":
            yield (
                "<p>Medians of PSS, which counts a page that n processes map as 1/n in each. Daemons are there before "
                "the first instance, and are not in it.</p>"
            )
        yield _chart(f"roles-{after}", charts_memory.roles(record, rows, after))


def _wake(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    if shown := [*table_wake.grid(record, rows), *table_wake.refused(record)]:
        yield "<h2>Asleep and awake</h2>"
        yield (
            "<p>Medians, with their 95 % intervals below. 'Held' is the PSS of what is left of its processes while it "
            "sleeps, 'x its boot' the ratio to a cold boot of the same target in the same rounds.</p>"
        )
        yield _table(table_wake.headings(), shown, figures_from=1)
        if any(row.metric == "wake_s" for row in rows):
            yield _chart("awake", awake(rows))


def _talk(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    if not talk_table.ways(rows):
        return
    yield "<h2>Who calls whom</h2>"
    yield (
        "<p>Medians over rounds of a pair's median, and of its p99, in each; from the instant at which a call was "
        "to leave the caller, on kept connections, without a payload.</p>"
    )
    for quantile, title in (("p50", "Median"), ("p99", "p99")):
        if any(row.metric == f"call_{quantile}_s" for row in rows):
            yield f"<h3>{title}</h3>"
            yield _chart(f"matrix-{quantile}", talk_chart.matrix(rows, quantile))
    cells, costs = talk_table.cells(rows), talk_table.costs(rows)
    shared = talk_table.shares(record, rows)
    body = [[*row, said] for row, said in zip(cells[1:], shared, strict=True)]
    yield _table([*cells[0], "shares"], body, figures_from=1)
    yield _table(costs[0], costs[1:], figures_from=1)
    if shut := talk_table.shut(record):
        yield _table(["no path", "why"], shut)
    if any(row.metric == "curve_p50_s" for row in rows):
        yield "<h2>Latency against rate</h2>"
        yield (
            "<p>Medians over rounds, with their 95 % intervals where there are any. A line ends at the first rate that "
            "was not borne: a p99 above 10 ms, or calls that were not served.</p>"
        )
        yield _chart("curve", talk_chart.curve(rows))


def _tandem(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    cases = tandem_table.cases(rows)
    if not cases:
        return
    yield "<h2>Who does a burst</h2>"
    yield (
        "<p>Medians over rounds. A 'long' pause is one after which the tandem was at rest, proven: no worker was "
        "there, guests were saved.</p>"
    )
    told = tandem_table.better(rows)
    if told[1:]:
        yield _table(told[0], told[1:], figures_from=len(told[0]))
    for size in tandem_chart.sizes(rows):
        if int(size) > 1:
            yield f"<h3>Time until the j-th of {_text(size)} jobs is done</h3>"
            yield _chart(f"jobs-{size}", tandem_chart.jobs(rows, size))
        yield f"<h3>The service's own p99 before, during and after a burst of {_text(size)}</h3>"
        yield _chart(f"answers-{size}", tandem_chart.answers(rows, size))
    for who in dict.fromkeys(case.who for case in cases):
        mine = [case for case in cases if case.who == who]
        done, held = tandem_table.done(rows, mine), tandem_table.memory(rows, mine)
        yield f"<h3>{_text(mine[0].title)}</h3>"
        yield _table(done[0], done[1:], figures_from=0)
        yield _table(held[0], held[1:], figures_from=0)
    if failed := tandem_table.failed(record):
        yield _table(["jobs that were not done", "why"], failed)


def _density(record: RunRecord, rows: Sequence[Series]) -> Iterator[str]:
    shown = [row for row in rows if row.metric == density.MARGINAL]
    if not shown:
        return
    yield "<h2>Used memory by number of instances</h2>"
    yield (
        "<p>Each point is one reading, against the same walk without instances, less what the lab itself took. The "
        "line is the median of the walks' slopes, and the band its 95 % interval.</p>"
    )
    yield _chart("density", charts_memory.curves(record, shown))
    body = [[row.label, *table_memory.capacity(record, row)] for row in shown]
    yield "<p>Extrapolated, as if nothing else ran out first:</p>"
    yield _table(["target", "instances per GiB", "on this machine"], body, figures_from=1)


def _spread(rows: Sequence[Series]) -> Iterator[str]:
    shared = {row.metric for row in rows if row.metric in EXPLAINING | series.COUNTED or "k" in row.dimensions}
    shared |= {row.metric for row in rows if series.is_fact(row)}
    # What was found by different methods never shares a chart.
    kinds = dict.fromkeys((row.metric, row.dimensions.get("method")) for row in rows if row.metric not in shared)
    for number, (metric, method) in enumerate(kinds):
        shown = [row for row in rows if (row.metric, row.dimensions.get("method")) == (metric, method)]
        what = "walk" if metric == density.MARGINAL else "burst" if metric in tandem_table.TOTALS else "launch"
        yield f"<h2>Every {what}: {_text(metric)}</h2>"
        yield (
            f"<p>Each point is one {what}; the box spans the quartiles, and its line is the median. "
            "Targets that are far apart have an axis each.</p>"
        )
        yield _chart(f"spread-{number}", distributions(shown))


def _rest(rows: Sequence[Series]) -> Iterator[str]:
    headings = ["median", "95 % interval", "range or quantiles", "n"]
    for name, mine in _by_label(row for row in rows if row.metric in table_memory.GROUPED).items():
        shown, nothing = table_memory.grouped(mine)
        yield f"<h2>What explains the memory of {_text(name)}</h2>"
        yield _table(["", "what", *headings], [[title, what, *_figures(row)] for title, what, row in shown])
        if nothing:
            yield f"<p>0 each: {_text(nothing)}.</p>"
    told = (
        {"phase_s", "lead_s"} | table_memory.GROUPED | calls_table.GROUPED | talk_table.GROUPED | tandem_table.GROUPED
    )
    rest = [row for row in rows if row.metric in EXPLAINING and row.metric not in told]
    if rest:
        yield "<h2>And then</h2>"
        yield _table(["target", "metric", *headings], [[row.label, row.name, *_figures(row)] for row in rest])


def _by_label(rows: Iterable[Series]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for row in rows:
        found.setdefault(row.label, []).append(row)
    return found


def _failures(record: RunRecord) -> Iterator[str]:
    failed = [launch for launch in record.launches if launch.outcome is Outcome.FAILED]
    if failed:
        yield f"<h2>Failed launches ({len(failed)})</h2>"
    for launch in failed:
        warmup = " (warm-up)" if launch.warmup else ""
        title = f"{launch.target}, round {launch.iteration}{warmup}: {launch.error}"
        yield _details(title, f"<pre>{_text(launch.logs) or 'It wrote nothing.'}</pre>")


def _targets(record: RunRecord) -> Iterator[str]:
    for target in record.targets:
        if target.info:
            yield from _facts(f"Facts of {series.label(target)}", target.info)


def _facts(title: str, facts: Mapping[str, Any]) -> Iterator[str]:
    body = [[path, _value(value)] for path, value in _flat(facts) if not path.startswith("warnings")]
    if body:
        yield _details(title, _table(["fact", "value"], body, figures_from=2))


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: object) -> str:
    if value is None:
        return "not known"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _figures(row: Series) -> list[str]:
    """Median, interval, range or quantiles, n."""
    if row.metric in series.COUNTED:
        return [series.counted(row), "", "", str(len(row.values))]
    found = stats.estimate(row.values)
    interval = "n < 6"
    if found.low is not None and found.high is not None:
        interval = units.span(found.low, found.high, row.unit, like=found.median)
    known = [stats.quantile(row.values, q) for q in (0.95, 0.99, 0.999)]
    told = [f"p{100 * q.q:g} {units.quantity(q.value, row.unit)}" for q in known if q is not None]
    spread = ", ".join(told) or units.span(found.minimum, found.maximum, row.unit, like=found.median)
    return [series.median(row, found), interval, spread, str(found.n)]
