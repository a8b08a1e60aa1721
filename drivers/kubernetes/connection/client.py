"""A connection to one cluster's API, through the official client: plain objects in, plain objects out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from drivers.kubernetes.connection.errors import continuation_of, status_of, translated
from drivers.kubernetes.connection.kubeconfig import of_context, of_dict
from drivers.kubernetes.connection.page import Page
from drivers.kubernetes.connection.telling import waited
from lab.errors import DriverUnavailable

if TYPE_CHECKING:
    from kubernetes import client

_TIMEOUT_S = (5.0, 30.0)  # to connect, and between two pieces of an answer
_PAUSES_S = (0.1, 0.5, 2.0)
_PATIENCE_S = 60.0
"""So long an API that says when to come again is asked again."""
_PAGE = 500
"""Objects of a listing at a time, as kubectl asks for them: the API then holds no more than these for us, nor we."""
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
        self.batch = client.BatchV1Api(self._client)
        self.node = client.NodeV1Api(self._client)
        self.custom = client.CustomObjectsApi(self._client)
        self.version = client.VersionApi(self._client)

    def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Json:
        """The answer of one of the client's methods. What the API could not do for the moment (429 and 5xx) is asked
        again: when the API says (`Retry-After`), for up to a minute, else four times in all; `telling` tells of it.
        Raises the client's exceptions."""
        found: Json = json.loads(self._asked(method, *arguments, **options))
        return found

    def pages(self, listing: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Page]:
        """What one of the client's methods lists, 500 objects at a time. Where the API has forgotten the listing in
        between (410), it is gone on with as the API offers: from where it was, of what is there by then. Each page is
        to be read before the next is asked for. Raises the client's exceptions."""
        token = ""
        while True:
            more = {"_continue": token} if token else {}
            try:
                page = Page(self._asked(listing, *arguments, limit=_PAGE, **more, **options).decode())
            except Exception as error:
                offered = continuation_of(error) if token and status_of(error) == 410 else ""
                if not offered or offered == token:
                    raise
                token = offered
                continue
            yield page
            token = page.token
            if not token:
                return

    def each(self, listing: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[Json]:
        """The objects of `pages`, one after the other."""
        for page in self.pages(listing, *arguments, **options):
            yield from page

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

    def _asked(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
        patient_until = time.monotonic() + _PATIENCE_S
        pauses_s = iter(_PAUSES_S)
        while True:
            try:
                return self.raw(method, *arguments, **options)
            except Exception as error:
                status = status_of(error)
                asked_s = _retry_after_s(error)
                pause_s = asked_s or next(pauses_s, None)
                if status not in _TRY_AGAIN or pause_s is None or time.monotonic() + asked_s > patient_until:
                    raise
                waited(status, pause_s)
                time.sleep(pause_s)


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
    return float(told) if told.isdigit() else 0.0
