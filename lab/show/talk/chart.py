"""The report's charts of calls between instances: the matrix as a heat map, and latency against rate."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import stats
from lab.figures.series import CALLEE, PATH, Series
from lab.show.talk.table import chosen, ways

_INK = "#1c2330"
_AROUND_PX, _ROW_PX = 150, 44
_CURVES_PX = 420
_QUANTILES = {"p50": "solid", "p99": "dash", "p99_9": "dot"}
_DECADES_S = {1e-5: "10 µs", 1e-4: "100 µs", 1e-3: "1 ms", 1e-2: "10 ms", 1e-1: "100 ms", 1.0: "1 s"}
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#44506a")
"""Told apart also by those who see fewer colours (Okabe and Ito)."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hourglass")


def matrix(rows: Sequence[Series], quantile: str) -> Any:
    """Callers by path, and by callee where that is of another target: the median over rounds of a quantile of calls on
    a kept connection without a payload. Colours are of its logarithm; what could not be measured is left open."""
    import plotly.graph_objects as go

    shown = [row for row in rows if row.metric == f"call_{quantile}_s"]
    callers = list(dict.fromkeys(way.label for way in ways(rows)))
    columns = list(dict.fromkeys(_column(row) for row in shown))
    grid = [[_estimate(shown, caller, column) for column in columns] for caller in callers]
    figure = go.Figure(
        go.Heatmap(
            x=[_plain(column) for column in columns],
            y=[_plain(caller) for caller in callers],
            z=[[_log10(cell) for cell in line] for line in grid],
            text=[[units.quantity(cell.median, "s") if cell else "" for cell in line] for line in grid],
            customdata=[[_told(cell) for cell in line] for line in grid],
            texttemplate="%{text}",
            hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=[[0, "#eef4fb"], [1, "#2b7bba"]],
            showscale=False,
            xgap=2,
            ygap=2,
        )
    )
    figure.update_layout(
        template="plotly_white",
        height=_AROUND_PX + _ROW_PX * len(callers),
        margin={"l": 10, "r": 20, "t": 20, "b": 20},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        xaxis={"side": "top", "fixedrange": True, "automargin": True, "showgrid": False},
        yaxis={"automargin": True, "autorange": "reversed", "fixedrange": True, "ticksuffix": "  ", "showgrid": False},
    )
    return figure


def curve(rows: Sequence[Series]) -> Any:
    """A line for each caller, path and quantile: the median over rounds at each rate that was called at."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, way in enumerate(ways(rows)):
        name = _plain(f"{way.label} {way.path}")
        look = {"color": _COLOURS[number % len(_COLOURS)], "symbol": _SYMBOLS[number // len(_COLOURS) % len(_SYMBOLS)]}
        for quantile, dash in _QUANTILES.items():
            told = [
                (int(row.dimensions["rate"]), stats.estimate(row.values))
                for row in rows
                if row.metric == f"curve_{quantile}_s"
                and (row.label, row.dimensions.get(PATH)) == (way.label, way.path)
                and not row.dimensions.get(CALLEE)
            ]
            points = sorted(told, key=lambda point: point[0])
            if not points:
                continue
            figure.add_scatter(
                x=[rate for rate, _ in points],
                y=[found.median for _, found in points],
                error_y={
                    "type": "data",
                    "array": [0 if found.high is None else found.high - found.median for _, found in points],
                    "arrayminus": [0 if found.low is None else found.median - found.low for _, found in points],
                    "thickness": 1,
                },
                mode="lines+markers",
                line={"dash": dash, "color": look["color"], "width": 1.5},
                marker={"symbol": look["symbol"], "size": 7},
                name=f"{name}, {quantile.replace('_', '.')}",
                legendgroup=name,
                customdata=[[units.quantity(found.median, "s"), found.n] for _, found in points],
                hovertemplate=f"{name}, {quantile.replace('_', '.')}, %{{x}}/s: %{{customdata[0]}}, "
                "n = %{customdata[1]}<extra></extra>",
            )
    figure.update_layout(
        template="plotly_white",
        height=_CURVES_PX + 9 * len(figure.data),
        margin={"l": 10, "r": 20, "t": 20, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        xaxis={
            "title": "calls a second",
            "type": "log",
            "fixedrange": True,
            "tickvals": sorted({rate for line in figure.data for rate in line.x}),
        },
        yaxis={
            "type": "log",
            "automargin": True,
            "fixedrange": True,
            "tickvals": list(_DECADES_S),
            "ticktext": list(_DECADES_S.values()),
        },
        legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
    )
    return figure


def _estimate(rows: Sequence[Series], caller: str, column: str) -> stats.Estimate | None:
    mine = [row for row in rows if (row.label, _column(row)) == (caller, column)]
    row = chosen(mine, mine[0].metric) if mine else None
    return stats.estimate(row.values) if row else None


def _column(row: Series) -> str:
    callee = row.dimensions.get(CALLEE, "")
    path = row.dimensions.get(PATH, "")
    return f"to {callee}, {path}" if callee else path


def _log10(found: stats.Estimate | None) -> float | None:
    return None if found is None or found.median <= 0 else math.log10(found.median)


def _told(found: stats.Estimate | None) -> str:
    """The median with its interval and n."""
    if found is None:
        return ""
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" ({units.span(found.low, found.high, 's', like=found.median)})"
    return _plain(f"{units.quantity(found.median, 's')}{interval}, n = {found.n}")


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
