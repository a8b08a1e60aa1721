"""A connection to one cluster's API, through the official client: plain objects in, plain objects out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.connection.kubeconfig import of_context, of_dict
from lab.errors import DriverUnavailable

if TYPE_CHECKING:
    from kubernetes import client

_TIMEOUT_S = (5.0, 30.0)  # to connect, and between two pieces of an answer
_PAUSES_S = (0.1, 0.5, 2.0)
_LONGEST_PAUSE_S = 5.0
_CONNECTIONS = 64  # kept open at a time: a thread for each of the pool's ports, and the watches
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})

Json = dict[str, Any]


class Api:
    """One cluster's API. `call` returns what the API sent as JSON: the client's own objects take milliseconds each to
    build, and would be in the figures. `namespace` is the context's own, empty where it names none."""

    def __init__(self, configuration: client.Configuration, *, namespace: str = "") -> None:
        from kubernetes import client

        self.namespace = namespace
        self._configuration = configuration
        self._client = client.ApiClient(configuration)
        self.core = client.CoreV1Api(self._client)
        self.apps = client.AppsV1Api(self._client)
        self.node = client.NodeV1Api(self._client)
        self.custom = client.CustomObjectsApi(self._client)
        self.version = client.VersionApi(self._client)

    def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Json:
        """The answer of one of the client's methods. What the API could not do for the moment (429 and 5xx) is asked
        again, four times in all. Raises the client's exceptions."""
        for pause_s in (*_PAUSES_S, None):
            try:
                found: Json = json.loads(self.raw(method, *arguments, **options))
                return found
            except Exception as error:
                if pause_s is None or status_of(error) not in _TRY_AGAIN:
                    raise
                time.sleep(_retry_after_s(error) or pause_s)
        raise AssertionError("the last attempt returns or raises")

    def raw(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
        """The bytes of the answer of one of the client's methods, asked once. Raises the client's exceptions."""
        answer = method(*arguments, _preload_content=False, _request_timeout=_TIMEOUT_S, **options)
        return bytes(answer.data)

    def found(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Json | None:
        """As `call`; None where the API has no such object."""
        try:
            return self.call(method, *arguments, **options)
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise

    def own_client(self) -> client.CoreV1Api:
        """A core API over connections of its own: the client's `stream` rewires its whole ApiClient while it connects
        (kubernetes-client/python#928)."""
        from kubernetes import client

        return client.CoreV1Api(client.ApiClient(self._configuration))

    def close(self) -> None:
        """Close the idle connections."""
        client: Any = self._client  # untyped in some of the client's releases
        client.close()


def require_client() -> None:
    """Raises DriverUnavailable where the official client is not installed."""
    try:
        import kubernetes.client  # noqa: F401  only whether it is there
        import websocket  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise DriverUnavailable(
            "the Kubernetes client for Python is not installed",
            details=str(error),
            resolution="pip install 'stratalab[kubernetes]'",
        ) from error


def connect(*, context: str = "", kubeconfig: Mapping[str, Any] | None = None) -> Api:
    """The cluster of a `context` of the user's kubeconfig, or of a `kubeconfig` given as it is.

    Raises BadInput for a context that is not there, DriverUnavailable where it cannot be used; whether the cluster
    answers shows at the first call.
    """
    require_client()
    with translated("read the kubeconfig", DriverUnavailable):
        access = of_context(context) if kubeconfig is None else of_dict(kubeconfig)
    configuration = access.configuration
    configuration.retries = False  # `Api.call` decides what is asked again; urllib3 would do so at once, and aloud
    configuration.connection_pool_maxsize = _CONNECTIONS
    return Api(configuration, namespace=access.namespace)


def _retry_after_s(error: BaseException) -> float:
    """What the API asked to wait, 0 where it did not say."""
    headers = getattr(error, "headers", None) or {}
    told = str(headers.get("Retry-After", ""))
    return min(float(told), _LONGEST_PAUSE_S) if told.isdigit() else 0.0
