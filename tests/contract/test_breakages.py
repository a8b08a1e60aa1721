"""The contract's tests are tested: a driver that breaks one promise fails the test that is named for it here.

No engine is needed. Each breakage has a rig of its own; the same drivers unbroken pass, as `fake` and `model`, all that
concerns them.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_rig import Rig

from lab.spec import Target
from lab.testing import BREAKAGES, FakeDriver, mend

CAUGHT_BY: dict[str, dict[str, list[str]]] = {}


def test_every_breakage_is_named_here() -> None:
    assert len(BREAKAGES) >= 40
