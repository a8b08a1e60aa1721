"""A lesson's words, in Markdown: a file for each language, `text.LANGUAGE.md`, with the same sections.

`# Title` and what follows is the introduction. `## ID: Title` begins the step ID with its question, in which the
choices of a multiple choice are lines "- `a`: …". Below it, `### why: Title`, `### wrong: Title` and `### sources:
Title` are the explanation, what others usually get wrong, and where it is from. `## without-docker: Title` says what a
machine without the driver `docker` loses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

WITHOUT = "without-"
PARTS = ("why", "wrong", "sources")

_HEADING = re.compile(r"(#{1,3})\s+(.*)")
_NAMED = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)\s*:\s*(.+)")
_CHOICE = re.compile(r"^\s*[-*] `([a-z0-9]+)`: ", re.MULTILINE)
_FENCE = re.compile(r"\s*(```|~~~)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What is said of one step, or of a machine without a driver. `parts` are those of PARTS, each title and text."""

    title: str
    question: str
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def choices(self) -> list[str]:
        """Those that the question offers."""
        return _CHOICE.findall(self.question)

    @property
    def words(self) -> int:
        """How many there are to read."""
        told = [self.title, self.question, *(word for part in self.parts.values() for word in part)]
        return sum(len(one.split()) for one in told)

    @property
    def before(self) -> int:
        """How many of them are read before the step is done."""
        return len(f"{self.title} {self.question}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonText:
    """All of a lesson in one language."""

    title: str
    introduction: str
    sections: Mapping[str, Section]


def parse(markdown: str) -> LessonText:
    """Raises ValueError, which says in one line what is wrong, and where."""
    title, introduction = "", ""
    found: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {}
    at = ""
    for level, number, heading, text in _blocks(markdown):
        if level <= 1:
            if level == 1 and title:
                raise ValueError(f"line {number}: there is one '# Title' only")
            title, introduction = title or heading, "\n\n".join(filter(None, (introduction, text)))
            continue
        named = _NAMED.fullmatch(heading)
        if named is None:
            example = "## ID: Title" if level == 2 else "### why: Title"
            raise ValueError(f"line {number}: '{heading}' has no name: write '{example}'")
        name, told = named.groups()
        if level == 2:
            if name in found:
                raise ValueError(f"line {number}: the section '{name}' is there twice")
            found[name], at = (told, text, {}), name
        elif not at or name not in PARTS:
            raise ValueError(f"line {number}: '{name}' is none of {', '.join(PARTS)} below a step")
        else:
            found[at][2][name] = (told, text)
    if not title:
        raise ValueError("it has no '# Title'")
    sections = {name: Section(title=told, question=text, parts=parts) for name, (told, text, parts) in found.items()}
    return LessonText(title=title, introduction=introduction, sections=sections)


def _blocks(markdown: str) -> Iterator[tuple[int, int, str, str]]:
    """Each heading of the first three levels with what stands below it: level, line, heading, text."""
    level, number, heading = 0, 1, ""
    lines: list[str] = []
    fenced = False
    for place, line in enumerate(markdown.splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        begun = None if fenced else _HEADING.fullmatch(line.rstrip())
        if begun is None:
            lines.append(line.rstrip())
            continue
        if heading or any(lines):
            yield level, number, heading, "\n".join(lines).strip()
        level, number, heading, lines = len(begun[1]), place, begun[2].strip(), []
    if heading or any(lines):
        yield level, number, heading, "\n".join(lines).strip()
