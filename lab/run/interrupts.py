"""Ends that a user or the machine asks for: Ctrl-C, `kill`, a closed terminal or a connection that dropped.

All are one: what was measured is kept, and what was made is removed. Under nohup, SIGHUP is nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While it is entered, the first signal raises KeyboardInterrupt in the main thread, unless the cleaning has begun;
    later ones call `on_later` and disturb nothing."""

    def __init__(self, on_later: Callable[[], None] = lambda: None) -> None:
        self._on_later = on_later
        self._held = False
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup(1) asked for it
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on nothing interrupts."""
        self._held = True
        self._keep_hangups_from_children()

    def check(self) -> None:
        """Raise again what an error on its way out has taken the place of."""
        if self._asked:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        if self._held:
            self._on_later()
            return
        self._held = self._asked = True
        self._keep_hangups_from_children()
        raise KeyboardInterrupt

    def _keep_hangups_from_children(self) -> None:
        """A terminal that goes away hangs up once, and the shell in it another time: the programs that are removing
        things by then would die of that. An ignored signal is ignored by what is started, too (execve(2))."""
        if signal.SIGHUP in self._previous:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
