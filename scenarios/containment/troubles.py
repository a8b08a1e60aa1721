"""The troubles, in the order in which they are made: what an instance is likely to survive comes first."""

from __future__ import annotations

from enum import StrEnum


class Trouble(StrEnum):
    """What goes wrong within one instance."""

    FILES = "files"
    DISK = "disk"
    CPU = "cpu"
    FORKS = "forks"
    MEMORY = "memory"
    KILL = "kill"
    PANIC = "panic"
    CLOCK = "clock"


TASKS = frozenset({Trouble.FILES, Trouble.DISK, Trouble.CPU, Trouble.FORKS, Trouble.MEMORY})
"""Those that a child of the service makes, which holds what it took until its own deadline."""

OF_A_GUEST = frozenset({Trouble.PANIC, Trouble.CLOCK})
"""Those that take a kernel of the instance's own."""

CLOCK_OFFSET_S = -86_400


def likely_s(seconds: int) -> float:
    """What a trouble takes beside launches: a quiet window and its own, and the waiting for late answers."""
    return 2 * seconds + 3.0
