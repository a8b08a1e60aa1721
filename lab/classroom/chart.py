"""A class's points as a Plotly figure, to be read on a projector. Plotly is imported on use."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any

from lab.classroom.points import Chart, Panel, Point
from lab.figures import series, stats
from lab.show.terminal import printable

_INK, _RULE = "#1c2330", "#c4ccd8"
_COLOURS = {"tcg": "#D55E00", "kvm": "#009E73"}  # told apart also by those who see fewer colours (Okabe and Ito)
_OTHER_COLOUR = "#0072B2"
_MOST_ROW_PX, _LEAST_ROW_PX = 26, 6
_LONG_PX = 700  # a panel of many machines
_TITLE_PX, _AXIS_PX = 46, 64
_CPU_CHARACTERS = 26
_MANY = 60  # whose points are smaller
_STEPS = (1, 2, 5)
_FEW_DECADES = 4.0


def points(chart: Chart) -> Any:
    """A panel for each target, all on one logarithmic axis; a row for each machine, by CPU model and then by tag, so
    that its place says nothing of its figure. Open points have too few values for an interval."""
    import plotly.graph_objects as go

    heights = [_height(panel) for panel in chart.panels]
    area = sum(heights) + _TITLE_PX * len(heights)
    axes: dict[str, Any] = {}
    shapes: list[dict[str, Any]] = []
    titles: list[dict[str, Any]] = []
    traces: list[dict[str, Any]] = []
    top = area
    for place, (panel, height) in enumerate(zip(chart.panels, heights, strict=True), start=1):
        axis = "" if place == 1 else str(place)
        top -= _TITLE_PX
        ends = [max(0.0, (top - height) / area), top / area]
        top -= height
        ticks, texts, edges = _rows(panel)
        axes[f"yaxis{axis}"] = _rows_axis(ends, len(panel.points), ticks, texts)
        shapes += [_line(axis, across=edge, colour=_RULE) for edge in edges]
        if chart.over_control:
            shapes.append(_line(axis, down=len(panel.points), colour=_INK))
        titles.append(_title(panel, ends[1]))
        traces += [_trace(panel, axis, mine) for mine in _by_interval(panel) if mine]
    layout = {
        "template": "plotly_white",
        "height": area + _AXIS_PX,
        "margin": {"l": 10, "r": 30, "t": 0, "b": _AXIS_PX},
        "font": {"family": "system-ui, sans-serif", "size": 17, "color": _INK},
        "xaxis": _ratio_axis(chart),
        "shapes": shapes,
        "annotations": titles,
        "showlegend": False,
        "hovermode": "closest",
        **axes,
    }
    return go.Figure(data=traces, layout=layout)


def accel_of(label: str) -> str:
    """`kvm` or `tcg` where a target's label says so; "" elsewhere."""
    inside = label.partition("(")[2].rstrip(")").split(", ")
    return next((name for name in _COLOURS if name in inside), "")


def _height(panel: Panel) -> int:
    return len(panel.points) * max(_LEAST_ROW_PX, min(_MOST_ROW_PX, _LONG_PX // len(panel.points))) + _MOST_ROW_PX


def _rows(panel: Panel) -> tuple[list[float], list[str], list[float]]:
    """Where each CPU model's name stands, and where one ends and the next begins."""
    ticks, texts, edges = [], [], []
    at = 0
    for cpu, mine in panel.by_cpu():
        if at:
            edges.append(at - 0.5)
        ticks.append(at + (len(mine) - 1) / 2)
        name = "<br>".join(_plain(line) for line in textwrap.wrap(printable(cpu), _CPU_CHARACTERS)[:3]) or "?"
        texts.append(name if len(mine) > 1 else name.replace("<br>", " ")[: _CPU_CHARACTERS + 4])
        at += len(mine)
    return ticks, texts, edges


def _by_interval(panel: Panel) -> tuple[list[tuple[int, Point]], list[tuple[int, Point]]]:
    """Those with an interval, and those without, each with its row."""
    placed = list(enumerate(panel.points))
    return [one for one in placed if one[1].low is not None], [one for one in placed if one[1].low is None]


def _trace(panel: Panel, axis: str, mine: Sequence[tuple[int, Point]]) -> dict[str, Any]:
    colour = _COLOURS.get(accel_of(panel.label), _OTHER_COLOUR)
    many = len(panel.points) > _MANY
    return {
        "type": "scatter",
        "x": [one.mid for _, one in mine],
        "y": [place for place, _ in mine],
        "yaxis": f"y{axis}",
        "error_x": {
            "type": "data",
            "array": [one.high - one.mid if one.high is not None else 0 for _, one in mine],
            "arrayminus": [one.mid - one.low if one.low is not None else 0 for _, one in mine],
            "thickness": 1.2 if many else 2.4,
            "width": 0 if many else 5,
        },
        "mode": "markers",
        "marker": {
            "color": colour,
            "symbol": "circle-open" if mine[0][1].low is None else "circle",
            "size": 6 if many else 11,
        },
        "customdata": [[_plain(_hover(panel, one))] for _, one in mine],
        "hovertemplate": "%{customdata[0]}<extra></extra>",
    }


def _rows_axis(ends: Sequence[float], rows: int, ticks: Sequence[float], texts: Sequence[str]) -> dict[str, Any]:
    return {
        "domain": list(ends),
        "range": [rows - 0.5, -0.5],
        "tickvals": list(ticks),
        "ticktext": list(texts),
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "ticksuffix": "  ",
    }


def _ratio_axis(chart: Chart) -> dict[str, Any]:
    low, high = _range(chart)
    ticks = _ticks(low, high)
    over = "times the bare process of the same run on the same machine"
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "tickvals": list(ticks),
        "ticktext": [f"{tick:,.10g}x" for tick in ticks],
        "title": over if chart.over_control else "ratio, as measured",
        "fixedrange": True,
        "anchor": f"y{len(chart.panels)}" if len(chart.panels) > 1 else "y",
    }


def _title(panel: Panel, top: float) -> dict[str, Any]:
    return {
        "text": f"<b>{_plain(panel.label)}</b>",
        "x": 0,
        "xref": "x domain",
        "xanchor": "left",
        "y": top,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
    }


def _hover(panel: Panel, one: Point) -> str:
    told = series.times(stats.Ratio(value=one.mid, low=one.low, high=one.high))
    interval = "" if one.low is not None else ", no interval below n = 6"
    who = f"{one.name}, machine {one.tag}" if one.name else f"machine {one.tag}"
    return f"{panel.label}: {told}, n = {one.n}{interval}; {who}, {one.cpu}, run {one.run_id}"


def _range(chart: Chart) -> tuple[float, float]:
    shown = [one for panel in chart.panels for one in panel.points]
    low = min(one.low if one.low is not None else one.mid for one in shown)
    high = max(one.high if one.high is not None else one.mid for one in shown)
    if chart.over_control:
        low, high = min(low, 1.0), max(high, 1.0)
    margin = (high / low) ** 0.04 if high > low else 1.5
    return low / max(margin, 1.05), high * max(margin, 1.05)


def _ticks(low: float, high: float) -> Sequence[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = _STEPS if math.log10(high / low) < _FEW_DECADES else (1,)
    return [found for power in decades for step in steps if low <= (found := step * 10.0**power) <= high] or [low, high]


def _line(axis: str, *, colour: str, across: float | None = None, down: int = 0) -> dict[str, Any]:
    """A line across a panel between two CPU models, or one down all its rows at the control itself."""
    xref, x, y = ("x", (1, 1), (-0.5, down - 0.5)) if across is None else ("x domain", (0, 1), (across, across))
    return {
        "type": "line",
        "xref": xref,
        "x0": x[0],
        "x1": x[1],
        "yref": f"y{axis}",
        "y0": y[0],
        "y1": y[1],
        "layer": "below",
        "line": {"color": colour, "dash": "dot" if across is None else "solid", "width": 1.5},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(printable(text)).replace("%{", "%\u200b{")
