"""The report's charts, as Plotly figures. Plotly is imported on use."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lab import figures, stats
from lab.figures import Series

COLOURS = {  # of a step, by the phase that ends it: told apart also by those who see fewer colours (Okabe and Ito)
    "kernel": "#999999",
    "init": "#0072B2",
    "main": "#56B4E9",
    "listening": "#CC79A7",
    "ready": "#009E73",
}
_OTHER_COLOUR = "#E69F00"
_POINT = "#0072B2"
_ROW_PX = 54
_AROUND_PX = 110
_LOG_SPAN = 10.0
"""Targets whose medians lie further apart than this are drawn on a logarithmic axis."""


def phases(rows: Sequence[Series], targets: Sequence[str]) -> Any:
    """One bar a target, its service chain's steps by their share of its own whole."""
    import plotly.graph_objects as go

    figure = go.Figure()
    chains = [figures.chain(rows, target, figures.SERVICE) for target in targets]
    named = set()
    for steps in chains:
        whole = sum(step.median for step in steps)
        if whole <= 0:
            continue
        title = _plain(f"{steps[0].series.label}, {figures.quantity(whole, 's')}")
        for step in steps:
            part = step.median / whole
            told = f"{step.start} → {step.end}: {figures.quantity(step.median, 's')}"
            figure.add_bar(
                x=[100 * part],
                y=[title],
                orientation="h",
                name=f"until {step.end}",
                legendgroup=step.end,
                legendrank=list(COLOURS).index(step.end) if step.end in COLOURS else len(COLOURS),
                showlegend=step.end not in named,
                marker={"color": COLOURS.get(step.end, _OTHER_COLOUR), "line": {"color": "white", "width": 1}},
                text=figures.quantity(step.median, "s") if part > 0.08 else "",
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{_plain(told)}<extra></extra>",
            )
            named.add(step.end)
    figure.update_layout(
        **_layout(len(chains)),
        barmode="stack",
        xaxis={"title": "share of the target's own median time (%)", "range": [0, 100], "fixedrange": True},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    )
    return figure


def distributions(rows: Sequence[Series]) -> Any:
    """Every value of each row as a point beside its box; times are in the unit that suits the axis."""
    import plotly.graph_objects as go

    medians = [stats.estimate(row.values).median for row in rows]
    wide = min(medians) > 0 and max(medians) / min(medians) > _LOG_SPAN and all(min(row.values) > 0 for row in rows)
    factor, unit = figures.scale(min(medians) if wide else max(medians), rows[0].unit)
    figure = go.Figure()
    for row in rows:
        name = " ".join([row.label, *(f"{k}={v}" for k, v in row.dimensions.items() if k != figures.WAIT_METHOD)])
        figure.add_box(
            x=[value / factor for value in row.values],
            name=_plain(name),
            orientation="h",
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            fillcolor="rgba(0,114,178,0.12)",
            line={"color": "#44506a", "width": 1},
            marker={"color": _POINT, "size": 5, "opacity": 0.7},
            showlegend=False,
            hovertemplate=f"%{{x:.4g}} {_plain(unit)}<extra></extra>",
        )
    axis: dict[str, Any] = {"title": f"{_plain(rows[0].metric)} ({_plain(unit)}{', logarithmic' if wide else ''})"}
    axis |= {"type": "log", "dtick": 1} if wide else {"rangemode": "tozero"}
    figure.update_layout(**_layout(len(rows)), xaxis=axis)
    return figure


def _layout(rows: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": _AROUND_PX + _ROW_PX * rows,
        "margin": {"l": 10, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1c2330"},
        "yaxis": {"automargin": True, "autorange": "reversed", "fixedrange": True, "ticksuffix": "  "},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
