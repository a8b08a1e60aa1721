"""The user's kubeconfig: the contexts that there are, and how one of them is reached."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivers.kubernetes.connection.credentials import Credentials, Program
from lab.errors import BadInput, DriverUnavailable

if TYPE_CHECKING:
    from kubernetes import client

_DEFAULT = "~/.kube/config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How the API of one context is reached; `namespace` is the context's own, empty where it names none."""

    configuration: client.Configuration
    namespace: str


def of_context(name: str) -> Access:
    """Read the files that KUBECONFIG names, or the default one.

    Raises BadInput where they have no such context, DriverUnavailable where there is none, or what it needs cannot be
    had; and the client's exceptions.
    """
    from kubernetes.config import kube_config

    places = os.environ.get("KUBECONFIG") or _DEFAULT
    merger: Any = kube_config.KubeConfigMerger
    try:
        config = merger(places).config
        contexts = [str(one["name"]) for one in config.value.get("contexts") or ()] if config is not None else []
    except (AttributeError, KeyError, TypeError) as error:  # YAML, and no mapping of lists of mappings
        raise DriverUnavailable(
            f"{places} is no kubeconfig", details=repr(error), resolution="see `kubectl config view`"
        ) from error
    if config is None:
        raise DriverUnavailable(f"there is no kubeconfig at {places}", resolution="set KUBECONFIG to its file")
    if name not in contexts:
        raise BadInput(f"the kubeconfig has no context '{name}'", resolution=f"it has: {', '.join(contexts) or 'none'}")
    context = config["contexts"].get_with_name(name)["context"]
    return Access(configuration=_configured(config, name, context), namespace=str(context.safe_get("namespace") or ""))


def of_dict(config: Mapping[str, Any]) -> Access:
    """A kubeconfig as kind gives it, by its current context: the cluster is on loopback. Raises the client's
    exceptions."""
    from kubernetes import client
    from kubernetes.config import kube_config

    configuration = client.Configuration()
    load: Any = kube_config.load_kube_config_from_dict  # untyped
    load(dict(config), client_configuration=configuration)
    configuration.proxy = None
    return Access(configuration=configuration, namespace="")


def _configured(config: Any, name: str, context: Any) -> client.Configuration:
    """The client's own reader does all but the credential program."""
    from kubernetes import client
    from kubernetes.config import kube_config

    named = config["users"].get_with_name(context["user"], safe=True) if context.safe_get("user") else None
    user = named["user"] if named is not None and named.safe_get("user") else None
    program = _program(config, context, user) if user is not None else None
    first = program.ask() if program is not None else None
    if first is not None and user is not None:
        del user.value["exec"]
        user.value.update(first.of_user())
    configuration: Any = client.Configuration()
    load: Any = kube_config.load_kube_config_from_dict
    load(config, context=name, client_configuration=configuration, persist_config=False)
    if program is not None and first is not None and first.expires_at is not None:
        configuration.refresh_api_key_hook = _Renewal(program, first)
    made: client.Configuration = configuration
    return made


def _program(config: Any, context: Any, user: Any) -> Program | None:
    """What the client would run, which prefers a token that is there."""
    if "exec" not in user or any(key in user for key in ("auth-provider", "token", "tokenFile")):
        return None
    cluster = config["clusters"].get_with_name(context["cluster"])["cluster"]
    return Program.of(user["exec"].value, cluster=cluster.value, directory=Path(user.path).absolute().parent)


class _Renewal:
    """What the client calls before each request: a token that is about to end is asked for again."""

    def __init__(self, program: Program, first: Credentials) -> None:
        self._program = program
        self._current = first
        self._lock = threading.Lock()

    def __call__(self, configuration: client.Configuration) -> None:
        with self._lock:
            if self._current.expired():
                self._current = self._program.ask()
                # The name under which the client keeps it differs between its releases.
                for key, value in list(configuration.api_key.items()):
                    if value.startswith("Bearer ") and self._current.token:
                        configuration.api_key[key] = f"Bearer {self._current.token}"

    def __deepcopy__(self, memo: dict[int, Any]) -> _Renewal:
        return self  # the client copies its configuration, and a lock cannot be
