"""What the Kubernetes client raises, mapped to the lab's errors in this one place."""

from __future__ import annotations

import contextlib
import json
import ssl
from contextlib import AbstractContextManager
from typing import Any

from drivers.kubernetes.connection.refusals import explain
from lab.errors import DriverError, DriverUnavailable, chain_of, details_of, mapped, one_line

_LOOK = "`kubectl cluster-info`; for the lab's own: `docker ps -a`, or lab cluster down, then lab cluster up"


def translated(doing: str, kind: type[DriverError] = DriverError) -> AbstractContextManager[None]:
    """Raise what the cluster or its client raises inside as `kind`, as said by `translate`."""
    return mapped(is_cluster_error, lambda error: translate(error, doing, kind))


def is_cluster_error(error: BaseException) -> bool:
    """Whether `error` is the cluster's, its client's or its connection's, and not a mistake of the lab's own."""
    import kubernetes.client.exceptions
    import kubernetes.config.config_exception
    import urllib3.exceptions
    import websocket
    import yaml

    if isinstance(error, AttributeError) and isinstance(error.__context__, kubernetes.client.exceptions.ApiException):
        return True  # the client's own, of releases such as 36.0: it decodes the body of a refusal that has none
    return isinstance(
        error,
        kubernetes.client.exceptions.OpenApiException
        | kubernetes.config.config_exception.ConfigException
        | urllib3.exceptions.HTTPError
        | urllib3.exceptions.ProxySchemeUnsupported
        | websocket.WebSocketException
        | yaml.YAMLError
        | OSError,
    )


def translate(error: BaseException, doing: str, kind: type[DriverError] = DriverError) -> DriverError:
    """The error of class `kind` that tells, in one line, what went wrong while `doing`, and how it is mended.

    A cluster that cannot be reached is a DriverUnavailable where `kind` leaves that open.
    """
    import kubernetes.client.exceptions
    import kubernetes.config.config_exception
    import yaml

    details = details_of(error)
    if isinstance(error, kubernetes.client.exceptions.ApiException) and error.status:
        brief, resolution = _refusal(int(error.status), _status(error), doing)
        lost = int(error.status) == 401
    elif isinstance(error, kubernetes.config.config_exception.ConfigException | yaml.YAMLError):
        brief, resolution, lost = f"the kubeconfig cannot be used: {one_line(error)}", "see `kubectl config view`", True
    elif handshake := _refused_handshake(error):
        brief, resolution = _refusal(*handshake, doing)
        lost = False
    elif reason := _unreachable(error):
        brief, resolution, lost = f"the Kubernetes API {reason}, asked to {doing}", _LOOK, True
    else:
        brief, resolution, lost = f"Kubernetes could not {doing}: {one_line(error)}", "", False
    chosen = DriverUnavailable if lost and kind is DriverError else kind
    return chosen(brief, details=details, resolution=resolution)


def status_of(error: BaseException) -> int:
    """The HTTP status with which the API refused, 0 where it did not."""
    import kubernetes.client.exceptions

    return int(error.status or 0) if isinstance(error, kubernetes.client.exceptions.ApiException) else 0


def message_of(error: BaseException) -> str:
    """What the API said when it refused, in one line."""
    return str(_status(error).get("message") or one_line(error))


def continuation_of(error: BaseException) -> str:
    """Where a listing that the API has forgotten can be gone on with; empty where it does not say."""
    return str((_status(error).get("metadata") or {}).get("continue") or "")


def _refusal(code: int, status: dict[str, Any], doing: str) -> tuple[str, str]:
    said = " ".join(str(status.get("message") or status.get("reason") or f"HTTP {code}").split())
    if found := explain(said):
        return found
    if "because it is being terminated" in said:
        return f"the namespace is going away: {said}", "wait until `lab clean` finds nothing, then try again"
    known = {
        401: (f"the Kubernetes API does not know this user, asked to {doing}", "renew the kubeconfig's credentials"),
        403: (f"the cluster forbids to {doing}: {said}", "use a context that may, or ask the cluster's administrator"),
        429: (f"the Kubernetes API has too much to do, asked to {doing}", "try again when the cluster is less busy"),
    }
    failed = (f"the Kubernetes API failed, asked to {doing}: {said}", _LOOK)
    refused = (f"Kubernetes could not {doing}: {said}", "")
    return known.get(code, failed if code >= 500 else refused)


def _status(error: BaseException) -> dict[str, Any]:
    """The `Status` object in the body of an error's answer; a plain text becomes its message."""
    body = getattr(error, "body", None)
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    return _parsed(text, str(getattr(error, "reason", "") or ""))


def _refused_handshake(error: BaseException) -> tuple[int, dict[str, Any]] | None:
    """The status and the body with which the API refused a WebSocket, which the client hides in the error's cause."""
    import websocket

    for one in chain_of(error):
        if isinstance(one, websocket.WebSocketBadStatusException):
            body = one.resp_body if isinstance(one.resp_body, bytes) else b""
            return int(one.status_code), _parsed(body.decode(errors="replace"), str(one))
    return None


def _parsed(text: str, otherwise: str) -> dict[str, Any]:
    """The `Status` that `text` is; a plain text becomes its message."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {"message": text or otherwise}


def _unreachable(error: BaseException) -> str:
    """What a broken or missing connection is called; empty where it is something else."""
    import urllib3.exceptions
    import websocket

    silent = urllib3.exceptions.TimeoutError | websocket.WebSocketTimeoutException | TimeoutError
    chain = chain_of(error)
    # A failed connection is both a connection error and, in urllib3, a timeout: the first is looked for first.
    if any(isinstance(one, urllib3.exceptions.NewConnectionError | ConnectionError) for one in chain):
        return "is not reachable"
    if any(isinstance(one, urllib3.exceptions.SSLError | ssl.SSLError) for one in chain):
        return "shows a certificate that is not trusted"
    if any(isinstance(one, silent) for one in chain):
        return "gave no answer in time"
    if any(isinstance(one, urllib3.exceptions.HTTPError | websocket.WebSocketException) for one in chain):
        return "broke the connection off"
    return ""
