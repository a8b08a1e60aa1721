"""The nights as one HTML file that opens without a network: a chart for each series, and a line for each night."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.figures.nights.past import Line, Past
from lab.figures.nights.verdict import AWAY
from lab.show.nights import words
from lab.show.nights.chart import changed_nights, nights
from lab.show.page import chart, details, listed, page, table
from lab.show.page import text as _text
from lab.store.place import write_whole

METHOD = (
    "The control first: where the bare process's own figure lies beyond the band of its nights, the night is void.",
    "Each target at an equal control: its logarithm less the control's of the same night, weighted by how far the two "
    "have gone together in the nights before.",
    "The error is the spread between the nights since the last accepted change, of which there must be eight; the band "
    "of A/A holds nights without a change, but for the stated level.",
    "The last night, the last three and the last seven are held against the nights before. Nights that are away are in "
    "no later reference, so that nothing becomes normal by waiting; `lab accept RUN` makes it so.",
    "A suspect is no alarm before it is confirmed by another measurement (`lab nightly`).",
)


def write_html(scenario: str, pasts: Sequence[Past], path: Path) -> None:
    """Write the page to `path`, whole or not at all. Raises BadInput where it cannot be written."""
    write_whole(path, render(scenario, pasts))


def render(scenario: str, pasts: Sequence[Past]) -> str:
    """The page."""
    body = [f"<h1>{_text(scenario)}: nights</h1>"]
    for number, past in enumerate(pasts):
        body += _of_host(past, number)
    return page(f"{scenario}: nights", [*body, *listed("How it was judged", METHOD)])


def _of_host(past: Past, number: int) -> Iterator[str]:
    name = past.host_name or past.host or "a host that no run tells"
    yield f"<h2>{_text(name)}</h2>"
    yield f'<p class="question">{_text(words.headline(past))}</p>'
    more = f", {past.judged} judged" if past.judged > len(past.verdicts) else ""
    yield (
        f"<p>{len(past.verdicts)} nights shown{more}. Points are at an equal control; a click on one leads to its "
        "run.</p>"
    )
    yield from listed("What a reader must know", list(words.notes(past)))
    body = [_row(past, line) for line in past.lines]
    headings = ["target", "metric", "last", "band of A/A", "change", "finds in 1, 3, 7 nights", "verdict"]
    yield table(headings, body)
    for place, line in enumerate(past.lines):
        last = line.last
        yield f"<h2>{_text(last.title)}{' (control)' if last.is_control else ''}</h2>"
        one = past.last_of(line)
        if one is not None and one.state in AWAY:
            yield f'<p class="why">{_text(words.moved(one))}</p>'
        yield chart(f"nights-{number}-{place}", nights(past, line))
        yield _CLICK.format(name=f"nights-{number}-{place}")
    changed = [
        [str(count), words.when(past.verdicts[place].at), past.verdicts[place].run, "; ".join(told)]
        for count, place in enumerate(changed_nights(past), start=1)
        if (told := past.verdicts[place].host_changes)
    ]
    if changed:
        yield "<h2>What was different from then on</h2>"
        yield table(["mark", "night (UTC)", "run", "what changed"], changed, figures_from=4)
    yield "<h2>Every night</h2>"
    yield "<p>The newest first; a run's own report: <code>lab report RUN --html run.html</code>.</p>"
    yield _nights(past)


def _row(past: Past, line: Line) -> list[str]:
    one = past.last_of(line)
    if one is None:
        return [line.last.label, line.last.name, "no figure tonight"]
    said = f"{one.state}: {one.why}" if one.why else str(one.state)
    figures = [words.value(one), words.band(one), words.times(one), words.smallest(one), said]
    return [one.label, one.name, *figures]


def _nights(past: Past) -> str:
    """A table whose rows have the runs' ids as anchors."""
    rows = []
    for verdict in reversed(past.verdicts):
        told = [verdict.why, *(words.moved(one) for one in verdict.series if one.is_new)]
        told += ["accepted: the new normal" if verdict.accepted else "", "; ".join(verdict.host_changes)]
        cells = [verdict.run, words.when(verdict.at), str(verdict.state), " ".join(filter(None, told))]
        rows.append(f'<tr id="run-{_text(verdict.run)}">{"".join(f"<td>{_text(cell)}</td>" for cell in cells)}</tr>')
    head = "".join(f"<th>{heading}</th>" for heading in ("run", "night (UTC)", "verdict", "what is to be said"))
    inside = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return _TARGETED + details(f"{len(past.verdicts)} nights", inside, opened=True)


_CLICK = (
    '<script>document.getElementById("{name}").on("plotly_click", e => {{const told = e.points[0].customdata;'
    'if (told) location.hash = "run-" + told[0];}});</script>'
)
_TARGETED = "<style>tr:target td { background: #fff4d6; }</style>"
