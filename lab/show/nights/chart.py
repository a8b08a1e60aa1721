"""One series over its nights, as a Plotly figure. Plotly is imported on use."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, TypeGuard

from lab import units
from lab.figures.nights.past import Line, Past
from lab.figures.nights.verdict import AWAY, Judged, State
from lab.show.nights import words

_INK, _BAND, _QUIET = "#1c2330", "rgba(0,114,178,0.14)", "#0072B2"
_COLOURS = {  # told apart also by those who see fewer colours (Okabe and Ito)
    State.SUSPECT: "#D55E00",
    State.BETTER: "#009E73",
    State.MOVED: "#CC79A7",
    State.SMALL: "#E69F00",
    State.STEADY: _QUIET,
    State.FEW: "#999999",
    State.VOID: "#999999",
}
_SYMBOLS = {State.SUSPECT: "diamond", State.VOID: "x", State.FEW: "circle-open"}
_HEIGHT_PX = 260
_FAR = 1.5
_CHANGE, _ACCEPTED, _FOUND = "#44506a", "#009E73", "#D55E00"


def nights(past: Past, line: Line) -> Any:
    """Every night's figure at an equal control, over the band of A/A; vertical marks where the host changed, a run was
    accepted, or Otava found a change point. Void nights are at the edge that they lie towards: to scale, they would
    leave no room for the others."""
    import plotly.graph_objects as go

    figure = go.Figure()
    known = [(place, one) for place, one in enumerate(line.points) if one is not None and one.value is not None]
    factors = line.factors()
    shown = [value for value in line.at_equal_control() if value is not None]
    shown += [edge * factors[place] for place, one in known for edge in (one.low, one.high) if _near(edge, one)]
    shown = shown or [one.value for _, one in known if one.value is not None]
    scale, unit = units.scale(max(shown), line.last.unit)
    lowest, highest = min(shown) / scale, max(shown) / scale
    margin = 0.08 * (highest - lowest) or 0.05 * highest
    at = [verdict.at for verdict in past.verdicts]
    banded = [(place, one) for place, one in known if one.low is not None and one.high is not None]
    for pick, fill in (("low", None), ("high", "tonexty")):
        figure.add_scatter(
            x=[at[place] for place, _ in banded],
            y=[getattr(one, pick) * factors[place] / scale for place, one in banded],
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=_BAND,
            hoverinfo="skip",
            name="band of A/A",
            showlegend=pick == "high",
        )
    for state in dict.fromkeys(one.state for _, one in known):
        mine = [(place, one) for place, one in known if one.state is state]
        figure.add_scatter(
            x=[at[place] for place, _ in mine],
            y=[min(highest, max(lowest, (one.value or 0.0) * factors[place] / scale)) for place, one in mine],
            mode="markers",
            name=str(state),
            marker={"color": _COLOURS.get(state, "#999999"), "symbol": _SYMBOLS.get(state, "circle"), "size": 7},
            customdata=[[past.verdicts[place].run, _plain(_hover(past, place, one))] for place, one in mine],
            hovertemplate="%{customdata[1]}<extra></extra>",
        )
    _mark(figure, past, line)
    figure.update_layout(
        template="plotly_white",
        height=_HEIGHT_PX,
        margin={"l": 10, "r": 20, "t": 36, "b": 30},
        font={"family": "system-ui, sans-serif", "size": 12, "color": _INK},
        xaxis={"type": "date", "fixedrange": True},
        yaxis={
            "range": [lowest - margin, highest + margin],
            "automargin": True,
            "fixedrange": True,
            "ticksuffix": f" {_plain(unit)}",
            "nticks": 6,
        },
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="closest",
    )
    return figure


def _near(edge: float | None, one: Judged) -> TypeGuard[float]:
    """Whether an edge of the band is to be seen: of a series of few nights it may be far beyond all values."""
    return edge is not None and one.value is not None and one.value / _FAR <= edge <= one.value * _FAR


def _mark(figure: Any, past: Past, line: Line) -> None:
    """Vertical marks, each with its number below in the table of what changed."""
    for number, place in enumerate(changed_nights(past), start=1):
        _vertical(figure, past.verdicts[place].at, _CHANGE, "dot", str(number))
    for verdict in past.verdicts:
        if verdict.accepted:
            _vertical(figure, verdict.at, _ACCEPTED, "solid", "accepted")
    for point in line.change_points:
        _vertical(figure, past.verdicts[point.place].at, _FOUND, "dash", "Otava")


def _vertical(figure: Any, at: str, colour: str, dash: str, label: str) -> None:
    figure.add_shape(
        type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line={"color": colour, "dash": dash, "width": 1.5}
    )
    figure.add_annotation(
        x=at, y=0, yref="paper", text=label, showarrow=False, xanchor="left", font={"size": 11, "color": colour}
    )


def changed_nights(past: Past) -> Sequence[int]:
    """The places of the nights from which on something of the host is different."""
    return [place for place, verdict in enumerate(past.verdicts) if verdict.host_changes and place]


def _hover(past: Past, place: int, one: Judged) -> str:
    told = [words.when(past.verdicts[place].at), f"run {past.verdicts[place].run}", words.value(one), str(one.state)]
    if one.state in AWAY:
        told.append(words.times(one))
    if one.why:
        told.append(one.why)
    return " · ".join(told)


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
