"""The lab's labels on objects of Kubernetes, whose own labels take few characters.

The annotation `stratalab/labels` holds them all as they are. Beside it each is a label of the object, for selecting:
its value as it is where Kubernetes takes it, else its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

ANNOTATION = "stratalab/labels"
MANAGED_BY = {"app.kubernetes.io/managed-by": "stratalab"}
OF_KNATIVE = "serving.knative.dev/service"
"""The label by which Knative tells of what it makes to which of its Services that belongs: that one is the instance."""

_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
"""Source: k8s.io/apimachinery, `validation.IsValidLabelValue`."""
_MACHINE, _PROCESS, _NAMESPACE = "lab.owner-machine", "lab.owner-process", "lab.owner-namespace"
_OF_ONE = ("lab.target", "lab.launch")


def label_value(text: str) -> str:
    """`text`, or its digest where it is no valid value of a label."""
    return text if _VALUE.fullmatch(text) else f"sha256-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def metadata(name: str, labels: Mapping[str, str], **more: str) -> dict[str, Any]:
    """An object's metadata: its name, the lab's `labels`, and `more` labels that are not the lab's."""
    own = {key: label_value(value) for key, value in labels.items()}
    return {
        "name": name,
        "labels": {**MANAGED_BY, **own, **more},
        "annotations": {ANNOTATION: json.dumps(dict(labels), sort_keys=True)},
    }


def labels_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """The lab's labels of an object as the API gives it; empty where it has none."""
    annotations = thing["metadata"].get("annotations") or {}
    try:
        found = json.loads(annotations.get(ANNOTATION, "null"))
    except ValueError:
        found = None
    if not isinstance(found, dict):  # somebody has edited it: what selects the object still tells whose it is
        own = thing["metadata"].get("labels") or {}
        return {key: value for key, value in own.items() if key.startswith("lab.")}
    return {str(key): str(value) for key, value in found.items()}


def selector(labels: Mapping[str, str]) -> str:
    """The label selector of everything of the lab's that may bear `labels`."""
    return ",".join(["lab.run", *(f"{key}={label_value(value)}" for key, value in labels.items())])


def owner_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Whose a cluster is, for labels of its nodes, which take no annotation from kind; `lab.owner` in three, since one
    would be too long."""
    parts = labels.get("lab.owner", "").split(":")
    machine, process, namespace = parts[0], ".".join(parts[1:4]), ".".join(parts[4:])
    told = {"lab.run": labels.get("lab.run", ""), _MACHINE: machine, _PROCESS: process, _NAMESPACE: namespace}
    return {key: value for key, value in told.items() if value and label_value(value) == value}


def owner_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The inverse of `owner_labels`, of a node's labels."""
    process = labels.get(_PROCESS, "").replace(".", ":")
    namespace = [labels[_NAMESPACE]] if labels.get(_NAMESPACE) else []
    owner = ":".join([labels.get(_MACHINE, ""), process, *namespace])
    return {"lab.run": labels.get("lab.run", ""), "lab.owner": owner}


def run_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of what a run's launches share."""
    return {key: value for key, value in labels.items() if key not in _OF_ONE}


def namespace_of(labels: Mapping[str, str]) -> str:
    """The name of the run's own namespace: a DNS label."""
    run = re.sub(r"[^a-z0-9-]", "-", labels.get("lab.run", "none").lower())
    return f"lab-{run}"[:63].strip("-")
