"""Every exception of the Docker SDK, of requests and of urllib3 becomes one clear error of the lab's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import docker.errors
import docker.utils.socket
import pytest
import requests
import urllib3

from drivers.dockerapi.errors import is_engine_error, start_remedy, translate, translated
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LaunchError

_ARGUMENTS: dict[type[Exception], tuple[object, ...]] = {
    docker.errors.ContainerError: ("container", 1, "command", "image", b"stderr"),
    docker.errors.BuildError: ("reason", []),
    urllib3.exceptions.MaxRetryError: (None, "/url", None),
    urllib3.exceptions.IncompleteRead: (1, 2),
    urllib3.exceptions.InvalidChunkLength: (urllib3.HTTPResponse(), b"x"),
    requests.exceptions.JSONDecodeError: ("said", "document", 0),
    urllib3.exceptions.HeaderParsingError: ([], b""),
    urllib3.exceptions.ResponseError: ("too many",),
    urllib3.exceptions.ProxySchemeUnknown: ("scheme",),
    urllib3.exceptions.LocationParseError: ("location",),
    urllib3.exceptions.LocationValueError: ("value",),
    urllib3.exceptions.URLSchemeUnknown: ("scheme",),
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
}


def _classes() -> Iterator[type[Exception]]:
    for module in (docker.errors, requests.exceptions, urllib3.exceptions):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and not issubclass(found, Warning) and found.__module__ == module.__name__:
                yield found
    yield docker.utils.socket.SocketError


def _made(cls: type[Exception]) -> Exception:
    return cls(*_ARGUMENTS.get(cls, ("said",)))


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_exception_of_the_sdk_is_mapped(cls: type[Exception]) -> None:
    with pytest.raises(DriverError) as raised, translated("make it"):
        raise _made(cls)
    assert raised.value.brief and "\n" not in raised.value.brief
    assert cls.__name__ in raised.value.details
    assert raised.value.__cause__.__class__ is cls


def test_the_walk_sees_the_whole_of_the_sdk() -> None:
    found = set(_classes())
    assert {docker.errors.APIError, docker.errors.StreamParseError, requests.ReadTimeout} <= found
    assert len(found) > 50


@pytest.mark.parametrize("kind", [LaunchError, CleanupError, DriverUnavailable])
def test_the_caller_names_the_class(kind: type[DriverError]) -> None:
    for error in (docker.errors.DockerException("x"), requests.ConnectionError("x"), requests.ReadTimeout("x")):
        assert type(translate(error, "start", kind)) is kind


def test_mistakes_of_the_labs_own_pass_through() -> None:
    with pytest.raises(KeyError), translated("make it"):
        raise KeyError("a bug")
    with pytest.raises(BadInput), translated("make it"):
        raise BadInput("a user's mistake")
    assert not is_engine_error(TypeError("a bug"))


def _wrapped(inner: Exception) -> Exception:
    """As the SDK gives it: DockerException from requests' error, which holds urllib3's, which holds the real one."""
    outer = requests.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", inner))
    error = docker.errors.DockerException(f"Error while fetching server API version: {outer}")
    error.__cause__ = outer
    return error


@pytest.mark.parametrize(
    ("inner", "brief", "remedy"),
    [
        (FileNotFoundError(2, "No such file"), "socket is not there", start_remedy()),
        (ConnectionRefusedError(111, "refused"), "does not answer", start_remedy()),
        (PermissionError(13, "denied"), "refuses user", "usermod -aG docker"),
        (TimeoutError("timed out"), "no answer in time", "journalctl"),
        (ConnectionResetError(104, "reset"), "does not answer", start_remedy()),
    ],
)
def test_an_engine_out_of_reach_is_unavailable_with_its_remedy(inner: Exception, brief: str, remedy: str) -> None:
    error = translate(_wrapped(inner), "ask the engine what it is")
    assert type(error) is DriverUnavailable
    assert brief in error.brief
    assert remedy in error.resolution


def _refusal(status: int, message: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("said", response=response, explanation=message)


@pytest.mark.parametrize(
    "message",
    [
        "driver failed programming external connectivity on endpoint keen_wu (4f3c): "
        "Bind for 127.0.0.1:8123 failed: port is already allocated",
        "driver failed programming external connectivity on endpoint keen_wu (4f3c): "
        "Error starting userland proxy: listen tcp4 127.0.0.1:8123: bind: address already in use",
        "failed to set up container networking: driver failed programming external connectivity on endpoint a (b): "
        "failed to bind host port for 127.0.0.1:8123:172.17.0.2:8080/tcp: address already in use",
        "Ports are not available: exposing port TCP 127.0.0.1:8123 -> 0.0.0.0:0: listen tcp 127.0.0.1:8123: bind: "
        "address already in use",
    ],
)
def test_a_port_in_use_is_named_in_one_line(message: str) -> None:
    error = translate(_refusal(500, message), "start the container", LaunchError)
    assert error.brief == "127.0.0.1:8123 is in use by another program"
    assert error.resolution
    assert message in error.details


def test_a_command_that_is_not_there_is_named() -> None:
    message = (
        "failed to create shim: OCI runtime create failed: container_linux.go:380: starting container process caused: "
        'exec: "nope": executable file not found in $PATH: unknown'
    )
    error = translate(_refusal(400, message), "start the container", LaunchError)
    assert error.brief == 'Docker could not start the container: exec: "nope": executable file not found in $PATH'
    assert message in error.details


def test_a_capability_that_the_engine_may_not_give_is_one_clear_line() -> None:
    message = (
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
        "unable to apply caps: operation not permitted: unknown"
    )
    error = translate(_refusal(500, message), "start the container", LaunchError)
    assert error.brief.endswith("it asks for a capability that dockerd's own bounding set lacks")
    assert "CapBnd" in error.resolution
    assert message in error.details
