"""The lab's own sentences in lessons: every one is there in German, with the same places."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lesson.mistakes import all_told
from lab.lesson.record import Mistake
from lab.lesson.words import LOCALE, Words, catalogue, entries, from_environment, languages

ROOT = Path(__file__).parents[3]


def sentences() -> Iterator[str]:
    """The literals of each call of `words(...)`, and the sentences of mistakes."""
    for folder in ("lab/lesson", "lab/cli/lesson"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args:
                    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    if called == "words" and isinstance(node.args[0], ast.Constant):
                        yield node.args[0].value
    yield from all_told().values()


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_every_mistake_has_its_sentence() -> None:
    assert set(all_told()) == set(Mistake)


@pytest.mark.parametrize("path", sorted(LOCALE.glob("*.po")), ids=lambda path: path.stem)
def test_every_sentence_is_in_the_catalogue_and_no_other(path: Path) -> None:
    told = dict(entries(path.read_text("utf-8")))
    assert told.pop("")
    wanted = set(sentences())
    assert len(wanted) > 100
    assert sorted(wanted - set(told)) == []
    assert sorted(set(told) - wanted) == []
    assert not [key for key, said in told.items() if places(key) != places(said) or not said.strip()]


def test_words_are_given_in_the_language_and_else_in_english() -> None:
    assert languages() == ["de", "en"]
    assert Words("de")("expected") == "erwartet"
    assert Words("de")("no such sentence {n}", n=3) == "no such sentence 3"
    assert Words("fr")("expected") == Words("../de")("expected") == "expected"
    assert catalogue("..") == {}


def test_a_catalogue_is_read_as_gettext_writes_it() -> None:
    text = '# c\nmsgid ""\nmsgstr ""\n"Language: de\\n"\n\n#: a.py:1\nmsgid "a \\"b\\""\nmsgstr "x"\n" y"\n'
    text += '#, fuzzy\nmsgid "f"\nmsgstr "g"\n\n#~ msgid "old"\nmsgid "c"\nmsgstr ""\n'
    assert list(entries(text)) == [("", "Language: de\n"), ('a "b"', "x y"), ("c", "")]
    for wrong in ('msgid "a"\nmsgstr nothing\n', 'msgid_plural "a"\n', '"a"\n'):
        with pytest.raises(ValueError, match=r"line [12]"):
            list(entries(wrong))


@pytest.mark.parametrize(
    ("environment", "codes"),
    [
        ({"LANG": "de_DE.UTF-8"}, ["de"]),
        ({"LANGUAGE": "fr:de_AT", "LANG": "en_US"}, ["fr", "de"]),
        ({"LANG": "C"}, []),
        ({}, []),
        ({"LC_ALL": "de@euro", "LANG": "en"}, ["de"]),
    ],
)
def test_the_environment_tells_the_language(environment: dict[str, str], codes: list[str]) -> None:
    assert from_environment(environment) == codes
