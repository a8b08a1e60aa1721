"""Images made to break out of their tree, by the thousand: how many were laid out without a byte outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from verdict import Verdict, say

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

IMAGES = 10_000


def trees(images: int) -> list[Verdict]:
    """Try that many hostile images with each way in which the lab lays one out: root's (oci), and anybody's (a guest's
    disk)."""
    import hostile_trees

    verdicts = []
    for name, privileged in (("as root", True), ("without privilege", False)):
        if privileged and os.geteuid() != 0:
            say(f"  hostile trees {name}: needs root -> not run")
            verdicts.append(Verdict.NOT_RUN)
            continue
        outcome = hostile_trees.check(images, privileged=privileged)
        verdict = Verdict.MISSED if outcome.problem else Verdict.MET
        say(
            f"  hostile trees {name}: {outcome.tried} tried, {outcome.taken} taken, {outcome.tried - outcome.taken}"
            f" refused; outside {outcome.problem or 'not a byte changed or read'} -> {verdict}"
        )
        verdicts.append(verdict)
    return verdicts
