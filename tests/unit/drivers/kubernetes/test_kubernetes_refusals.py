"""What the API's admission says is told with its numbers, and with the option that meets them.

The messages are what kube-apiserver 1.28 to 1.33 writes (limitranger, resourcequota, pod-security-admission).
"""

from __future__ import annotations

import json
from decimal import Decimal

import kubernetes.client.exceptions
import pytest

from drivers.kubernetes.connection.errors import translate
from drivers.kubernetes.connection.refusals import explain, quantity
from drivers.kubernetes.objects.status import deployment_verdict, pod_verdict
from lab.errors import LaunchError

SECURITY = (
    'pods "lab-x" is forbidden: violates PodSecurity "restricted:latest": '
    'allowPrivilegeEscalation != false (container "service" must set securityContext.allowPrivilegeEscalation=false), '
    'unrestricted capabilities (container "service" must set securityContext.capabilities.drop=["ALL"]), '
    'runAsNonRoot != true (pod or container "service" must set securityContext.runAsNonRoot=true), '
    'seccompProfile (pod or container "service" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
    '"Localhost")'
)
PORTS = (
    'pods "lab-x" is forbidden: violates PodSecurity "baseline:latest": '
    'hostPort (container "service" uses hostPort 30000)'
)


@pytest.mark.parametrize(
    ("said", "kind", "remedy"),
    [
        ("maximum memory usage per Container is 64Mi, but limit is 134217728", "LimitRange", "give --memory 64M"),
        ("maximum memory usage per Pod is 1Gi, but limit is 2147483648", "LimitRange", "give --memory 1024M"),
        ("maximum cpu usage per Container is 500m, but limit is 1", "LimitRange", "give --cpus 0.5"),
        ("minimum cpu usage per Container is 2, but limit is 1", "LimitRange", "give --cpus 2"),
        (
            "minimum memory usage per Container is 200Mi, but request is 16Mi",
            "LimitRange",
            "give -o request-memory=200Mi",
        ),
        ("minimum cpu usage per Container is 100m, but request is 20m.", "LimitRange", "give -o request-cpu=100m"),
        (
            "[minimum memory usage per Container is 200Mi, but request is 16Mi, minimum memory usage per Container is "
            "200Mi, but limit is 128Mi]",
            "LimitRange",
            "give -o request-memory=200Mi; give --memory 200M",
        ),
        (
            "memory max limit to request ratio per Container is 4, but provided ratio is 8.000000",
            "LimitRange",
            "give -o request-memory=, at least --memory divided by 4",
        ),
        (
            "minimum ephemeral-storage usage per Container is 1Gi.  No request is specified",
            "LimitRange",
            "-o namespace=NAME",
        ),
        (
            "exceeded quota: q, requested: limits.memory=134217728, used: limits.memory=900Mi, limited: "
            "limits.memory=1Gi",
            "quota",
            "give --memory 124M, of which so much is left",
        ),
        (
            "exceeded quota: q, requested: requests.cpu=20m, used: requests.cpu=1990m, limited: requests.cpu=2",
            "quota",
            "give -o request-cpu=10m, of which",
        ),
        ("exceeded quota: q, requested: memory=16Mi, used: memory=1Gi, limited: memory=1Gi", "quota", "lab clean"),
        ("exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10", "quota", "launch fewer at once"),
        (
            "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: "
            "services.nodeports=0",
            "quota",
            "-o route=port-forward",
        ),
        ("failed quota: q: must specify limits.ephemeral-storage for: service", "quota", "-o namespace=NAME"),
        (SECURITY, "Pod Security", "-o security=restricted"),
        (PORTS, "Pod Security", "-o route=node-port"),
    ],
)
def test_admission_is_told_with_its_numbers_and_the_option_that_meets_them(said: str, kind: str, remedy: str) -> None:
    said = said if "forbidden" in said else f'pods "lab-x" is forbidden: {said}'
    error = kubernetes.client.exceptions.ApiException(status=403, reason="Forbidden")
    error.body = json.dumps({"kind": "Status", "message": said, "reason": "Forbidden", "code": 403})  # type: ignore[assignment]
    found = translate(error, "create the pod", LaunchError)
    assert kind in found.brief and " ".join(said.split()) in found.brief
    assert remedy in found.resolution and "use a context that may" not in found.resolution
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": said}
    verdict = deployment_verdict({"status": {"conditions": [condition]}})
    assert verdict is not None and verdict.final
    assert (verdict.brief, verdict.resolution) == (found.brief, found.resolution)


def test_other_refusals_are_the_administrators() -> None:
    said = 'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "x"'
    assert explain(said) is None
    error = kubernetes.client.exceptions.ApiException(status=403)
    error.body = json.dumps({"message": said})  # type: ignore[assignment]
    assert "use a context that may" in translate(error, "create the pod").resolution


@pytest.mark.parametrize(
    "said",
    [
        "container has runAsNonRoot and image will run as root (pod: x, container: service)",
        "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root",
    ],
)
def test_an_image_that_may_not_run_as_its_user_is_told_with_both_ways_out(said: str) -> None:
    waiting = {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": said}}}
    verdict = pod_verdict({"status": {"phase": "Pending", "containerStatuses": [waiting]}})
    assert verdict is not None and verdict.final and said in verdict.brief
    assert "USER" in verdict.resolution and "-o security=image" in verdict.resolution


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("128Mi", 128 * 2**20),
        ("1Gi", 2**30),
        ("134217728", 134217728),
        ("100m", Decimal("0.1")),
        ("1.5", Decimal("1.5")),
        ("2k", 2000),
        ("1G", 10**9),
        ("250u", Decimal("0.00025")),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, number: Decimal) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Mi", "1Zi", "-1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)
