"""The class as one HTML file for a projector, which opens without a network (see lab/show/page.py).

It is for the whole room: no name stands beside a figure, or beside a step, unless its student has consented, and no
file's name is in it. Who copied and which file could not be read is said to the teacher alone, on the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import units
from lab.classroom.chart import points
from lab.classroom.overview import Overview
from lab.classroom.points import Chart, told
from lab.classroom.progress import LessonOf, who
from lab.figures import notes, series, stats
from lab.lesson.record import State
from lab.show.page import chart, details, listed, page, table, text
from lab.store.place import write_whole

TITLE = "The class"
HOW = (
    "A point is one machine: how many times its own bare process's median the target's is, both from the same run. The "
    "line is the 95 % interval of that ratio; an open point has fewer than six values, and so no interval.",
    "Machines stand by CPU model, and within one by the beginning of their fingerprint (lab hosts shows it): where a "
    "point stands says nothing of its figure.",
    "Nothing is taken over several machines, and this is no ranking: a machine with a slow disk and a quick CPU has "
    "other ratios for the same software.",
    "Guests under KVM and emulated ones (tcg) are different targets, and never in one group.",
    "Of several runs of a machine under the same conditions, the newest is shown. Runs under other conditions (other "
    "targets beside, another image, other sizes) are not set beside these.",
)


def write_html(overview: Overview, path: Path) -> None:
    """Write the page to `path`, whole or not at all. Raises BadInput where it cannot be written."""
    write_whole(path, render(overview))


def render(overview: Overview) -> str:
    """The page."""
    body = [
        _STYLE,
        f"<h1>{text(TITLE)}</h1>",
        f'<p class="question">{text(overview.headline)}</p>',
        *listed("How to read it", HOW[:2]),
        *_charts(overview.charts),
        *_lessons(overview.lessons),
        *_mistakes(overview),
        *listed("What is not shown", overview.not_shown),
        *listed("How it was put together", HOW[2:]),
    ]
    return page(TITLE, body)


def _charts(charts: Sequence[Chart]) -> Iterator[str]:
    if any("(tcg" in panel.label for one in charts for panel in one.panels):
        yield f'<p class="why">{text(notes.TCG)}</p>'
    before = None
    for number, one in enumerate(charts):
        first = one.title != before
        before = one.title
        if first:
            yield f"<h2>{text(one.title)}</h2>"
        count = f"{one.machines} machine{'s' if one.machines != 1 else ''}"
        inside = f"<p>{text(f'{count}: {told(one.conditions)}')}</p>{chart(f'class-{number}', points(one))}"
        inside += details("The same as a table", _table(one))
        # What nothing stands beside need not take the room's eyes.
        yield inside if first or one.machines > 1 else details("Under other conditions: 1 machine", inside)
    yield _RESIZED


def _table(one: Chart) -> str:
    rows = []
    for panel in one.panels:
        for point in panel.points:
            ratio = stats.Ratio(value=point.mid, low=None, high=None)
            interval = "n < 6" if point.low is None or point.high is None else units.between(point.low, point.high)
            machine = f"{point.tag}, {point.name}" if point.name else point.tag
            rows.append([panel.label, point.cpu, machine, series.times(ratio), interval, point.n, point.run_id])
    heading = f"x {series.CONTROL}" if one.over_control else "ratio"
    return table(["target", "CPU", "machine", heading, "95 % interval", "n", "run"], rows, figures_from=3)


def _lessons(lessons: Sequence[LessonOf]) -> Iterator[str]:
    for one in lessons:
        yield f"<h2>{text(f'Lesson {one.lesson}: {one.students} students')}</h2>"
        rows = []
        for step in one.steps:
            states = [step.states.get(state, 0) or "" for state in (State.PASSED, State.FAILED)]
            waits = sum(step.states.get(state, 0) for state in (State.OPEN, State.NOT_REACHED))
            error = step.states.get(State.ERROR, 0)
            here = _who(step.here, step.here_names)
            rows.append(
                [step.title or step.step, *states, waits or "", error or "", here, _who(step.stuck, step.stuck_names)]
            )
        rows.append(["through with all", "", "", "", "", _who(one.done, one.done_names), ""])
        headings = ["step", "passed", "failed", "not yet", "checker's error", "are here now", "stuck"]
        yield table(headings, rows, figures_from=1)


def _who(count: int, names: Sequence[str]) -> str:
    return who(count, names) if count else ""


def _mistakes(overview: Overview) -> Iterator[str]:
    if overview.mistakes:
        yield "<h2>What goes wrong often</h2>"
        rows = [
            [
                one.what,
                f"{one.by} run{'s' if one.by != 1 else ''}" if one.of_runs else f"{one.by} of {overview.students}",
                one.times,
            ]
            for one in overview.mistakes
        ]
        yield table(["mistake", "by how many", "times"], rows, figures_from=1)


_RESIZED = """<script>
for (const one of document.querySelectorAll("details")) one.addEventListener("toggle", () => {
  for (const drawn of one.querySelectorAll(".chart")) Plotly.Plots.resize(drawn);
});
</script>"""
"""A chart that was drawn while it was closed has no width."""
_STYLE = """<style>
body { font-size: 21px; max-width: 1720px; }
h1 { font-size: 2.1rem; }
h2 { font-size: 1.55rem; }
.question { font-size: 1.3rem; }
td:first-child { min-width: 14rem; }
</style>"""
