"""The namespace that a run's objects go to: one that the user names, one of the run's own, or the context's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from drivers.kubernetes.connection.client import Api
from drivers.kubernetes.connection.errors import message_of, status_of, translated
from drivers.kubernetes.objects import labels, manifests
from lab.errors import BadInput, DriverError

_ACCOUNT_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.05
_DEFAULT = "default"  # of a context that names none
_UID_RANGE = "openshift.io/sa.scc.uid-range"
"""The annotation by which OpenShift tells that it gives each pod a user of its own (docs.redhat.com, "Managing security
context constraints"), and then takes none that the pod asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Where objects go, and why there; `gives_users` where the cluster itself says as whom its pods run."""

    name: str
    why: str
    gives_users: bool = False


def choose_namespace(api: Api, of: Mapping[str, str], *, wanted: str, foreign: bool) -> Namespace:
    """The `wanted` namespace, as it is; else the run's own, made unless it is there, with the account without which no
    pod is taken; else, on a `foreign` cluster where this user may make none, the context's own.

    Raises BadInput where the wanted one is not there; DriverError.
    """
    if wanted:
        return _existing(api, wanted, "asked for")
    name = labels.namespace_of(of)
    with translated(f"make the namespace {name}"):
        try:
            api.call(api.core.create_namespace, manifests.namespace(of))
        except Exception as error:
            if foreign and status_of(error) == 403 and "is being terminated" not in message_of(error):
                return _existing(api, home_of(api), "the context's own, since no new one may be made")
            if status_of(error) != 409:
                raise
        _await_account(api, name)
    return Namespace(name=name, why="the run's own", gives_users=_gives_users(api, name))


def home_of(api: Api) -> str:
    """The namespace that the context names, as kubectl takes it."""
    return api.namespace or _DEFAULT


def _existing(api: Api, name: str, why: str) -> Namespace:
    with translated(f"read the namespace {name}"):
        try:
            found = api.found(api.core.read_namespace, name)
        except Exception as error:
            if status_of(error) != 403:
                raise
            return Namespace(name=name, why=why)  # it is not told of, and may be used all the same
    if found is None:
        raise BadInput(
            f"the cluster has no namespace '{name}'",
            resolution=f"kubectl create namespace {name}; or name another: -o namespace=NAME",
        )
    return Namespace(name=name, why=why, gives_users=_UID_RANGE in (found["metadata"].get("annotations") or {}))


def _gives_users(api: Api, name: str) -> bool:
    found = api.found(api.core.read_namespace, name) or {}
    return _UID_RANGE in ((found.get("metadata") or {}).get("annotations") or {})


def _await_account(api: Api, name: str) -> None:
    deadline = time.monotonic() + _ACCOUNT_TIMEOUT_S
    while api.found(api.core.read_namespaced_service_account, "default", name) is None:
        if time.monotonic() > deadline:
            raise DriverError(
                f"the namespace {name} got no default service account within {_ACCOUNT_TIMEOUT_S:g} s",
                resolution="see whether the cluster's controllers run: kubectl get pods -n kube-system",
            )
        time.sleep(_LOOK_EVERY_S)
