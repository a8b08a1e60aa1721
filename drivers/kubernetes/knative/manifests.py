"""What is asked of Knative Serving, as plain objects, and what it takes of a pod's spec.

Of a pod's own fields Knative takes few (knative/serving, pkg/apis/serving/fieldmask.go): no restart policy, no grace
period (a revision's `timeoutSeconds` is that), no host port, and by default no DNS policy, node selector or
RuntimeClass. What it reserves is in k8s_validation.go there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.objects import labels, manifests
from drivers.kubernetes.objects.manifests import INSTANCE, Form, name_of
from lab.errors import BadInput
from lab.spec import Spec

GROUP, VERSION, PLURAL = "serving.knative.dev", "v1", "services"
REGISTRY = "dev.local"
"""Of images that are on the nodes alone: Knative asks a registry for the digest of every tag, but for those of
`registries-skipping-tag-resolving` (its ConfigMap config-deployment), of which this is one by default."""
TIMEOUT_S = 60
"""How long a call may take; also what a pod is given between SIGTERM and SIGKILL."""

_AUTOSCALING = "autoscaling.knative.dev"
_RESERVED_ENVIRONMENT = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")
_RESERVED_PORTS = (8008, 8012, 8013, 8022, 9090, 9091)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How a service comes and goes: calls at a time of one pod (0: any number), pods at most, and over how many seconds
    the autoscaler takes its mean, which are also the least that a pod stays without a call."""

    concurrency: int
    most: int
    window_s: int


def service(spec: Spec, form: Form, scaling: Scaling) -> dict[str, Any]:
    """A Knative Service that goes to zero and begins with one pod, as Knative does unasked."""
    name = name_of(spec)
    template = labels.metadata(name, spec.labels, **{INSTANCE: name})
    del template["name"]
    template["annotations"] |= {
        f"{_AUTOSCALING}/min-scale": "0",
        f"{_AUTOSCALING}/max-scale": str(scaling.most),
        f"{_AUTOSCALING}/window": f"{scaling.window_s}s",
    }
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Service",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": {"template": {"metadata": template, "spec": _revision_spec(spec, form, scaling)}},
    }


def require_free_names(spec: Spec) -> None:
    """Raises BadInput where `spec` asks for what Knative keeps to itself."""
    taken = sorted(set(spec.environment) & set(_RESERVED_ENVIRONMENT))
    if taken:
        raise BadInput(
            f"Knative sets {', '.join(taken)} itself, and refuses a service that does",
            resolution=f"leave out --env {taken[0]}; the port that the service listens at is --port",
        )
    if spec.port in _RESERVED_PORTS:
        told = ", ".join(map(str, _RESERVED_PORTS))
        raise BadInput(f"Knative keeps port {spec.port} to itself", resolution=f"give another --port than {told}")


def _revision_spec(spec: Spec, form: Form, scaling: Scaling) -> dict[str, Any]:
    container = manifests.container(spec, form)
    del container["readinessProbe"]  # Knative's own: of TCP, and many times a second until the first success
    made: dict[str, Any] = {
        "containerConcurrency": scaling.concurrency,
        "timeoutSeconds": TIMEOUT_S,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if not form.own_tmp:
        made["volumes"] = [manifests.tmp_volume(spec)]
    return made


def where(namespace: str = "") -> tuple[str, ...]:
    """The first arguments of the client's calls for custom objects."""
    return (GROUP, VERSION, namespace, PLURAL) if namespace else (GROUP, VERSION, PLURAL)
