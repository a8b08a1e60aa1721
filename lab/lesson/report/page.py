"""The report that a student hands in: one page with predictions, own figures and answers, which opens without a network
and holds the signed export. What it shows is made from the export; what counts is the export (`lab lesson verify`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from markdown_it import MarkdownIt

from lab import units
from lab.lesson.lesson import Lesson
from lab.lesson.mistakes import told
from lab.lesson.record import Figure, Progress, State, Step
from lab.lesson.report.handed_in import embedded
from lab.lesson.words import Words
from lab.show.page import page, table, text

_WIDTH, _ROW, _LEFT, _RIGHT = 720, 26, 250, 20


def render(lesson: Lesson, progress: Progress, words: Words, *, beside: Mapping[str, str]) -> str:
    """The page; `beside` tells by step what was measured of what was predicted."""
    words_of = lesson.text(words.language)
    title = f"{words_of.title}: {progress.student}" if progress.student else words_of.title
    body = [f"<h1>{text(title)}</h1>", *_about(progress, words)]
    for number, step in enumerate(progress.steps, start=1):
        body += _step(lesson, step, number, words, beside.get(step.id, ""))
    body += _figures(progress, words)
    body.append(embedded(progress))
    return page(title, body, language=words.language)


def _about(progress: Progress, words: Words) -> Iterator[str]:
    host = progress.host
    rows = [
        [words("points"), f"{progress.points:g} / {progress.max_points:g}"],
        [words("the machine"), " ".join(filter(None, (host.name, host.cpu_model, host.accel, f"({host.id})")))],
        [words("begun"), progress.started_at[:19]],
        [words("last worked on"), progress.updated_at[:19]],
        [words("lesson"), f"{progress.lesson} ({progress.lesson_digest}), lab {progress.lab_version}"],
    ]
    yield table([words("about"), ""], rows)


def _step(lesson: Lesson, step: Step, number: int, words: Words, beside: str) -> Iterator[str]:
    section = lesson.section(step.id, words.language)
    yield f"<h2>{number}. {text(section.title)}</h2>"
    yield _markdown(section.question)
    rows = [[words("state"), f"{_state(step.state, words)}, {step.points:g} / {step.max_points:g}"]]
    if step.predictions:
        rows.append([words("predicted"), f"{step.predictions[0].value} ({step.predictions[0].at[:19]})"])
        rows += [[words("later predicted"), f"{one.value} ({one.at[:19]})"] for one in step.predictions[1:]]
    if beside:
        rows.append([words("measured"), beside])
    rows += [[words("answered"), f"{one.value} ({one.at[:19]})"] for one in step.answers]
    if step.run_ids:
        rows.append([words("run"), ", ".join(step.run_ids)])
    if step.lost:
        rows.append([words("not on this machine"), step.lost])
    if step.state is not State.PASSED:
        rows += [[words("expected"), step.expected], [words("actual"), step.actual]]
    rows += [[words("mistake"), f"{told(one, words)} [{one}]"] for one in step.mistakes]
    yield table([words("about"), ""], rows)


def _figures(progress: Progress, words: Words) -> Iterator[str]:
    if not progress.figures:
        return
    yield f"<h2>{text(words('Own figures'))}</h2>"
    said = words("Medians with their 95 % intervals, out of the raw values of the stored runs; read-only.")
    yield f"<p>{text(said)}</p>"
    headings = [
        words("target"),
        words("metric"),
        "n",
        words("median"),
        words("95 % interval"),
        "x process",
        words("run"),
    ]
    rows = [
        [
            one.label,
            " ".join([one.metric, *(f"{key}={value}" for key, value in one.dimensions.items())]),
            one.n,
            units.quantity(one.mid, one.unit),
            "n < 6" if one.low is None or one.high is None else units.span(one.low, one.high, one.unit, like=one.mid),
            _relative(one),
            one.run_id,
        ]
        for one in progress.figures
    ]
    yield table(headings, rows)
    yield from _charts(progress.figures)
    signatures = [[one.run_id, one.label, one.metric, one.host_id, one.signature] for one in progress.figures]
    yield f"<h2>{text(words('Signatures'))}</h2>"
    yield table([words("run"), words("target"), words("metric"), words("the machine"), words("signature")], signatures)


def _relative(one: Figure) -> str:
    if one.relative is None:
        return ""
    found = f"{units.digits(one.relative.mid)}x"
    if one.relative.low is None or one.relative.high is None:
        return found
    return f"{found} ({units.between(one.relative.low, one.relative.high)})"


def _charts(figures: list[Figure]) -> Iterator[str]:
    """Of each run and metric a picture of intervals, on one axis from 0."""
    groups: dict[tuple[str, str], list[Figure]] = {}
    for one in figures:
        groups.setdefault((one.run_id, one.metric), []).append(one)
    for (run, metric), rows in groups.items():
        if len(rows) > 1:
            yield _chart(f"{metric}, {run}", rows)


def _chart(title: str, rows: list[Figure]) -> str:
    most = max(one.high if one.high is not None else one.mid for one in rows) or 1.0
    span = _WIDTH - _LEFT - _RIGHT
    height = _ROW * len(rows) + 8
    parts = []
    for place, one in enumerate(rows):
        y = _ROW * place + _ROW // 2 + 4
        low, high = (one.low, one.high) if one.low is not None and one.high is not None else (one.mid, one.mid)
        x = [_LEFT + span * value / most for value in (low, one.mid, high)]
        parts.append(
            f'<text x="0" y="{y + 4}" font-size="13">{text(one.label[:34])}</text>'
            f'<line x1="{x[0]:.1f}" x2="{x[2]:.1f}" y1="{y}" y2="{y}" stroke="#2f6db5" stroke-width="3"/>'
            f'<circle cx="{x[1]:.1f}" cy="{y}" r="4.5" fill="#1c2330"/>'
            f"<title>{text(f'{one.label}: {units.quantity(one.mid, one.unit)}')}</title>"
        )
    return (
        f'<p>{text(title)}</p><svg role="img" aria-label="{text(title)}" viewBox="0 0 {_WIDTH} {height}" '
        f'width="100%"><line x1="{_LEFT}" x2="{_LEFT}" y1="0" y2="{height}" stroke="#b9c2d0"/>{"".join(parts)}</svg>'
    )


def _state(state: State, words: Words) -> str:
    return {
        State.PASSED: words("passed"),
        State.FAILED: words("failed"),
        State.NOT_REACHED: words("not reached"),
        State.ERROR: words("error of the checker"),
        State.OPEN: words("open"),
    }[state]


def _markdown(source: str) -> str:
    """CommonMark without HTML, links and images: of a stranger's lesson nothing is obeyed or loaded."""
    reader = MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink", "reference"])
    return str(reader.render("".join(c if c.isprintable() or c in "\n\t" else " " for c in source)))
