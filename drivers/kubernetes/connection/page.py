"""One page of a listing, whose objects are read one after the other: 500 pods at once would be 15 MB of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


class Page:
    """The JSON `text` of a List. `metadata` is there once the objects have been read, with an API's own order of keys
    before that. Reading raises ValueError where it is no list."""

    def __init__(self, text: str) -> None:
        self.metadata: Json = {}
        self._text = text

    def __iter__(self) -> Iterator[Json]:
        at = self._expect("{", 0)
        while self._text[at : at + 1] != "}":
            key, at = self._value(at)
            at = self._expect(":", at)
            if key == "items" and self._text[at : at + 1] == "[":
                at = self._expect("[", at)
                while self._text[at : at + 1] != "]":
                    one, at = self._value(at)
                    yield one
                    at = self._after_one(at, "]")
                at = self._expect("]", at)
            else:
                value, at = self._value(at)
                if key == "metadata":
                    self.metadata = value
            at = self._after_one(at, "}")

    @property
    def version(self) -> str:
        """As of which the list is."""
        return str(self.metadata.get("resourceVersion") or "")

    @property
    def token(self) -> str:
        """By which the next page is asked for; empty after the last."""
        return str(self.metadata.get("continue") or "")

    def _value(self, at: int) -> tuple[Any, int]:
        value, end = _DECODER.raw_decode(self._text, at)
        return value, self._past_space(end)

    def _after_one(self, at: int, end: str) -> int:
        """Behind the comma, or at `end`."""
        return at if self._text[at : at + 1] == end else self._expect(",", at)

    def _expect(self, letter: str, at: int) -> int:
        at = self._past_space(at)
        if self._text[at : at + 1] != letter:
            raise ValueError(f"no list of Kubernetes: {self._text[at : at + 20]!r} where '{letter}' belongs")
        return self._past_space(at + 1)

    def _past_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at
