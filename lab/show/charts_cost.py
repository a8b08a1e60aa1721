"""The chart of cost: what a million calls cost, by how many come in an hour. Plotly is imported on use."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from lab.figures.cost.lines import Line
from lab.figures.cost.reckoning import Costs

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_INK = "#1c2330"
_HEIGHT_PX = 560
_POINTS = 97
_LEAST_RATE, _MOST_RATE = 1.0, 1e6


def curves(costs: Costs) -> Any:
    """A line for each that has figures, with the band of its interval, and a mark with its interval at each break-even.
    Functions are dashed; both axes are logarithmic."""
    import plotly.graph_objects as go

    figure = go.Figure()
    rates = [_LEAST_RATE * (_MOST_RATE / _LEAST_RATE) ** (place / (_POINTS - 1)) for place in range(_POINTS)]
    shown = [line for line in costs.lines if not line.reason]
    for place, line in enumerate(shown):
        colour = _COLOURS[place % len(_COLOURS)]
        found = [one for rate in rates if (one := line.per_million(rate)) is not None]
        intervals = [one.interval for one in found]
        name = _plain(name_of(line))
        if all(intervals):
            lows, highs = zip(*(one for one in intervals if one), strict=True)
            figure.add_scatter(
                x=[*rates, *reversed(rates)],
                y=[*highs, *reversed(lows)],
                fill="toself",
                mode="lines",
                line={"width": 0},
                fillcolor=colour,
                opacity=0.18,
                legendgroup=str(place),
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=rates,
            y=[one.figure for one in found],
            mode="lines",
            line={"color": colour, "width": 2, "dash": "dash" if line.per_call is not None else "solid"},
            name=name,
            legendgroup=str(place),
            hovertemplate=f"{name}: %{{y:.3g}} {_plain(costs.currency)} at %{{x:,.0f}} calls/h<extra></extra>",
        )
    _break_evens(figure, costs)
    figure.update_layout(
        template="plotly_white",
        height=_HEIGHT_PX + 18 * len(shown),
        margin={"l": 10, "r": 20, "t": 40, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        legend={"orientation": "h", "y": -0.18, "yanchor": "top", "x": 0},
        xaxis={"title": "calls per hour", "type": "log", "fixedrange": True},
        yaxis={
            "title": _plain(f"{costs.currency} per million calls"),
            "type": "log",
            "automargin": True,
            "fixedrange": True,
        },
    )
    return figure


def name_of(line: Line) -> str:
    """A line as the legend names it: an emulated guest's says that it is."""
    told = f"{line.kind}: {line.title} at {line.offer}" if line.offer else f"{line.kind}: {line.title}"
    return f"{told}, emulated (TCG)" if line.emulated else told


def _break_evens(figure: Any, costs: Costs) -> None:
    told = [one for one in costs.break_evens if math.isfinite(one.calls_per_hour.figure)]
    if not told:
        return
    at = [one.calls_per_hour.figure for one in told]
    ends = [one.calls_per_hour.interval or (here, here) for one, here in zip(told, at, strict=True)]
    heights = [found.figure for one, here in zip(told, at, strict=True) if (found := one.function.per_million(here))]
    figure.add_scatter(
        x=at,
        y=heights,
        error_x={
            "type": "data",
            "array": _finite([high - here for here, (_, high) in zip(at, ends, strict=True)]),
            "arrayminus": [here - low for here, (low, _) in zip(at, ends, strict=True)],
        },
        mode="markers",
        name="break-even",
        marker={"color": _INK, "size": 8, "symbol": "x"},
        text=[_plain(f"{name_of(one.function)} = {name_of(one.other)}") for one in told],
        hovertemplate="%{text}: %{x:,.3g} calls/h<extra></extra>",
    )


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
