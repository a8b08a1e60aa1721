"""Services of others, from Debian's packages, start from one file on every target and say the same."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from debian_image import debian_image

from lab.driver import Context
from lab.errors import DriverError
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Endpoint, Spec, Target
from lab.store.place import cache_dir
from lab.timeline import Phase, Source, SystemClock

NGINX = """daemon off; error_log stderr; pid /run/nginx.pid; worker_processes 1; events {}
http { access_log off; server { listen 8080; location / { return 200 'hello'; } } }
"""
SERVICES: dict[str, dict[str, Any]] = {
    "nginx": {
        "packages": ["nginx-light"],
        "files": {"etc/nginx/nginx.conf": NGINX},
        "Entrypoint": ["nginx"],
        "StopSignal": "SIGQUIT",
    },
    "python": {
        "packages": ["python3-minimal", "libpython3-stdlib"],
        "files": {"srv/index.html": "hello"},
        "Entrypoint": ["python3", "-m", "http.server", "8080"],
        "WorkingDir": "/srv",
        "User": "www-data",
    },
}
VALKEY = ("valkey-server", "redis-server")
"""The newer name and, until Debian 12, the older one."""
TARGETS = ("docker", "oci", "swarm", "libvirt:microvm")


@pytest.fixture(scope="module", params=SERVICES)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of one service's image."""
    made = dict(SERVICES[request.param])
    path = tmp_path_factory.mktemp(request.param) / f"{request.param}.tar"
    try:
        return debian_image(path, made.pop("packages"), cache=cache_dir() / "debian", **made)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"Debian's packages are not to be had here: {error}")


ON_EVERY_TARGET = pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.engine(name)) for name in TARGETS]
)


@pytest.mark.beyond_engine
@pytest.mark.timeout(180)
@ON_EVERY_TARGET
def test_a_service_of_others_starts_from_one_file_on_every_target(
    service: Path, target: str, make_context: Callable[..., Context], labels: dict[str, str]
) -> None:
    driver = make_driver(Target.parse(target), make_context())
    try:
        spec = Spec(image=str(service), port=8080, ready_path="/", labels={**labels, "lab.target": target})
        driver.prepare(spec)
        with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=120) as session:
            session.launch()
            endpoint = session.instance.endpoint
            assert endpoint is not None
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=20)
            connection.request("GET", "/", headers={"Connection": "close"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello")
            assert Phase.READY in session.timeline
        for left in driver.leftovers({"lab.run": labels["lab.run"]}):
            left.delete()
    finally:
        driver.close()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that speaks no HTTP."""
    known = [name for name in VALKEY if _known(name)]
    if not known:
        pytest.skip("neither valkey nor redis is known to apt here")
    path = tmp_path_factory.mktemp("valkey") / "valkey.tar"
    run = [known[0], "--port", "8080", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]  # noqa: S104  the container's own
    try:
        return debian_image(path, [known[0]], cache=cache_dir() / "debian", files={}, Entrypoint=run)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"Debian's packages are not to be had here: {error}")


def _known(name: str) -> bool:
    try:
        return subprocess.run(["apt-cache", "show", name], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Quiet:
    """A mark that nobody keeps."""

    def __call__(self, phase: Phase, *, source: Source) -> None: ...
    def moment(self) -> Quiet:
        return self

    def line(self, text: bytes, *, source: Source) -> None: ...
    def failed(self, error: DriverError) -> None: ...


@pytest.mark.beyond_engine
@pytest.mark.timeout(180)
@ON_EVERY_TARGET
def test_a_service_that_speaks_no_http_starts_from_one_file_on_every_target(
    valkey: Path,
    target: str,
    make_context: Callable[..., Context],
    labels: dict[str, str],
    until: Callable[..., object],
) -> None:
    driver = make_driver(Target.parse(target), make_context())
    try:
        spec = Spec(image=str(valkey), port=8080, labels={**labels, "lab.target": target}).for_launch()
        driver.prepare(spec)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        instance = driver.launch(spec, Endpoint("127.0.0.1", port), Quiet())
        try:
            until(lambda: pinged(instance.endpoint), timeout_s=120)
        finally:
            instance.delete()
        for left in driver.leftovers({"lab.run": labels["lab.run"]}):
            left.delete()
    finally:
        driver.close()


def pinged(endpoint: Endpoint | None) -> bool:
    assert endpoint is not None
    try:
        with socket.create_connection((endpoint.host, endpoint.port), 2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64) == b"+PONG\r\n"
    except OSError:
        return False
