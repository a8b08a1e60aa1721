"""What the kubelets are set to: whether a pod can have CPUs and a number of processes of its own.

Asked of each kubelet by way of the API (`/api/v1/nodes/NAME/proxy/configz`), for which one needs the right `get` of
`nodes/proxy`; where a user has not, that is what is told. Source: k8s.io/kubelet, config/v1beta1, KubeletConfiguration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import message_of, status_of

STATIC = "static"
_ASKED = 8
"""Of a large cluster the first nodes are asked: they are made alike, and each answer takes some 10 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelets:
    """Of those that were asked: the policies of their CPU managers, and the lowest of their limits on a pod's
    processes, None where one has no limit. `problem` says why nothing is known."""

    policies: Sequence[str] = ()
    pod_pids: int | None = None
    problem: str = ""

    @property
    def exclusive(self) -> bool:
        """Whether a pod that asks for whole CPUs has them for itself on every node."""
        return bool(self.policies) and set(self.policies) == {STATIC}

    @property
    def pids(self) -> str:
        """A pod's limit on processes, in words."""
        if self.problem:
            return f"not set by the pod's: it is the kubelet's podPidsLimit, which is not told ({self.problem})"
        if self.pod_pids is None:
            return "not set: the kubelets have no podPidsLimit, and a pod has none of its own"
        return f"set by the kubelets: podPidsLimit {self.pod_pids}, whatever was declared"

    @property
    def lacking(self) -> str:
        """Why pods have no CPUs of their own; empty where they can have."""
        if self.exclusive:
            return ""
        if self.problem:
            return f"whether its kubelets give pods CPUs of their own is not told: {self.problem}"
        told = ", ".join(sorted(set(self.policies))) or "none"
        return f"its kubelets' CPU manager policy is '{told}', and with 'static' alone a pod has CPUs of its own"


def ask(api: Api, nodes: Sequence[str]) -> Kubelets:
    """What the kubelets of `nodes`, or of the first of them, are set to. Raises the client's exceptions where the API
    does not answer at all."""
    policies: list[str] = []
    limits: list[int] = []
    for node in nodes[:_ASKED]:
        try:
            told: dict[str, Any] = api.call(api.core.connect_get_node_proxy_with_path, node, "configz")
        except Exception as error:
            status = status_of(error)
            if not status:
                raise
            refused = "this user may not ask them" if status == 403 else f"the API said {status}, {message_of(error)}"
            return Kubelets(problem=refused)
        settings = told.get("kubeletconfig") or {}
        policies.append(str(settings.get("cpuManagerPolicy") or "none"))
        limits.append(int(settings.get("podPidsLimit") or -1))
    if not policies:
        return Kubelets(problem="this user is told of no node")
    return Kubelets(policies=policies, pod_pids=min(limits) if min(limits) > 0 else None)
