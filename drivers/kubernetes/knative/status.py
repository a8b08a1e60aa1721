"""What a Knative Service's status says, beside that of its pods: where it answers, and why it will not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from drivers.kubernetes.events.follow import PODS, Reader
from drivers.kubernetes.knative.manifests import GROUP
from drivers.kubernetes.objects.status import Verdict, condition
from lab.timeline import Phase

_READY = ("Ready", "ConfigurationsReady", "RoutesReady")
_MAY_MEND = ("nodes are available", "Insufficient", "Unschedulable")
"""Of a revision that has failed: what the scheduler says while another's resources are on their way back."""


def is_service(thing: Mapping[str, Any]) -> bool:
    """Whether an event's object is a Knative Service, and no pod."""
    return str(thing.get("apiVersion", "")).startswith(f"{GROUP}/")


def host_of(thing: Mapping[str, Any]) -> tuple[str, bool]:
    """By which name its ingress knows it, and whether over TLS; empty while that is not told."""
    url = urlsplit(str((thing.get("status") or {}).get("url") or ""))
    return url.netloc, url.scheme == "https"


def phases(thing: Mapping[str, Any]) -> list[Phase]:
    """The phases that an object shows: of a pod all but its own readiness, which is not yet the Service's."""
    if not is_service(thing):
        return [phase for phase in PODS.phases(thing) if phase is not Phase.ENGINE_READY]
    observed = (thing.get("status") or {}).get("observedGeneration") == thing["metadata"].get("generation")
    return [Phase.ENGINE_READY] if observed and condition(thing, "Ready") == "True" else []


def verdict(thing: Mapping[str, Any]) -> Verdict | None:
    """Why the Service, or one of its pods, will not serve; None while nothing speaks against it."""
    if not is_service(thing):
        return PODS.verdict(thing)
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one.get("type") in _READY and one.get("status") == "False":
            said = " ".join(str(one.get("message") or one.get("reason") or "no reason is given").split())
            final = one.get("reason") == "RevisionFailed" and not any(word in said for word in _MAY_MEND)
            return Verdict(
                f"Knative cannot have the service serve: {said}", "see `kubectl describe revision`", final=final
            )
    return None


def instants(thing: Mapping[str, Any]) -> dict[str, str]:
    """The cluster's own times of it, to the second."""
    if not is_service(thing):
        return PODS.instants(thing)
    found = {"service creationTimestamp": thing["metadata"].get("creationTimestamp")}
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one.get("status") == "True":
            found[f"service condition {one.get('type')}"] = one.get("lastTransitionTime")
    return {name: str(instant) for name, instant in found.items() if instant}


READER = Reader(phases=phases, verdict=verdict, instants=instants)
