"""What the API's admission says when it refuses a pod, with its numbers, and the option that meets them.

The texts are those of k8s.io/kubernetes: plugin/pkg/admission/limitranger, staging/src/k8s.io/apiserver's
pkg/admission/plugin/resourcequota and staging/src/k8s.io/pod-security-admission. A controller repeats them in the
condition `ReplicaFailure` of what it makes pods for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

_QUANTITY = r"[0-9][0-9.]*[A-Za-z]*"
_USAGE = re.compile(
    rf"(minimum|maximum) (\S+) usage per (Container|Pod) is ({_QUANTITY})"
    rf"(?:\.\s+No (?:request|limit) is specified|, but (request|limit) is ({_QUANTITY}))"
)
_RATIO = re.compile(
    rf"(\S+) max limit to request ratio per (?:Container|Pod) is ({_QUANTITY}), but provided ratio is ([0-9.]+)"
)
_QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: (\S+)")
_SUFFIXES: Mapping[str, Decimal] = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{name: Decimal(1000) ** power for power, name in enumerate("kMGTPE", 1)},
    **{f"{name}i": Decimal(1024) ** power for power, name in enumerate("KMGTPE", 1)},
}
"""Source: k8s.io/apimachinery, pkg/api/resource, `Quantity`."""
_MIB = Decimal(1024 * 1024)
_FEWER = "`lab clean` removes what dead runs left; or launch fewer at once (-p max, -p replicas)"
_ELSEWHERE = "use another namespace: -o namespace=NAME; or ask the cluster's administrator"


def explain(said: str) -> tuple[str, str] | None:
    """What `said`, one line of the API's, refuses, in words with its numbers, and what meets them; None where it is
    of another kind."""
    if "violates PodSecurity" in said:
        return f"the namespace's Pod Security admission refuses the pod: {said}", _of_pod_security(said)
    if "exceeded quota" in said or "failed quota" in said:
        return f"a quota of the cluster forbids it: {said}", _of_quota(said)
    limits = _of_limit_range(said)
    if limits:
        return f"a LimitRange of the namespace forbids the pod: {said}", "; ".join(limits)
    if "system:anonymous" in said:
        return (
            f"the kubeconfig gives no credentials that the cluster takes: {said}",
            "see `kubectl config view`: this context's user needs a token, a certificate or a credential program",
        )
    return None


def quantity(text: str) -> Decimal:
    """A quantity of Kubernetes', `128Mi` or `100m`, as a number. Raises ValueError."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    if found is None or found[2] not in _SUFFIXES:
        raise ValueError(f"'{text}' is no quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def _of_pod_security(said: str) -> str:
    if "hostPort" in said:
        return "reach pods in another way: -o route=node-port"
    return f"run the image without root and capabilities: -o security=restricted; or {_ELSEWHERE}"


def _of_limit_range(said: str) -> list[str]:
    """What meets each constraint that `said` tells, each once."""
    found: dict[str, None] = {}
    for bound, resource, _, enforced, what, _ in _USAGE.findall(said):
        amount = quantity(enforced)
        if resource not in ("cpu", "memory"):
            found[_ELSEWHERE] = None
        elif what == "limit":
            found[_limit_option(resource, amount, at_most=bound == "maximum")] = None
        else:
            found[_request_option(resource, amount, at_most=bound == "maximum")] = None
    for resource, enforced, _ in _RATIO.findall(said):
        limit = {"memory": "--memory", "cpu": "--cpus"}.get(resource)
        found[f"give -o request-{resource}=, at least {limit} divided by {enforced}" if limit else _ELSEWHERE] = None
    return list(found)


def _of_quota(said: str) -> str:
    """What meets the first resource of which the quota has too little, and how much of it is left."""
    told = _QUOTA.search(said)
    if told is None:  # `failed quota: q: must specify limits.ephemeral-storage for: service`
        return _ELSEWHERE
    _, used, limited = (_resources(text) for text in told.groups()[1:])
    for resource in limited:
        left = max(Decimal(0), quantity(limited[resource]) - quantity(used.get(resource, "0")))
        kind, _, name = resource.rpartition(".")
        if name not in ("cpu", "memory") or not left:
            continue
        option: Callable[..., str] = _limit_option if kind == "limits" else _request_option
        return f"{option(name, left, at_most=True)}, of which so much is left; or {_FEWER}"
    if any(resource.startswith("services") for resource in limited):
        return f"reach pods without a Service: -o route=port-forward; or {_FEWER}"
    return f"{_FEWER}; or raise the ResourceQuota"


def _resources(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.rstrip(".").split(","))
    return {name: amount for name, _, amount in pairs if amount}


def _limit_option(resource: str, amount: Decimal, *, at_most: bool) -> str:
    """The user's own limits, as `lab run` takes them."""
    rounding = ROUND_FLOOR if at_most else ROUND_CEILING
    if resource == "memory":
        return f"give --memory {(amount / _MIB).to_integral_value(rounding)}M"
    return f"give --cpus {amount.quantize(Decimal('0.001'), rounding).normalize():f}"


def _request_option(resource: str, amount: Decimal, *, at_most: bool) -> str:
    """What the scheduler is to set aside, as Kubernetes writes it."""
    rounding = ROUND_FLOOR if at_most else ROUND_CEILING
    if resource == "memory":
        return f"give -o request-memory={(amount / _MIB).to_integral_value(rounding)}Mi"
    return f"give -o request-cpu={(amount * 1000).to_integral_value(rounding)}m"
