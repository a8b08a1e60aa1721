"""Services of others, from Debian's packages, start from one file on every target and say the same."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from debian_image import debian_image

from lab.driver import Context
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.store.place import cache_dir
from lab.timeline import Phase, SystemClock

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


@pytest.mark.beyond_engine
@pytest.mark.timeout(180)
@pytest.mark.parametrize("target", [pytest.param(name, marks=pytest.mark.engine(name)) for name in TARGETS])
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
