"""What stands before the name of a command about many machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom it concerns."""

    inventory: Path
    limit: str | None
    forks: int
