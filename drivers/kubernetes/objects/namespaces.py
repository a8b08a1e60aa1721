"""The run's own namespace."""

from __future__ import annotations

import time
from collections.abc import Mapping

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import status_of, translated
from drivers.kubernetes.objects import labels, manifests
from lab.errors import DriverError

_ACCOUNT_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.05


def make_namespace(api: Api, of: Mapping[str, str]) -> None:
    """Make the namespace of the run that the labels `of` name, unless it is there, and wait for the account without
    which no pod is taken. Raises DriverError."""
    name = labels.namespace_of(of)
    with translated(f"make the namespace {name}"):
        try:
            api.call(api.core.create_namespace, manifests.namespace(of))
        except Exception as error:
            if status_of(error) != 409:
                raise
        deadline = time.monotonic() + _ACCOUNT_TIMEOUT_S
        while api.found(api.core.read_namespaced_service_account, "default", name) is None:
            if time.monotonic() > deadline:
                raise DriverError(
                    f"the namespace {name} got no default service account within {_ACCOUNT_TIMEOUT_S:g} s",
                    resolution="see whether the cluster's controllers run: kubectl get pods -n kube-system",
                )
            time.sleep(_LOOK_EVERY_S)
