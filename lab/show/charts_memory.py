"""The report's charts of memory: by role, and by number of instances. Plotly is imported on use."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import density, series, stats
from lab.figures.series import Series
from lab.host.memory import TB_CACHE
from lab.store.record import RunRecord
from lab.units import MIB

COLOURS = {  # of a role: told apart also by those who see fewer colours (Okabe and Ito)
    "service": "#009E73",
    "shim": "#56B4E9",
    "vmm": "#0072B2",
    TB_CACHE: "#D55E00",
    "proxy": "#CC79A7",
    "helper": "#E69F00",
}
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_INK = "#1c2330"
_ROW_PX = 54
_AROUND_PX = 120
_CURVES_PX = 460


def roles(record: RunRecord, rows: Sequence[Series], after: str) -> Any:
    """One bar a target, stacked by role, of the medians `after` an instant."""
    import plotly.graph_objects as go

    shown = [row for row in rows if row.metric == "role_pss_bytes" and row.dimensions["after"] == after]
    titles = {row.target: _plain(title(record, row)) for row in shown}
    figure = go.Figure()
    known = [*COLOURS, *sorted({row.dimensions["role"] for row in shown} - set(COLOURS))]
    for role in known:
        mine = [row for row in shown if row.dimensions["role"] == role]
        if not mine:
            continue
        medians = [stats.estimate(row.values).median for row in mine]
        figure.add_bar(
            x=[median / MIB for median in medians],
            y=[titles[row.target] for row in mine],
            orientation="h",
            name=_plain(role),
            marker={"color": COLOURS.get(role, "#999999"), "line": {"color": "white", "width": 1}},
            customdata=[[units.quantity(m, "bytes"), len(row.values)] for m, row in zip(medians, mine, strict=True)],
            hovertemplate=f"{_plain(role)}: %{{customdata[0]}}, n = %{{customdata[1]}}<extra></extra>",
        )
    figure.update_layout(
        **_layout(_AROUND_PX + _ROW_PX * len(titles)),
        barmode="stack",
        xaxis={"title": "PSS (MiB)", "fixedrange": True},
        yaxis={"automargin": True, "autorange": "reversed", "fixedrange": True, "ticksuffix": "  "},
    )
    return figure


def curves(record: RunRecord, slopes: Sequence[Series]) -> Any:
    """Used memory over the number of instances: readings, and for each target the slope with its interval."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for place, row in enumerate(slopes):
        colour = _LINES[place % len(_LINES)]
        readings = density.points(record.samples, row.target)
        top = max((point.level for point in readings), default=0)
        found = stats.estimate(row.values)
        name = _plain(title(record, row))
        figure.add_scatter(
            x=[point.level for point in readings],
            y=[point.used_bytes / MIB for point in readings],
            mode="markers",
            name=name,
            legendgroup=row.target,
            marker={"color": colour, "size": 6, "opacity": 0.5},
            hovertemplate=f"{name}: %{{y:.1f}} MiB at N = %{{x}}<extra></extra>",
        )
        if found.low is not None and found.high is not None:
            figure.add_scatter(
                x=[0, top, top],
                y=[0, found.low * top / MIB, found.high * top / MIB],
                fill="toself",
                mode="lines",
                line={"width": 0},
                fillcolor=colour,
                opacity=0.18,
                legendgroup=row.target,
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=[0, top],
            y=[0, found.median * top / MIB],
            mode="lines",
            line={"color": colour, "width": 2, "dash": "solid" if density.resolved(found) else "dot"},
            name=f"{name}: {series.median(row, found)} each",
            legendgroup=row.target,
            hoverinfo="skip",
        )
    figure.update_layout(
        **_layout(_CURVES_PX),
        xaxis={"title": "instances", "rangemode": "tozero", "fixedrange": True},
        yaxis={"title": "more used than without (MiB)", "fixedrange": True},
    )
    return figure


def title(record: RunRecord, row: Series) -> str:
    """A row's target as a chart names it: an emulated VM's says that it is."""
    about = next((target for target in record.targets if target.target == row.target), None)
    emulated = about is not None and (about.info.get("qualifiers") or {}).get("accel") == "tcg"
    return f"{row.target}: emulated (TCG)" if emulated else row.label


def _layout(height: int) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 10, "r": 20, "t": 40, "b": 50},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": _INK},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }


def _plain(text: str) -> str:
    """`text` as Plotly's markup; a template's own brackets are not taken for one of its variables."""
    return html.escape(text).replace("%{", "%\u200b{")
