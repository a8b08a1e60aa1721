"""The report's charts of bursts: time until the j-th job by who does it, and the service's own p99 around them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import stats, tandem
from lab.figures.series import Series
from lab.figures.tandem import ARRANGEMENT, BURST, LONG, PAUSE, WINDOW
from lab.show.tandem.table import cases

_INK = "#1c2330"
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#44506a")
"""Told apart also by those who see fewer colours (Okabe and Ito)."""
_WINDOWS = ("before", "during", "after")
_HEIGHT_PX = 440


def jobs(rows: Sequence[Series]) -> Any:
    """A line for each who, burst and pause: the median over rounds of the time until j jobs were done, by j."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = list(dict.fromkeys(case.who for case in cases(rows)))
    for case in cases(rows):
        told = [
            (int(row.dimensions["j"]), stats.estimate(row.values))
            for row in rows
            if row.metric == "jth_job_s"
            and (tandem.who(row), row.dimensions.get(ARRANGEMENT)) == (case.who, case.arrangement)
            and (row.dimensions.get(BURST), row.dimensions.get(PAUSE)) == (case.burst, case.pause)
        ]
        points = sorted(told, key=lambda point: point[0])
        pause = "long pause" if case.pause == LONG else f"pause {case.pause} s"
        title = _plain(f"{case.who}, burst {case.burst}, {pause}")
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
            line={"color": _COLOURS[names.index(case.who) % len(_COLOURS)], "width": 1.5}
            | ({} if case.pause == LONG else {"dash": "dot"}),
            marker={"size": 6},
            hovertemplate=f"{title}, job %{{x}}: %{{y:.4g}} s<extra></extra>",
        )
    figure.update_layout(
        **_layout(),
        xaxis={"title": "jobs done", "rangemode": "tozero", "fixedrange": True},
        yaxis={"title": "seconds since the burst began", "rangemode": "tozero", "fixedrange": True},
    )
    return figure


def answers(rows: Sequence[Series]) -> Any:
    """A line for each who, burst and pause: the service's p99 before, during and after, medians over rounds."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = list(dict.fromkeys(case.who for case in cases(rows)))
    for case in cases(rows):
        found = {
            row.dimensions[WINDOW]: stats.estimate(row.values)
            for row in rows
            if row.metric == "steady_p99_s"
            and (tandem.who(row), row.dimensions.get(ARRANGEMENT)) == (case.who, case.arrangement)
            and row.dimensions.get(BURST) == case.burst
            and row.dimensions.get(PAUSE, case.pause) == case.pause
        }
        windows = [window for window in _WINDOWS if window in found]
        pause = "long pause" if case.pause == LONG else f"pause {case.pause} s"
        title = _plain(f"{case.who}, burst {case.burst}, {pause}")
        figure.add_scatter(
            x=windows,
            y=[found[window].median for window in windows],
            mode="lines+markers",
            name=title,
            line={"color": _COLOURS[names.index(case.who) % len(_COLOURS)], "width": 1.5}
            | ({} if case.pause == LONG else {"dash": "dot"}),
            customdata=[[units.quantity(found[window].median, "s"), found[window].n] for window in windows],
            hovertemplate=f"{title}, %{{x}}: %{{customdata[0]}}, n = %{{customdata[1]}}<extra></extra>",
        )
    figure.update_layout(
        **_layout(),
        xaxis={"fixedrange": True, "categoryorder": "array", "categoryarray": list(_WINDOWS)},
        yaxis={"title": "p99 of the service's own requests (s)", "type": "log", "fixedrange": True},
    )
    return figure


def _layout() -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": _HEIGHT_PX,
        "margin": {"l": 10, "r": 20, "t": 20, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "legend": {"orientation": "v", "x": 1.02, "y": 1},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
