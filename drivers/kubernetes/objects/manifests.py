"""What is asked of the cluster, as plain objects; the client checks them against the API's schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drivers.kubernetes.objects import labels
from lab.image.process import TMP
from lab.spec import Ready, Spec
from lab.units import MIB

CONTAINER = "service"
GRACE_S = 10
"""Between SIGTERM and SIGKILL where the cluster ends a pod by itself."""
REQUESTS = {"cpu": "20m", "memory": "16Mi"}
"""What the scheduler sets aside for a pod. Small, so that the limits and the pool of ports bound N and not a
reservation, which no other target makes."""
INSTANCE = "stratalab/instance"
PORTS = {"lab.ports": "mapped"}
"""The label of the node whose ports the lab's cluster maps to this host."""

_FEWEST_SCRATCH_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a target's pods differ from another's. `host_port` is the node's; `security` is the container's
    `securityContext`; `requests` are what the user gave, by resource, instead of `REQUESTS`; with `own_tmp` the image's
    /tmp stays; `placed` is what a pod's spec says of the nodes that it may go to."""

    image: str
    pull_policy: str
    security: Mapping[str, Any]
    requests: Mapping[str, str] = field(default_factory=dict)
    runtime_class: str = ""
    host_port: int | None = None
    own_tmp: bool = False
    placed: Mapping[str, Any] = field(default_factory=dict)


def name_of(spec: Spec) -> str:
    """The name of a launch's objects; one launch, one name, so that a repeated request makes nothing twice."""
    return f"lab-{spec.labels.get('lab.launch', spec.nonce[:16])}"


def namespace(of: Mapping[str, str]) -> dict[str, Any]:
    """The run's own namespace."""
    own = labels.run_labels(of)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": labels.metadata(labels.namespace_of(of), own)}


def pod(spec: Spec, form: Form) -> dict[str, Any]:
    """One pod, alone."""
    name = name_of(spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": _pod_spec(spec, form),
    }


def deployment(spec: Spec, form: Form) -> dict[str, Any]:
    """A deployment of one replica, updated by adding a pod before taking one away."""
    name = name_of(spec)
    template = labels.metadata(name, spec.labels, **{INSTANCE: name})
    del template["name"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {INSTANCE: name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": template, "spec": _pod_spec(spec, form)},
        },
    }


def job(spec: Spec, form: Form) -> dict[str, Any]:
    """A Job of one pod, which Kubernetes starts anew where the service fails, with the Job's own backoff, and takes for
    done where it ends by itself with 0."""
    name = name_of(spec)
    template = labels.metadata(name, spec.labels, **{INSTANCE: name})
    del template["name"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "template": {"metadata": template, "spec": {**_pod_spec(spec, form), "restartPolicy": "OnFailure"}},
        },
    }


def service(spec: Spec, node_port: int | None, *, ready_only: bool) -> dict[str, Any]:
    """The way in through a port of every node, which Kubernetes chooses where `node_port` is None; `ready_only` says
    whether a pod must pass its readiness probe first."""
    name = name_of(spec)
    port: dict[str, Any] = {"port": spec.port, "targetPort": spec.port, "protocol": "TCP"}
    if node_port is not None:
        port["nodePort"] = node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": {
            "type": "NodePort",
            "selector": {INSTANCE: name},
            "ports": [port],
            "publishNotReadyAddresses": not ready_only,
        },
    }


def alias(spec: Spec) -> dict[str, Any]:
    """The Service by whose name peers find the instance, within the cluster; as users have it, it leads to a pod that
    has passed its readiness probe."""
    name = name_of(spec)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": labels.metadata(spec.alias, spec.labels, **{INSTANCE: name}),
        "spec": {
            "type": "ClusterIP",
            "selector": {INSTANCE: name},
            "ports": [{"port": spec.port, "targetPort": spec.port, "protocol": "TCP"}],
        },
    }


def container(spec: Spec, form: Form) -> dict[str, Any]:
    """The pod's one container."""
    listen = "0.0.0.0"  # noqa: S104  the pod's own addresses
    environment = spec.service_environment(host=listen, port=spec.port)
    port: dict[str, Any] = {"containerPort": spec.port, "protocol": "TCP"}
    if form.host_port is not None:
        port["hostPort"] = form.host_port
    made: dict[str, Any] = {
        "name": CONTAINER,
        "image": form.image,
        "imagePullPolicy": form.pull_policy,
        "env": [{"name": key, "value": _literal(value)} for key, value in environment.items()],
        "ports": [port],
        "resources": {"limits": _limits(spec), "requests": requests(spec, form.requests)},
        "securityContext": dict(form.security),
        "readinessProbe": readiness(spec),
        "volumeMounts": [] if form.own_tmp else [{"name": "tmp", "mountPath": TMP}],
    }
    if spec.command is not None:
        made["args"] = [
            _literal(word) for word in spec.command
        ]  # a pod's `args` are an image's command, its `command` the entrypoint
    return made


def readiness(spec: Spec) -> dict[str, Any]:
    """Every second, which is the most often that Kubernetes can.

    It delays no first answer where the route does not wait for it: not on a hostPort, nor through the Service of a
    single pod, which publishes unready addresses too. A deployment's Service does wait, as people have it; that is a
    part of what a deployment costs. `/healthz` needs no nonce and starts nothing.
    """
    path = "/healthz" if spec.builtin else spec.ready_path
    asked = {"httpGet": {"path": path, "port": spec.port}}
    if spec.ready is Ready.TCP:
        asked = {"tcpSocket": {"port": spec.port}}
    return {
        **asked,
        "periodSeconds": 1,
        "timeoutSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def requests(spec: Spec, given: Mapping[str, str]) -> dict[str, str]:
    """What the scheduler sets aside for a pod of `spec`: no request may be above its limit. One that is to have CPUs of
    its own asks for all that it may use (the QoS class Guaranteed)."""
    if spec.cpuset:
        return _limits(spec)
    cpu = "1m" if spec.cpus < 0.02 else REQUESTS["cpu"]
    return {"cpu": cpu, "memory": str(min(spec.memory_bytes, 16 * MIB)), **given}


def tmp_volume(spec: Spec) -> dict[str, Any]:
    """What `/tmp` is where the image has nothing there: memory, of the scratch size."""
    scratch_bytes = max(spec.scratch_bytes, _FEWEST_SCRATCH_BYTES)
    return {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": str(scratch_bytes)}}


def _pod_spec(spec: Spec, form: Form) -> dict[str, Any]:
    made: dict[str, Any] = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The node's own names, since the cluster's DNS may not be there, unless peers are found by theirs.
        "dnsPolicy": "ClusterFirst" if spec.alias else "Default",
        "containers": [container(spec, form)],
    }
    if not form.own_tmp:
        made["volumes"] = [tmp_volume(spec)]
    if form.runtime_class:
        made["runtimeClassName"] = form.runtime_class
    if form.host_port is not None:
        made["nodeSelector"] = dict(PORTS)
    return {**made, **form.placed}


def _literal(text: str) -> str:
    """`text`, safe from Kubernetes' own expansion of `$(NAME)`."""
    return text.replace("$(", "$$(")


def _limits(spec: Spec) -> dict[str, str]:
    return {"cpu": f"{math.ceil(spec.cpus * 1000)}m", "memory": str(spec.memory_bytes)}
