"""As whom and with what rights a pod's container runs.

`restricted` is the level of that name of Kubernetes' Pod Security Standards, which many clusters demand: any user but
root, no capabilities, no way to gain rights, the runtime's own seccomp filter. The lab's own service needs no more.
`image` is what the image asks for, root too, as on every other target; the seccomp filter is the runtime's there as
well, which is what Docker gives unasked, and a kubelet does not.
"""

from __future__ import annotations

from typing import Any

RESTRICTED, IMAGE = "restricted", "image"
LEVELS = (RESTRICTED, IMAGE)
UID = 65_532
"""The user of the lab's own service where neither the image nor the cluster names one; any other would do."""
WORDS = {
    RESTRICTED: "no root, no capabilities, no new privileges, seccomp RuntimeDefault (Pod Security 'restricted')",
    IMAGE: "the image's user and the runtime's capabilities, seccomp RuntimeDefault",
}


def security_context(level: str, *, uid: int | None = None) -> dict[str, Any]:
    """A container's `securityContext`; `uid` is left to the image and the cluster where it is None."""
    found: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if level == RESTRICTED:
        found |= {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        if uid is not None:
            found |= {"runAsUser": uid, "runAsGroup": uid}
    return found
