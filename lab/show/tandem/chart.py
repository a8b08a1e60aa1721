"""The report's charts of bursts: time until the j-th job by who does it, and the service's own p99 around them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import stats, tandem
from lab.figures.series import Series
from lab.figures.tandem import ARRANGEMENT, BURST, LONG, PAUSE, WINDOW
from lab.show.tandem.table import Case, cases

_INK = "#1c2330"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#44506a")
"""Told apart also by those who see fewer colours (Okabe and Ito)."""
_WINDOWS = ("before", "during", "after")
_DASHES = ("solid", "dot", "dash", "dashdot", "longdash")
_TICKS_S = [part * 10.0**decade for decade in range(-4, 1) for part in (1, 2, 5)]
_HEIGHT_PX = 460


def sizes(rows: Sequence[Series]) -> list[str]:
    """The sizes of bursts, each of which has charts of its own."""
    return sorted({case.burst for case in cases(rows)}, key=int)


def jobs(rows: Sequence[Series], burst: str) -> Any:
    """A line for each who and pause: the median over rounds of the time until j of a burst's jobs were done, by j."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for case, look in _looks(rows, burst):
        told = [(int(row.dimensions["j"]), stats.estimate(row.values)) for row in _of(rows, case, "jth_job_s")]
        points = sorted(told, key=lambda point: point[0])
        title = _title(case)
        figure.add_scatter(
            x=[j for j, _ in points],
            y=[found.median for _, found in points],
            error_y={
                "type": "data",
                "array": [0 if found.high is None else found.high - found.median for _, found in points],
                "arrayminus": [0 if found.low is None else found.median - found.low for _, found in points],
                "thickness": 1,
            },
            mode="lines+markers",
            name=title,
            line=look,
            marker={"size": 6},
            hovertemplate=f"{title}, job %{{x}}: %{{y:.4g}} s<extra></extra>",
        )
    figure.update_layout(
        **_layout(),
        xaxis={"title": "jobs done", "rangemode": "tozero", "fixedrange": True},
        yaxis={"title": "seconds since the burst began", "rangemode": "tozero", "fixedrange": True},
    )
    return figure


def answers(rows: Sequence[Series], burst: str) -> Any:
    """A line for each who and pause: the service's p99 before, during and after a burst, medians over rounds."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for case, look in _looks(rows, burst):
        found = {row.dimensions[WINDOW]: stats.estimate(row.values) for row in _of(rows, case, "steady_p99_s")}
        windows = [window for window in _WINDOWS if window in found]
        title = _title(case)
        figure.add_scatter(
            x=windows,
            y=[found[window].median for window in windows],
            mode="lines+markers",
            name=title,
            line=look,
            customdata=[[units.quantity(found[window].median, "s"), found[window].n] for window in windows],
            hovertemplate=f"{title}, %{{x}}: %{{customdata[0]}}, n = %{{customdata[1]}}<extra></extra>",
        )
    figure.update_layout(
        **_layout(),
        xaxis={"fixedrange": True, "categoryorder": "array", "categoryarray": list(_WINDOWS)},
        yaxis={
            "title": "p99 of the service's own requests",
            "type": "log",
            "fixedrange": True,
            "tickvals": _TICKS_S,
            "ticktext": [f"{one:g} s" if one >= 1 else f"{one * 1000:g} ms" for one in _TICKS_S],
        },
    )
    return figure


def _looks(rows: Sequence[Series], burst: str) -> list[tuple[Case, dict[str, Any]]]:
    """The cases of that size, each with its line: colours by who, dashes by the pause."""
    mine = [case for case in cases(rows) if case.burst == burst]
    names, pauses = (list(dict.fromkeys(told)) for told in ([c.who for c in mine], [c.pause for c in mine]))
    return [
        (
            case,
            {
                "color": _COLOURS[names.index(case.who) % len(_COLOURS)],
                "dash": _DASHES[pauses.index(case.pause) % len(_DASHES)],
                "width": 1.5,
            },
        )
        for case in mine
    ]


def _of(rows: Sequence[Series], case: Case, metric: str) -> list[Series]:
    """The rows of a case, and those of its size whatever the pause."""
    return [
        row
        for row in rows
        if row.metric == metric
        and (tandem.who(row), row.dimensions.get(ARRANGEMENT)) == (case.who, case.arrangement)
        and row.dimensions.get(BURST) == case.burst
        and row.dimensions.get(PAUSE, case.pause) == case.pause
    ]


def _title(case: Case) -> str:
    return _plain(f"{case.who}, {'long pause' if case.pause == LONG else f'pause {case.pause} s'}")


def _layout() -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": _HEIGHT_PX,
        "margin": {"l": 10, "r": 20, "t": 20, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
