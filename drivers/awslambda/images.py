"""The image of a function in the Docker engine: it has the run's labels, since its endpoint gives workers none."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drivers.awslambda.emulator import provide_rie
from drivers.dockerapi import images
from drivers.dockerapi.client import LOAD_TIMEOUT_S, connect, label_filter
from drivers.dockerapi.container import Remnant
from drivers.dockerapi.errors import translated
from lab.driver import Context, bears
from lab.image import service_archive
from lab.service.build import build_service
from lab.spec import Spec

if TYPE_CHECKING:
    from docker import APIClient

REPOSITORY = "127.0.0.1:1/stratalab/function"
"""At a registry where nobody answers: a missing image is then never asked of a public one."""
RIE = "aws-lambda-rie"
_OWN = re.compile(rf"^{re.escape(REPOSITORY)}(-[0-9a-f]{{12}})?$")


def provide(context: Context, spec: Spec) -> str:
    """Make sure that the engine has the image for functions of `spec`; returns its tag. Raises LabError."""
    with contextlib.closing(connect(context, timeout_s=LOAD_TIMEOUT_S)) as api:
        return _service(api, context, spec) if spec.builtin else _of_user(api, context, spec)


def remnants(api: APIClient, labels: Mapping[str, str]) -> list[Remnant]:
    """The names that `provide` gave to images which bear `labels`. Raises DriverError."""
    with translated("list images"):
        listed = api.images(filters={"label": label_filter(labels)})
    found = []
    for one in listed:
        own = one["Labels"] or {}
        for name in one.get("RepoTags") or ():
            repository, _, tag = name.rpartition(":")
            if bears(own, labels) and tag == own.get("lab.run") and _OWN.match(repository):
                found.append(Remnant("image", name, own, api.remove_image))
    return found


def _service(api: APIClient, context: Context, spec: Spec) -> str:
    """The lab's own service behind RIE and the bridge."""
    tag = f"{REPOSITORY}:{spec.labels.get('lab.run', 'none')}"
    if not images.layers(api, tag):
        made = service_archive(
            build_service(context.cache_dir),
            tag=tag,
            labels=images.run_labels(spec.labels),
            entrypoint=["/service", "bridge"],
            beside={RIE: provide_rie(context)},
        )
        images.load(api, made)
    return tag


def _of_user(api: Any, context: Context, spec: Spec) -> str:
    """A user's image as it is, with the run's labels: its entrypoint is kept."""
    given = images.provide(context, spec)
    name = hashlib.sha256(spec.image.encode()).hexdigest()[:12]
    repository, tag = f"{REPOSITORY}-{name}", spec.labels.get("lab.run", "none")
    if not images.layers(api, f"{repository}:{tag}"):
        with translated(f"label the image '{spec.image}'"):
            # Labels that a container is made with are those of the image that is made of it.
            own = images.run_labels(spec.labels)
            made = api.create_container(given, labels=own, use_config_proxy=False)["Id"]
            try:
                api.commit(made, repository=repository, tag=tag)
            finally:
                api.remove_container(made, v=True, force=True)
    return f"{repository}:{tag}"
