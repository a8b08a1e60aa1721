"""What all tests without an engine share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_wait_between_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes finish what they were asked for at once; the two listings of `sweep` need not be seconds apart."""
    monkeypatch.setattr("lab.run.clean.QUIET_S", 0.01)
    monkeypatch.setattr("lab.run.runner.QUIET_S", 0.01)
