"""A virtual machine as a pod: KubeVirt's VirtualMachineInstance, which boots a disk that an image holds.

KubeVirt makes a pod for it (virt-launcher), which bears its labels and runs QEMU; by these labels its Service and the
lab's events find that pod. Source: kubevirt.io/api, v1 (VirtualMachineInstanceSpec, DomainSpec).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from drivers.kubernetes.connection.client import Json
from drivers.kubernetes.objects import labels
from drivers.kubernetes.objects.manifests import GRACE_S, INSTANCE, Form, name_of
from lab.spec import Spec

GROUP, VERSION, PLURAL = "kubevirt.io", "v1", "virtualmachineinstances"
_KVM = "devices.kubevirt.io/kvm"
"""What KubeVirt's device plugin tells of a node that has /dev/kvm (kubevirt, virt-handler's device-manager)."""


def vmi(spec: Spec, form: Form) -> Json:
    """One machine of whole virtual CPUs, with a limit for a fraction; its network is the pod's, by KubeVirt's NAT."""
    name = name_of(spec)
    domain: dict[str, Any] = {
        "cpu": {"cores": max(1, math.ceil(spec.cpus))},
        "memory": {"guest": str(spec.memory_bytes)},
        "devices": {
            "autoattachGraphicsDevice": False,
            "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
            "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"port": spec.port, "protocol": "TCP"}]}],
            "rng": {},
        },
    }
    if not float(spec.cpus).is_integer():
        domain["resources"] = {"limits": {"cpu": f"{math.ceil(spec.cpus * 1000)}m"}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "VirtualMachineInstance",
        "metadata": labels.metadata(name, spec.labels, **{INSTANCE: name}),
        "spec": {
            "domain": domain,
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": form.image, "imagePullPolicy": form.pull_policy}},
            ],
            "terminationGracePeriodSeconds": GRACE_S,
            **form.placed,
        },
    }


def acceleration(nodes: Sequence[Mapping[str, Any]]) -> str:
    """`kvm` where every node that could run one says that it has it, `tcg` where none does; else empty: not known."""
    told = {str(((node.get("status") or {}).get("allocatable") or {}).get(_KVM, "0")) != "0" for node in nodes}
    return {frozenset({True}): "kvm", frozenset({False}): "tcg"}.get(frozenset(told), "")
