"""Podman, by its own API and client: containers with no daemon, whose parent is conmon, of root or of any user."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from drivers import ociruntimes
from drivers.dockerapi.streams import Output
from drivers.dockerapi.surroundings import Tmp
from drivers.dockerapi.undo import undo
from drivers.ociruntimes import gvisor
from drivers.podman import images, processes, request
from drivers.podman.api import Api, run_label
from drivers.podman.container import Engine, PodmanContainer, endpoint_of
from drivers.podman.ends import EndWatch
from drivers.podman.errors import translated
from drivers.podman.service import left_services
from lab.driver import Context, Info, Instance, Leftover, Mark, bears
from lab.errors import DriverError, DriverUnavailable, LaunchError
from lab.features import Feature
from lab.host import procs
from lab.host.rlimits import Rlimits, granted
from lab.image.process import surroundings as describe
from lab.spec import Endpoint, Restart, Spec
from lab.timeline import Phase, Source

VARIANTS: Mapping[str, str] = {
    "": "a container by Podman, with no daemon, its port on 127.0.0.1; podman:NAME uses an OCI runtime",
    **{name: f"a container by Podman and {ociruntimes.KNOWN[name].about}" for name in ("crun", "runc", "runsc")},
}
_RESTARTS = "`podman container cleanup`, which conmon starts when the container ends; nobody after the host's boot"
_SANDBOX_RESTARTS = (
    "not claimed: gVisor takes the addresses out of a network namespace, which Podman keeps on a restart"
)
_PROGRAMS = ("podman", "conmon", "netavark", "aardvark-dns", "slirp4netns", "pasta")
_VERSION = re.compile(r"version:? (?:release-)?(\S+)")


class PodmanDriver:
    """The Podman of this user: root's, or a user's own in a user namespace.

    Images and containers are in Podman's own store, where the lab touches what bears its labels and nothing else.
    """

    name = "podman"
    # Dear to launch, and hardly another in code.
    apart: ClassVar[frozenset[str]] = frozenset(name for name in VARIANTS if name)

    def __init__(self, variant: str, context: Context) -> None:
        self._context = context
        self._runtime = variant
        self._api = Api(context.run_dir, variant)
        self._images: dict[str, str] = {}
        self._tmp: dict[str, Tmp] = {}
        self._engine: Engine | None = None
        self._watches: set[EndWatch] = set()

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The fixed ones; any other is the name of an OCI runtime, looked up by Podman."""
        return VARIANTS

    def info(self) -> Info:
        """What Podman says of itself. Raises DriverUnavailable where it is not there, or lacks the runtime."""
        with translated("ask Podman what it is", DriverUnavailable):
            told, versions = self._api.info(), self._api.version()
        known = self._known(told)
        host, store = told["host"], told.get("store") or {}
        runtime = host["ociRuntime"]["name"]
        if self._runtime and runtime != self._runtime:
            raise DriverUnavailable(
                f"Podman uses the OCI runtime '{runtime}', and not '{self._runtime}'",
                resolution=ociruntimes.install_of(self._runtime),
            )
        overlay = store.get("graphDriverName") == "overlay"
        sandboxed = ociruntimes.has_kernel(runtime)
        features = {Feature.NETWORK, Feature.MARKER, Feature.EXEC, Feature.SLEEP}
        features |= set() if sandboxed else {Feature.RESTART}
        features |= {Feature.HOST_PIDS, Feature.ENGINE_PIDS}
        features |= {Feature.PINNING} if "cpuset" in known.controllers else set()
        features |= {Feature.COLD, Feature.STORAGE} if overlay else set()
        network = _network(host, rootless=known.rootless)
        return Info(
            engine="Podman",
            version=str(versions.get("Version") or told["version"]["Version"]),
            isolation=ociruntimes.isolation_of(runtime),
            features=frozenset(features),
            facts={
                "runtime": runtime,
                "runtime_version": _first(_VERSION, host["ociRuntime"].get("version", "")),
                **gvisor.facts(runtime, host["ociRuntime"].get("path", "")),
                "monitor": f"conmon {_first(_VERSION, (host.get('conmon') or {}).get('version', ''))}",
                "daemon": "none: the lab serves the API itself, by `podman system service`, while it runs",
                "network": network,
                "storage_driver": store.get("graphDriverName"),
                "storage": store.get("graphRoot"),
                "cgroup_version": str(host.get("cgroupVersion", "")).removeprefix("v"),
                "cgroup_driver": host.get("cgroupManager"),
                "rootless": known.rootless,
                "kernel": host.get("kernel"),
                "log_driver": "k8s-file",
                "limits": _limits(told, known),
                "restart": {str(restart): policy for restart, policy in request.RESTART.items()},
                "restarted_by": _SANDBOX_RESTARTS if sandboxed else _RESTARTS,
                "surroundings": describe(
                    rlimits=known.rlimits,
                    seccomp=_seccomp(host.get("security") or {}, runtime),
                    names="the host's",
                ),
                "images": {image: images.layers(self._api, ref) for image, ref in self._images.items()},
            },
            qualifiers={"rootless": "yes", "network": network} if known.rootless else {},
        )

    def prepare(self, spec: Spec) -> None:
        """Give Podman the image. Raises Unsupported, BadInput, DriverError."""
        self._images[spec.image] = images.provide(self._api, spec, self._context)
        self._tmp[spec.image] = images.tmp_of(self._api, self._images[spec.image], spec)
        self._known()

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Create, attach, start. Raises LaunchError, after removing the container, whose log is in its details."""
        if endpoint is None:
            raise LaunchError("a container needs an endpoint on this host to publish its port at")
        if spec.image not in self._images:
            self.prepare(spec)
        known = self._known()
        made: str | None = None
        output: Output | None = None
        try:
            with translated("create the container", LaunchError):
                made = self._api.create(self._body(spec, endpoint, known))
            mark(Phase.CREATED, source=Source.RETURN)
            with translated("start the container", LaunchError):
                output = Output(self._api, made, mark)  # type: ignore[arg-type]  # of which it calls `attach_socket`
                self._api.start(made)
            mark(Phase.STARTED, source=Source.RETURN)
        except BaseException as error:
            problems = undo(output, lambda: self._made(made, spec))
            if isinstance(error, DriverError):
                error.details = "\n".join([error.details, *problems])
            raise
        return self._instance(made, spec.labels, endpoint, output=output, watch=self._watch(made, spec, mark))

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every container of the lab's targets by Podman, in whatever state."""
        found: list[Instance] = []
        with translated("list containers"):
            for told in self._api.containers(run_label(labels)):
                own = told.get("Labels") or {}
                # One that somebody else made of the lab's image has inherited its labels, but not a launch's own.
                if bears(own, labels) and _is_ours(own) and "lab.launch" in own:
                    found.append(self._instance(told["Id"], own, endpoint_of(self._api.inspect(told["Id"]))))
        return found

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Images of the lab's, and services of labs that are dead."""
        services = [one for one in left_services() if bears(one.labels, labels)]
        return [*images.remnants(self._api, labels), *services]

    def launch_files(self, spec: Spec) -> Sequence[Path]:
        """The layers' directories, and the programs that a launch starts. Raises DriverError."""
        if spec.image not in self._images:
            self.prepare(spec)
        with translated("ask Podman what it is"):
            host = self._api.info()["host"]
        named = [host["ociRuntime"].get("path"), (host.get("conmon") or {}).get("path"), *_PROGRAMS]
        programs = [Path(found) for name in dict.fromkeys(named) if name and (found := shutil.which(name))]
        return [*images.layer_directories(self._api, self._images[spec.image]), *programs]

    def others_running(self) -> Sequence[str]:
        """The names of running containers that are no launch of the lab's."""
        with translated("list containers"):
            running = self._api.containers(all_states=False)
        return [one["Names"][0] for one in running if "lab.launch" not in (one.get("Labels") or {})]

    def engine_pids(self) -> Mapping[int, str]:
        """The service that the lab runs, without which the containers run on."""
        pid = self._api.service.pid
        entries = procs.table()
        below = [
            one.process.pid
            for one in procs.descendants(entries, pid)
            if "service" in procs.arguments(one.process.pid)  # a user's Podman runs itself anew in its user namespace
        ]
        return dict.fromkeys([pid, *below], "podman system service")

    def close(self) -> None:
        """End the threads, the connections and the service; containers live on."""
        for watch in list(self._watches):
            watch.close()
        self._api.close()

    def _known(self, told: Mapping[str, Any] | None = None) -> Engine:
        if self._engine is None or told is not None:
            with translated("ask Podman what it is"):
                told = told or self._api.info()
                # The program lowers its own limits at its start (podman, cmd/podman/early_init_linux.go).
                self._engine = _known(told, granted(*self.engine_pids(), user_namespace=_is_rootless(told)))
        return self._engine

    def _body(self, spec: Spec, endpoint: Endpoint, known: Engine) -> dict[str, Any]:
        own = self._tmp.get(spec.image) is Tmp.OWN
        return request.body(
            spec,
            self._images[spec.image],
            endpoint,
            controllers=known.controllers,
            rlimits=known.rlimits,
            rootless=known.rootless,
            scratch=None if own else request.scratch_mount(spec),
        )

    def _watch(self, container: str, spec: Spec, mark: Mark) -> EndWatch | None:
        if spec.restart is Restart.BEST:  # one that is started again may still become ready
            return None
        watch: EndWatch | None = None

        def ended() -> None:
            if watch is not None:
                self._watches.discard(watch)

        watch = EndWatch(self._api, container, mark, memory_bytes=spec.memory_bytes, ended=ended)
        self._watches.add(watch)
        return watch

    def _made(self, made: str | None, spec: Spec) -> Sequence[Instance]:
        """What a failed launch made. A request without an answer may have been carried out, so that the label is asked
        as well."""
        if made is not None:
            return [self._instance(made, spec.labels, None)]
        launch = spec.labels.get("lab.launch")
        return self.list_instances({"lab.launch": launch}) if launch else []

    def _instance(
        self,
        container: str,
        labels: Mapping[str, str],
        endpoint: Endpoint | None,
        *,
        output: Output | None = None,
        watch: EndWatch | None = None,
    ) -> PodmanContainer:
        def forget() -> None:
            if output is not None:
                output.close()
            if watch is not None:
                watch.close()

        return PodmanContainer(
            self._api,
            container,
            labels=labels,
            endpoint=endpoint,
            engine=self._known(),
            before_end=watch.expect if watch is not None else lambda: None,
            on_delete=forget,
        )


def _known(told: Mapping[str, Any], rlimits: Rlimits) -> Engine:
    host = told["host"]
    rootless = _is_rootless(told)
    # Under version 1 Podman ignores the limits of other users than root (podman, specgen/generate/validate.go).
    powerless = rootless and host.get("cgroupVersion") == "v1"
    controllers = frozenset(host.get("cgroupControllers") or ())
    without = host.get("cgroupManager") == "disabled"
    return Engine(
        rootless=rootless,
        controllers=frozenset() if powerless or without else controllers,
        freezes=not powerless and not without,
        rlimits=rlimits,
    )


def _is_rootless(told: Mapping[str, Any]) -> bool:
    return bool((told["host"].get("security") or {}).get("rootless"))


def _limits(told: Mapping[str, Any], known: Engine) -> dict[str, str]:
    host = told["host"]
    if known.rootless and host.get("cgroupVersion") == "v1":
        why = "not set: Podman sets no limits for other users than root under version 1 of cgroups"
        return dict.fromkeys(request.LIMITS, why)
    return {
        limit: "set by Podman"
        if controller in known.controllers
        else f"not set: Podman has no part in the cgroup controller '{controller}' here"
        for limit, controller in request.LIMITS.items()
    }


def _network(host: Mapping[str, Any], *, rootless: bool) -> str:
    """By what a container's network is made. Before 5.0 (`rootlessNetworkCmd`) a user's is slirp4netns."""
    if not rootless:
        return f"bridge, by {host.get('networkBackend') or 'CNI'}"
    return str(host.get("rootlessNetworkCmd") or processes.NETWORKS[1])


def _seccomp(security: Mapping[str, Any], runtime: str) -> str:
    if ociruntimes.has_kernel(runtime):
        return ociruntimes.OWN_KERNEL
    return f"Podman's profile '{security.get('seccompProfilePath')}'" if security.get("seccompEnabled") else "no filter"


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1].rstrip(",") if found else "unknown"


def _is_ours(labels: Mapping[str, str]) -> bool:
    """Whether a labelled object belongs to a target by Podman: Docker's driver can have made some of its own here, by
    Podman's Docker-compatible API."""
    return labels.get("lab.target", "podman").split(":")[0] == "podman"
