"""The labels that a domain or a network bears in its `<metadata>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from drivers.libvirt.xml import element, parsed

if TYPE_CHECKING:
    from lxml import etree

LABELS_URI = "urn:stratalab:labels:1"


def labels_element(labels: Mapping[str, str]) -> etree._Element:
    """The labels in the lab's own namespace, for `<metadata>`."""
    each = (element(f"{{{LABELS_URI}}}label", name=name, value=value) for name, value in sorted(labels.items()))
    return element(f"{{{LABELS_URI}}}labels", *each, prefixes={"lab": LABELS_URI})


def labels_of(metadata: str) -> dict[str, str]:
    """The inverse of `labels_element`, of the text that libvirt gives."""
    root = parsed(metadata)
    labels = root.iter(f"{{{LABELS_URI}}}label", "label")
    return {label.get("name", ""): label.get("value", "") for label in labels}
