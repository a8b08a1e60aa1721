"""Which Kubernetes a cluster's nodes would run, and whether it starts on this host's cgroups."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drivers.kubernetes.cluster.kind import Kind
from lab.errors import DriverUnavailable

NEEDS_CGROUP_V2 = (1, 35)
"""From here on the kubelet ends at once on version 1, unless its configuration says `failCgroupV1: false`
(kubernetes.io, "Kubernetes v1.35", Removal of cgroup v1 support), and kind's node images drop what they did for it
(kind 0.31, release notes)."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.\d+)?")
_TAG = re.compile(r":v?(\d+)\.(\d+)(?:[.@-]|$)")
_DEFAULT = re.compile(rb"kindest/node:v\d+\.\d+\.\d+@sha256:[0-9a-f]{64}")


def require_runnable(kind: Kind, *, image: str, config: Mapping[str, Any] | None) -> None:
    """Raises DriverUnavailable where a node's kubelet could not start here, before anything is made; DriverError."""
    if kind.cgroup_version() != 1 or re.search(r"failCgroupV1:\s*false", json.dumps(config or {})):
        return
    for one in _images(kind, image, config):
        version = kubernetes_version(kind, one)
        if version is not None and version >= NEEDS_CGROUP_V2:
            raise DriverUnavailable(
                f"the node image {one} is of Kubernetes {version[0]}.{version[1]}, which does not start on this "
                "host's cgroups of version 1",
                resolution=f"use a node image older than {NEEDS_CGROUP_V2[0]}.{NEEDS_CGROUP_V2[1]}: lab cluster up "
                "--kind-image NAME; or start this host with systemd.unified_cgroup_hierarchy=1",
            )


def kubernetes_version(kind: Kind, image: str) -> tuple[int, int] | None:
    """As the image itself says, where it is here, else as its tag does; None where neither tells."""
    found = _VERSION.fullmatch(kind.node_version(image).strip()) or _TAG.search(image)
    return (int(found[1]), int(found[2])) if found else None


def default_image(program: Path) -> str:
    """The node image that a `kind` uses where none is named: it stands in the program (kind, pkg/apis/config/defaults)
    and is told nowhere; empty where it is not found."""
    try:
        found = set(_DEFAULT.findall(program.read_bytes()))
    except OSError:
        return ""
    return found.pop().decode() if len(found) == 1 else ""


def _images(kind: Kind, image: str, config: Mapping[str, Any] | None) -> list[str]:
    """Those that kind would use: the one that is named for all nodes, else each node's own or the default."""
    nodes = (config or {}).get("nodes") or [{}]
    wanted = [image] if image else [str(node.get("image") or "") or default_image(Path(kind.program)) for node in nodes]
    return [one for one in dict.fromkeys(wanted) if one]
