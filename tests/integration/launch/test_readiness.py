"""Somebody else's image is waited for in the same way on every engine, and what keeps it from being ready is told."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.driver import Context, Driver
from lab.errors import ReadyRefused, ReadyTimeout
from lab.features import Feature
from lab.image.archive import machine_architecture
from lab.image.exposed import exposed_ports
from lab.launch import telling
from lab.launch.session import Session
from lab.registry import make_driver
from lab.run.clean import sweep
from lab.service.build import build_service
from lab.spec import Ready, Spec, Target
from lab.timeline import Phase, SystemClock

ENGINES = ("docker", "oci", "swarm", "libvirt:microvm")
PORT = 9000
ANYWHERE = f"LAB_HOST=0.0.0.0 LAB_PORT={PORT}"

Launch = Callable[..., contextlib.AbstractContextManager[Session]]


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.engine(name)) for name in ENGINES])
def launch(
    request: pytest.FixtureRequest, context: Context, labels: dict[str, str], tmp_path: Path
) -> Iterator[Launch]:
    """Sessions of an image with `environment` in it, not launched yet; `timeout_s` is beyond what the engine takes."""
    target: str = request.param
    drivers: list[Driver] = []

    @contextlib.contextmanager
    def made(environment: str, timeout_s: float = 3, **changes: Any) -> Iterator[Session]:
        image = _image(tmp_path, build_service(context.cache_dir), environment)
        spec = Spec(image=str(image), labels={**labels, "lab.target": target}, **{"port": PORT, **changes})
        driver = make_driver(Target.parse(target), context)
        drivers.append(driver)
        driver.prepare(spec)
        info = driver.info()
        boot_s = 15 if Feature.OWN_KERNEL in info.features else 1
        with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=timeout_s + boot_s) as session:
            yield session

    yield made
    if drivers:
        assert not sweep(drivers[:1], {"lab.run": labels["lab.run"]}, owned=True).problems
    for driver in drivers:
        driver.close()


def test_an_image_is_ready_by_its_first_answer(launch: Launch) -> None:
    with launch(ANYWHERE, timeout_s=20, ready_path="/healthz") as session:
        session.launch()
        assert session.wait_method == "poll" and Phase.READY in session.timeline
        assert session.facts()["status"] == 200
        boot_s = session.timeline.duration_s(Phase.REQUESTED, Phase.READY)
        assert session.facts()["attempts"] <= 3 + boot_s / 0.005


def test_what_listens_on_its_own_loopback_alone_is_ready_nowhere_and_told_alike(launch: Launch) -> None:
    with (
        launch(f"LAB_HOST=127.0.0.1 LAB_PORT={PORT}", ready_path="/healthz") as session,
        pytest.raises(ReadyTimeout) as raised,
    ):
        session.launch()
    assert Phase.READY not in session.timeline
    if "libvirt" not in session.spec.labels["lab.target"]:  # a guest's own network cannot be looked at
        assert f"listens at 127.0.0.1:{PORT} alone" in str(raised.value)
    assert "closed" in str(raised.value) or "reset" in str(raised.value) or "refused" in str(raised.value)


def test_an_answer_that_will_not_change_is_told_soon(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "STEADY_S", 0.5)
    with (
        launch(ANYWHERE, timeout_s=60, ready_path="/no-such-page") as session,
        pytest.raises(ReadyRefused, match="answered with 404") as raised,
    ):
        session.launch()
    assert "--ready-path" in raised.value.resolution


def test_that_status_counts_where_the_user_says_so(launch: Launch) -> None:
    with launch(ANYWHERE, timeout_s=20, ready_path="/no-such-page", ready_status=((400, 499),)) as session:
        session.launch()
        assert session.facts()["status"] == 404


def test_by_tcp_it_is_ready_when_it_takes_a_connection(launch: Launch) -> None:
    with launch(ANYWHERE, timeout_s=20, ready=Ready.TCP) as session:
        session.launch()
        assert session.wait_method == "tcp" and Phase.READY in session.timeline


def test_by_tcp_nobody_behind_a_forwarder_is_not_ready(launch: Launch) -> None:
    with (
        launch(f"LAB_HOST=0.0.0.0 LAB_PORT={PORT + 1}", ready=Ready.TCP) as session,
        pytest.raises(ReadyTimeout, match="no connection stood") as raised,
    ):
        session.launch()
    if "libvirt" not in session.spec.labels["lab.target"]:
        assert f"listens at port {PORT + 1}: give --port" in str(raised.value)


@pytest.mark.engine("docker")
def test_the_engine_tells_what_an_image_exposes(context: Context, labels: dict[str, str], tmp_path: Path) -> None:
    image = _image(tmp_path, build_service(context.cache_dir), ANYWHERE)
    driver = make_driver(Target.parse("docker"), context)
    try:
        driver.prepare(Spec(image=str(image), labels=labels))
        (name,) = (one for one in driver.info().facts["images"])
        assert exposed_ports(str(image)) == (PORT,)
        assert exposed_ports(driver._images[name]) == (PORT,)  # type: ignore[attr-defined]
    finally:
        assert not sweep([driver], {"lab.run": labels["lab.run"]}, owned=True).problems
        driver.close()


def _image(folder: Path, server: Path, environment: str) -> Path:
    """The lab's service as somebody else's image, which says by its environment where it listens."""
    layer = _tar({"server": server.read_bytes()})
    told = {
        "architecture": machine_architecture(),
        "os": "linux",
        "config": {"Cmd": ["/server"], "Env": environment.split(), "ExposedPorts": {f"{PORT}/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["theirs/exposing:1"], "Layers": ["layer.tar"]}]
    files = {"c.json": json.dumps(told).encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    path = folder / f"{hashlib.sha256(environment.encode()).hexdigest()[:8]}.tar"
    path.write_bytes(_tar(files))
    return path


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
