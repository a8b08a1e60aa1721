"""One launch of a Knative Service, and its removal where it fails."""

from __future__ import annotations

from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.knative import manifests, status
from drivers.kubernetes.knative.ingress import Ingress
from drivers.kubernetes.knative.instance import Function, Place
from drivers.kubernetes.knative.manifests import Scaling, where
from drivers.kubernetes.objects import labels
from drivers.kubernetes.objects.manifests import Form, name_of
from drivers.kubernetes.objects.status import Verdict
from lab.driver import Mark
from lab.errors import DriverError, LaunchError, Unsupported
from lab.spec import Endpoint, Spec

_SCHEDULE_TIMEOUT_S = 60.0  # a revision and a deployment come before the pod
_NAME_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.1


class Launch:
    """The making of one function of `spec`, followed by two watches of one namespace: of its pods and of itself."""

    def __init__(
        self, api: Api, spec: Spec, form: Form, mark: Mark, watchers: tuple[Watcher, Watcher], *, local: bool
    ) -> None:
        self._api = api
        self._spec = spec
        self._form = form
        self._watchers = watchers
        self._local = local
        self._name = name_of(spec)
        self._namespace = watchers[0].namespace
        self._key = spec.labels.get("lab.launch", "")
        self._follower = Follower(mark, on_verdict=mark.failed, reader=status.READER)

    def run(self, ingress: Ingress, scaling: Scaling) -> Function:
        """Create it, and return when its first pod has a node and Knative has told by which name it answers. Raises
        LaunchError, Unsupported, DriverUnavailable."""
        for watcher in self._watchers:
            watcher.follow(self._key, self._follower)
        self._create(manifests.service(self._spec, self._form, scaling))
        self._follower.returned()
        self._follower.await_scheduled(_SCHEDULE_TIMEOUT_S, self._look)
        name = self._await_name()
        self._follower.accepted()
        return self._function(Endpoint(ingress.endpoint.host, ingress.endpoint.port, name))

    def undo(self) -> list[str]:
        """Remove what was made; returns what it said, and what could not be removed. A request without an answer may
        have been carried out."""
        told: list[str] = []
        try:
            function = self._function(None)
            told.append(function.logs().decode(errors="replace"))
            function.delete()
        except DriverError as error:
            told.append(f"not cleaned up: {error}")
        finally:
            self._forget()
        return [text for text in told if text]

    def _create(self, body: Json) -> None:
        api = self._api
        with translated("create the Knative Service", LaunchError):
            try:
                api.call(api.custom.create_namespaced_custom_object, *where(self._namespace), body)
            except Exception as error:
                # An answer that was lost, and the request repeated: the object bears this launch's own label.
                there = self._read() if status_of(error) == 409 else None
                if there is None or labels.labels_of(there).get("lab.launch") != self._key:
                    raise

    def _read(self) -> Json | None:
        api = self._api
        return api.found(api.custom.get_namespaced_custom_object, *where(self._namespace), self._name)

    def _look(self) -> Verdict | None:
        with translated("read the Knative Service", LaunchError):
            found = self._read()
        return status.verdict(found) if found else None

    def _await_name(self) -> str:
        """The name that requests must give, as soon as it is told. Raises LaunchError, Unsupported."""
        for _ in range(round(_NAME_TIMEOUT_S / _LOOK_EVERY_S)):
            with translated("read the Knative Service", LaunchError):
                found = self._read()
            name, tls = status.host_of(found or {})
            if name and tls:
                raise Unsupported(
                    f"Knative serves {name} over TLS only, and the lab speaks plain HTTP",
                    resolution="set external-domain-tls to Disabled, or http-protocol to Enabled, in config-network",
                )
            if name:
                return name
            self._follower.require_hope()
            self._follower.await_event(_LOOK_EVERY_S)
        raise LaunchError(
            f"Knative did not tell by which name the service answers within {_NAME_TIMEOUT_S:g} s",
            resolution="see `kubectl describe ksvc`, and whether Knative's controller runs",
        )

    def _function(self, endpoint: Endpoint | None) -> Function:
        place = Place(
            api=self._api,
            namespace=self._namespace,
            name=self._name,
            local=self._local,
            follower=self._follower,
            on_delete=self._forget,
        )
        return Function(place, labels=self._spec.labels, endpoint=endpoint)

    def _forget(self) -> None:
        for watcher in self._watchers:
            watcher.forget(self._key)
