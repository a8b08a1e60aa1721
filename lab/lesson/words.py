"""What the lab says in a lesson, in the student's language: gettext's catalogues, locale/LANGUAGE.po, as they are.

The English sentence is the key. A catalogue without it, or a language without a catalogue, gives it as it is.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

LOCALE = Path(__file__).parent / "locale"
ENGLISH = "en"

_CODE = re.compile(r"[a-z]{2,3}")
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""In the order in which gettext(3) looks at them."""


class Words:
    """Sentences in one language."""

    def __init__(self, language: str = ENGLISH) -> None:
        self.language = language
        self._told = catalogue(language)

    def __call__(self, sentence: str, /, **values: object) -> str:
        """The sentence with its {places} filled."""
        told = self._told.get(sentence) or sentence
        return told.format(**values) if values else told


def languages() -> list[str]:
    """Those that the lab itself speaks in lessons."""
    return sorted({ENGLISH, *(path.stem for path in LOCALE.glob("*.po"))})


def from_environment(environment: Mapping[str, str] | None = None) -> list[str]:
    """The languages that the user's environment asks for, the dearest first: `de_DE.UTF-8` is `de`."""
    known = os.environ if environment is None else environment
    for name in _VARIABLES:
        if value := known.get(name, ""):
            codes = [re.split(r"[_.@-]", part)[0].lower() for part in value.split(":")]
            return [code for code in codes if _CODE.fullmatch(code)]
    return []


@lru_cache
def catalogue(language: str) -> Mapping[str, str]:
    """By English sentence, that of the language; empty where there is no catalogue."""
    path = LOCALE / f"{language}.po"
    if not _CODE.fullmatch(language) or not path.is_file():
        return {}
    return {key: told for key, told in entries(path.read_text("utf-8")) if key and told}


def entries(text: str) -> Iterator[tuple[str, str]]:
    """The entries of a .po file without plurals and contexts, which the lab's have none of: key and translation. Those
    that are marked fuzzy are left out, as gettext's own tools do. Raises ValueError, which names the line."""
    parts: dict[str, str] = {}
    at, fuzzy, next_is_fuzzy = "", False, False
    for number, raw in enumerate([*text.splitlines(), 'msgid ""'], start=1):
        line = raw.strip()
        if line.startswith("#,") and "fuzzy" in line:
            next_is_fuzzy = True
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ") if not line.startswith('"') else ("", "", line)
        if word == "msgid":
            if "msgstr" in parts and not fuzzy:
                yield parts["msgid"], parts["msgstr"]
            parts, fuzzy, next_is_fuzzy = {}, next_is_fuzzy, False
        if word not in ("", "msgid", "msgstr") or (not word and not at):
            raise ValueError(f"line {number}: '{word or line}' is not looked for here")
        at = word or at
        try:
            said = ast.literal_eval(rest)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"line {number} holds no text in quotes") from error
        parts[at] = parts.get(at, "") + str(said)
