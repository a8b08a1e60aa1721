"""The page's own pages: markup, with every word that came from elsewhere escaped. Nothing is in it that the policy of
lab/web/guard.py would not run: no script and no style but from files of the lab's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from lab import units
from lab.errors import with_remedy
from lab.show.page import table, text
from lab.show.why import WHY
from lab.timeline import ENGINE_CHAIN, SERVICE_CHAIN, Phase
from lab.web.commands import MOST_ROUNDS, typed

_VIEWS = (("./", "Race"), ("runs", "Runs"), ("history", "History"), ("doctor", "Doctor"))
_RACED = tuple(dict.fromkeys((*SERVICE_CHAIN, *ENGINE_CHAIN)))


def whole(title: str, body: str, *, at: str, script: bool = False) -> str:
    """A page of the lab's; `at` is the view that it belongs to."""
    links = "".join(
        f'<li><a href="{place}"{" aria-current=page" if name == at else ""}>{name}</a></li>' for place, name in _VIEWS
    )
    scripts = '<script type="module" src="static/race.js"></script>' if script else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)} · Stratalab</title>
<link rel="icon" href="static/icon.svg">
<link rel="stylesheet" href="static/page.css">
{scripts}</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><span class="name">Stratalab</span><nav aria-label="Views"><ul>{links}</ul></nav></header>
<main id="main" tabindex="-1">
{body}
</main>
</body>
</html>
"""


def race(targets: Sequence[Mapping[str, str]], scenarios: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> str:
    """The view of the race, which a script fills."""
    return whole("Race", f"{_RACE}{_ask(targets, scenarios, chosen)}{_PLAN}{_why()}", at="Race", script=True)


def runs(found: Sequence[Mapping[str, Any]]) -> str:
    """The stored runs, of which two can be chosen."""
    if not found:
        hint = 'start one at the <a href="./">race</a>, or type <code>lab run boot</code>'
        return whole("Runs", f"<h1>Runs</h1><p>No runs yet: {hint}.</p>", at="Runs")
    rows = []
    for number, run in enumerate(found):
        name = text(str(run["id"]))
        radios = "".join(
            f'<td><label><input type="radio" name="{side}" value="{name}"{" checked" if number == first else ""}'
            f' required><span class="unseen">{name} as {side.upper()}</span></label></td>'
            for side, first in (("a", min(1, len(found) - 1)), ("b", 0))
        )
        link = f'<th scope="row"><a href="run?id={quote(str(run["id"]), safe="")}">{name}</a></th>'
        host = run.get("host") or {}
        cells = [run["scenario"], _time(run["started_at"]), run["status"], host.get("name") or host.get("id") or ""]
        cells.append("; ".join([*(["accepted"] if run.get("accepted_at") else []), *_notes(run)]))
        rows.append(f"<tr>{radios}{link}{''.join(f'<td>{text(str(cell))}</td>' for cell in cells)}</tr>")
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("A", "B", "run", "scenario", "started (UTC)", "status", "host", "said")
    )
    body = f"""<h1>Runs</h1>
<p>The newest first. Open one by its name; to compare two, choose an <b>A</b> and a <b>B</b>.</p>
<form action="compare" method="get">
<p><button>Compare B with A</button></p>
<div class="wide" tabindex="0" role="region" aria-label="The stored runs"><table><thead><tr>{heads}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>
</form>
{_typed("runs")}"""
    return whole("Runs", body, at="Runs")


def run(name: str, framed: str) -> str:
    """One run: its report in a frame."""
    words = ("report", name, "--html", f"{name}.html")
    body = f"<h1>Run {text(name)}</h1>{_typed(*words)}{_frame(framed, f'Report of run {name}')}"
    return whole(f"Run {name}", body, at="Runs")


def history(scenarios: Sequence[str], chosen: str, framed: str) -> str:
    """The nights of a scenario, in a frame."""
    options = "".join(
        f"<option{' selected' if one == chosen else ''}>{text(one)}</option>" for one in dict.fromkeys(scenarios)
    )
    body = f"""<h1>History</h1>
<p>Each night judged by those before it.</p>
<form action="history" method="get" class="line"><label>Scenario <select name="scenario">{options}</select></label>
<button>Show</button></form>
"""
    if chosen:
        body += _typed("history", chosen, "--html", f"{chosen}.html") + _frame(framed, f"History of {chosen}")
    return whole("History", body, at="History")


def doctor(found: Mapping[str, Any]) -> str:
    """What works on this machine, and what mends the rest."""
    items = []
    for engine in found["engines"]:
        info = engine["info"]
        if info:
            qualifiers = [str(one) for one in info["qualifiers"].values()]
            said = ", ".join([f"{info['engine']} {info['version']}", str(info["isolation"]), *qualifiers])
            items.append(f'<li class="good"><b>{text(engine["name"])}</b> works: {text(said)}</li>')
        else:
            remedy = f"<pre>{text(engine['remedy'])}</pre>" if engine["remedy"] else ""
            items.append(
                f'<li class="bad"><b>{text(engine["name"])}</b> is not here: {text(engine["reason"])}{remedy}</li>'
            )
    weak = [with_remedy(one["text"], one["remedy"]) for one in found["warnings"]]
    body = f"<h1>Doctor</h1>{_typed('doctor')}<ul class=engines>{''.join(items)}</ul>"
    body += _listed("What makes figures weak here", weak) + _listed("This installation", found["installation"])
    return whole("Doctor", body, at="Doctor")


def compared(found: Mapping[str, Any]) -> str:
    """B against A."""
    a, b = str(found["a"]), str(found["b"])
    totals = [row for row in found["rows"] if row["can_alarm"] or not row["metric"]]
    phases = [row for row in found["rows"] if not row["can_alarm"] and row["metric"]]
    headings = ["target", "metric", "A", "B", "B / A", "p (Holm)", "difference"]
    links = "".join(
        f'<li>{side} = <a href="run?id={quote(one, safe="")}">{text(one)}</a></li>'
        for side, one in (("A", a), ("B", b))
    )
    verdict = "B is worse somewhere." if found["regression"] else "They differ." if found["alarm"] else ""
    body = f"<h1>Compared: {text(str(found['scenario']))}</h1>{_typed('compare', a, b)}<ul>{links}</ul>"
    body += f"<p class=verdict>{verdict or 'No total was seen to differ.'}</p>"
    body += f"<h2>Totals</h2><p>At most {found['alpha']:.0%} of comparisons of equals alarm.</p>"
    body += _scrolled(table(headings, [_compared_row(row) for row in totals]), "Totals")
    if phases:
        body += "<h2>What explains them</h2>" + _scrolled(
            table(headings, [_compared_row(row) for row in phases]), "Phases"
        )
    if found["differences"]:
        told = [[one["fact"], _plain(one["a"]), _plain(one["b"])] for one in found["differences"]]
        body += "<h2>What else differs</h2>" + _scrolled(table(["fact", "A", "B"], told), "Other differences")
    notes = [found["company"], found["hosts"], *found["warnings"]]
    body += _listed("What a reader must know", [one for one in notes if one])
    return whole("Compared", body, at="Runs")


def complaint(title: str, brief: str, *, at: str) -> str:
    """What could not be shown, and why."""
    return whole(title, f"<h1>{text(title)}</h1><pre class=why>{text(brief)}</pre>", at=at)


def _ask(targets: Sequence[Mapping[str, str]], scenarios: Sequence[Mapping[str, Any]], chosen: Sequence[str]) -> str:
    boxes: dict[str, list[str]] = {}
    for one in targets:
        name = text(str(one["target"]))
        checked = " checked" if one["target"] in chosen else ""
        boxes.setdefault(str(one["target"]).partition(":")[0], []).append(
            f'<label class=target><input type="checkbox" name="target" value="{name}"{checked}> <b>{name}</b> '
            f"<span>{text(str(one['about']))}</span></label>"
        )
    often = [box for group in boxes.values() for box in group if " checked" in box]
    rest = "".join(
        f"<fieldset><legend>{text(driver)}</legend>{''.join(other)}</fieldset>"
        for driver, group in boxes.items()
        if (other := [box for box in group if box not in often])
    )
    questions = "".join(
        f'<option value="{text(str(one["scenario"]))}"{" selected" if one["scenario"] == "boot" else ""}>'
        f"{text(str(one['scenario']))}: {text(str(one['question']))}</option>"
        for one in scenarios
    )
    return f"""<form id="ask" aria-labelledby="ask-title">
<h2 id="ask-title">Who races?</h2>
<fieldset class="often"><legend>Targets</legend>{"".join(often)}</fieldset>
<details><summary>More targets</summary><div class="more">{rest}</div></details>
<div class="line">
<label>Rounds <input type="number" name="rounds" min="1" max="{MOST_ROUNDS}" value="10" required></label>
<label class="long">Question <select name="scenario">{questions}</select></label>
<button>Show the plan</button></div>
</form>
"""


def _why() -> str:
    lines = "".join(
        f'<div class="why-{phase.value}"><dt><span class="swatch phase-{phase.value}"></span>{phase.value}</dt>'
        f"<dd><b>{_marked(WHY[phase].what)}</b> {_marked(WHY[phase].why)}</dd></div>"
        for phase in _RACED
        if phase is not Phase.REQUESTED
    )
    return f"""<section aria-labelledby="why-title"><h2 id="why-title">Why does it take that long?</h2>
<p>Everything counts from <b>requested</b>: {_marked(WHY[Phase.REQUESTED].what)} {_marked(WHY[Phase.REQUESTED].why)}</p>
<dl class="why-list">{lines}</dl></section>"""


def _marked(words: str) -> str:
    """Words with `code`."""
    return "".join(f"<code>{text(part)}</code>" if odd % 2 else text(part) for odd, part in enumerate(words.split("`")))


def _frame(address: str, title: str) -> str:
    shown = text(address)
    return (
        f'<p><a href="{shown}" target="_blank" rel="noopener noreferrer">Open it alone</a></p>'
        f'<iframe src="{shown}" title="{text(title)}" sandbox="allow-scripts" referrerpolicy="no-referrer"></iframe>'
    )


def _typed(*words: str) -> str:
    return f"<p class=typed><span>The same, typed:</span> <code>{text(typed(words))}</code></p>"


def _listed(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<h2>{text(title)}</h2><ul>{items}</ul>" if items else ""


def _scrolled(markup: str, title: str) -> str:
    """A table that is scrolled by keyboard, too."""
    return markup.replace(
        '<div class="wide">', f'<div class="wide" tabindex="0" role="region" aria-label="{text(title)}">', 1
    )


def _compared_row(row: Mapping[str, Any]) -> list[str]:
    sides = []
    for side in ("a", "b"):
        found, share = row[side], row[f"share_{side}"]
        shown = "" if found is None else units.quantity(found["median"], row["unit"])
        sides.append(shown if found is None or share is None else f"{share * found['n']:.0f} of {found['n']}")
    ratio, p = row["ratio"], row["p_corrected"]
    times = "" if ratio is None else f"{units.digits(ratio['value'])}x"
    if ratio is not None and ratio["low"] is not None:
        times += f" ({units.between(ratio['low'], ratio['high'])})"
    chance = "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return [row["target"], row["name"] or row["metric"], *sides, times, chance, row["reason"] or row["verdict"]]


def _notes(run: Mapping[str, Any]) -> list[str]:
    return [str(note["text"]) for note in run.get("notes", ())][-1:]


def _plain(value: object) -> str:
    return "absent" if value is None else str(value)


def _time(iso: object) -> str:
    return str(iso).replace("T", " ")[:19]


_RACE = """<h1>The race</h1>
<p class="lead" id="lead">The same service, launched on one target after the other. Who serves the first
request, and where does the time go?</p>
<noscript><p class="why">This view is drawn by a script, and here none runs. The other views need none.</p></noscript>
<p id="status">Connecting …</p>
<p id="announced" class="unseen" role="status"></p>
<p id="trouble" class="why" role="alert"></p>
<section id="race" aria-labelledby="race-title" hidden>
<div class="line apart"><h2 id="race-title">On the track</h2>
<label><input type="checkbox" id="own"> Each bar its own whole</label>
<button id="stop" class="quiet">Stop the run</button></div>
<ol id="lanes"></ol>
<p id="axis" class="axis"></p>
</section>
<section id="podium" aria-labelledby="podium-title" hidden>
<h2 id="podium-title">The podium</h2>
<p id="podium-waits"></p>
<ol id="places"></ol>
<ul id="podium-notes"></ul>
</section>
<section id="told" aria-labelledby="told-title" hidden>
<h2 id="told-title">What the run said</h2>
<ul id="problems"></ul>
<p class="typed"><span>Typed:</span> <code id="told-typed"></code></p>
<p id="told-report"></p>
<details><summary>All that it printed</summary><pre id="told-text" tabindex="0"></pre></details>
</section>
"""
_PLAN = """<section id="plan" aria-labelledby="plan-title" hidden>
<h2 id="plan-title" tabindex="-1">The plan</h2>
<ul id="plan-told"></ul>
<p class="typed"><span>It is this command, an ordinary one:</span> <code id="plan-typed"></code></p>
<div class="line"><button id="start">Start</button> <button id="drop" class="quiet">Not this</button></div>
</section>
"""
