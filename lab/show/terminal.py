"""What a terminal, a pipe or a file of any encoding is given."""

from __future__ import annotations

import codecs
from typing import TextIO

_PLAIN = str.maketrans(
    {
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{CHECK MARK}": "ok",
        "\N{BALLOT X}": "no",
        "\N{MIDDLE DOT}": "-",
        "\N{BULLET}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{PLUS-MINUS SIGN}": "+/-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{MICRO SIGN}": "u",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{BOX DRAWINGS LIGHT HORIZONTAL}": "-",
        "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "=",
        "\N{FULL BLOCK}": "#",
        **dict(zip("▁▂▃▄▅▆▇", "_.,-=+*", strict=True)),
        "\N{LIGHT SHADE}": ".",
        "\N{MEDIUM SHADE}": ":",
        "\N{DARK SHADE}": "%",
        "\N{QUADRANT UPPER LEFT AND LOWER RIGHT}": "*",
        "\N{QUADRANT UPPER RIGHT AND LOWER LEFT}": "+",
    }
)
"""What stands for a character that an encoding lacks; `?` for any other."""


def printable(text: str) -> str:
    """`text` with nothing in it that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def take_any_text(*streams: TextIO) -> None:
    """Let no character that a stream's encoding lacks end the program: another stands for it."""
    codecs.register_error("lab.plain", _plain)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # not of what a test or a caller put in its place
        if reconfigure is not None:
            reconfigure(errors="lab.plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    told = lacking.translate(_PLAIN).encode(error.encoding, "replace")
    return told, error.end
