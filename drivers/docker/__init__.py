"""Docker, through its own SDK: plain, in other networks, with more or less privilege, and with any OCI runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from drivers import ociruntimes
from drivers.docker.variants import VARIANTS, require_consent, require_runtime
from drivers.dockerapi import cold, daemon, images, networks, ports, surroundings
from drivers.dockerapi.client import is_local, is_podman, is_remote, label_filter, reached
from drivers.dockerapi.connection import Connection
from drivers.dockerapi.container import Container, Remnant
from drivers.dockerapi.ends import tell_end
from drivers.dockerapi.errors import translated
from drivers.dockerapi.ports import Ports
from drivers.dockerapi.streams import Output
from drivers.dockerapi.surroundings import Tmp
from drivers.dockerapi.undo import undo
from drivers.ociruntimes import gvisor
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.features import Feature
from lab.host.pinning import cpu_list
from lab.host.rlimits import Rlimits
from lab.image.process import NO_NAMES, TMP
from lab.image.process import surroundings as describe
from lab.launch.waiter import reserve_port
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source

_PHASES = {"create": Phase.CREATED, "start": Phase.STARTED}
_SET = "set by the engine"
_NOT_SET = "not set: the engine's kernel has no such cgroup limit"
_RESTART = {Restart.DEFAULT: "no", Restart.BEST: "always"}
_NO_SERVERS = {"Dns": ["127.0.0.1"], "DnsOptions": ["timeout:0", "attempts:1"]}
"""For a container without a network: see `lab.image.process.RESOLV_CONF`."""
_LIMITS = {"memory": "MemoryLimit", "swap": "SwapLimit", "cpus": "CpuCfsQuota", "pids": "PidsLimit"}


class DockerDriver:
    """One Docker engine: that of DOCKER_HOST or of the current context, or of the option `docker-host`.

    `variant` is one of `variants()`, or else the name of an OCI runtime that the engine lists. Images that a registry
    gave stay with the engine; those that a run loaded are leftovers of that run.
    """

    name = "docker"
    # Of the variants, those that an option of their own has to allow: no list of all targets may launch them.
    by_flag_only: ClassVar[frozenset[str]] = frozenset(name for name, one in VARIANTS.items() if one.privileged)

    # Hardly another in code, and seldom registered.
    apart: ClassVar[frozenset[str]] = frozenset(name for name, one in VARIANTS.items() if one.runtime)

    def __init__(self, variant: str, context: Context) -> None:
        self._context = context
        self._variant = VARIANTS.get(variant, VARIANTS[""])
        self._network = self._variant.network
        self._runtime = self._variant.runtime if variant in VARIANTS else variant
        self._connection = Connection(context)
        self._api = self._connection.api
        self._local: bool | None = None
        self._ports = Ports.HERE
        self._images: dict[str, str] = {}
        self._tmp: dict[str, Tmp] = {}
        self._rlimits: Rlimits | None = None

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The fixed ones; any other is the name of an OCI runtime, looked up in the engine."""
        return {name: variant.about for name, variant in VARIANTS.items()}

    def info(self) -> Info:
        """What the engine says of itself. Raises DriverUnavailable where it is not there, or lacks the runtime, and
        Unsupported for a privileged variant that the options do not allow."""
        require_consent(self._variant, self._context.options)
        with reached(self._context, "ask the engine what it is"):
            told = self._api().info()
        if is_remote(self._api()) and self._network != "none":
            raise DriverUnavailable(
                "this Docker engine is another machine's, and publishes ports on that machine's loopback only",
                resolution="run the lab on that machine, or leave DOCKER_HOST unset",
            )
        self._local = is_local(self._api(), told)
        if self._network != "none":
            self._ports = ports.look(self._api(), told, local=self._local, bridged=self._network == "bridge")
        runtime = self._runtime or told.get("DefaultRuntime", "runc")
        require_runtime(runtime, told)
        security = [one.removeprefix("name=") for one in told.get("SecurityOptions") or ()]
        rootless = any(one.startswith("rootless") for one in security)
        features = {Feature.MARKER, Feature.EXEC, Feature.RESTART, Feature.SLEEP}
        features |= {Feature.NETWORK} if self._network != "none" else set()
        features |= {Feature.HOST_PIDS, Feature.ENGINE_PIDS} if self._local else set()
        features |= {Feature.PINNING} if told.get("CPUSet") else set()
        features |= {Feature.COLD, Feature.STORAGE} if self._local and told.get("Driver") == "overlay2" else set()
        podman = is_podman(self._api())
        # Podman's default network has another name and no bridge that `drivers.dockerapi.networks` knows.
        features |= {Feature.PEERS} if self._network != "none" and self._local and not podman else set()
        isolation = ociruntimes.isolation_of(runtime)
        return Info(
            engine="Podman, by Docker's API" if podman else "Docker",
            version=told["ServerVersion"],
            isolation=", ".join(filter(None, [isolation, self._variant.shown])),
            features=frozenset(features),
            facts={
                "runtime": runtime,
                **self._sandbox(runtime, told),
                **self._variant.facts,
                "storage_driver": told.get("Driver"),
                "cgroup_version": told.get("CgroupVersion", "1"),
                "cgroup_driver": told.get("CgroupDriver"),
                "rootless": rootless,
                "security_options": security,
                "kernel": told.get("KernelVersion"),
                "ports": self._ports.value,
                "limits": {limit: _SET if told.get(key) else _NOT_SET for limit, key in _LIMITS.items()},
                "restart": {str(restart): policy for restart, policy in _RESTART.items()},
                "surroundings": describe(
                    rlimits=self._limits(),
                    seccomp=self._seccomp(runtime, told),
                    names=NO_NAMES if self._network == "none" else "the host's",
                ),
                "images": {image: images.layers(self._api(), ref) for image, ref in self._images.items()},
            },
            qualifiers=({"rootless": "yes"} if rootless else {}) | ({"engine": "podman"} if podman else {}),
        )

    def prepare(self, spec: Spec) -> None:
        """Give the engine the image: the lab's own service, a file that `docker save` wrote, one that the engine has,
        or else its registry's. Raises Unsupported, BadInput, DriverError."""
        self._require_allowed(spec)
        self._images[spec.image] = images.provide(self._context, spec)
        self._tmp[spec.image] = surroundings.tmp_of(self._api(), self._images[spec.image], spec)
        if self._ports is Ports.UNPROVEN:
            self._prove_ports(spec)
        self._connection.events().connect()  # here, so that no launch pays for it

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Create, attach, start. Raises LaunchError, after removing the container, whose log is in its details."""
        self._require_allowed(spec)
        if endpoint is None and self._network != "none":
            raise LaunchError("a container needs an endpoint on this host to publish its port at")
        image = self._reference(spec)
        launch = spec.labels.get("lab.launch", "")
        events = self._connection.events()
        made: str | None = None
        output: Output | None = None

        def ended(container: str, code: int) -> None:
            tell_end(self._api(), container, code, mark.failed, memory_bytes=spec.memory_bytes)

        try:
            events.watch(
                launch,
                lambda action, _: mark(_PHASES[action], source=Source.EVENT),
                # One that the engine starts again may still become ready.
                None if spec.restart is Restart.BEST else ended,
            )
            with translated("create the container", LaunchError):
                made = self._create(spec, image, endpoint)
            if spec.peers and self._network == "bridge":
                networks.join(self._api(), made, networks.provide(self._api(), spec, driver="bridge"), spec)
            mark(Phase.CREATED, source=Source.RETURN)
            with translated("start the container", LaunchError):
                output = Output(self._api(), made, mark)
                self._api().start(made)
            mark(Phase.STARTED, source=Source.RETURN)
        except BaseException as error:
            events.forget(launch)
            problems = undo(output, lambda: self._made(made, spec))
            if isinstance(error, DriverError):
                error.details = "\n".join([error.details, *problems])
            raise
        return self._instance(made, spec.labels, endpoint if self._network != "none" else None, output=output)

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every container of the lab's Docker targets, in whatever variant and state."""
        found: list[Instance] = []
        with translated("list containers"):
            for told in self._api().containers(all=True, filters={"label": label_filter(labels)}):
                # One that somebody else made of the lab's image has inherited its labels, but not a launch's own.
                if bears(told["Labels"], labels) and _is_ours(told["Labels"]) and "lab.launch" in told["Labels"]:
                    found.append(self._instance(told["Id"], told["Labels"], self._endpoint_of(told["Id"])))
        return found

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Images, networks and volumes of the lab's."""
        api, wanted = self._api(), {"label": label_filter(labels)}
        with translated("list networks and volumes"):
            listed = [
                *(("network", one["Id"], one["Labels"]) for one in api.networks(filters=wanted)),
                *(("volume", one["Name"], one["Labels"]) for one in api.volumes(filters=wanted)["Volumes"] or ()),
            ]
        removers = {
            "network": api.remove_network,
            "volume": lambda identity: api.remove_volume(identity, force=True),
        }
        return [
            *images.remnants(api, labels),
            *(
                Remnant(kind, identity, own, removers[kind])
                for kind, identity, own in listed
                if bears(own or {}, labels) and _is_ours(own)
            ),
        ]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The layers' directories, and the programs that the engine starts. Raises DriverError."""
        return cold.launch_files(self._api(), self._reference(spec), self._runtime or "runc")

    def others_running(self) -> Sequence[str]:
        """The names of running containers that are no launch of the lab's."""
        return cold.others_running(self._api())

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:
        """Its name on the run's own bridge; in the host's network its port on loopback."""
        return (published.host, published.port) if self._network == "host" else (spec.alias, spec.port)

    def engine_pids(self) -> Mapping[int, str]:
        """The daemon and containerd."""
        return daemon.engine_pids(self._api())

    def close(self) -> None:
        """Close the event stream and the connections."""
        self._connection.close()

    def _sandbox(self, runtime: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """What gVisor is, where its program is this host's."""
        entry = (told.get("Runtimes") or {}).get(runtime) or {}
        if not self._local:
            return {}
        return gvisor.facts(runtime, entry.get("path") or "", entry.get("runtimeArgs") or ())

    def _seccomp(self, runtime: str, told: Mapping[str, Any]) -> str:
        if ociruntimes.has_kernel(runtime):
            return ociruntimes.OWN_KERNEL
        return "no filter" if self._variant.privileged else surroundings.seccomp(told)

    def _limits(self) -> Rlimits:
        if self._rlimits is None:
            self._rlimits = surroundings.rlimits(self._api(), local=bool(self._local))
        return self._rlimits

    def _reference(self, spec: Spec) -> str:
        if spec.image not in self._images:
            self.prepare(spec)
        return self._images[spec.image]

    def _create(self, spec: Spec, image: str, endpoint: Endpoint | None) -> str:
        api, port = self._api(), f"{spec.port}/tcp"
        published: dict[int | str, Any] = (
            {port: (endpoint.host, endpoint.port)} if endpoint and self._network == "bridge" else {}
        )
        host_config = api.create_host_config(
            network_mode=self._network,
            port_bindings=published,
            nano_cpus=round(spec.cpus * 1e9),
            cpuset_cpus=cpu_list(spec.cpuset) or None,
            mem_limit=spec.memory_bytes,
            memswap_limit=spec.memory_bytes,  # memory and swap together
            pids_limit=spec.pids,
            tmpfs={TMP: _scratch(spec)} if self._tmp.get(spec.image, Tmp.NOTHING) is Tmp.NOTHING else {},
            restart_policy={"Name": _RESTART[spec.restart]},
            runtime=self._runtime,
            **self._variant.settings,
        )
        host_config["Ulimits"] = surroundings.ulimits(self._limits())
        if self._tmp.get(spec.image) is Tmp.CLOSED:
            host_config["Mounts"] = [surroundings.scratch_mount(spec)]
        if self._network == "none":
            host_config.update(_NO_SERVERS)
        if self._network == "bridge":
            listen = ("0.0.0.0", spec.port)  # noqa: S104  the container's own addresses, published on 127.0.0.1
        else:
            listen = (endpoint.host, endpoint.port) if endpoint else ("127.0.0.1", spec.port)
        made = api.create_container(
            image,
            command=list(spec.command) if spec.command is not None else None,
            environment=spec.service_environment(host=listen[0], port=listen[1]),
            ports=[(spec.port, "tcp")] if published else None,
            host_config=host_config,
            labels=dict(spec.labels),
            use_config_proxy=False,
        )
        return str(made["Id"])

    def _prove_ports(self, spec: Spec) -> None:
        """Ask the lab's own service, in a container like those to come, for its nonce. Raises DriverError."""
        own = Spec(labels=spec.labels, memory_bytes=spec.memory_bytes).for_launch()
        endpoint = Endpoint("127.0.0.1", reserve_port(None))
        with translated("try a port of this engine"):
            made = self._create(own, images.provide(self._context, own), endpoint)
            try:
                self._api().start(made)
                ports.require_answer(endpoint, own.nonce)
            finally:
                self._instance(made, own.labels, None).delete()
        self._ports = Ports.HERE

    def _made(self, made: str | None, spec: Spec) -> Sequence[Instance]:
        """What a failed launch made. A request without an answer may have been carried out, so that the label is asked
        as well."""
        if made is not None:
            return [self._instance(made, spec.labels, None)]
        launch = spec.labels.get("lab.launch")
        return self.list_instances({"lab.launch": launch}) if launch else []

    def _instance(
        self, container: str, labels: Mapping[str, str], endpoint: Endpoint | None, *, output: Output | None = None
    ) -> Container:
        if self._local is None:
            with translated("ask the engine what it is"):
                self._local = is_local(self._api(), self._api().info())
        events = self._connection.followed

        def expect_end() -> None:
            if events is not None:
                events.expect_end(labels.get("lab.launch", ""))

        def forget() -> None:
            if output is not None:
                output.close()
            if events is not None:
                events.forget(labels.get("lab.launch", ""))

        return Container(
            self._api(),
            container,
            labels=labels,
            endpoint=endpoint,
            local=self._local,
            before_end=expect_end,
            on_delete=forget,
        )

    def _endpoint_of(self, container: str) -> Endpoint | None:
        """Where a container found again was told to answer; None when it has no network, or is gone by now."""
        import docker.errors

        try:
            told = self._api().inspect_container(container)
        except docker.errors.NotFound:
            return None
        for bindings in (told["HostConfig"].get("PortBindings") or {}).values():
            return Endpoint(bindings[0]["HostIp"], int(bindings[0]["HostPort"]))
        environment = dict(entry.partition("=")[::2] for entry in told["Config"].get("Env") or ())
        if told["HostConfig"]["NetworkMode"] == "host" and environment.get("LAB_PORT", "").isdigit():
            return Endpoint(environment["LAB_HOST"], int(environment["LAB_PORT"]))
        return None

    def _require_allowed(self, spec: Spec) -> None:
        require_consent(self._variant, self._context.options)
        if self._network == "host" and not spec.builtin:
            raise Unsupported(
                f"'{spec.image}' in the host's network would listen on every address of this host",
                resolution="leave out docker:host, or leave out --image",
            )


def _scratch(spec: Spec) -> str:
    """The options of the tmpfs on /tmp; `exec` takes back what the engine sets by itself, and a size of 0 would be no
    limit."""
    return f"exec,size={max(spec.scratch_bytes, 4096)},mode=1777"


def _is_ours(labels: Mapping[str, str]) -> bool:
    """Whether a labelled object belongs to a Docker target: other drivers make containers of their own."""
    return labels.get("lab.target", "docker").split(":")[0] == "docker"
