"""How a container sleeps, by the engine's own calls: frozen by its cgroup, or ended and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from drivers.dockerapi.errors import translated
from lab.errors import DriverError
from lab.features import SleepState
from lab.launch.asleep import GONE, await_asleep, how_asleep, require_offered

if TYPE_CHECKING:
    from docker import APIClient

_NO_CGROUPS = "the engine has no cgroups here, and pauses by their freezer"
_NO_CHECKPOINTS = "a checkpoint is an experimental command of the engine's, which its SDK does not have"
_STOP_S = 10
_KNOWN = {SleepState.PAUSED: "", SleepState.STOPPED: "", SleepState.SAVED: _NO_CHECKPOINTS}


def states(api: APIClient) -> Mapping[SleepState, str]:
    """Each state that an engine's containers know, and why not."""
    with translated("ask the engine what it is"):
        without = api.info().get("CgroupDriver") == "none"
    return _KNOWN | ({SleepState.PAUSED: _NO_CGROUPS} if without else {})


def put_to_sleep(
    api: APIClient, container: str, state: SleepState, workload: Callable[[], Iterable[int]], *, timeout_s: float
) -> None:
    """Pause or stop it; returns when the engine says so and none of its `workload`, processes of this host, runs. A
    sandbox with a kernel of its own holds its container still itself: there the engine alone says so."""
    require_offered(_KNOWN, state)
    with translated(f"put the container to sleep ({state})"):
        if state is SleepState.STOPPED:
            before = list(workload())
            api.stop(container, timeout=_STOP_S)
            told = api.inspect_container(container)["State"]["Running"] is False
            await_asleep(lambda: before, timeout_s=timeout_s)
            told = told and how_asleep(before) == GONE
        else:
            api.pause(container)
            told = api.inspect_container(container)["State"]["Paused"]
            await_asleep(workload, timeout_s=timeout_s)
    if not told:
        raise DriverError(f"the engine does not say that container {container[:12]} is {state}")


def wake(api: APIClient, container: str, state: SleepState) -> None:
    """Unpause or start it again; returns when the engine has."""
    require_offered(_KNOWN, state)
    with translated(f"wake the container ({state})"):
        if state is SleepState.STOPPED:
            api.start(container)
        else:
            api.unpause(container)
