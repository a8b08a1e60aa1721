"""One launch: its objects in their order, and their removal where it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import message_of, status_of, translated
from drivers.kubernetes.connection.forward import Forwarder
from drivers.kubernetes.connection.telling import telling
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.nodes.losing import Losing
from drivers.kubernetes.objects import labels, manifests
from drivers.kubernetes.objects import vmi as vmis
from drivers.kubernetes.objects.manifests import Form
from drivers.kubernetes.objects.shapes import Shape
from drivers.kubernetes.objects.status import Verdict, deployment_verdict
from drivers.kubernetes.pods.deployment import Deployment
from drivers.kubernetes.pods.instance import Place, Pod
from drivers.kubernetes.pods.owned import Owned, Owner, job, vmi
from drivers.kubernetes.pods.ports import Pool
from drivers.kubernetes.pods.routes import HOST_PORT, NODE_PORT, POD_ADDRESS, PORT_FORWARD, Route, node_port_endpoint
from lab.driver import Instance, Mark
from lab.errors import DriverError, LaunchError
from lab.spec import Endpoint, Spec

_SCHEDULE_TIMEOUT_S = 30.0
_ADDRESS_TIMEOUT_S = 60.0
_OWNED = frozenset({Shape.JOB, Shape.VMI})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What launches stand on. `pool` is None on a foreign cluster, which chooses its NodePorts itself; `namespaces` are
    where this user's objects may be, for a cluster that shows only those."""

    api: Api
    route: Route
    pool: Pool | None
    local: bool
    namespaces: frozenset[str] = frozenset()
    losing: Losing | None = None


class Launch:
    """The making of one instance of `spec`. `form` tells its pods apart from another target's."""

    def __init__(self, ground: Ground, spec: Spec, form: Form, mark: Mark, watcher: Watcher, *, shape: Shape) -> None:
        self._ground = ground
        self._spec = spec
        self._form = form
        self._watcher = watcher
        self._shape = shape
        self._deployed = shape is Shape.DEPLOYMENT
        self._name = manifests.name_of(spec)
        self._namespace = watcher.namespace
        self._key = spec.labels.get("lab.launch", "")
        self._follower = Follower(mark, expects_created=shape is Shape.POD, on_verdict=mark.failed)
        self._port: int | None = None
        self._alias = ""
        self._forwarder: Forwarder | None = None
        self._freed = threading.Lock()

    def run(self, reserved: Endpoint | None) -> Instance:
        """Create the objects, and return when the scheduler has found a node. Raises LaunchError, DriverUnavailable.

        `reserved` is a port of this host's that is free: only a port-forward listens there.
        """
        with telling() as told:
            try:
                return self._run(reserved)
            finally:
                self._follower.waited(told)

    def _run(self, reserved: Endpoint | None) -> Instance:
        self._watcher.follow(self._key, self._follower)
        endpoint, form = self._way_in(reserved)
        core, apps = self._ground.api.core, self._ground.api.apps
        if self._spec.alias:
            own = manifests.alias(self._spec)
            self._create("service", core.create_namespaced_service, core.read_namespaced_service, own)
            self._alias = self._spec.alias  # not before: one of that name may be somebody else's
        if self._deployed:
            body = manifests.deployment(self._spec, form)
            self._create("deployment", apps.create_namespaced_deployment, apps.read_namespaced_deployment, body)
        elif owner := self._owner():
            body = manifests.job(self._spec, form) if self._shape is Shape.JOB else vmis.vmi(self._spec, form)
            self._create(owner.kind, owner.create, owner.read, body)
        else:
            body = manifests.pod(self._spec, form)
            self._create("pod", core.create_namespaced_pod, core.read_namespaced_pod, body)
        self._follower.returned()
        self._follower.await_scheduled(_SCHEDULE_TIMEOUT_S, self._look)
        if endpoint is not None and not endpoint.host:  # of nodes that this user is not told of
            endpoint = Endpoint(self._follower.await_node(_ADDRESS_TIMEOUT_S), endpoint.port)
        if self._ground.route.name == POD_ADDRESS:
            address = self._follower.await_address(_ADDRESS_TIMEOUT_S)
            endpoint = Endpoint(address, self._spec.port)
        self._follower.accepted()
        return self._instance(endpoint, form)

    def undo(self) -> list[str]:
        """Remove what was made; returns what the instance said, and what could not be removed. A request without an
        answer may have been carried out, so that everything is looked for by its name."""
        told: list[str] = []
        try:
            instance = self._instance(None, self._form)
            told.append(instance.logs().decode(errors="replace"))
            instance.delete()
        except DriverError as error:
            told.append(f"not cleaned up: {error}")
        finally:
            self._free()
        return [text for text in told if text]

    def _way_in(self, reserved: Endpoint | None) -> tuple[Endpoint | None, Form]:
        """What leads to the pod, made before it, and the form that the pod must have for it."""
        route, pool = self._ground.route, self._ground.pool
        if route.name == NODE_PORT:
            return node_port_endpoint(pool, route, self._make_service()), self._form
        if route.name == HOST_PORT and pool is not None:
            self._port = pool.take()
            return node_port_endpoint(pool, route, self._port), replace(self._form, host_port=self._port)
        if route.name == PORT_FORWARD:
            if reserved is None:
                raise LaunchError("a port-forward needs an endpoint on this host")
            self._forwarder = Forwarder(self._ground.api, self._namespace, self._name, self._spec.port, reserved)
            return reserved, self._form
        return None, self._form

    def _make_service(self) -> int:
        """Make the Service; returns the port of the node. One that somebody else has taken meanwhile stays out of
        the pool."""
        core, pool = self._ground.api.core, self._ground.pool
        while True:
            self._port = pool.take() if pool is not None else None
            body = manifests.service(self._spec, self._port, ready_only=self._deployed)
            try:
                made = self._create("service", core.create_namespaced_service, core.read_namespaced_service, body)
            except _PortTaken:
                continue
            return int(made["spec"]["ports"][0]["nodePort"])

    def _create(self, kind: str, create: Callable[..., Any], read: Callable[..., Any], body: Json) -> Json:
        api = self._ground.api
        with translated(f"create the {kind}", LaunchError):
            try:
                return api.call(create, self._namespace, body)
            except Exception as error:
                if status_of(error) == 422 and "provided port is already allocated" in message_of(error):
                    raise _PortTaken from error
                # An answer that was lost, and the request repeated: the object bears this launch's own label.
                name = body["metadata"]["name"]
                there = api.found(read, name, self._namespace) if status_of(error) == 409 else None
                if there is None or labels.labels_of(there).get("lab.launch") != self._key:
                    raise
                return there

    def _look(self) -> Verdict | None:
        if not self._deployed:
            return None
        api = self._ground.api
        with translated("read the deployment", LaunchError):
            found = api.found(api.apps.read_namespaced_deployment, self._name, self._namespace)
        return deployment_verdict(found) if found else None

    def _instance(self, endpoint: Endpoint | None, form: Form) -> Pod | Deployment | Owned:
        place = Place(
            api=self._ground.api,
            namespace=self._namespace,
            name=self._name,
            local=self._ground.local,
            has_service=self._ground.route.name == NODE_PORT,
            alias=self._alias,
            follower=self._follower,
            on_delete=self._free,
            losing=self._ground.losing,
        )
        if self._deployed:
            return Deployment(place, labels=self._spec.labels, endpoint=endpoint, form=form)
        if owner := self._owner():
            return Owned(place, owner, labels=self._spec.labels, endpoint=endpoint)
        return Pod(place, labels=self._spec.labels, endpoint=endpoint)

    def _owner(self) -> Owner | None:
        """What else makes the pod; None where it is made as it is, or by a deployment."""
        return {Shape.JOB: job, Shape.VMI: vmi}[self._shape](self._ground.api) if self._shape in _OWNED else None

    def _free(self) -> None:
        self._watcher.forget(self._key)
        if self._forwarder is not None:
            self._forwarder.close()
        with self._freed:  # a port is given back once: by then another launch may have it
            port, self._port = self._port, None
        if port is not None and self._ground.pool is not None:
            self._ground.pool.give_back(port)


class _PortTaken(DriverError):
    """Somebody else's Service has the NodePort."""

    def __init__(self) -> None:
        super().__init__("the NodePort is taken")
