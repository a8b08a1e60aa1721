"""Every exception of the Kubernetes client, of urllib3 and of its WebSockets becomes one clear error of the lab's."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import kubernetes.client.exceptions
import kubernetes.config.config_exception
import pytest
import urllib3.exceptions
import websocket
import yaml

from drivers.kubernetes.connection.errors import is_cluster_error, message_of, status_of, translate, translated
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LaunchError

_ARGUMENTS = {
    urllib3.exceptions.MaxRetryError: (None, "/url", None),
    urllib3.exceptions.IncompleteRead: (1, 2),
    urllib3.exceptions.InvalidChunkLength: (urllib3.HTTPResponse(), b"x"),
    urllib3.exceptions.HeaderParsingError: ([], b""),
    urllib3.exceptions.NameResolutionError: ("host", None, OSError("no such name")),
    urllib3.exceptions.ProxyError: ("said", OSError("refused")),
    urllib3.exceptions.NewConnectionError: (None, "said"),
    urllib3.exceptions.HostChangedError: (None, "/url"),
    urllib3.exceptions.ReadTimeoutError: (None, "/url", "said"),
    urllib3.exceptions.RequestError: (None, "/url", "said"),
    urllib3.exceptions.PoolError: (None, "said"),
    urllib3.exceptions.ClosedPoolError: (None, "said"),
    urllib3.exceptions.EmptyPoolError: (None, "said"),
    urllib3.exceptions.FullPoolError: (None, "said"),
    websocket.WebSocketBadStatusException: ("Handshake status %d %s", 403),
}


def _classes() -> Iterator[type[Exception]]:
    modules = (kubernetes.client.exceptions, kubernetes.config.config_exception, urllib3.exceptions)
    for module in modules:
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and not issubclass(found, Warning) and found.__module__ == module.__name__:
                yield found
    yield from (
        websocket.WebSocketException,
        websocket.WebSocketTimeoutException,
        websocket.WebSocketBadStatusException,
    )
    yield from (
        websocket.WebSocketConnectionClosedException,
        yaml.YAMLError,
        ConnectionResetError,
        TimeoutError,
        OSError,
    )


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_exception_of_the_client_is_mapped(cls: type[Exception]) -> None:
    arguments: tuple[object, ...] = _ARGUMENTS.get(cls, ("said",))
    if issubclass(cls, kubernetes.client.exceptions.ApiException):
        arguments = (400, "said")
    error = cls(*arguments)
    with pytest.raises(DriverError) as raised, translated("make it"):
        raise error
    assert raised.value.brief and "\n" not in raised.value.brief
    assert cls.__name__ in raised.value.details


def _refused(status: int, message: str) -> kubernetes.client.exceptions.ApiException:
    error = kubernetes.client.exceptions.ApiException(status=status, reason="Reason")
    error.body = json.dumps({"kind": "Status", "message": message, "reason": "Reason"})
    return error


@pytest.mark.parametrize(
    ("error", "told", "unavailable"),
    [
        (_refused(401, "Unauthorized"), "does not know this user", True),
        (_refused(403, 'User "u" cannot list'), 'the cluster forbids to make it: User "u" cannot list', False),
        (_refused(403, "exceeded quota: q"), "a quota of the cluster forbids it", False),
        (_refused(403, "namespace x because it is being terminated"), "the namespace is going away", False),
        (_refused(429, "slow down"), "has too much to do", False),
        (_refused(500, "etcd"), "the Kubernetes API failed, asked to make it: etcd", False),
        (_refused(422, "invalid: spec"), "Kubernetes could not make it: invalid: spec", False),
        (urllib3.exceptions.NewConnectionError(None, "refused"), "is not reachable", True),  # type: ignore[arg-type]
        (urllib3.exceptions.ReadTimeoutError(None, "/", "t"), "gave no answer in time", True),  # type: ignore[arg-type]
        (urllib3.exceptions.SSLError("certificate verify failed"), "certificate that is not trusted", True),
        (urllib3.exceptions.ProtocolError("Connection broken"), "broke the connection off", True),
        (kubernetes.config.config_exception.ConfigException("no context x"), "kubeconfig cannot be used", True),
    ],
)
def test_what_went_wrong_is_told_with_a_remedy(error: Exception, told: str, unavailable: bool) -> None:
    found = translate(error, "make it")
    assert told in found.brief and isinstance(found, DriverUnavailable) == unavailable
    assert found.resolution or "could not" in found.brief
    assert type(translate(error, "make it", LaunchError)) is LaunchError


def test_a_body_that_is_no_status_is_told_as_it_is() -> None:
    error = kubernetes.client.exceptions.ApiException(status=502)
    error.body = "upstream\nis away"
    assert "upstream is away" in translate(error, "make it").brief
    assert status_of(error) == 502 and message_of(error) == "upstream\nis away"
    assert status_of(OSError()) == 0


def test_the_labs_own_errors_and_mistakes_pass_through() -> None:
    for error in (BadInput("x"), CleanupError("x"), KeyError("x"), ValueError("x")):
        with pytest.raises(type(error)), translated("make it"):
            raise error
    assert not is_cluster_error(KeyError())
