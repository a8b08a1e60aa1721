"""The report's charts, as Plotly figures. Plotly is imported on use."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import series, stats
from lab.figures.series import Series, Step

COLOURS = {  # of a step, by the phase that ends it: told apart also by those who see fewer colours (Okabe and Ito)
    "kernel": "#999999",
    "init": "#0072B2",
    "userspace": "#E69F00",
    "main": "#56B4E9",
    "listening": "#CC79A7",
    "ready": "#009E73",
    "handler": "#0072B2",
    "answer": "#009E73",
}
_DARK = frozenset({"init", "ready", "handler", "answer"})
_INK = "#1c2330"
_OTHER_COLOUR = "#E69F00"
_POINT = "#0072B2"
_ROW_PX = 54
_AROUND_PX = 110
_OWN_AXIS_PX = 100
_BETWEEN_PX = 42  # room for the axis below each
_NEAR = 5.0
"""Rows whose medians are within this factor share an axis."""


def phases(rows: Sequence[Series], targets: Sequence[str]) -> Any:
    """One bar a target, its service chain's steps by their share of its own whole."""
    chains = [series.chain(rows, target, series.SERVICE) for target in targets]
    return shares([(steps[0].series.label, steps) for steps in chains if steps])


def shares(bars: Sequence[tuple[str, Sequence[Step]]]) -> Any:
    """One bar for each name and its steps, each by its share of the bar's own whole, which is told beside the name."""
    import plotly.graph_objects as go

    figure = go.Figure()
    named = set()
    for name, steps in bars:
        whole = sum(step.median for step in steps)
        if whole <= 0:
            continue
        title = bar_title(name, whole)
        for step in steps:
            part = step.median / whole
            told = f"{step.start} → {step.end}: {units.quantity(step.median, 's')}"
            figure.add_bar(
                x=[100 * part],
                y=[title],
                orientation="h",
                name=f"until {step.end}",
                legendgroup=step.end,
                legendrank=list(COLOURS).index(step.end) if step.end in COLOURS else len(COLOURS),
                showlegend=step.end not in named,
                marker={"color": COLOURS.get(step.end, _OTHER_COLOUR), "line": {"color": "white", "width": 1}},
                text=units.quantity(step.median, "s") if part > 0.08 else "",
                textposition="inside",
                insidetextanchor="middle",
                insidetextfont={"color": "white" if step.end in _DARK else _INK},
                hovertemplate=f"{_plain(told)}<extra></extra>",
            )
            named.add(step.end)
    figure.update_layout(
        **_layout(len(bars)),
        barmode="stack",
        xaxis={"title": "share of the target's own median time (%)", "range": [0, 100], "fixedrange": True},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    )
    return figure


def bar_title(name: str, whole_s: float) -> str:
    """What a bar of `shares` is called."""
    return _plain(f"{name}, {units.quantity(whole_s, 's')}")


def growth(
    rows: Sequence[Series],
    targets: Sequence[str],
    *,
    metric: str = "kth_ready_s",
    what: str = "replicas that serve",
    first_apart: bool = True,
) -> Any:
    """One line a target: the median time until the k-th is there, by k, and its interval as bars. With `first_apart`
    the first was asked for by itself, and is a point beside its line."""
    import plotly.graph_objects as go

    figure = go.Figure()
    told = [row for row in rows if row.metric == metric]
    for target in targets:
        ways: dict[str, list[Series]] = {}
        for row in told:
            if row.target == target:
                ways.setdefault(" ".join([row.label, *_apart_by(row, "k", "rate", "replicas", "burst")]), []).append(
                    row
                )
        for title, line in ways.items():
            points = sorted((int(row.dimensions["k"]), stats.estimate(row.values)) for row in line)
            found = [estimate for _, estimate in points]
            gap = [None] * sum(first_apart and k == 1 for k, _ in points)
            figure.add_scatter(
                x=_parted([k for k, _ in points], gap),
                y=_parted([one.median for one in found], gap),
                error_y={
                    "type": "data",
                    "array": _parted([0 if one.high is None else one.high - one.median for one in found], gap),
                    "arrayminus": _parted([0 if one.low is None else one.median - one.low for one in found], gap),
                },
                mode="lines+markers",
                name=_plain(title),
                hovertemplate=f"{_plain(title)}, k=%{{x}}: %{{y:.4g}} s<extra></extra>",
            )
    figure.update_layout(
        **{key: value for key, value in _layout(6).items() if key != "yaxis"},
        xaxis={"title": f"k, {what}", "dtick": 1, "fixedrange": True},
        yaxis={"title": "s", "type": "log", "automargin": True, "fixedrange": True},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return figure


def awake(rows: Sequence[Series]) -> Any:
    """A point for each state that a target woke from, and one for its cold boot: medians with their intervals, on one
    axis, where a factor has the same length everywhere."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [row for row in rows if row.metric == "wake_s"]
    boots = {row.target: row for row in rows if row.metric == "boot_s"}
    titles = [_plain(" ".join([row.label, *row.dimensions.values()])) for row in shown]
    colours = {"to wake": COLOURS["ready"], "its cold boot": _OTHER_COLOUR}
    for name, mine in (("its cold boot", [boots.get(row.target) for row in shown]), ("to wake", shown)):
        there = [(title, stats.estimate(row.values)) for title, row in zip(titles, mine, strict=True) if row]
        figure.add_scatter(
            x=[found.median for _, found in there],
            y=[title for title, _ in there],
            error_x={
                "type": "data",
                "array": [0 if found.high is None else found.high - found.median for _, found in there],
                "arrayminus": [0 if found.low is None else found.median - found.low for _, found in there],
            },
            mode="markers",
            name=name,
            marker={"color": colours[name], "size": 10},
            customdata=[[units.quantity(found.median, "s"), found.n] for _, found in there],
            hovertemplate=f"{name}: %{{customdata[0]}}, n = %{{customdata[1]}}<extra></extra>",
        )
    figure.update_layout(
        **_layout(len(shown)),
        xaxis={"title": "s", "type": "log", "fixedrange": True},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    return figure


def distributions(rows: Sequence[Series]) -> Any:
    """Every value of each row as a point over its box: on one axis where the medians are near each other, and else each
    row on its own, or nothing of its spread could be seen."""
    from plotly.subplots import make_subplots

    medians = [stats.estimate(row.values).median for row in rows]
    apart = len(rows) > 1 and (min(medians) <= 0 or max(medians) / min(medians) > _NEAR)
    axes = len(rows) if apart else 1
    figure = make_subplots(rows=axes, cols=1, vertical_spacing=_BETWEEN_PX / (_OWN_AXIS_PX * axes) if apart else 0)
    for place, row in enumerate(rows):
        factor, unit = units.scale(medians[place] if apart else max(medians), row.unit)
        figure.add_box(
            x=[value / factor for value in row.values],
            name=_plain(" ".join([row.label, *_apart_by(row)])),
            orientation="h",
            boxpoints="all",
            jitter=0.6,
            pointpos=0,
            fillcolor="rgba(0,114,178,0.12)",
            line={"color": "#44506a", "width": 1},
            marker={"color": _POINT, "size": 5, "opacity": 0.6},
            showlegend=False,
            hovertemplate=f"%{{x:.4g}} {_plain(unit)}<extra></extra>",
            row=place + 1 if apart else 1,
            col=1,
        )
        figure.update_xaxes(ticksuffix=f" {_plain(unit)}", nticks=8, row=place + 1 if apart else 1, col=1)
    layout = _layout(len(rows))
    if apart:
        layout["height"] = _AROUND_PX + _OWN_AXIS_PX * axes
    yaxis = layout.pop("yaxis")
    figure.update_layout(**layout)
    figure.update_yaxes(**yaxis)
    return figure


def _parted(values: Sequence[float], gap: Sequence[None]) -> list[float | None]:
    """`values` with `gap` after the first: Plotly draws no line across it."""
    return [*values[:1], *gap, *values[1:]]


def _apart_by(row: Series, *but: str) -> list[str]:
    return [f"{key}={value}" for key, value in row.dimensions.items() if key not in (series.WAIT_METHOD, *but)]


def _layout(rows: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": _AROUND_PX + _ROW_PX * rows,
        "margin": {"l": 10, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "yaxis": {"automargin": True, "autorange": "reversed", "fixedrange": True, "ticksuffix": "  "},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
