"""What a cluster costs: one is made for the purpose, and removed."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from drivers.kubernetes.cluster import images
from drivers.kubernetes.cluster.clusters import Clusters, await_nodes, name_of_a_run
from drivers.kubernetes.cluster.kind import Kind, cluster_config
from drivers.kubernetes.cluster.node_image import require_runnable
from drivers.kubernetes.connection.client import Api, Json
from drivers.kubernetes.connection.errors import translated
from drivers.kubernetes.events.follow import Follower
from drivers.kubernetes.events.watch import Watcher
from drivers.kubernetes.objects import labels, manifests
from drivers.kubernetes.objects.manifests import Form
from drivers.kubernetes.objects.namespaces import choose_namespace
from drivers.kubernetes.objects.security import RESTRICTED, UID, security_context
from lab.driver import Context, Mark
from lab.errors import LaunchError
from lab.launch.waiter import reserve_port
from lab.spec import Spec
from lab.timeline import Phase, Source

ASK_EVERY_S = 0.1
"""How often the API is asked whether it is ready, and the nodes whether they are: their instants are this exact."""

_SCHEDULE_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"


def measure_cluster(
    clusters: Clusters, spec: Spec, context: Context, *, image: str, config: Json | None, seen: Callable[[str], None]
) -> None:
    """Make a cluster of this run's own with one pod of `spec` in it, telling `seen` of each step, and remove it.

    Raises DriverError, after removing it.
    """
    require_runnable(Kind.find(), image=image, config=config)
    spec = spec.for_launch()
    name = name_of_a_run(spec.labels["lab.launch"])
    api_port = reserve_port()
    made = cluster_config(name, config, api_port=api_port, pool=False, labels=labels.owner_labels(spec.labels))
    try:
        with _asking(api_port, lambda: seen("api")):
            api = clusters.create(name, made, image=image, labels=spec.labels)
        try:
            await_nodes(api)
            seen("node_ready")
            _first_pod(api, name, spec, context)
            seen("first_pod")
        finally:
            api.close()
    finally:
        clusters.delete(name)
    seen("removed")


def _first_pod(api: Api, cluster: str, spec: Spec, context: Context) -> None:
    """Bring the image in, make a pod, and return at the event that shows its container running."""
    reference = images.provide(Kind.find(), cluster, spec, context)
    namespace = choose_namespace(api, spec.labels, wanted="", foreign=False)
    follower = Follower(_Unmarked(), on_verdict=lambda _: None)
    watcher = Watcher(api, namespace.name)
    try:
        watcher.follow(spec.labels["lab.launch"], follower)
        security = security_context(RESTRICTED, uid=UID)
        body = manifests.pod(spec, Form(image=reference, pull_policy="Never", security=security))
        with translated("create the pod", LaunchError):
            api.call(api.core.create_namespaced_pod, namespace.name, body)
        follower.await_scheduled(_SCHEDULE_TIMEOUT_S, lambda: None)
        follower.await_phase(Phase.STARTED, _START_TIMEOUT_S)
    finally:
        watcher.close()


@contextlib.contextmanager
def _asking(port: int, ready: Callable[[], None]) -> Iterator[None]:
    """Ask the API at `port` of loopback again and again while the context lasts; `ready` is called at its first good
    answer, at the latest on leaving, when it is known to answer."""
    told = threading.Event()
    leaving = threading.Event()

    def ask() -> None:
        while not leaving.is_set():
            if _is_ready(port):
                told.set()
                ready()
                return
            leaving.wait(ASK_EVERY_S)

    thread = threading.Thread(target=ask, name="api readiness", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        leaving.set()
        thread.join()
        raise
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not told.wait(ASK_EVERY_S) and time.monotonic() < deadline:
        pass
    leaving.set()
    thread.join()
    if not told.is_set():
        raise LaunchError(f"the cluster's API is not ready within {_START_TIMEOUT_S:g} s after kind made it")


def _is_ready(port: int) -> bool:
    """Whether `/readyz`, which the API shows to anybody (ClusterRole system:public-info-viewer), says ok."""
    # The certificate's authority is not known before kind is done; nothing secret is sent, and nothing is believed
    # but an instant.
    trusting = ssl._create_unverified_context()  # noqa: S323
    connection = http.client.HTTPSConnection(_LOOPBACK, port, timeout=2.0, context=trusting)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):  # not yet
        return False
    finally:
        connection.close()


class _Unmarked:
    """A Mark for a pod that belongs to no launch of a session."""

    def __call__(self, phase: Phase, *, source: Source) -> None:
        """Nobody asks."""

    def line(self, text: bytes, *, source: Source) -> None:
        """Nobody asks."""

    def moment(self) -> Mark:
        """As well unmarked."""
        return self

    def failed(self, error: Exception) -> None:
        """`Follower.await_phase` raises it."""
