"""A byte stream cut into lines as it arrives."""

from __future__ import annotations

_LONGEST_BYTES = 65_536


class Lines:
    """Gives each line as soon as its end has arrived; a line longer than 64 KiB is given in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) >= _LONGEST_BYTES:
            lines.append(rest)
            rest = b""
        self._rest = rest
        return [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """What is left without an end, now that the stream has ended."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
