"""What a pod's status says: which phases it has reached, and why it will not get further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.refusals import explain
from drivers.kubernetes.objects.manifests import CONTAINER
from lab.errors import LaunchError
from lab.launch.ends import Ending
from lab.timeline import Phase
from lab.units import parse_bytes

_IMAGE_REASONS = frozenset({"ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"})
_OTHER_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)
"""Source: k8s.io/kubernetes, pkg/kubelet/images/types.go and pkg/kubelet/kuberuntime: waiting reasons of a container
that the kubelet could not start, or not again."""


_NEVER_RAN = frozenset({"ContainerCannotRun", "StartError", "ContainerStatusUnknown"})
"""Reasons of an end of what had not begun, or of which the kubelet knows nothing."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a launch cannot succeed as things are. `final` is False where the engine may still get over it."""

    brief: str
    resolution: str
    final: bool = True

    def error(self, details: str = "") -> LaunchError:
        """This verdict, to be raised."""
        return LaunchError(self.brief, details=details, resolution=self.resolution)


def reached(pod: Mapping[str, Any]) -> list[Phase]:
    """The phases of the engine's chain that `pod` shows, in the chain's order. What it does not show is not in it."""
    status = pod.get("status") or {}
    container = _container(pod)
    shown = {
        Phase.CREATED: True,
        Phase.SCHEDULED: bool((pod.get("spec") or {}).get("nodeName")) or condition(pod, "PodScheduled") == "True",
        Phase.POD_IP: bool(status.get("podIP")),
        Phase.STARTED: "running" in (container.get("state") or {}),
        Phase.ENGINE_READY: condition(pod, "Ready") == "True",
    }
    return [phase for phase, seen in shown.items() if seen]


def condition(thing: Mapping[str, Any], kind: str) -> str:
    """The status of one condition, empty where there is none."""
    return str(_condition(thing, kind).get("status", ""))


def pod_verdict(pod: Mapping[str, Any]) -> Verdict | None:
    """Why `pod` will not serve; None while nothing speaks against it."""
    if ended := _ended(pod):
        return ended
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        said = _line(scheduled.get("message") or "the scheduler gives no reason")
        return Verdict(
            f"the pod cannot be scheduled: {said}",
            "free what it lacks: `lab clean` removes what dead runs left; or ask for less",
            final=False,
        )
    waiting = (_container(pod).get("state") or {}).get("waiting") or {}
    return _waiting_verdict(pod, str(waiting.get("reason", "")), _line(waiting.get("message") or ""))


def deployment_verdict(deployment: Mapping[str, Any]) -> Verdict | None:
    """Why `deployment` gets no pods; None while nothing speaks against it."""
    failure = _condition(deployment, "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    said = _line(failure.get("message") or failure.get("reason") or "")
    if found := explain(said):
        return Verdict(*found)
    return Verdict(f"the deployment gets no pod: {said}", "see `kubectl describe deployment`", final=False)


def _waiting_verdict(pod: Mapping[str, Any], reason: str, message: str) -> Verdict | None:
    """Of a container that the kubelet has not started, and why."""
    said = message or reason
    if reason in _IMAGE_REASONS:
        node = (pod.get("spec") or {}).get("nodeName", "its node")
        if reason == "ErrImageNeverPull":
            return Verdict(f"the image is missing on the node {node}: {said}", "run again: every run checks each node")
        return Verdict(
            f"the image cannot be pulled on the node {node}: {said}",
            "give a reference that the cluster's nodes can pull",
            final=reason != "ErrImagePull",
        )
    if reason in _OTHER_REASONS and "runAsNonRoot" in said:  # pkg/kubelet/kuberuntime/security_context.go
        return Verdict(
            f"the image may not run as its user: {said}",
            "give it a USER that is a number and not 0; or, where the namespace allows root, -o security=image",
        )
    if reason in _OTHER_REASONS:
        return Verdict(f"the container does not start: {said} ({_ending(pod)})", "see its log, and `kubectl describe`")
    return None


def _container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The service's own: a platform may have put others beside it, of which the kubelet tells by their names' order."""
    return _named(CONTAINER, (pod.get("status") or {}).get("containerStatuses"))


def _named(name: str, listed: Sequence[Mapping[str, Any]] | None) -> Mapping[str, Any]:
    return next((one for one in listed or () if one.get("name") == name), (listed or [{}])[0])


def _condition(thing: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            found: Mapping[str, Any] = one
            return found
    return {}


def _ended(pod: Mapping[str, Any]) -> Verdict | None:
    """How `pod` ended, or its service did while it was not ready, though the kubelet starts it again."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Failed", "Succeeded"):
        why = " ".join(filter(None, [status.get("reason"), status.get("message")])) or _ending(pod)
        return Verdict(f"the pod ended: {_line(why)}", "see its log, and `kubectl describe pod`")
    container = _container(pod)
    states = (container.get("state") or {}, container.get("lastState") or {})
    ended = next((state["terminated"] for state in states if state.get("terminated")), None)
    if ended is None or ended.get("reason") in _NEVER_RAN or condition(pod, "Ready") == "True":
        return None
    ending = Ending.by_code(int(ended.get("exitCode", 0)), out_of_memory=ended.get("reason") == "OOMKilled")
    error = ending.error(memory_bytes=_memory_bytes(pod))
    return Verdict(error.brief, error.resolution or "see its log: `kubectl logs --previous`")


def _memory_bytes(pod: Mapping[str, Any]) -> int:
    """The limit that the lab gave the container, which the API may write in units of its own (`128Mi`)."""
    container = _named(CONTAINER, (pod.get("spec") or {}).get("containers"))
    told = str(((container.get("resources") or {}).get("limits") or {}).get("memory", 0))
    return parse_bytes(f"{told}B" if told.endswith("i") else told)


def _ending(pod: Mapping[str, Any]) -> str:
    """How the container ended last, in words."""
    container = _container(pod)
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if ended := state.get("terminated"):
            return f"{ended.get('reason', 'ended')}, exit code {ended.get('exitCode', '?')}"
    return "it has not run"


def _line(text: str) -> str:
    return " ".join(str(text).split())
