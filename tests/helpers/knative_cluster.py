"""Knative Serving's part of the stub of a cluster: its controllers, autoscaler, activator and ingress, in some threads.

What its objects look like, and in which order, is what Knative 1.22 does (knative/serving: pkg/reconciler, and
pkg/apis/serving for what it takes of a pod's spec). `broken` says at which step a Service stays, and how.
"""

from __future__ import annotations

import contextlib
import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.host.facts import boot_id, time_namespace

Json = dict[str, Any]
KNATIVE = "serving.knative.dev/services"
SERVERLESS = "networking.internal.knative.dev/serverlessservices"
OF = "serving.knative.dev/service"
_POD_FIELDS = {
    "serviceAccountName",
    "containers",
    "volumes",
    "imagePullSecrets",
    "enableServiceLinks",
    "automountServiceAccountToken",
    "containerConcurrency",
    "timeoutSeconds",
    "idleTimeoutSeconds",
    "responseStartTimeoutSeconds",
}
_CONTAINER_FIELDS = {
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "ports",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
}
_RESERVED = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}


class KnativeCluster:
    """Knative on `stub`. `programmed_s` is what the ingress takes to know a new name; `window_s` how long a pod stays
    that nobody calls, None for ever; `drain_s` how long one stays that is on its way out, really half a minute;
    `pod` what becomes of each new one."""

    def __init__(self, stub: Any, k8s: Any, *, programmed_s: float = 0.02) -> None:
        self.stub = stub
        self.k8s = k8s
        self.programmed_s = programmed_s
        self.window_s: float | None = None
        self.drain_s = 0.05
        self.mode = "Proxy"
        self.broken: Callable[[Json], bool] = lambda _: False
        self.pod: Callable[[Any, Json], None] = self._run_pod
        self.called: dict[str, float] = {}
        self.hosts: dict[str, str] = {}
        self.activated: list[str] = []
        self.served: dict[str, int] = {}
        self.closing = threading.Event()
        self.gateway = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.gateway.daemon_threads = True
        stub.knative = self
        stub.add(
            "namespaces", {"metadata": {"name": "knative-serving", "labels": {"app.kubernetes.io/version": "1.22.1"}}}
        )
        self.configure("config-network", {"ingress-class": "kourier.ingress.networking.knative.dev"})
        self.configure("config-autoscaler", {"scale-to-zero-grace-period": "30s"})
        stub.add("namespaces", {"metadata": {"name": "kourier-system"}})
        ports = [
            {"name": "http2", "port": 80, "nodePort": self.gateway.server_address[1]},
            {"name": "https", "port": 443, "nodePort": 31443},
        ]
        kourier = {"metadata": {"name": "kourier"}, "spec": {"type": "LoadBalancer", "ports": ports}, "status": {}}
        stub.add("services", kourier, "kourier-system")
        for target in (lambda: self.gateway.serve_forever(0.02), self._autoscale):
            threading.Thread(target=target, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.gateway.shutdown()
        self.gateway.server_close()

    def configure(self, name: str, data: dict[str, str]) -> None:
        self.stub.add("configmaps", {"metadata": {"name": name}, "data": data}, "knative-serving")

    def refused(self, body: Json) -> str:
        """What Knative's webhook says (CheckDisallowedFields and the like); empty where it takes the Service."""
        if any(key.startswith("autoscaling.knative.dev") for key in body["metadata"].get("annotations") or {}):
            return self._denied(
                'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'
            )
        spec = body["spec"]["template"]["spec"]
        for given, known, path in (
            (spec, _POD_FIELDS, "spec.template.spec"),
            (spec["containers"][0], _CONTAINER_FIELDS, "spec.template.spec.containers[0]"),
        ):
            if extra := sorted(set(given) - known):
                return self._denied("must not set the field(s): " + ", ".join(f"{path}.{one}" for one in extra))
        ports = spec["containers"][0].get("ports") or []
        if len(ports) > 1 or any(set(port) - {"containerPort", "name", "protocol"} for port in ports):
            return self._denied("must not set the field(s): spec.template.spec.containers[0].ports[0].hostPort")
        if taken := _RESERVED & {one["name"] for one in spec["containers"][0].get("env") or []}:
            return self._denied(f'"{sorted(taken)[0]}" is a reserved environment variable')
        if not spec["containers"][0]["image"].startswith(("dev.local/", "kind.local/", "registry.example/")):
            return self._denied("Unable to fetch image: failed to resolve image to digest")
        return ""

    def _denied(self, said: str) -> str:
        return (
            f'admission webhook "validation.webhook.serving.knative.dev" denied the request: validation failed: {said}'
        )

    def created(self, service: Json) -> None:
        """The controllers, from a new Service to its Ready; each step is an event of its own."""
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        self.tell(service, "Unknown", "Unknown", reason="RevisionMissing")
        time.sleep(0.005)
        host = f"{name}.{namespace}.svc.example.test"
        self.tell(service, "Unknown", "Unknown", url=f"http://{host}")
        if self.broken(service):
            return
        for suffix in (
            "",
            "-00001",
            "-00001-private",
        ):  # the route's and the revision's own: plain Services of Kubernetes
            labels = {**service["spec"]["template"]["metadata"]["labels"], OF: name}
            self.stub.add(
                "services", {"metadata": {"name": f"{name}{suffix}", "labels": labels}, "spec": {}}, namespace
            )
        deployment = {"metadata": {"name": f"{name}-00001-deployment", "labels": labels}, "spec": {"template": {}}}
        self.stub.add("deployments", deployment, namespace)
        way = {"metadata": {"name": f"{name}-00001", "labels": labels}, "spec": {"mode": self.mode}}
        self.stub.add(SERVERLESS, way, namespace)
        pod = self.start_pod(service)
        while not self._is_ready(pod) and self._there(service):
            time.sleep(0.005)
        if not self._there(service):
            return
        self.tell(service, "True", "Unknown", url=f"http://{host}")
        time.sleep(self.programmed_s)
        self.called[name] = time.monotonic()
        self.hosts[host] = name
        time.sleep(0.005)
        self.tell(service, "True", "True", url=f"http://{host}")

    def tell(
        self, service: Json, configured: str, routed: str, *, url: str = "", reason: str = "", message: str = ""
    ) -> None:
        """Give the Service another status, unless it is gone."""
        with self.stub.changed:
            key = (KNATIVE, service["metadata"]["namespace"], service["metadata"]["name"])
            if key not in self.stub.objects:
                return
            now = copy.deepcopy(self.stub.objects[key])
            now["metadata"]["generation"] = 1
            both = [configured, routed]
            ready = "False" if "False" in both else "Unknown" if "Unknown" in both else "True"
            at = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
            told = {"reason": reason, "message": message} if reason else {}
            now["status"] = {
                "observedGeneration": 1,
                "conditions": [
                    {"type": "ConfigurationsReady", "status": configured, **at, **told},
                    {"type": "Ready", "status": ready, **at, **told},
                    {"type": "RoutesReady", "status": routed, **at},
                ],
                **({"url": url} if url else {}),
            }
            self.stub.add(KNATIVE, now, key[1])

    def deleted(self, service: Json) -> None:
        """Foreground: its pods first, which drain for half a minute unless they are killed, and then itself."""
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        with self.stub.changed:
            now = copy.deepcopy(service)
            now["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.stub.add(KNATIVE, now, namespace)
        self.hosts = {host: one for host, one in self.hosts.items() if one != name}
        for pod in self.pods(name):
            self.terminate(pod)

        def finish() -> None:
            while self.pods(name) and not self.closing.is_set():
                time.sleep(0.005)
            for resource in ("services", "deployments", SERVERLESS):
                for thing in self.stub.listed(resource, namespace):
                    if (thing["metadata"].get("labels") or {}).get(OF) == name:
                        self.stub.remove(resource, namespace, thing["metadata"]["name"])
            self.stub.remove(KNATIVE, namespace, name)

        threading.Thread(target=finish, daemon=True).start()

    def pods(self, name: str) -> list[Json]:
        return [one for one in self.stub.listed("pods") if (one["metadata"].get("labels") or {}).get(OF) == name]

    def serving(self, name: str) -> list[Json]:
        return [pod for pod in self.pods(name) if self._is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def start_pod(self, service: Json) -> Json:
        """What the revision's Deployment makes: the service's container, and Knative's queue-proxy beside it."""
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        template = copy.deepcopy(service["spec"]["template"])
        revision = f"{name}-00001"
        metadata = {
            "name": f"{revision}-deployment-{uuid.uuid4().hex[:9]}",
            "labels": {**template["metadata"]["labels"], OF: name, "serving.knative.dev/revision": revision},
            "annotations": template["metadata"]["annotations"],
            "ownerReferences": [{"kind": "ReplicaSet", "name": f"{revision}-deployment"}],
            "creationTimestamp": f"2026-01-01T00:00:{len(self.activated) % 60:02d}Z",
        }
        queue = {"name": "queue-proxy", "image": "queue"}
        spec = {**template["spec"], "containers": [*template["spec"]["containers"], queue]}
        made = self.stub.add("pods", {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}}, namespace)
        threading.Thread(target=self.pod, args=(self.stub, copy.deepcopy(made)), daemon=True).start()
        return made

    def terminate(self, pod: Json) -> None:
        with self.stub.changed:
            now = copy.deepcopy(pod)
            now["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
            self.stub.add("pods", now, now["metadata"]["namespace"])
        gone = threading.Timer(
            self.drain_s, self.stub.remove, ("pods", now["metadata"]["namespace"], now["metadata"]["name"])
        )
        gone.daemon = True
        gone.start()

    def _run_pod(self, stub: Any, pod: Json) -> None:
        time.sleep(0.005)
        self.k8s.schedule(stub, pod)
        time.sleep(0.005)
        self.started(pod)
        time.sleep(0.01)
        stub.change(pod, conditions=[self.k8s.condition("Ready", "True")])

    def started(self, pod: Json) -> None:
        """Both containers run. The kubelet tells of them by their names' order: the queue-proxy comes first."""
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        self.stub.change(
            pod,
            phase="Running",
            podIP="10.244.0.9",
            hostIP="127.0.0.1",
            containerStatuses=[{"name": "queue-proxy", "state": running}, {"name": "service", "state": running}],
        )

    def activate(self, name: str, host: str) -> bool:
        """What the activator does with a call for what is at zero: a pod, and the call waits; whether there is one."""
        deadline = time.monotonic() + 5
        self.called[name] = time.monotonic()
        if not self.serving(name):
            self.activated.append(host)
            service = next((one for one in self.stub.listed(KNATIVE) if one["metadata"]["name"] == name), None)
            if service is None:
                return False
            self.start_pod(service)
        while not self.serving(name) and time.monotonic() < deadline:
            time.sleep(0.005)
        self.called[name] = time.monotonic()
        return bool(self.serving(name))

    def _autoscale(self) -> None:
        while not self.closing.wait(0.02):
            for name, at in list(self.called.items()):
                if self.window_s is not None and time.monotonic() - at > self.window_s:
                    for pod in self.serving(name):
                        self.terminate(pod)

    def _is_ready(self, pod: Json) -> bool:
        now = self.stub.objects.get(("pods", pod["metadata"]["namespace"], pod["metadata"]["name"]))
        conditions = (now or {"status": {}})["status"].get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _there(self, service: Json) -> bool:
        return (KNATIVE, service["metadata"]["namespace"], service["metadata"]["name"]) in self.stub.objects


def _handler(cluster: KnativeCluster) -> type[BaseHTTPRequestHandler]:
    class Ingress(BaseHTTPRequestHandler):
        """Envoy: 404 for a name that it does not know, without a body; else the service, by the activator."""

        def do_GET(self) -> None:
            host = self.headers.get("Host", "")
            name = cluster.hosts.get(host)
            if name is None or not cluster.activate(name, host):
                self._answer(404, b"")
                return
            containers = cluster.serving(name)[:1]
            environment = containers[0]["spec"]["containers"][0]["env"] if containers else []
            nonce = next((one["value"] for one in environment if one["name"] == "LAB_NONCE"), "")
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            told = {"nonce": nonce, "main_ns": now, "listening_ns": now, "now_ns": now}
            told |= {"boot_id": boot_id(), "time_namespace": time_namespace()}
            uid = containers[0]["metadata"]["uid"] if containers else ""
            cluster.served[uid] = cluster.served.get(uid, 0) + 1  # in the memory of this very pod's service
            told |= {"token": uid, "served": cluster.served[uid]}
            good = not nonce or self.path == "/healthz" or self.headers.get("X-Lab-Nonce") == nonce
            self._answer(200 if good else 403, json.dumps(told).encode())

        def _answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    return Ingress
