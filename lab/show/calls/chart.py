"""The report's chart of a function's calls: cold, first and warm by phase, and what its platform showed meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab import units
from lab.figures import series, stats
from lab.figures.series import Series
from lab.show import charts
from lab.show.calls.table import KINDS, shown_of

_SYMBOLS = {"created": "diamond-open", "started": "circle-open", "polled": "square-open"}


def calls(rows: Sequence[Series], targets: Sequence[str]) -> Any:
    """One bar for each target and kind of call, its steps by their share of its own whole; a mark where the platform
    showed an instant of the new worker, which is of another chain and no part of the bar."""
    bars, marks = [], []
    for target in targets:
        for kind in KINDS:
            steps = series.call_chain(rows, target, kind)
            whole = sum(step.median for step in steps)
            if whole > 0:
                name = f"{steps[0].series.label} {kind}"
                bars.append((name, steps))
                marks += [(charts.bar_title(name, whole), whole, row) for row in shown_of(rows, target, kind)]
    figure = charts.shares(bars)
    named = set()
    furthest = 100.0
    for title, whole, row in marks:
        phase = row.dimensions["to"]
        median = stats.estimate(row.values).median
        furthest = max(furthest, 100 * median / whole)
        figure.add_scatter(
            x=[100 * median / whole],
            y=[title],
            mode="markers",
            name=f"{phase}, as shown",
            legendgroup=f"shown {phase}",
            legendrank=2000,
            showlegend=phase not in named,
            marker={"symbol": _SYMBOLS.get(phase, "cross"), "size": 13, "color": "#1c2330", "line": {"width": 2}},
            hovertemplate=f"{phase}, as the platform showed it: {units.quantity(median, 's')}<extra></extra>",
        )
        named.add(phase)
    figure.update_xaxes(range=[0, furthest * 1.02 if furthest > 100 else 100])
    return figure
