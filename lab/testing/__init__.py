"""For tests, and for those who write a driver.

- `FakeDriver` (fake): an engine in memory, on a clock that a test advances: for tests of the lab's own pipeline.
- `ModelDriver` (model): the model of a driver, with the hard parts: errors mapped in one place, limits, environment,
  command, exec, a log that grows, objects found by label. Its engine (engine) runs real processes on this host.
- `BREAKAGES` (breakages, breakages_life, breakages_sleep): that driver with one promise broken at a time, to test the
  contract's tests.
"""

import lab.testing.breakages_life
import lab.testing.breakages_sleep  # noqa: F401  they add their own to them
from lab.testing.breakages import BREAKAGES, mend
from lab.testing.clocks import FakeClock, WaitingClock
from lab.testing.fake import FakeDriver, FakeEngine, FakeImage, FakeInstance, engine_of
from lab.testing.model import ModelDriver, model_engine_of

__all__ = [
    "BREAKAGES",
    "FakeClock",
    "FakeDriver",
    "FakeEngine",
    "FakeImage",
    "FakeInstance",
    "ModelDriver",
    "WaitingClock",
    "engine_of",
    "mend",
    "model_engine_of",
]
