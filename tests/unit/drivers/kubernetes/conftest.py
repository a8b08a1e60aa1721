"""A stub of the Kubernetes API with a kubelet and controllers of its own making, and a `kind` that runs nothing.

The real driver and the real client talk to it over HTTP. What it sends is what Kubernetes 1.28 sends, as far as the
driver reads it; tests break the sequences on purpose.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from drivers.kubernetes.connection.client import Api, connect
from lab.host.facts import boot_id, time_namespace
from lab.launch.waiter import reserve_port

KNATIVE = "serving.knative.dev/services"
WATCHED = ("pods", KNATIVE)
VMIS = "virtualmachineinstances"
OWNERS = ("deployments", "jobs", VMIS)
NODE = "stratalab-control-plane"
CNI = json.dumps({"plugins": [{"type": "ptp"}, {"type": "portmap"}]})

Json = dict[str, Any]
Event = tuple[int, str, Json]


@dataclass
class Refusal:
    """An answer that the stub gives instead of doing what `method` and `path` ask, `times` times."""

    method: str
    path: str
    status: int
    message: str
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    after: bool = False  # carry it out, and then answer so: an answer that was lost


class Stub:
    """The cluster's state. `kubelet` is called in a thread of its own with each new pod."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.events: list[Event] = []
        self.version = 100
        self.oldest = 0
        self.requests: list[tuple[str, str, Json | None]] = []
        self.headers: list[Any] = []
        self.watches: list[dict[str, str]] = []
        self.refusals: list[Refusal] = []
        self.knative: Any = None  # what does Knative's part, where the cluster has it
        self.home: str | None = None  # all that the user is allowed anything in
        self.enforced: dict[str, str] = {}  # namespace → its Pod Security level
        self.drops = 0
        self.kubevirt = False
        self.kubelets: dict[str, Json] = {}  # what each is set to, by node
        self.expired = ""  # a token of a listing that is forgotten when it is given next
        self.kubelet: Callable[[Stub, Json], None] = run_pod
        self.services: dict[str, ThreadingHTTPServer] = {}
        self.ports: dict[int, int] = {}
        self.logs: dict[str, bytes] = {}
        self.url = ""
        self.add("nodes", node())
        self.add("namespaces", {"metadata": {"name": "kube-system"}})

    def add(self, resource: str, thing: Json, namespace: str = "") -> Json:
        with self.changed:
            self.version += 1
            metadata = thing.setdefault("metadata", {})
            metadata.update({"resourceVersion": str(self.version), "uid": metadata.get("uid") or str(uuid.uuid4())})
            if namespace:
                metadata["namespace"] = namespace
            known = (resource, namespace, metadata["name"]) in self.objects
            self.objects[resource, namespace, metadata["name"]] = thing
            if resource in WATCHED:
                self._tell("MODIFIED" if known else "ADDED", thing)
            return thing

    def change(self, pod: Json, **status: Any) -> None:
        """Give a pod another status, unless it is gone."""
        with self.changed:
            key = ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
            if key not in self.objects:
                return
            now = copy.deepcopy(self.objects[key])
            now["spec"].update(status.pop("spec", {}))
            conditions = {one["type"]: one for one in now["status"].get("conditions", [])}
            conditions.update({one["type"]: one for one in status.pop("conditions", [])})
            now["status"].update({**status, "conditions": list(conditions.values())})
            self.add("pods", now, key[1])

    def remove(self, resource: str, namespace: str, name: str) -> None:
        with self.changed:
            thing = self.objects.pop((resource, namespace, name), None)
            if thing is not None and resource in WATCHED:
                self.version += 1
                thing["metadata"]["resourceVersion"] = str(self.version)
                self._tell("DELETED", thing)
            # Within the lock, or another pod of the same deployment would find its port still taken.
            if resource == "pods" and (server := self.services.pop(name, None)):
                server.shutdown()
                server.server_close()

    def send(self, kind: str, thing: Json) -> None:
        """Send an event of the test's own."""
        with self.changed:
            self.version += 1
            self._tell(kind, thing)

    def drop(self) -> None:
        """Break every watch off."""
        with self.changed:
            self.drops += 1
            self.changed.notify_all()

    def forget(self) -> None:
        """Compact: watches from before now are 410 Gone."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.events.clear()

    def listed(self, resource: str, namespace: str = "") -> list[Json]:
        with self.lock:
            return [
                thing
                for (kind, where, _), thing in self.objects.items()
                if kind == resource and namespace in ("", where)
            ]

    def asked(self, method: str, pattern: str) -> list[Json | None]:
        with self.lock:
            return [body for verb, path, body in self.requests if verb == method and re.search(pattern, path)]

    def refuse(self, method: str, path: str, status: int, message: str, **more: Any) -> None:
        self.refusals.append(Refusal(method, path, status, message, **more))

    def await_watch(self, count: int = 1) -> None:
        deadline = time.monotonic() + 5
        while len(self.watches) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.watches) >= count

    def violations(self, namespace: str, name: str, spec: Json) -> str:
        """What Pod Security admission says of a pod (k8s.io/pod-security-admission, as far as the lab could offend)."""
        level = self.enforced.get(namespace)
        found = []
        for box in spec["containers"]:
            context, which = box.get("securityContext") or {}, f'container "{box["name"]}"'
            ports = [str(port["hostPort"]) for port in box.get("ports") or () if port.get("hostPort")]
            if ports:
                found.append(f"hostPort ({which} uses hostPort {', '.join(ports)})")
            if level != "restricted":
                continue
            if context.get("allowPrivilegeEscalation") is not False:
                must = "must set securityContext.allowPrivilegeEscalation=false"
                found.append(f"allowPrivilegeEscalation != false ({which} {must})")
            if (context.get("capabilities") or {}).get("drop") != ["ALL"]:
                found.append(f'unrestricted capabilities ({which} must set securityContext.capabilities.drop=["ALL"])')
            if context.get("runAsNonRoot") is not True:
                found.append(f"runAsNonRoot != true (pod or {which} must set securityContext.runAsNonRoot=true)")
            if context.get("runAsUser") == 0:
                found.append(f"runAsUser=0 ({which} must not set runAsUser=0)")
            if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
                must = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
                found.append(f"seccompProfile (pod or {which} {must})")
        assert {name for one in spec["volumes"] for name in one if name != "name"} <= {"emptyDir"}
        if level is None or not found:
            return ""
        return f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {", ".join(found)}'

    def _tell(self, kind: str, thing: Json) -> None:
        self.events.append((self.version, kind, copy.deepcopy(thing)))
        self.changed.notify_all()


def node() -> Json:
    return {
        "metadata": {"name": NODE, "labels": {"lab.cluster": "stratalab", "lab.ports": "mapped"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "nodeInfo": {
                "bootID": boot_id(),
                "kubeletVersion": "v1.28.0",
                "containerRuntimeVersion": "containerd://1.7.24",
                "kernelVersion": "6.1.0",
            },
        },
    }


def condition(kind: str, status: str, **more: str) -> Json:
    return {"type": kind, "status": status, **more}


def schedule(stub: Stub, pod: Json) -> None:
    with stub.lock:
        found = _fitting(stub, pod)
        if found:
            stub.change(pod, spec={"nodeName": found}, conditions=[condition("PodScheduled", "True")])


def _fitting(stub: Stub, pod: Json) -> str:
    """The scheduler's choice, as far as the lab asks for any: the least loaded of the nodes that fit, the first of
    equals."""
    spec, load = pod["spec"], {}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    wanted = required["nodeSelectorTerms"][0]["matchFields"][0]["values"] if required else None
    for one in stub.listed("nodes"):
        name, labels = one["metadata"]["name"], one["metadata"].get("labels") or {}
        taken = one.get("spec") or {}
        if taken.get("unschedulable") or taken.get("taints") or (wanted is not None and name not in wanted):
            continue
        if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
            continue
        avoided = bool(affinity.get("preferredDuringSchedulingIgnoredDuringExecution")) and "lab.ports" in labels
        there = [pod for pod in stub.listed("pods") if pod["spec"].get("nodeName") == name]
        load[name] = (len(there) if spec.get("topologySpreadConstraints") else 0, avoided)
    return min(load, key=lambda name: load[name]) if load else ""


def add_node(stub: Stub, name: str, **labels: str) -> Json:
    """Another node; a worker, beside which the control plane takes no pods."""
    made = node()
    made["metadata"] = {"name": name, "labels": {"lab.cluster": "stratalab", **labels}}
    control = stub.objects["nodes", "", NODE]
    control["spec"] = {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}
    control["metadata"]["labels"].pop("lab.ports", None)
    return stub.add("nodes", made)


def start(stub: Stub, pod: Json) -> None:
    stub.change(
        pod,
        phase="Running",
        podIP="10.244.0.7",
        hostIP="127.0.0.1",
        containerStatuses=[{"name": "service", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
    )


def wait_for(stub: Stub, pod: Json, reason: str, message: str) -> None:
    """Leave the container waiting for `reason`."""
    waiting = {"name": "service", "state": {"waiting": {"reason": reason, "message": message}}}
    stub.change(pod, phase="Pending", containerStatuses=[waiting])


def run_pod(stub: Stub, pod: Json) -> None:
    """What happens to a pod when all goes well."""
    time.sleep(0.01)
    schedule(stub, pod)
    time.sleep(0.02)
    serve(stub, pod)
    time.sleep(0.02)
    start(stub, pod)
    time.sleep(0.02)
    stub.change(pod, conditions=[condition("Ready", "True")])


def serve(stub: Stub, pod: Json) -> None:
    """Be the pod's service, at the end of its route on this host."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    container = pod["spec"]["containers"][0]
    port = container["ports"][0].get("hostPort")
    selected = pod["metadata"]["labels"]["stratalab/instance"]
    service = stub.objects.get(("services", namespace, selected))
    if port is None and service is not None:
        port = service["spec"]["ports"][0]["nodePort"]
    nonce = next((one["value"] for one in container["env"] if one["name"] == "LAB_NONCE"), "")
    with stub.lock:  # one server answers for all the pods of a deployment
        if ("pods", namespace, name) not in stub.objects:
            return  # it was removed before it began
        if port is None or stub.ports.get(port, port) in [one.server_address[1] for one in stub.services.values()]:
            return
        server = ThreadingHTTPServer(("127.0.0.1", stub.ports.get(port, port)), _service(nonce))
        server.daemon_threads = True
        stub.services[name] = server
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()


def _service(nonce: str) -> type[BaseHTTPRequestHandler]:
    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            told = {"nonce": nonce, "main_ns": now, "listening_ns": now, "now_ns": now}
            body = json.dumps({**told, "boot_id": boot_id(), "time_namespace": time_namespace()}).encode()
            good = not nonce or self.headers.get("X-Lab-Nonce") == nonce
            self.send_response(200 if good else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    return Service


_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1(?:alpha1)?)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?"
)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    stub: Stub

    def do_GET(self) -> None:
        self._do("GET")

    def do_POST(self) -> None:
        self._do("POST")

    def do_PATCH(self) -> None:
        self._do("PATCH")

    def do_DELETE(self) -> None:
        self._do("DELETE")

    def _do(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null") if length else None
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self.stub.lock:
            self.stub.requests.append((method, self.path, body))
            self.stub.headers.append(self.headers)
            refusal = next(
                (one for one in self.stub.refusals if one.method == method and re.search(one.path, self.path)), None
            )
            if refusal is not None:
                refusal.times -= 1
                if refusal.times == 0:
                    self.stub.refusals.remove(refusal)
        if self.stub.home is not None and (said := _forbidden(self.stub.home, method, url.path)):
            self._refuse(403, said, reason="Forbidden")
            return
        if refusal is not None:
            time.sleep(refusal.delay_s)
            if refusal.after:
                self._answer(method, url.path, query, body, silent=True)
                self.silent = False
            self._refuse(refusal.status, refusal.message, refusal.headers)
            return
        self._answer(method, url.path, query, body)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any, *, silent: bool = False) -> None:
        self.silent = silent
        if path.rstrip("/") == "/version":
            self._send(
                200,
                {
                    "major": "1",
                    "minor": "28",
                    "gitVersion": "v1.28.0",
                    "gitCommit": "x",
                    "gitTreeState": "c",
                    "buildDate": "x",
                    "goVersion": "x",
                    "compiler": "gc",
                    "platform": "linux/amd64",
                },
            )
            return
        if path.startswith("/apis/kubevirt.io/") and not self.stub.kubevirt:
            self._send_bytes(404, b"404 page not found\n")
            return
        if path.rstrip("/") == "/apis/kubevirt.io/v1":
            self._send(200, {"kind": "APIResourceList", "groupVersion": "kubevirt.io/v1", "resources": []})
            return
        if proxied := re.fullmatch(r"/api/v1/nodes/([^/]+)/proxy/configz", path):
            self._send(200, {"kubeletconfig": self.stub.kubelets.get(proxied[1], {"cpuManagerPolicy": "none"})})
            return
        found = _PATH.fullmatch(path)
        assert found is not None, path
        resource, namespace, name = found["resource"], found["namespace"] or "", found["name"] or ""
        if (found["group"] or "").endswith("knative.dev"):
            if self.stub.knative is None:
                self._send_bytes(404, b"404 page not found\n")
                return
            resource = f"{found['group']}/{resource}"
        if method == "GET" and not name:
            watched = query.get("watch") in ("true", "True")
            self._watch(resource, query) if watched else self._list(resource, namespace, query)
        elif method == "POST" and found["sub"] == "eviction":
            self._evict(namespace, name)
        elif method == "POST":
            self._create(resource, namespace, body)
        else:
            self._one(method, resource, namespace, name, found["sub"] or "", body)

    def _one(self, method: str, resource: str, namespace: str, name: str, sub: str, body: Any) -> None:
        stub = self.stub
        with stub.lock:
            thing = stub.objects.get((resource, namespace, name))
        if thing is None:
            self._refuse(404, f'{resource} "{name}" not found')
        elif sub == "log":
            if name in stub.logs:
                self._send_bytes(200, stub.logs[name])
            else:
                self._refuse(400, f'container "service" in pod "{name}" is waiting to start: ContainerCreating')
        elif method == "GET":
            self._send(200, thing)
        elif method == "PATCH" and resource == "nodes":
            spec = {**thing.get("spec", {}), **body["spec"]}
            thing["spec"] = {key: value for key, value in spec.items() if value is not None}
            self._send(200, thing)
        elif method == "PATCH":
            if resource == "jobs":
                thing["spec"].update(body["spec"])
            elif sub == "scale":
                thing["spec"]["replicas"] = body["spec"]["replicas"]
            else:
                assert self.headers["Content-Type"] == "application/json-patch+json"
                thing["spec"]["template"]["spec"]["containers"][0] = body[0]["value"]
            stub.add(resource, thing, namespace)
            _control(stub, thing)
            self._send(200, thing)
        else:
            self._delete(resource, namespace, name, thing)
            self._send(200, {"kind": "Status", "status": "Success"})

    def _evict(self, namespace: str, name: str) -> None:
        """By policy/v1, as kubelets carry it out; what the pod belonged to makes another."""
        stub = self.stub
        thing = stub.objects.get(("pods", namespace, name))
        if thing is None:
            self._refuse(404, f'pods "{name}" not found')
            return
        stub.remove("pods", namespace, name)
        for owner in thing["metadata"].get("ownerReferences", []):
            key = next(key for kind in OWNERS if (key := (kind, namespace, owner["name"])) in stub.objects)
            _control(stub, stub.objects[key])
        self._send(201, {"kind": "Status", "status": "Success"})

    def _delete(self, resource: str, namespace: str, name: str, thing: Json) -> None:
        stub = self.stub
        if resource == KNATIVE:
            stub.knative.deleted(thing)
            return
        if resource == "pods":
            thing["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            stub.add(resource, thing, namespace)
            threading.Timer(0.02, stub.remove, (resource, namespace, name)).start()
            return
        if resource in OWNERS:
            thing["spec"]["replicas"] = 0
            _control(stub, thing)
        stub.remove(resource, namespace, name)
        if resource == "namespaces":
            for kind, where, what in [key for key in stub.objects if key[1] == name]:
                stub.remove(kind, where, what)

    def _create(self, resource: str, namespace: str, body: Json) -> None:
        stub, name = self.stub, body["metadata"]["name"]
        with stub.lock:
            if namespace and ("namespaces", "", namespace) not in stub.objects:
                self._refuse(404, f'namespaces "{namespace}" not found')
                return
            if (resource, namespace, name) in stub.objects:
                self._refuse(409, f'{resource} "{name}" already exists', reason="AlreadyExists")
                return
            if resource == KNATIVE and (said := stub.knative.refused(body)):
                self._refuse(400, said, reason="BadRequest")
                return
            if resource == "pods" and (said := self.stub.violations(namespace, name, body["spec"])):
                self._refuse(403, said, reason="Forbidden")
                return
            if resource == "services":
                for port in body["spec"]["ports"]:
                    port.setdefault("nodePort", reserve_port())
            if resource == "pods":
                body["status"] = {"phase": "Pending"}
            made = stub.add(resource, body, namespace)
            answer = copy.deepcopy(made)
        if resource == "namespaces":
            stub.add("serviceaccounts", {"metadata": {"name": "default"}}, name)
        self._send(201, answer)
        self.wfile.flush()
        if resource == "pods":
            threading.Thread(target=stub.kubelet, args=(stub, answer), daemon=True).start()
        if resource in OWNERS:
            _control(stub, made)
        if resource == KNATIVE:
            threading.Thread(target=stub.knative.created, args=(answer,), daemon=True).start()

    def _list(self, resource: str, namespace: str, query: dict[str, str]) -> None:
        items = [one for one in self.stub.listed(resource, namespace) if _selected(one, query.get("labelSelector", ""))]
        version, _, begun = query.get("continue", f"{self.stub.version}/0").partition("/")
        if self.stub.expired and query.get("continue") == self.stub.expired:
            self.stub.expired = ""
            self.stub.version += 1
            self._expired(f"{self.stub.version}/{begun}")
            return
        first = int(begun)
        limit = int(query.get("limit") or 0)
        page = items[first : first + limit] if limit else items
        more = {"continue": f"{version}/{first + limit}"} if limit and len(items) > first + limit else {}
        self._send(200, {"kind": "List", "metadata": {"resourceVersion": version, **more}, "items": page})

    def _expired(self, offered: str) -> None:
        """As the API says it (apimachinery, `NewResourceExpired`), with a token to go on by."""
        message = "The provided continue parameter is too old to display a consistent list result."
        status = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": message}
        metadata = {"continue": offered} if offered else {}
        self._send_bytes(410, json.dumps({**status, "metadata": metadata}).encode())

    def _watch(self, resource: str, query: dict[str, str]) -> None:
        stub, at = self.stub, int(query.get("resourceVersion") or 0)
        with stub.changed:
            stub.watches.append(query)
            drops = stub.drops
        if at < stub.oldest:
            self._refuse(410, "too old resource version")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        sent = 0
        while True:
            with stub.changed:
                stub.changed.wait_for(lambda seen=sent: stub.drops != drops or len(stub.events) > seen, 0.5)
                fresh, sent = stub.events[sent:], len(stub.events)
                dropped = stub.drops != drops
            for version, kind, thing in fresh:
                own = (KNATIVE if is_knative(thing) else "pods") if isinstance(thing, dict) else resource
                if version > at and own == resource:
                    line = json.dumps({"type": kind, "object": thing}) if kind else str(thing)
                    with contextlib.suppress(OSError):
                        self._chunk(line.encode() + b"\n")
            if dropped or stub.drops < 0:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.wfile.flush()
                    self.connection.shutdown(2)
                return

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, thing: Any) -> None:
        with self.stub.lock:
            data = json.dumps(thing).encode()
        self._send_bytes(status, data)

    def _send_bytes(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        if getattr(self, "silent", False):
            return
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def _refuse(self, code: int, message: str, headers: dict[str, str] | None = None, reason: str = "") -> None:
        status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}
        self._send_bytes(code, json.dumps(status).encode(), headers)

    def log_message(self, format: str, *args: Any) -> None: ...


def is_knative(thing: Json) -> bool:
    return str(thing.get("apiVersion", "")).startswith("serving.knative.dev/")


def _forbidden(home: str, method: str, path: str) -> str:
    """What RBAC says to a user who has all rights in the namespace `home`, and none elsewhere."""
    if path.startswith("/version") or f"/namespaces/{home}/" in path:
        return ""
    if path.endswith("/proxy/configz"):
        return f'nodes "{path.split("/")[4]}" is forbidden: User "dev" cannot get resource "nodes/proxy"'
    found = _PATH.fullmatch(path)
    assert found is not None, path
    verb = {"POST": "create", "DELETE": "delete", "PATCH": "patch", "GET": "get" if found["name"] else "list"}[method]
    group = "apps" if path.startswith("/apis/apps/") else ""
    where = f'in the namespace "{found["namespace"]}"' if found["namespace"] else "at the cluster scope"
    what, named = found["resource"], f' "{found["name"]}"' if found["name"] else ""
    return f'{what}{named} is forbidden: User "dev" cannot {verb} resource "{what}" in API group "{group}" {where}'


def _launcher(vmi: Json) -> Json:
    """The pod that KubeVirt makes for a virtual machine, which bears its labels and annotations."""
    metadata = {key: vmi["metadata"].get(key, {}) for key in ("labels", "annotations")}
    box = {"name": "compute", "image": "kubevirt/virt-launcher", "ports": [{}], "env": []}
    return {"metadata": metadata, "spec": {"containers": [box], "volumes": []}}


def _control(stub: Stub, deployment: Json) -> None:
    """The deployment's controllers: as many pods as it asks for, all of its newest template."""
    namespace, name = deployment["metadata"]["namespace"], deployment["metadata"]["name"]
    template = deployment["spec"].get("template") or _launcher(deployment)
    owned = [
        pod
        for pod in stub.listed("pods", namespace)
        if pod["metadata"].get("ownerReferences", [{}])[0].get("name") == name
    ]
    for pod in [pod for pod in owned if pod["spec"]["containers"] != template["spec"]["containers"]]:
        owned.remove(pod)
        stub.remove("pods", namespace, pod["metadata"]["name"])
    wanted = deployment["spec"].get("replicas", 0 if deployment["spec"].get("suspend") else 1)  # a Job has none
    for pod in owned[wanted:]:
        stub.remove("pods", namespace, pod["metadata"]["name"])
    refused = stub.violations(namespace, f"{name}-x", template["spec"])
    if refused:
        failure = condition("ReplicaFailure", "True", reason="FailedCreate", message=refused)
        stub.add("deployments", {**deployment, "status": {"conditions": [failure]}}, namespace)
        return
    for _ in range(wanted - len(owned)):
        metadata = copy.deepcopy(template["metadata"])
        metadata |= {
            "name": f"{name}-{uuid.uuid4().hex[:5]}",
            "ownerReferences": [{"kind": "ReplicaSet", "name": name}],
        }
        pod = {"metadata": metadata, "spec": copy.deepcopy(template["spec"]), "status": {"phase": "Pending"}}
        made = copy.deepcopy(stub.add("pods", pod, namespace))
        threading.Thread(target=stub.kubelet, args=(stub, made), daemon=True).start()


def _selected(thing: Json, selector: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A stub of a cluster, listening on loopback; its address is `stub.url`."""
    made = Stub()
    handler = type("Handler", (_Handler,), {"stub": made})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    yield made
    with made.changed:
        made.drops = -1
        made.changed.notify_all()
    for name in list(made.services):
        made.remove("pods", "", name)
        if left := made.services.pop(name, None):
            left.shutdown()
            left.server_close()
    server.shutdown()
    server.server_close()


def kubeconfig(url: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kind-stratalab",
        "contexts": [{"name": "kind-stratalab", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
    }


@pytest.fixture
def api(stub: Stub) -> Iterator[Api]:
    made = connect(kubeconfig=kubeconfig(stub.url))
    yield made
    made.close()


class FakeKind:
    """A `kind` and a `docker` in PATH, whose clusters are files. `failure` is what `kind create` says on its end."""

    def __init__(self, directory: Path, stub: Stub) -> None:
        self.directory = directory
        (directory / "clusters").mkdir(parents=True)
        (directory / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(stub.url)))
        (directory / "cni").write_text(CNI)
        self._stub = stub

    def calls(self) -> list[list[str]]:
        path = self.directory / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def fail(self, text: str) -> None:
        (self.directory / "failure").write_text(text)

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "clusters").iterdir())

    def has(self, name: str) -> bool:
        return (self.directory / "clusters" / name).exists()

    def run(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Stands in for `subprocess.run`, which takes longer than all the rest."""
        program = Path(argv[0])
        if not program.is_absolute() and shutil.which(argv[0]) is None:
            raise FileNotFoundError(argv[0])
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [program.name, *argv[1:]])
            try:
                exec(_FAKE_KIND, {"HOME": str(self.directory)})  # noqa: S102  as the program would
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
        return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())

    def make(self, name: str = "stratalab", *, ports: dict[int, int] | None = None) -> None:
        """A whole cluster of the lab's."""
        (self.directory / "clusters" / name).write_text("")
        told = {"ports": ports or {}, "facts": {"cluster": name, "node_image": "kindest/node:v1.28.0"}}
        config_map = {"metadata": {"name": "stratalab"}, "data": {"cluster": json.dumps(told)}}
        self._stub.add("configmaps", config_map, "kube-system")


_FAKE_KIND = """
import hashlib, json, sys, tarfile
from pathlib import Path
home, argv = Path(HOME), sys.argv[1:]
with (home / "calls").open("a") as calls:
    calls.write(json.dumps([Path(sys.argv[0]).name, *argv]) + "\\n")
images = home / "images"
def option(name):
    return argv[argv.index(name) + 1]
if sys.argv[0].endswith("docker"):
    known = json.loads(images.read_text()) if images.exists() else {}
    if argv[:1] == ["info"]:
        print((home / "cgroup").read_text() if (home / "cgroup").exists() else "2")
    elif argv[:1] == ["run"]:
        if not (home / "node-version").exists():
            sys.exit("docker: Error response from daemon: No such image")
        print((home / "node-version").read_text())
    elif argv[0] in ("stop", "start"):
        pass
    elif argv[:2] == ["container", "inspect"]:
        print("4f66ad9a", "172.18.0.2")
    elif argv[2] == "sh":
        print((home / "cni").read_text())
    elif "ls" in argv:
        print("REF TYPE DIGEST SIZE PLATFORMS LABELS")
        for reference in known:
            digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
            print(reference, "application/x", digest, "70 KiB", "linux/amd64", "-")
    else:
        digests = {"sha256:" + hashlib.sha256(one.encode()).hexdigest(): known[one] for one in known}
        print(json.dumps({"config": {"digest": digests[argv[-1]]}}))
elif argv[:1] == ["version"]:
    print("kind v0.27.0 go1.24.0 linux/amd64")
elif argv[:2] == ["get", "clusters"]:
    names = sorted(path.name for path in (home / "clusters").iterdir())
    print("\\n".join(names)) if names else print("No kind clusters found.", file=sys.stderr)
elif argv[:2] == ["get", "nodes"]:
    print("stratalab-control-plane")
elif argv[:2] == ["get", "kubeconfig"] and (home / "stopped").exists():
    command = f"docker exec --privileged {option('--name')}-control-plane cat /etc/kubernetes/admin.conf"
    print(f'ERROR: failed to get cluster internal kubeconfig: command "{command}" failed with error: exit status 1\\n',
          "Command Output: Error response from daemon: Container 4f66ad9a is not running", sep="\\n", file=sys.stderr)
    sys.exit(1)
elif argv[:2] == ["get", "kubeconfig"]:
    print((home / "kubeconfig").read_text())
elif argv[:2] == ["create", "cluster"]:
    (home / "config").write_text(Path(option("--config")).read_text())
    (home / "clusters" / option("--name")).write_text("")
    if (home / "failure").exists():
        print((home / "failure").read_text(), file=sys.stderr)
        sys.exit(1)
elif argv[:2] == ["delete", "cluster"]:
    (home / "clusters" / option("--name")).unlink(missing_ok=True)
elif argv[:2] == ["load", "image-archive"]:
    with tarfile.open(argv[2]) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        digest = hashlib.sha256(archive.extractfile(manifest["Config"]).read()).hexdigest()
    wrong = (home / "wrong-image").exists()
    images.write_text(json.dumps({tag: "sha256:" + ("f" * 64 if wrong else digest) for tag in manifest["RepoTags"]}))
else:
    sys.exit("unknown: " + " ".join(argv))
"""


@pytest.fixture
def kind(tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> FakeKind:
    made = FakeKind(tmp_path / "fake-kind", stub)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("kind", "docker"):
        program = programs / name
        program.write_text(f"#!{sys.executable} -S\nHOME = {str(made.directory)!r}\n{_FAKE_KIND}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("drivers.kubernetes.cluster.kind.subprocess.run", made.run)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    names = ("KIND_IMAGE", "KIND_CONFIG", "CONTEXT", "ROUTE", "SERVICE_IMAGE", "NAMESPACE", "SECURITY")
    for option in (*names, "REQUEST_CPU", "REQUEST_MEMORY", "NODE", "SPREAD", "TOLERATE", "KIND_WORKERS"):
        monkeypatch.delenv(f"LAB_{option}", raising=False)
    monkeypatch.delenv("KIND_EXPERIMENTAL_PROVIDER", raising=False)
    return made


@pytest.fixture
def k8s() -> Any:
    """What a kubelet of a test's own is made of: this module."""
    return sys.modules[__name__]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits for what may mend itself."""
    monkeypatch.setattr("drivers.kubernetes.events.follow._GRACE_S", 0.2)
    monkeypatch.setattr("drivers.kubernetes.connection.client._PAUSES_S", (0.01, 0.01, 0.01))
