"""What a whole guest's console shows of its boot: each phase where a line shows it, and when a login may be tried."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from lab.timeline import Phase

_DECORATION = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")
_SHOWS = (
    # initramfs-tools' first word; the kernel's own, where its messages of level 6 are shown.
    (Phase.INIT, re.compile(rb"^Loading, please wait\.\.\.|Run /\S+ as init process$")),
    (Phase.USERSPACE, re.compile(rb"^Welcome to |systemd\[1\]: systemd \d+.* running in system mode")),
    (Phase.SSHD, re.compile(rb"Started (?:sshd?\.service|OpenBSD Secure Shell server|OpenSSH server)")),
    (Phase.SETTLED, re.compile(rb"lab-guest settled (\S*)$")),
)
_NETWORK = re.compile(rb"Reached target (?:network-online\.target|Network is Online)")
_ENDING = re.compile(rb"Stopped target |Reached target (?:\S*shutdown\.target|\S*umount\.target)|reboot: Power down")
_UNIT_ENDED = re.compile(rb"lab-guest unit (exited|killed|dumped) (\S+)$")
_UNIT_FAILED = re.compile(rb"\[FAILED\] Failed to start (.+)$")


class Progress:
    """Told each line, from the console's thread. `reachable` is set once sshd is up and has a network, `settled` once
    systemd says that the boot is finished, `ending` once it is seen to shut down."""

    def __init__(self, unit_ended: Callable[[str, str], None] = lambda _how, _status: None) -> None:
        """`unit_ended` gets systemd's $EXIT_CODE and $EXIT_STATUS of the service's unit, each time that it ends."""
        self.reachable = threading.Event()
        self.settled = threading.Event()
        self.ending = threading.Event()
        self.state = ""
        self._unit_ended = unit_ended
        self._seen: set[Phase] = set()
        self._network = False

    def shown(self, raw: bytes) -> Phase | None:
        """The phase that this line is the first to show, if any."""
        line = _DECORATION.sub(b"", raw)
        found = None
        for phase, pattern in _SHOWS:
            if phase not in self._seen and (match := pattern.search(line)):
                self._seen.add(phase)
                found = phase
                if phase is Phase.SETTLED:
                    self.state = match[1].decode(errors="replace")
                    self.settled.set()
        self._network |= _NETWORK.search(line) is not None
        # Where the console is silent on units, the end of the boot is what there is to wait for.
        if (Phase.SSHD in self._seen and self._network) or self.settled.is_set():
            self.reachable.set()
        if _ENDING.search(line):
            self.ending.set()
        if ended := _UNIT_ENDED.search(line):
            self._unit_ended(ended[1].decode(), ended[2].decode(errors="replace"))
        return found
