"""Drivers that break a promise about how an instance sleeps and wakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import CleanupError
from lab.features import Role, SleepState
from lab.host.procs import held_still
from lab.testing.breakages import broken, instance, nothing
from lab.testing.model import ModelDriver, ModelInstance

_PAUSED = {SleepState.STOPPED: SleepState.PAUSED}

instance("asleep it goes on", sleep=nothing)
instance("it is put to sleep and does not wake", wake=nothing)
instance("how it could sleep is not told", sleep_states=lambda _: {})
instance(
    "why it cannot sleep so is told on two lines",
    sleep_states=lambda self: {**ModelInstance.sleep_states(self), SleepState.ZERO: "it is no service\nof a cluster"},
)
instance("what it sleeps on is not there", sleeps_on=lambda *_: [Path("/nonexistent/memory")])


@broken("a state that it does not offer is passed over")
class _Accepts(ModelDriver):
    class made(ModelInstance):  # noqa: N801  an attribute of the driver
        def sleep(self, state: SleepState, *, timeout_s: float) -> None:
            if not self.sleep_states().get(state, "not known"):
                super().sleep(state, timeout_s=timeout_s)


@broken("it is started anew where it was to be woken")
class Restarted(ModelDriver):
    """Its paused containers answer soon after they are asked for, as others: what a scenario must not take for one
    that was restored."""

    class made(ModelInstance):  # noqa: N801
        def wake(self, state: SleepState) -> None:
            if state is SleepState.PAUSED:
                self._expect_end()
                self.engine.stop(self.id, 0)
                state = SleepState.STOPPED
            super().wake(state)


@broken("it is kept in memory where it was to be stopped")
class Kept(ModelDriver):
    """Its stopped containers are only paused, and so wake sooner than any that was started again."""

    class made(ModelInstance):  # noqa: N801
        def sleep(self, state: SleepState, *, timeout_s: float) -> None:
            super().sleep(_PAUSED.get(state, state), timeout_s=timeout_s)

        def wake(self, state: SleepState) -> None:
            super().wake(_PAUSED.get(state, state))

        def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002
            return ()


@broken("one that sleeps cannot be removed")
class _Stuck(ModelDriver):
    class made(ModelInstance):  # noqa: N801
        def delete(self) -> None:
            if any(held_still(pid) for pid, role in self.host_pids().items() if role is Role.SERVICE):
                raise CleanupError("the model engine could not remove the container: it is paused")
            super().delete()
