"""What a user may give for Kubernetes: each a driver option, or else an environment variable of its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from drivers.kubernetes.connection.refusals import quantity
from drivers.kubernetes.nodes import NODES, Placement
from drivers.kubernetes.objects.manifests import REQUESTS
from drivers.kubernetes.objects.security import IMAGE, LEVELS, RESTRICTED, UID, WORDS, security_context
from lab.errors import BadInput
from lab.spec import Spec

_LONGEST_TOLERATION_S = 3600
MOST_WORKERS = 32


@dataclass(frozen=True, slots=True)
class Options:
    """The options by name; `kind-image` is also read from LAB_KIND_IMAGE."""

    given: Mapping[str, str]

    def text(self, key: str) -> str:
        """As it was given, empty where it was not."""
        return self.given.get(key) or os.environ.get(f"LAB_{key.upper().replace('-', '_')}", "")

    def number(self, key: str, most: int) -> int | None:
        """A whole number from 0 to `most`; None where it was not given. Raises BadInput."""
        text = self.text(key)
        if not text:
            return None
        if not text.isascii() or not text.isdigit() or int(text) > most:
            raise BadInput(f"{key}={text} is no number from 0 to {most}")
        return int(text)

    def placement(self, *, aside: bool = False) -> Placement:
        """Where pods are to go. Raises BadInput."""
        spread = self.text("spread")
        if spread and spread != NODES:
            raise BadInput(f"there is no spread '{spread}'", resolution=f"there is: spread={NODES}")
        if spread and self.text("node"):
            raise BadInput("a pod is put on one node, or spread over all", resolution="leave out node or spread")
        return Placement(
            node=self.text("node"),
            spread=spread == NODES,
            aside=aside,
            tolerate_s=self.number("tolerate", _LONGEST_TOLERATION_S),
        )

    def path(self, key: str) -> Path | None:
        """A file's."""
        text = self.text(key)
        return Path(text).expanduser() if text else None

    def level(self, spec: Spec) -> str:
        """Of what a container of `spec` may: see `objects.security`. Raises BadInput."""
        wanted = self.text("security")
        if wanted and wanted not in LEVELS:
            raise BadInput(f"there is no security '{wanted}'", resolution=f"there are: {', '.join(LEVELS)}")
        return wanted or (RESTRICTED if spec.builtin else IMAGE)

    def security(self, spec: Spec, *, gives_users: bool) -> Mapping[str, Any]:
        """A container's `securityContext`, in a cluster that `gives_users` to its pods or does not. Raises BadInput."""
        return security_context(self.level(spec), uid=UID if spec.builtin and not gives_users else None)

    def security_facts(self) -> dict[str, str]:
        """The same in words. Raises BadInput."""
        own, others = self.level(Spec()), self.text("security") or IMAGE
        return {"the lab's own service": WORDS[own], "other images": WORDS[others]}

    def requests(self) -> dict[str, str]:
        """What is to be set aside for a pod, by resource, where the user says so. Raises BadInput."""
        given = {name: text for name in REQUESTS if (text := self.text(f"request-{name}"))}
        for name, text in given.items():
            try:
                quantity(text)
            except ValueError as error:
                raise BadInput(
                    f"request-{name}: {error}", resolution="write it as Kubernetes does: 100m of CPU, 64Mi of memory"
                ) from error
        return given

    def require_room(self, spec: Spec) -> None:
        """Raises BadInput where more is to be set aside for a pod than its limit."""
        limits = {"cpu": (Decimal(str(spec.cpus)), "--cpus"), "memory": (Decimal(spec.memory_bytes), "--memory")}
        for name, text in self.requests().items():
            limit, option = limits[name]
            if quantity(text) > limit:
                raise BadInput(
                    f"request-{name}={text} is more than a pod's limit, which is {option}",
                    resolution=f"give a larger {option}, or a smaller request",
                )
