"""Docker Swarm, through Docker's own SDK: the service as a replicated service on this host's node."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.dockerapi import cold, daemon, images, networks, ports, surroundings
from drivers.dockerapi.client import is_local, is_podman, label_filter, reached
from drivers.dockerapi.connection import Connection
from drivers.dockerapi.container import Remnant
from drivers.dockerapi.ends import tell_end
from drivers.dockerapi.errors import translated
from drivers.dockerapi.surroundings import Tmp
from drivers.swarm import cluster
from drivers.swarm.service import UPDATE, Service, undo
from drivers.swarm.task import FirstTask
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverError, DriverUnavailable, LaunchError
from lab.features import Feature
from lab.host.rlimits import Rlimits
from lab.image.process import surroundings as describe
from lab.launch.ticks import TICK
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source

_RESTART = {Restart.DEFAULT: None, Restart.BEST: {"Condition": "any", "Delay": 0}}
_LOOPBACK = "127.0.0.1"
_FEATURES = frozenset(
    {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.HOST_PIDS, Feature.REPLICAS, Feature.RESTART}
    | {Feature.ENGINE_PIDS, Feature.TICKS, Feature.SLEEP, Feature.PEERS}
)
_TICK_S = 0.1
"""The manager takes up what nodes tell of their tasks once in so long (`maxBatchInterval` of moby/swarmkit,
manager/dispatcher): what it does next, such as another task for one that ended, begins there."""
_PORT = "lab.port"


class SwarmDriver:
    """The swarm that the engine is in, or one of a single node that the run begins and leaves.

    Tasks run on this host's node, on its engine's default bridge. Where the engine publishes ports on 127.0.0.1
    (`dockerd --ip 127.0.0.1`), each task gets one there, which the engine chooses; elsewhere a published port would
    listen on every address, so none is published and the task's own address on the bridge is used.
    """

    name = "swarm"

    def __init__(self, variant: str, context: Context) -> None:
        if variant:
            raise BadInput(f"'swarm' has no variant '{variant}'", resolution="write 'swarm'")
        self._context = context
        self._connection = Connection(context)
        self._api: Callable[[], Any] = self._connection.api  # the SDK has no types for a swarm's calls
        self._images: dict[str, str] = {}
        self._tmp: dict[str, Tmp] = {}
        self._rlimits: Rlimits | None = None
        self._publishes: bool | None = None

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The one there is."""
        return {"": "a replicated service of Docker Swarm, its tasks on this host"}

    def info(self) -> Info:
        """What the engine says of itself and its swarm. Raises DriverUnavailable with the remedy."""
        api = self._api()
        with reached(self._context, "ask the engine what it is"):
            told = api.info()
        if is_podman(api):
            raise DriverUnavailable(
                f"Podman {told['ServerVersion']} answers here, which has no Swarm", resolution="name Docker's socket"
            )
        if not is_local(api, told):
            raise DriverUnavailable(
                "this Docker engine's containers are not this host's, and its bridge cannot be reached from here",
                resolution="run the lab on the engine's own machine",
            )
        ports.look(api, told, local=True, bridged=True)
        cluster.require_usable(told)
        published = self._published()
        active = told["Swarm"]["LocalNodeState"] == "active"
        return Info(
            engine="Docker Swarm",
            version=told["ServerVersion"],
            isolation=f"namespaces ({told.get('DefaultRuntime', 'runc')})",
            features=_FEATURES | ({Feature.COLD, Feature.STORAGE} if told.get("Driver") == "overlay2" else set()),
            facts={
                "swarm": "found" if active else "begun by the run, and left at its end",
                "nodes": told["Swarm"].get("Nodes", 1),
                "routing_mesh": cluster.routing_mesh(),
                "beyond_loopback": cluster.beyond_loopback(api) if active else "nothing",
                "binding_address": cluster.binding_address(api),
                "image_named_by": "its id, so that no registry is asked",
                "marker": "the log, followed from the event of the start on",
                "limits": {
                    "memory": "set by the engine",
                    "swap": "not set: Swarm has no such limit, and the engine allows as much again as memory",
                    "cpus": "set by the engine",
                    "pids": "set by the engine",
                },
                "surroundings": describe(
                    rlimits=self._limits(), seccomp=surroundings.seccomp(told), names="the host's"
                ),
                "restart": {
                    "default": "condition any, delay 5 s (Swarm's own)",
                    "best": "condition any, delay 0 s",
                },
                TICK: _TICK_S,
                "update": {key.lower(): value for key, value in UPDATE.items()},
                "cgroup_version": told.get("CgroupVersion", "1"),
                "storage_driver": told.get("Driver"),
                "kernel": told.get("KernelVersion"),
            },
            qualifiers={
                "publish": "host-mode port" if published else "no port published",
                "route": "loopback" if published else "bridge address",
                "clock": f"{_TICK_S:g} s tick",
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Give the engine the image, and begin a swarm where there is none. Raises Unsupported, DriverError."""
        api = self._api()
        reference = images.provide(self._context, spec)
        with translated(f"inspect the image '{reference}'"):
            self._images[spec.image] = str(api.inspect_image(reference)["Id"])
        self._tmp[spec.image] = surroundings.tmp_of(api, self._images[spec.image], spec)
        run_labels = images.run_labels(spec.labels)
        cluster.provide(api, {**run_labels, "lab.target": self.name})
        self._connection.events().connect()  # here, so that no launch pays for it

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:  # noqa: ARG002  Swarm chooses
        """Create the service; return when its task runs, since only then it has an address. `created` is Swarm's
        acknowledgement of the service, `started` the event of the task's container. Raises LaunchError."""
        template = self._template(spec)
        launch = spec.labels.get("lab.launch", "")
        seen: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

        def listen(action: str, container: str) -> None:
            if action == "start":
                mark(Phase.STARTED, source=Source.EVENT)
            seen.put((action, container))

        first_end: queue.SimpleQueue[LaunchError] = queue.SimpleQueue()

        def tell(error: LaunchError) -> None:
            first_end.put(error)
            mark.failed(error)

        def ended(container: str, code: int) -> None:
            tell_end(self._api(), container, code, tell, memory_bytes=spec.memory_bytes)

        # Swarm begins another task for one that ended, with either policy; only who asked for the best waits for that.
        self._connection.events().watch(launch, listen, None if spec.restart is Restart.BEST else ended)
        task = FirstTask(self._api(), mark, first_end)
        service: Service | None = None

        def forget() -> None:
            self._connection.events().forget(launch)
            task.close()

        try:
            with translated("create the service", LaunchError):
                service = self._service(self._create(spec, template), spec.labels, None)
            mark(Phase.CREATED, source=Source.RETURN)
            container = task.await_start(service.id, seen)
            if task.bridge_address and not self._published():
                address: Endpoint | None = Endpoint(task.bridge_address, spec.port)
            else:
                with translated("inspect the task's container", LaunchError):
                    address = self._address_of(self._api().inspect_container(container))
            if address is None:
                raise task.end() or LaunchError("the task ended before it had an address")
        except BaseException as error:
            forget()
            # A request without an answer may have been carried out, so that the label is asked as well.
            made = [service] if service else self._listed({"lab.launch": launch})
            problems = [text for one in made for text in undo(one)]
            if isinstance(error, DriverError):
                error.details = "\n".join(filter(None, [error.details, *problems]))
            raise
        return self._service(
            service.id,
            spec.labels,
            address,
            before_end=lambda: self._connection.events().expect_end(launch),
            on_delete=forget,
        )

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every service of the lab's."""
        return self._listed(labels)

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Containers whose service is gone, images, the swarm that the lab began, and its bridge."""
        api, wanted = self._api(), {"label": label_filter(labels)}
        services = {service.id for service in self._listed({})}
        with translated("list containers, networks and volumes"):
            listed = [
                ("container", one["Id"], one["Labels"], self._remove_container)
                for one in api.containers(all=True, filters=wanted)
                if _is_ours(one["Labels"]) and one["Labels"].get("com.docker.swarm.service.id") not in services
            ]
            volumes = [one for one in api.volumes(filters=wanted)["Volumes"] or () if _is_ours(one["Labels"])]
            networks = [one for one in api.networks(filters=wanted) if _is_ours(one["Labels"])]
        return [
            *(Remnant(kind, identity, own, remove) for kind, identity, own, remove in listed if bears(own, labels)),
            *images.remnants(api, labels),
            *(
                Remnant("volume", one["Name"], one["Labels"], self._remove_volume)
                for one in volumes
                if bears(one["Labels"], labels)
            ),
            *cluster.found(api, labels),
            *(
                Remnant("network", one["Id"], one["Labels"], api.remove_network)
                for one in networks
                if bears(one["Labels"], labels)
            ),
        ]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The layers' directories, and the programs that the engine starts. Raises DriverError."""
        return cold.launch_files(self._api(), self._image(spec), "runc")

    def others_running(self) -> Sequence[str]:
        """The names of running containers that are no launch of the lab's."""
        return cold.others_running(self._api())

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:  # noqa: ARG002  by the overlay's names
        """Its name on the run's overlay, by dnsrr."""
        return spec.alias, spec.port

    def engine_pids(self) -> Mapping[int, str]:
        """The daemon, in which the swarm's manager runs as well, and containerd."""
        return daemon.engine_pids(self._api())

    def close(self) -> None:
        """Close the event stream and the connections."""
        self._connection.close()

    def _published(self) -> bool:
        if self._publishes is None:
            self._publishes = cluster.binding_address(self._api()) == _LOOPBACK
        return self._publishes

    def _image(self, spec: Spec) -> str:
        if spec.image not in self._images:
            self.prepare(spec)
        return self._images[spec.image]

    def _create(self, spec: Spec, template: dict[str, Any]) -> str:
        port = {"Protocol": "tcp", "TargetPort": spec.port, "PublishMode": "host"}
        made = self._api().create_service(
            template,
            name=f"lab-{spec.labels.get('lab.launch', spec.nonce)}",
            labels=dict(spec.labels),
            mode={"Replicated": {"Replicas": 1}},
            update_config=dict(UPDATE),
            endpoint_spec={"Ports": [port]} if self._published() else {"Mode": "dnsrr"} if spec.peers else None,
        )
        return str(made["ID"])

    def _template(self, spec: Spec) -> dict[str, Any]:
        """The task template of `spec` (Docker Engine API, 'Create a service')."""
        environment = spec.service_environment(host="0.0.0.0", port=spec.port)  # noqa: S104  the container's own
        container: dict[str, Any] = {
            "Image": self._image(spec),
            "Labels": dict(spec.labels) | {_PORT: str(spec.port)},
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "Mounts": [] if self._tmp[spec.image] is Tmp.OWN else [surroundings.scratch_mount(spec)],
            "Ulimits": surroundings.ulimits(self._limits()),
            **({"Args": list(spec.command)} if spec.command is not None else {}),
        }
        limits = {"NanoCPUs": round(spec.cpus * 1e9), "MemoryBytes": spec.memory_bytes, "Pids": spec.pids}
        restart = _RESTART[spec.restart]
        return {
            "ContainerSpec": container,
            "Resources": {"Limits": limits},
            "Placement": {"Constraints": [f"node.id=={cluster.node_id(self._api())}"]},
            **({"Networks": self._peers_networks(spec)} if spec.peers else {}),
            **({"RestartPolicy": restart} if restart else {}),
        }

    def _peers_networks(self, spec: Spec) -> Sequence[Mapping[str, Any]]:
        """The default bridge, by which this host reaches the task, and the run's overlay, on which its peers do."""
        return networks.of_services(networks.provide(self._api(), spec, driver="overlay"), spec)

    def _limits(self) -> Rlimits:
        if self._rlimits is None:
            self._rlimits = surroundings.rlimits(self._api(), local=True)
        return self._rlimits

    def _address_of(self, inspected: Mapping[str, Any]) -> Endpoint | None:
        """Where the task in a container answers; None when it runs no more, or does not yet."""
        settings = inspected["NetworkSettings"]
        for name, bindings in (settings.get("Ports") or {}).items():
            for binding in bindings or ():
                if name.endswith("/tcp") and binding["HostIp"] == _LOOPBACK:
                    return Endpoint(_LOOPBACK, int(binding["HostPort"]))
        # The default bridge first: of an overlay's address this host knows no way.
        known = sorted((settings.get("Networks") or {}).items(), key=lambda one: one[0] != "bridge")
        addresses = [one.get("IPAddress") for _, one in known]
        port = (inspected["Config"].get("Labels") or {}).get(_PORT, "")
        return Endpoint(addresses[0], int(port)) if addresses and addresses[0] and port.isdigit() else None

    def _service(self, identity: str, labels: Mapping[str, str], endpoint: Endpoint | None, **more: Any) -> Service:
        return Service(
            self._api(),
            identity,
            labels=labels,
            endpoint=endpoint,
            template=self._template,
            address_of=self._address_of,
            events=self._connection.events,
            **more,
        )

    def _listed(self, labels: Mapping[str, str]) -> list[Service]:
        api = self._api()
        if not cluster.is_active(api):
            return []
        with translated("list services"):
            told = [
                (one["ID"], one["Spec"].get("Labels") or {}) for one in api.services({"label": label_filter(labels)})
            ]
        found = []
        for identity, own in told:
            if bears(own, labels) and _is_ours(own):
                addresses = self._service(identity, own, None).endpoints()
                found.append(self._service(identity, own, addresses[0] if addresses else None))
        return found

    def _remove_container(self, identity: str) -> object:
        return self._api().remove_container(identity, v=True, force=True)

    def _remove_volume(self, name: str) -> object:
        return self._api().remove_volume(name, force=True)


def _is_ours(labels: Mapping[str, str] | None) -> bool:
    """Whether a labelled object belongs to a Swarm target."""
    return (labels or {}).get("lab.target", "").split(":")[0] == SwarmDriver.name
