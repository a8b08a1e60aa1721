"""What the lab's pages are made of: one HTML file each that opens without a network, with nothing in it loaded from
anywhere. Every word that came from elsewhere (names, logs, facts) is escaped. Plotly's script is written into the file.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from typing import Any


def page(title: str, body: Sequence[str], *, language: str = "en") -> str:
    """The whole page; its parts are markup already."""
    shown = "\n".join(body)
    charts = _CHART in shown
    return _PAGE.format(
        title=text(title),
        language=text(language),
        plotly=f"<script>{_plotly()}</script>" if charts else "",
        body=(_NO_CHARTS if charts else "") + shown,
    )


def listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    """A heading above a list of sentences; nothing where there are none."""
    if lines:
        yield f"<h2>{text(title)}</h2><ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>"


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    figures_from: int = 2,
    marked: frozenset[tuple[int, int]] = frozenset(),
) -> str:
    """A table; `marked` are the cells (row, column) that a reader is to see first."""
    head = "".join(f"<th>{text(heading)}</th>" for heading in headings)
    body = []
    for line, row in enumerate(rows):
        cells = [
            f"<td{_class(place >= figures_from, (line, place) in marked)}>{text(str(cell))}</td>"
            for place, cell in enumerate(row)
        ]
        if len(row) < len(headings):  # words instead of figures
            cells[-1] = f'<td class="why" colspan="{len(headings) - len(row) + 1}">{text(str(row[-1]))}</td>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _class(figure: bool, marked: bool) -> str:
    return " class=n" if figure else " class=marked" if marked else ""


def details(title: str, inside: str, *, opened: bool = False) -> str:
    """What a reader opens by its title; `inside` is markup."""
    return f"<details{' open' if opened else ''}><summary>{text(title)}</summary>{inside}</details>"


def chart(name: str, figure: Any) -> str:
    """A figure of Plotly's; `name` is the only one of its kind on the page."""
    # Plotly draws labels as its own markup; `charts` escapes them, and this keeps the data from ending the script.
    data = figure.to_json().replace("<", "\\u003c").replace("&", "\\u0026")
    return (
        f'<div id="{name}" {_CHART}></div><script>{{document.getElementById("no-charts")?.remove();const f = {data};'
        f'Plotly.newPlot("{name}", f.data, f.layout, {{responsive: true, displayModeBar: false}});}}</script>'
    )


def text(words: str) -> str:
    """Words as markup, with nothing in them that a browser would obey."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in words)
    return html.escape(shown)


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # No script may hold the text that ends a script.
    return str(get_plotlyjs()).replace("</script", "<\\/script")


_CHART = 'class="chart"'
_NO_CHARTS = """<p id="no-charts" class="why">Charts are drawn by a script within this page, and here no script ran: the
browser forbids it, or the server that gave this page does (by its Content-Security-Policy, as Jenkins has one). All
figures are in the tables; for the charts, save this file and open it from disk.</p>
"""
_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1c2330; background: #fff; max-width: 1080px; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .25rem; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .25rem; }}
p {{ margin: .25rem 0 .75rem; }}
.question {{ font-size: 1.1rem; color: #44506a; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e3e7ee; vertical-align: top; }}
th {{ border-bottom: 2px solid #b9c2d0; font-weight: 600; white-space: nowrap; }}
td.n {{ white-space: pre; }}
td.marked {{ background: #fff4d6; }}
p.why, td.why {{ color: #9a3412; }}
td {{ overflow-wrap: anywhere; min-width: 3rem; }}
td:first-child {{ min-width: 9rem; }}
details {{ margin: .5rem 0; }}
summary {{ cursor: pointer; overflow-wrap: anywhere; }}
@media print {{ body {{ margin: 0; font-size: 12px; }} h2 {{ break-after: avoid; }}
  tr, svg {{ break-inside: avoid; }} }}
pre {{ background: #f5f7fa; padding: .75rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }}
</style>
{plotly}
</head>
<body>
{body}
</body>
</html>
"""
