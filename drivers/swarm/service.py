"""One service of a swarm: its tasks on this host, its replicas, its updates and its end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.dockerapi import networks
from drivers.dockerapi.container import Container
from drivers.dockerapi.errors import translated
from drivers.dockerapi.streams import Events
from drivers.swarm import sleep as sleeping
from lab.errors import CleanupError, DriverError, LabError
from lab.features import ExecResult, Place, Role, SleepState
from lab.host import procs
from lab.host.procs import Process
from lab.launch.asleep import require_offered
from lab.spec import Endpoint, Spec

LOG_BYTES = 65_536
UPDATE = {"Parallelism": 1, "Delay": 0, "FailureAction": "pause", "Order": "start-first"}
"""One task at a time, the next version's before the last one's end: what avoids failed requests where a task that runs
also serves."""

_GRACE_S = 10.0  # Swarm's default stop grace period (docs.docker.com, `docker service create --stop-grace-period`)
_GONE_TIMEOUT_S = 30.0
_EVERY_S = 0.02
_ATTEMPTS = 10
_STATES = {SleepState.ZERO: ""}


class Service:
    """A service of the lab's; `template` makes the task template of a spec, and `address_of` tells where the task in
    an inspected container answers; `events` gives the engine's; `before_end` is called before tasks are ended on
    purpose."""

    def __init__(
        self,
        api: Any,
        identity: str,
        *,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        template: Callable[[Spec], dict[str, Any]],
        address_of: Callable[[Mapping[str, Any]], Endpoint | None],
        events: Callable[[], Events],
        before_end: Callable[[], None] = lambda: None,
        on_delete: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = identity
        self.labels = labels
        self.endpoint = endpoint
        self._api = api
        self._template = template
        self._address_of = address_of
        self._events = events
        self._before_end = before_end
        self._on_delete = on_delete
        self._killed = False

    def logs(self) -> bytes:
        """What its tasks wrote, the oldest's first."""
        return b"".join(container.logs() for container in reversed(self._containers()))[-LOG_BYTES:]

    def host_pids(self) -> Mapping[int, Role]:
        """The processes of its tasks' containers, their shims and proxies."""
        found: dict[int, Role] = {}
        for container in self._containers():
            found |= container.host_pids()
        return found

    def storage(self) -> Mapping[str, Sequence[Path]]:
        """What its containers have on this host's disks."""
        found: dict[str, list[Path]] = {}
        for container in self._containers():
            for part, paths in container.storage().items():
                found.setdefault(part, []).extend(paths)
        return found

    def exec(self, argv: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run `argv` in the newest task that runs. Raises DriverError."""
        running = self._containers(running=True)
        if not running:
            raise DriverError(f"no task of service {self.id} runs on this host")
        return running[0].exec(argv, timeout_s=timeout_s)

    def places(self) -> Sequence[Place]:
        """The address of its newest task on the default bridge, the service's name on its peers' overlay, by dnsrr, and
        the host-mode port, where there is one. Raises DriverError."""
        return networks.places(self._newest(), self.labels, self.endpoint, networks.OVERLAY)

    def reach(self, place: Place) -> Place | str:
        """What is on a network that its newest task is on. Raises DriverError."""
        return networks.reach(self._newest(), place)

    def endpoints(self) -> Sequence[Endpoint]:
        """Where the tasks that run answer: one address for each."""
        return [container.endpoint for container in self._containers(running=True) if container.endpoint]

    def scale(self, replicas: int) -> None:
        """Ask for so many tasks. Raises DriverError."""
        self._change("scale the service", mode={"Replicated": {"Replicas": replicas}})

    def update(self, spec: Spec) -> None:
        """Ask for tasks of `spec` instead of those that run. Raises DriverError."""
        self._change("update the service", task_template=self._template(spec))

    def update_policy(self) -> Mapping[str, str]:
        """As the service was told at its creation, and what Swarm does unasked."""
        return {
            "order": f"{UPDATE['Order']}, {UPDATE['Parallelism']} at a time, {UPDATE['Delay']} s between",
            "readiness": "the container runs (the image has no HEALTHCHECK)",
            "grace": f"the stop signal, and SIGKILL after {_GRACE_S:g} s (Swarm's default)",
            "pre_stop": "none: Swarm has no such hook",
        }

    def sleep_states(self) -> Mapping[SleepState, str]:
        """Scaled to none: Swarm knows no other way, and begins another task for one that somebody else stops."""
        return _STATES

    def sleep(self, state: SleepState, *, timeout_s: float) -> None:
        """Scale it to none; returns when none of its tasks runs, and the processes that they had are gone. Raises
        DriverError."""
        require_offered(_STATES, state)
        before = {one for pid in self.host_pids() if (one := Process.of(pid)) is not None}
        self.scale(0)
        deadline = time.monotonic() + timeout_s
        if not self._none_runs_within(timeout_s):
            raise DriverError(f"tasks of service {self.id} still run {timeout_s:g} s after it was scaled to none")
        if left := procs.all_ended(before, deadline - time.monotonic()):
            raise DriverError(f"no task of service {self.id} runs, and its processes {[one.pid for one in left]} do")

    def wake(self, state: SleepState) -> None:
        """Scale it to one; returns when its task has an address, as `launch` does. Raises DriverError."""
        require_offered(_STATES, state)
        launch = self.labels.get("lab.launch", "")
        self.endpoint = sleeping.wake(self._api, self._events(), launch, self.scale, self._address_in)

    def sleeps_on(self, state: SleepState) -> Sequence[Path]:  # noqa: ARG002  its tasks leave nothing that comes back
        """None."""
        return ()

    def stop(self, *, timeout_s: float) -> None:
        """Scale to none, so that Swarm ends its tasks and begins no others; what runs after `timeout_s` is killed."""
        import docker.errors

        if not self._exists():
            return
        self.scale(0)
        if not self._none_runs_within(timeout_s):
            self._killed = True
            with translated("kill the task"):
                for container in self._containers(running=True):
                    try:
                        self._api.kill(container.id)
                    except docker.errors.APIError as error:
                        if error.status_code not in (404, 409):  # gone, or ended by itself just now
                            raise
            if not self._none_runs_within(_GONE_TIMEOUT_S):
                raise DriverError(f"tasks of service {self.id} still run", resolution=f"docker service rm {self.id}")

    def was_killed(self) -> bool:
        """Whether the stop signal had not ended it in time. Swarm kills by itself after ten seconds, so that a longer
        time tells less."""
        return self._killed

    def delete(self) -> None:
        """Remove the service; Swarm then removes its tasks' containers, and this what it has left after a while."""
        import docker.errors

        self._before_end()
        with translated("remove the service", CleanupError):
            containers = self._containers()
            for container in containers:
                container.note_processes()
            with contextlib.suppress(docker.errors.NotFound):
                self._api.remove_service(self.id)
            deadline = time.monotonic() + _GRACE_S + _GRACE_S / 2
            while (left := self._containers()) and time.monotonic() < deadline:
                time.sleep(_EVERY_S)
            for container in left:
                container.delete()
        for container in containers:
            container.await_gone()
        self._remove_volumes()
        if self._exists():
            raise CleanupError(f"Swarm still lists service {self.id}", resolution=f"docker service rm {self.id}")
        self._on_delete()

    def _remove_volumes(self) -> None:
        """The scratch space of its tasks, which Swarm leaves to the engine."""
        import docker.errors

        launch = self.labels.get("lab.launch")
        if not launch:
            return
        with translated("remove the service's volumes", CleanupError):
            for volume in self._api.volumes(filters={"label": [f"lab.launch={launch}"]})["Volumes"] or ():
                with contextlib.suppress(docker.errors.NotFound):
                    self._api.remove_volume(volume["Name"], force=True)

    def _address_in(self, container: str) -> Endpoint | None:
        with translated("inspect the task's container"):
            return self._address_of(self._api.inspect_container(container))

    def _exists(self) -> bool:
        import docker.errors

        with translated("inspect the service"):
            try:
                self._api.inspect_service(self.id)
            except docker.errors.NotFound:
                return False
            except docker.errors.APIError as error:
                if error.status_code == 503:  # the engine has left the swarm, and every service with it
                    return False
                raise
        return True

    def _newest(self) -> Mapping[str, Any]:
        """The inspection of the newest task's container that runs. Raises DriverError."""
        running = self._containers(running=True)
        if not running:
            raise DriverError(f"no task of service {self.id} runs on this host")
        with translated("inspect the task's container"):
            told: Mapping[str, Any] = self._api.inspect_container(running[0].id)
        return told

    def _containers(self, *, running: bool = False) -> list[Container]:
        """Its tasks' containers on this host, the newest first."""
        import docker.errors

        wanted = {"label": f"com.docker.swarm.service.id={self.id}"}
        found = []
        with translated("list the service's containers"):
            for told in self._api.containers(all=not running, filters=wanted):
                with contextlib.suppress(docker.errors.NotFound):  # gone between the listing and the look
                    address = self._address_of(self._api.inspect_container(told["Id"]))
                    found.append(Container(self._api, told["Id"], labels=self.labels, endpoint=address, local=True))
        return found

    def _change(self, doing: str, **changes: Any) -> None:
        """Swarm refuses a change of a version that is not the newest, and it changes services itself: so again.

        All else is given back as it was told: the SDK's `fetch_current_spec` adds the defaults to it, which Swarm takes
        for another version of every task, and replaces them all.
        """
        import docker.errors

        self._before_end()  # of tasks that are more than asked for, or of the version before
        for attempt in range(_ATTEMPTS):
            with translated(doing):
                told = self._api.inspect_service(self.id)
                spec = told["Spec"]
                same = {
                    "name": spec["Name"],
                    "labels": spec.get("Labels"),
                    "task_template": spec["TaskTemplate"],
                    "mode": spec["Mode"],
                    "update_config": spec.get("UpdateConfig"),
                    "endpoint_spec": spec.get("EndpointSpec"),
                }
                try:
                    self._api.update_service(self.id, told["Version"]["Index"], **(same | changes))
                except docker.errors.APIError as error:
                    if "out of sequence" not in str(error) or attempt == _ATTEMPTS - 1:
                        raise
                else:
                    return

    def _none_runs_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._containers(running=True):
            if time.monotonic() > deadline:
                return False
            time.sleep(_EVERY_S)
        return True


def undo(service: Service) -> list[str]:
    """Remove the service of a failed launch; returns its log and what could not be removed."""
    told: list[str] = []
    try:
        told.append(service.logs().decode(errors="replace"))
        service.delete()
    except LabError as error:
        told.append(f"not cleaned up: {error}")
    return [text for text in told if text]
