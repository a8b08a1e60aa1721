"""Kubernetes, through its official client: on a kind cluster of the lab's own, or on any context of a kubeconfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from drivers.kubernetes.cluster import images
from drivers.kubernetes.cluster.clusters import Cluster, Clusters
from drivers.kubernetes.cluster.cost import measure_cluster
from drivers.kubernetes.cluster.kind import DEFAULT_NAME, Kind, read_config
from drivers.kubernetes.connection.client import Api, Json, connect, require_client
from drivers.kubernetes.connection.errors import message_of, status_of, translated
from drivers.kubernetes.connection.refusals import explain
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.nodes import Placement, entrance, require_node, spread_by, usable
from drivers.kubernetes.nodes.kubelet import Kubelets
from drivers.kubernetes.nodes.kubelet import ask as ask_kubelets
from drivers.kubernetes.nodes.losing import Losing
from drivers.kubernetes.objects import manifests
from drivers.kubernetes.objects.labels import label_value
from drivers.kubernetes.objects.manifests import INSTANCE, Form
from drivers.kubernetes.objects.namespaces import Namespace, choose_namespace, home_of
from drivers.kubernetes.objects.shapes import Shape, Variant
from drivers.kubernetes.objects.vmi import GROUP, VERSION, acceleration
from drivers.kubernetes.options import MOST_WORKERS, Options
from drivers.kubernetes.pods import processes
from drivers.kubernetes.pods.inventory import find_instances, find_remnants, pods_of_the_lab, ports_in_use
from drivers.kubernetes.pods.launch import Ground, Launch
from drivers.kubernetes.pods.ports import pool_of
from drivers.kubernetes.pods.routes import NODE_PORT, POD_ADDRESS, choose_route
from lab.driver import ANSWERS_AT, LACKS, Context, Info, Instance, Leftover, Mark
from lab.errors import BadInput, DriverError, DriverUnavailable, Unsupported
from lab.features import CPUS_CHOSEN_BY, Feature
from lab.host.facts import boot_id
from lab.image.process import surroundings
from lab.launch.ticks import TICK
from lab.spec import Endpoint, Spec

_BACKOFF = "at once, then after 10 s, doubled each time up to 5 min"
_ALWAYS = f"restartPolicy Always: {_BACKOFF}"
_RESTARTS = {
    Shape.POD: _ALWAYS,
    Shape.DEPLOYMENT: _ALWAYS,
    Shape.VMI: "none: a virtual machine that ends is not started again",
    Shape.JOB: f"restartPolicy OnFailure, six times: {_BACKOFF}",
}
_ISOLATION = {"runsc": "user-space kernel (gVisor)", "kata": "virtual machine (Kata Containers)"}
_TICK_S = 1.0
"""The kubelet looks at its pods' containers once a second (`genericPlegRelistPeriod`, and the ticker of its syncLoop:
k8s.io/kubernetes, pkg/kubelet/kubelet.go), and kube-proxy writes its rules at most as often (`minSyncPeriod`)."""
_SECCOMP = "the container runtime's default profile"
_TMP = "a memory volume of the scratch size (mode 0777) where the image has nothing there; else the image's"
_FOREIGN_TMP = "a memory volume of the scratch size (mode 0777), also over what the image has there"
_LIMITS = {
    "memory": "set by the engine",
    "swap": "none, as the kubelet gives pods no swap",
    "cpus": "set by the engine",
}

_MACHINE_LIMITS = {
    "memory": "the guest's own",
    "swap": "the guest's own",
    "cpus": "virtual CPUs, and a limit of the pod's for a fraction",
    "pids": "not set: a guest has no limit on processes",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """The cluster that a driver works on; `cluster` is None where it is not the lab's own, `nodes` where this user may
    not look at them."""

    ground: Ground
    cluster: Cluster | None
    nodes: Sequence[Json] | None


class KubernetesDriver:
    """One cluster: the lab's own of kind's, or, with the option `context`, one of the user's kubeconfig.

    `variant` is '' for one pod per instance, 'deployment' for a Deployment with its ReplicaSet and its Service, 'job'
    for a Job, and 'runtimeclass=NAME' for pods of that RuntimeClass, also behind one of these by a '+'. Options:
    `context`, `kind-cluster` (the name of the lab's, 'stratalab'), `kind-image`, `kind-config` and `kind-workers` (for
    `lab cluster up`), `service-image` (the reference of the lab's own service where the user has pushed it, for
    `context`), `route`, `namespace` (an existing one), `node` (the only one that pods go to), `spread` (`nodes`),
    `tolerate` (seconds after which a lost node's pods are given up), `security` (`restricted` or `image`), `vmi-image`
    (what holds the disk of the variant 'vmi'), `request-cpu` and `request-memory` (what the scheduler sets aside for a
    pod); each is also read from its environment variable, such as LAB_KIND_IMAGE.

    The service's lines do not reach the lab as they are written: a pod's log can only be followed once the API says
    that its container runs, which is up to a second late (the kubelet looks once a second), so that to wait for a
    line would delay `ready`. The lab polls instead.
    """

    name = "kubernetes"
    by_flag_only: ClassVar[frozenset[str]] = frozenset({Shape.VMI.value})
    """Variants that need an option to be launched at all."""

    def __init__(self, variant: str, context: Context) -> None:
        self._variant = Variant.parse(variant)
        self._context = context
        self._options = Options(context.options)
        self._clusters = Clusters(context.cache_dir)
        self._found: _Found | None = None
        self._kubelets: Kubelets | None = None
        self._watchers: dict[str, Watcher] = {}
        self._images: dict[str, str] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._own_tmp: dict[str, bool] = {}

    @classmethod
    def variants(cls) -> Mapping[str, str]:
        """The fixed ones; beside them RuntimeClasses, which are looked up in the cluster."""
        return {
            "": "a pod on the lab's kind cluster, or on --context; kubernetes:runtimeclass=NAME has that RuntimeClass",
            Shape.DEPLOYMENT.value: "a Deployment of one replica behind a Service, as people deploy",
            Shape.JOB.value: "a Job of one pod, which is started again where it fails",
            Shape.VMI.value: "a virtual machine as a pod, by KubeVirt, of your disk: -o vmi-image=REFERENCE, --port",
        }

    def info(self) -> Info:
        """What the cluster says of itself. Raises DriverUnavailable where there is none, or it lacks the variant."""
        found = self._target()
        api, route, pool = found.ground.api, found.ground.route, found.ground.pool
        with translated("tell its version", DriverUnavailable):
            version = api.call(api.version.get_code)
            handler = self._handler(api)
        features = {Feature.NETWORK, Feature.EXEC, Feature.RESTART, Feature.TICKS, Feature.PEERS}
        if self._machine:
            self._require_kubevirt()
            features = {Feature.NETWORK, Feature.TICKS, Feature.OWN_SERVICE}
        features |= {Feature.HOST_PIDS} if found.ground.local else set()
        features |= {Feature.REPLICAS, Feature.SLEEP} if self._deployed else set()
        features |= {Feature.CLUSTER} if found.cluster else set()
        features |= {Feature.NODES} if found.nodes is not None else set()
        placement = self._placement()
        kubelets = self._asked_kubelets()
        pinned = kubelets.exclusive and found.ground.local and not self._machine
        features |= {Feature.PINNING} if pinned else set()
        features |= {Feature.ENGINE_PIDS} if found.cluster and found.ground.local else set()
        told = [node["status"].get("nodeInfo") or {} for node in found.nodes or ()]
        return Info(
            engine="Kubernetes",
            version=str(version["gitVersion"]).removeprefix("v"),
            isolation=self._isolation(handler),
            features=frozenset(features),
            facts={
                "cluster": dict(found.cluster.facts) if found.cluster else {"context": self._options.text("context")},
                "nodes": len(found.nodes) if found.nodes is not None else "not told: this user may not list them",
                "nodes_that_take_pods": usable(found.nodes or ()),
                "placement": placement.told(),
                "namespaces": {one.name: one.why for one in self._namespaces.values()},
                "kubelet": sorted({str(one.get("kubeletVersion")) for one in told}),
                "container_runtime": sorted({str(one.get("containerRuntimeVersion")) for one in told}),
                "kernel": sorted({str(one.get("kernelVersion")) for one in told}),
                "runtime_class": self._runtime_class(),
                "route": route.why,
                "pool": len(pool) if pool is not None else None,
                "limits": dict(_MACHINE_LIMITS) if self._machine else {**_LIMITS, "pids": kubelets.pids},
                "cpu_manager": sorted(set(kubelets.policies)) or kubelets.problem,
                **({CPUS_CHOSEN_BY: "the kubelet"} if kubelets.exclusive else {}),
                **({LACKS: {Feature.PINNING.value: kubelets.lacking}} if kubelets.lacking else {}),
                "requests": {**manifests.REQUESTS, **self._options.requests()},
                "security": self._options.security_facts(),
                "readiness_probe": f"HTTP GET every 1 s; {route.readiness}",
                TICK: _TICK_S,
                "restart": dict.fromkeys(("default", "best"), _RESTARTS[self._variant.shape]),
                "surroundings": surroundings(
                    rlimits="the node's own: a pod has no limits of this kind",
                    seccomp=_SECCOMP,
                    names="the node's",
                    oom_score_adj="the kubelet's, by requests and limits",
                    tmp=_TMP if found.cluster else _FOREIGN_TMP,
                ),
                "images": dict(self._images),
                **({ANSWERS_AT: beyond} if (beyond := _beyond_this_host(found)) else {}),
            },
            qualifiers={
                "route": route.name,
                "clock": f"{_TICK_S:g} s tick",
                **({"node": placement.node} if placement.node else {}),
                **({"spread": "nodes"} if placement.spread else {}),
                **({"accel": accel} if (accel := self._acceleration()) else {}),
            },
        )

    def prepare(self, spec: Spec) -> None:
        """Bring the image to every node of the lab's cluster, choose the run's namespace, and follow its events.

        Raises Unsupported, BadInput, DriverError.
        """
        found = self._target()
        self._options.require_room(spec)
        self._options.level(spec)
        _require_whole_cpus(spec)
        require_node(spec.node or self._placement().node, found.nodes)
        if self._machine:
            self._images[spec.image] = self._disk_image()
        elif found.cluster is not None:
            self._images[spec.image] = images.provide(Kind.find(), found.cluster.name, spec, self._context)
            self._own_tmp[spec.image] = images.has_own_tmp(spec, self._context)
        else:
            self._images[spec.image] = images.foreign_reference(spec, self._options.text("service-image"))
        namespace = self._choose_namespace(spec)
        if found.ground.pool is not None:
            found.ground.pool.occupy(ports_in_use(found.ground.api))
        self._watcher(namespace.name).connect()  # here, so that no launch pays for it

    def launch(self, spec: Spec, endpoint: Endpoint | None, mark: Mark) -> Instance:
        """Create the objects, and return when the scheduler has found a node. Raises LaunchError after removing them.

        The instance answers where the cluster decides, so that `endpoint` is used by a port-forward only.
        """
        if spec.image not in self._images or spec.labels.get("lab.run", "") not in self._namespaces:
            self.prepare(spec)
        found = self._target()
        namespace = self._namespaces[spec.labels.get("lab.run", "")]
        form = Form(
            image=self._images[spec.image],
            pull_policy="Never" if found.cluster and not self._machine else "IfNotPresent",
            security=self._options.security(spec, gives_users=namespace.gives_users),
            requests=self._options.requests(),
            runtime_class=self._runtime_class(),
            own_tmp=self._own_tmp.get(spec.image, False),
            placed=self._placed(spec),
        )
        watcher = self._watcher(namespace.name)
        making = Launch(found.ground, spec, form, mark, watcher, shape=self._variant.shape)
        try:
            return making.run(endpoint)
        except BaseException as error:
            problems = making.undo()
            if isinstance(error, DriverError):
                error.details = "\n".join(text for text in (error.details, *problems) if text)
            raise

    def list_instances(self, labels: Mapping[str, str]) -> Sequence[Instance]:
        """Every deployment of the lab's, and every pod that belongs to none, in whatever variant."""
        return find_instances(self._target().ground, labels)

    def leftovers(self, labels: Mapping[str, str]) -> Sequence[Leftover]:
        """Namespaces, Services without an instance, and clusters that were never finished. A finished cluster is
        kept for the next run: see `lab cluster down`."""
        unfinished = self._clusters.unfinished(labels)
        try:
            ground = self._target().ground
        except DriverUnavailable:
            if not unfinished:
                raise
            return unfinished  # where a cluster is not whole, there is nothing in it yet
        return [*unfinished, *find_remnants(ground, labels)]

    def nodes(self) -> Sequence[str]:
        """Those that take pods. Raises DriverError."""
        return usable(self._target().nodes or ())

    def peer_address(self, spec: Spec, published: Endpoint) -> tuple[str, int]:  # noqa: ARG002  by the cluster's names
        """The name of a Service of its own, of which the cluster's DNS tells in the run's namespace. Raises Unsupported
        for a virtual machine, whose disk is the user's, and into which no variable is brought."""
        if self._machine:
            raise Unsupported("a disk of your own is told nothing of its peers", resolution="leave this target out")
        return spec.alias, spec.port

    def engine_pids(self) -> Mapping[int, str]:
        """What runs the lab's own cluster: all in its nodes but the lab's pods and their shims, and the nodes' own
        shims and proxies. Names are the first 15 bytes."""
        found = self._target()
        if found.cluster is None or not found.ground.local:
            return {}
        uids = pods_of_the_lab(found.ground)
        return processes.of_nodes(Kind.find().containers(found.cluster.name), uids)

    def cluster_up(self, say: Callable[[str], None]) -> Mapping[str, Any]:
        """Make the lab's own cluster, unless it is there; returns what it was made with. Raises BadInput, DriverError.

        `say` is told each step, in a line.
        """
        require_client()
        return self._clusters.up(
            self._cluster_name(),
            image=self._options.text("kind-image"),
            config=self._options.path("kind-config"),
            say=say,
            workers=self._options.number("kind-workers", MOST_WORKERS) or 0,
        )

    def cluster_down(self) -> bool:
        """Remove the lab's own cluster; whether there was one. Raises BadInput where it is not the lab's;
        DriverError."""
        self.close()
        return self._clusters.down(self._cluster_name())

    def cluster_status(self) -> Mapping[str, Any]:
        """What the lab's own cluster is, asked now. Raises DriverUnavailable with the remedy."""
        require_client()
        cluster = self._clusters.open(self._cluster_name())
        try:
            with translated("tell its version", DriverUnavailable):
                version = cluster.api.call(cluster.api.version.get_code)
            used = len(ports_in_use(cluster.api) & set(cluster.ports))
            return {
                **cluster.facts,
                "version": version["gitVersion"],
                "ports_in_use": f"{used} of {len(cluster.ports)}",
            }
        finally:
            cluster.api.close()

    def cluster_cost(self, spec: Spec, seen: Callable[[str], None]) -> None:
        """Make another cluster, from the node image and the config that the lab's own was made with, or that
        `kind-image` and `kind-config` name."""
        cluster = self._target().cluster
        if cluster is None:
            raise Unsupported("the lab makes no cluster on a foreign context", resolution="leave out --context")
        image = self._options.text("kind-image") or str(cluster.facts.get("node_image") or "")
        path = self._options.path("kind-config")
        config = read_config(path) if path is not None else cluster.facts.get("kind_config")
        measure_cluster(self._clusters, spec, self._context, image=image, config=config, seen=seen)

    def close(self) -> None:
        """Stop following events, and close the connections."""
        for watcher in self._watchers.values():
            watcher.close()
        self._watchers.clear()
        if self._found is not None:
            self._found.ground.api.close()
            self._found = self._kubelets = None

    def _target(self) -> _Found:
        """The cluster, found at the first call. Raises DriverUnavailable."""
        if self._found is None:
            require_client()
            context = self._options.text("context")
            cluster = None if context else self._clusters.open(self._cluster_name())
            api = cluster.api if cluster else connect(context=context)
            try:
                self._found = self._explore(api, cluster)
            except BaseException:
                api.close()
                raise
        return self._found

    def _explore(self, api: Api, cluster: Cluster | None) -> _Found:
        nodes: list[Json] | None = None
        with translated("list its nodes", DriverUnavailable):
            try:
                nodes = list(api.each(api.core.list_node))
            except Exception as error:
                if cluster is not None or status_of(error) != 403 or explain(message_of(error)):
                    raise
                # They are facts, and a user of some namespaces alone is not told of them.
        route = choose_route(
            self._options.text("route"), cluster, nodes or (), deployed=self._deployed, machine=self._machine
        )
        boots = {str((node["status"].get("nodeInfo") or {}).get("bootID")) for node in nodes or ()}
        ground = Ground(
            api=api,
            route=route,
            pool=pool_of(cluster.uid, cluster.ports) if cluster else None,
            local=boots == {boot_id()},  # every node runs on this very kernel
            namespaces=frozenset() if cluster else frozenset({self._options.text("namespace") or home_of(api)}),
            losing=Losing(api=api, own=cluster is not None, entrance=entrance(nodes or ())),
        )
        return _Found(ground, cluster, nodes)

    @property
    def _deployed(self) -> bool:
        return self._variant.shape is Shape.DEPLOYMENT

    @property
    def _machine(self) -> bool:
        return self._variant.shape is Shape.VMI

    def _placement(self) -> Placement:
        """Where pods are to go. A deployment's, which its Service's port leads to wherever it is, keep off the node
        that is the way in, so that another's loss can be looked at. Raises BadInput."""
        found = self._target()
        aside = self._deployed and found.cluster is not None and len(usable(found.nodes or ())) > 1
        return self._options.placement(aside=aside)

    def _placed(self, spec: Spec) -> Json:
        """What a pod of `spec` is told of the nodes."""
        placement = self._placement()
        if spec.node:
            placement = replace(placement, node=spec.node, spread=False)
        own = {INSTANCE: manifests.name_of(spec)} | {key: label_value(text) for key, text in spec.labels.items()}
        return placement.of_pods(spread_by(own, deployed=self._deployed))

    def _asked_kubelets(self) -> Kubelets:
        """What the nodes' kubelets are set to, asked once. Raises DriverUnavailable."""
        found = self._target()
        if self._kubelets is None:
            there = [self._options.text("node")] if self._options.text("node") else usable(found.nodes or ())
            with translated("ask the kubelets", DriverUnavailable):
                self._kubelets = ask_kubelets(found.ground.api, there)
        return self._kubelets

    def _choose_namespace(self, spec: Spec) -> Namespace:
        """That of the run that `spec` is of. Raises BadInput, DriverError."""
        found = self._target()
        wanted, foreign = self._options.text("namespace"), found.cluster is None
        chosen = choose_namespace(found.ground.api, spec.labels, wanted=wanted, foreign=foreign)
        self._namespaces[spec.labels.get("lab.run", "")] = chosen
        return chosen

    def _watcher(self, namespace: str) -> Watcher:
        if namespace not in self._watchers:
            self._watchers[namespace] = Watcher(self._target().ground.api, namespace)
        return self._watchers[namespace]

    def _cluster_name(self) -> str:
        return self._options.text("kind-cluster") or DEFAULT_NAME

    def _runtime_class(self) -> str:
        return self._variant.runtime_class

    def _disk_image(self) -> str:
        """The image that holds a virtual machine's disk. Raises BadInput where none is named."""
        image = self._options.text("vmi-image")
        if not image:
            raise BadInput(
                "a virtual machine on Kubernetes boots a disk that an image holds (KubeVirt's containerDisk)",
                resolution="-o vmi-image=REFERENCE, and --port where it answers",
            )
        return image

    def _require_kubevirt(self) -> None:
        """Raises DriverUnavailable, and BadInput where no disk is named."""
        api = self._target().ground.api
        self._disk_image()
        with translated("ask for KubeVirt", DriverUnavailable):
            found = api.found(api.custom.get_api_resources, GROUP, VERSION)
        if found is None:
            raise DriverUnavailable(
                f"the cluster has no KubeVirt: it knows no {GROUP}/{VERSION}",
                resolution="see https://kubevirt.io/user-guide/cluster_admin/installation",
            )

    def _acceleration(self) -> str:
        nodes = self._target().nodes or ()
        return acceleration(nodes) if self._machine else ""

    def _isolation(self, handler: str | None) -> str:
        if self._machine:
            return "virtual machine (KubeVirt), in a pod"
        if handler is None:
            return f"as the RuntimeClass {self._runtime_class()} gives it, which this user may not look at"
        return _ISOLATION.get(handler, f"namespaces ({handler or 'runc'}), in a pod")

    def _handler(self, api: Api) -> str | None:
        """What the RuntimeClass of this variant names, empty where there is none, None where this user may not look at
        them. Raises DriverUnavailable."""
        name = self._runtime_class()
        if not name:
            return ""
        try:
            listed = api.call(api.node.list_runtime_class).get("items") or ()
        except Exception as error:
            if status_of(error) != 403:
                raise
            return None
        handlers = {one["metadata"]["name"]: str(one["handler"]) for one in listed}
        if name not in handlers:
            raise DriverUnavailable(
                f"the cluster has no RuntimeClass '{name}'; it has {', '.join(sorted(handlers)) or 'none'}",
                resolution="see https://kubernetes.io/docs/concepts/containers/runtime-class",
            )
        return handlers[name]


def _require_whole_cpus(spec: Spec) -> None:
    """Raises Unsupported where a pod is to have CPUs of its own, and not as many as it may use."""
    if spec.cpuset and spec.cpus != len(spec.cpuset):
        raise Unsupported(
            f"the kubelet gives whole CPUs: {spec.cpus:g} of them, held to {len(spec.cpuset)}, cannot be",
            resolution=f"give --cpus {len(spec.cpuset)}",
        )


def _beyond_this_host(found: _Found) -> str:
    """Where instances answer that others than this host reach; empty where none do."""
    route = found.ground.route
    if found.cluster is not None or route.name not in (NODE_PORT, POD_ADDRESS):
        return ""
    if route.name == POD_ADDRESS:
        return "the pods' own addresses, in the cluster's network"
    at = f", of which {route.host} is asked" if route.host else ""
    return f"a port of every node of the cluster, open to whoever reaches its nodes{at}"
