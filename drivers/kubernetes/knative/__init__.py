"""Functions on Knative Serving, on the lab's own kind cluster or any context, through Kubernetes' official client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.cluster import images
from drivers.kubernetes.cluster.clusters import Cluster, Clusters
from drivers.kubernetes.cluster.kind import DEFAULT_NAME, Kind
from drivers.kubernetes.connection.client import Api, Json, connect, require_client
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.knative import manifests, status
from drivers.kubernetes.knative.ingress import SYSTEM, Ingress, find_ingress
from drivers.kubernetes.knative.instance import Function, Place
from drivers.kubernetes.knative.launch import Launch
from drivers.kubernetes.knative.manifests import Scaling, where
from drivers.kubernetes.objects.labels import labels_of, selector
from drivers.kubernetes.objects.manifests import REQUESTS, Form
from drivers.kubernetes.objects.namespaces import Namespace, choose_namespace, home_of
from drivers.kubernetes.options import Options
from drivers.kubernetes.pods import processes
from drivers.kubernetes.pods.inventory import find_namespaces, pods_of_the_lab
from drivers.kubernetes.pods.launch import Ground
from drivers.kubernetes.pods.routes import Route
from lab.driver import ANSWERS_AT, Context, Info, Instance, Leftover, Mark, bears
from lab.errors import BadInput, DriverError, DriverUnavailable
from lab.features import Feature
from lab.host.facts import boot_id
from lab.image.process import surroundings
from lab.launch.ticks import TICK
from lab.spec import Endpoint, Spec

_TICK_S = 1.0
"""The kubelet's, as for any pod (`drivers/kubernetes/__init__.py`)."""
_INSTALL = "install Knative Serving and an ingress: https://knative.dev/docs/install/yaml-install/serving"
_CONCURRENCY, _MOST, _WINDOW_S = 1, 16, 6
"""One call at a time in a pod, as functions elsewhere have it; pods at most; and the shortest window that there is."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The cluster that a driver works on; `cluster` is None where it is not the lab's own, `nodes` where this user may
    not look at them."""

    ground: Ground
    cluster: Cluster | None
    nodes: Sequence[Json] | None
    ingress: Ingress


class KnativeDriver:
    """Knative Serving on one cluster: the lab's own of kind's, or, with the option `context`, one of the user's.

    Options: those of the driver `kubernetes`, but for its `route`; and `knative-ingress` (where the ingress answers,
    HOST:PORT), `knative-concurrency` (calls at a time in a pod, 0 for any number), `knative-most` (pods at most) and
    `knative-window` (seconds of the autoscaler's mean, 6 at least, after which a service nobody calls goes to zero).
    """

    name = "knative"

    def __init__(self, variant: str, context: Context) -> None:
        if variant:
            raise BadInput(f"knative has no variant '{variant}'", resolution="write knative")
        self._context = context
        self._options = Options(context.options)
        self._clusters = Clusters(context.cache_dir)
        self._found: _Found | None = None
        self._watchers: dict[str, tuple[Watcher, Watcher]] = {}
        self._images: dict[str, str] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._own_tmp: dict[str, bool] = {}

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        return {"": "a function on Knative Serving, which goes to zero, on the lab's kind cluster or on --context"}

    def info(self) -> Info:
        """What the cluster says of itself and of Knative. Raises DriverUnavailable where either is not there."""
        found = self._target()
        api = found.ground.api
        scaling = self._scaling()
        with translated("tell its version", DriverUnavailable):
            kubernetes = api.call(api.version.get_code)
            grace = self._setting("config-autoscaler", "scale-to-zero-grace-period")
        told = [node["status"].get("nodeInfo") or {} for node in found.nodes or ()]
        features = {Feature.NETWORK, Feature.EXEC, Feature.TICKS, Feature.SLEEP, Feature.FUNCTION}
        features |= {Feature.HOST_PIDS} if found.ground.local else set()
        features |= {Feature.ENGINE_PIDS} if found.cluster and found.ground.local else set()
        concurrency = str(scaling.concurrency) if scaling.concurrency else "any number"
        return Info(
            engine="Knative Serving",
            version=self._version(),
            isolation="namespaces (runc), in a pod",
            features=frozenset(features),
            facts={
                "cluster": dict(found.cluster.facts) if found.cluster else {"context": self._options.text("context")},
                "kubernetes": str(kubernetes["gitVersion"]).removeprefix("v"),
                "container_runtime": sorted({str(one.get("containerRuntimeVersion")) for one in told}),
                "kernel": sorted({str(one.get("kernelVersion")) for one in told}),
                "ingress": found.ingress.why,
                "namespaces": {one.name: one.why for one in self._namespaces.values()},
                "concurrency": f"{concurrency} of calls at a time in a pod, {scaling.most} pods at most",
                "keep_alive_s": float(scaling.window_s),
                "scale_to_zero": f"after a window of {scaling.window_s} s without a call, and up to {grace or '30s'} "
                "more where requests had not gone by the activator",
                "beside_the_service": "a queue-proxy in each pod, by which every request goes",
                "limits": {
                    "memory": "set by the engine, for the service's container; the queue-proxy has none of it",
                    "swap": "none, as the kubelet gives pods no swap",
                    "cpus": "set by the engine, for the service's container",
                    "pids": "not set: it is the kubelet's podPidsLimit, not the pod's",
                },
                "requests": {**REQUESTS, **self._options.requests()},
                "security": self._options.security_facts(),
                "readiness_probe": "Knative's own: of TCP, many times a second until the first success",
                TICK: _TICK_S,
                "surroundings": surroundings(
                    rlimits="the node's own: a pod has no limits of this kind",
                    seccomp="the container runtime's default profile",
                    names="the cluster's",
                    oom_score_adj="the kubelet's, by requests and limits",
                    tmp="a memory volume of the scratch size (mode 0777)"
                    + (" where the image has nothing there; else the image's" if found.cluster else ", also over it"),
                ),
                "images": dict(self._images),
                **({ANSWERS_AT: found.ingress.beyond} if found.ingress.beyond else {}),
            },
            qualifiers={"route": f"ingress {found.ingress.name}", "clock": f"{_TICK_S:g} s tick"},
        )

    def prepare(self, spec: Spec) -> None:
        """Bring the image to every node of the lab's cluster, choose the run's namespace, and follow its events.

        Raises Unsupported, BadInput, DriverError.
        """
        found = self._target()
        manifests.require_free_names(spec)
        self._scaling()
        self._options.require_room(spec)
        self._options.level(spec)
        if found.cluster is not None:
            self._images[spec.image] = images.provide(
                Kind.find(), found.cluster.name, spec, self._context, registry=manifests.REGISTRY
            )
            self._own_tmp[spec.image] = images.has_own_tmp(spec, self._context)
        else:
            self._images[spec.image] = images.foreign_reference(spec, self._options.text("service-image"))
        namespace = choose_namespace(
            found.ground.api,
            spec.labels,
            wanted=self._options.text("namespace"),
            foreign=found.cluster is None,
        )
        self._namespaces[spec.labels.get("lab.run", "")] = namespace
        for watcher in self._following(namespace.name):
            watcher.connect()  # here, so that no launch pays for it

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:  # noqa: ARG002  the ingress's
        """Create a Knative Service, and return when its first pod has a node and its name is known. Raises LaunchError
        after removing it. It answers where the ingress does, by its name."""
        if spec.image not in self._images or spec.labels.get("lab.run", "") not in self._namespaces:
            self.prepare(spec)
        found = self._target()
        namespace = self._namespaces[spec.labels.get("lab.run", "")]
        form = Form(
            image=self._images[spec.image],
            pull_policy="Never" if found.cluster else "IfNotPresent",
            security=self._options.security(spec, gives_users=namespace.gives_users),
            requests=self._options.requests(),
            own_tmp=self._own_tmp.get(spec.image, False),
        )
        watchers = self._following(namespace.name)
        making = Launch(found.ground.api, spec, form, mark, watchers, local=found.ground.local)
        try:
            return making.run(found.ingress, self._scaling())
        except BaseException as error:
            problems = making.undo()
            if isinstance(error, DriverError):
                error.details = "\n".join(text for text in (error.details, *problems) if text)
            raise

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every Knative Service of the lab's that bears `labels`."""
        found = self._target()
        made: list[Instance] = []
        for thing in self._services(labels):
            metadata = thing["metadata"]
            place = Place(
                api=found.ground.api,
                namespace=str(metadata["namespace"]),
                name=str(metadata["name"]),
                local=found.ground.local,
            )
            name, _ = status.host_of(thing)
            at = found.ingress.endpoint
            endpoint = Endpoint(at.host, at.port, name) if name else None
            made.append(Function(place, labels=labels_of(thing), endpoint=endpoint))
        return made

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Namespaces of runs: all else that Knative makes goes with its Service."""
        return find_namespaces(self._target().ground, labels)

    def engine_pids(self) -> Mapping[int, str]:
        """What runs the lab's own cluster and Knative on it; see the driver `kubernetes`."""
        found = self._target()
        if found.cluster is None or not found.ground.local:
            return {}
        return processes.of_nodes(Kind.find().containers(found.cluster.name), pods_of_the_lab(found.ground))

    def close(self) -> None:
        """Stop following events, and close the connections."""
        for watcher in (one for pair in self._watchers.values() for one in pair):
            watcher.close()
        self._watchers.clear()
        if self._found is not None:
            self._found.ground.api.close()
            self._found = None

    def _target(self) -> _Found:
        """The cluster, its Knative and its ingress, found at the first call. Raises BadInput, DriverUnavailable."""
        if self._found is None:
            require_client()
            context = self._options.text("context")
            cluster = None if context else self._clusters.open(self._options.text("kind-cluster") or DEFAULT_NAME)
            api = cluster.api if cluster else connect(context=context)
            try:
                self._found = self._explore(api, cluster)
            except BaseException:
                api.close()
                raise
        return self._found

    def _explore(self, api: Api, cluster: Cluster | None) -> _Found:
        home = self._options.text("namespace") or home_of(api)
        _require_knative(api, home)
        nodes: list[Json] | None = None
        with translated("list its nodes", DriverUnavailable):
            try:
                nodes = list(api.call(api.core.list_node).get("items") or ())
            except Exception as error:
                if cluster is not None or status_of(error) != 403:
                    raise
        boots = {str((node["status"].get("nodeInfo") or {}).get("bootID")) for node in nodes or ()}
        asked = self._options.text("knative-ingress")
        ingress = find_ingress(api, asked, nodes or (), own_cluster=cluster is not None)
        ground = Ground(
            api=api,
            route=Route(name=f"ingress {ingress.name}", why=ingress.why),
            pool=None,
            local=boots == {boot_id()},  # every node runs on this very kernel
            namespaces=frozenset() if cluster else frozenset({home}),
        )
        return _Found(ground, cluster, nodes, ingress)

    def _services(self, labels: Mapping[str, str]) -> list[Json]:
        """Of a cluster that shows this user no more than some namespaces, those in them."""
        ground = self._target().ground
        api, custom, chosen = ground.api, ground.api.custom, selector(labels)
        with translated("list Knative Services"):
            try:
                items = list(
                    api.call(custom.list_cluster_custom_object, *where(), label_selector=chosen).get("items") or ()
                )
            except Exception as error:
                if status_of(error) != 403 or not ground.namespaces:
                    raise
                listing = custom.list_namespaced_custom_object
                items = [
                    one
                    for name in sorted(ground.namespaces)
                    for one in api.call(listing, *where(name), label_selector=chosen).get("items") or ()
                ]
        return [thing for thing in items if bears(labels_of(thing), labels)]

    def _following(self, namespace: str) -> tuple[Watcher, Watcher]:
        """The watch of a namespace's pods, and that of its Knative Services."""
        if namespace not in self._watchers:
            api = self._target().ground.api
            self._watchers[namespace] = (
                Watcher(api, namespace),
                Watcher(api, namespace, listing=_listing_of(api)),
            )
        return self._watchers[namespace]

    def _scaling(self) -> Scaling:
        """Raises BadInput."""
        return Scaling(
            concurrency=self._number("knative-concurrency", _CONCURRENCY, 0, 1000),
            most=self._number("knative-most", _MOST, 1, 1000),
            window_s=self._number("knative-window", _WINDOW_S, 6, 3600),
        )

    def _number(self, option: str, unless_given: int, least: int, most: int) -> int:
        text = self._options.text(option)
        if not text:
            return unless_given
        if not text.isdigit() or not least <= int(text) <= most:
            raise BadInput(
                f"{option}={text} is no number from {least} to {most:,}", resolution=f"such as {unless_given}"
            )
        return int(text)

    def _setting(self, config: str, key: str) -> str:
        """What Knative is configured with, empty where that is its default or this user may not look."""
        api = self._target().ground.api
        try:
            found = api.found(api.core.read_namespaced_config_map, config, SYSTEM)
        except Exception as error:
            if status_of(error) != 403:
                raise
            return ""
        return str(((found or {}).get("data") or {}).get(key) or "")

    def _version(self) -> str:
        """As its namespace is labelled by its release; `not told` where it is not, or this user may not look."""
        api = self._target().ground.api
        with translated("tell Knative's version", DriverUnavailable):
            try:
                found = api.found(api.core.read_namespace, SYSTEM)
            except Exception as error:
                if status_of(error) != 403:
                    raise
                found = None
        told = ((found or {}).get("metadata") or {}).get("labels") or {}
        return str(told.get("app.kubernetes.io/version") or "not told").removeprefix("v")


def _require_knative(api: Api, home: str) -> None:
    """Raises DriverUnavailable where the cluster knows no Knative Services."""
    with translated("list Knative Services", DriverUnavailable):
        try:
            found = api.found(api.custom.list_cluster_custom_object, *where(), limit=1)
        except Exception as error:
            if status_of(error) != 403:
                raise
            found = api.found(api.custom.list_namespaced_custom_object, *where(home), limit=1)
    if found is None:
        what = f"{manifests.PLURAL} of {manifests.GROUP}/{manifests.VERSION}"
        raise DriverUnavailable(f"the cluster has no Knative Serving: it knows no {what}", resolution=_INSTALL)


def _listing_of(api: Api) -> Callable[..., Any]:
    """A listing of a namespace's Knative Services, as the client's of pods is called."""

    method: Callable[..., Any] = api.custom.list_namespaced_custom_object

    def listing(namespace: str, **options: Any) -> Any:
        return method(*where(namespace), **options)

    return listing
