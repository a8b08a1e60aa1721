"""Docker's driver and an engine that stops, hangs or has runtimes of its own: a private dockerd, never the host's.

It runs in a network namespace of its own, because a dockerd without a bridge deletes the link docker0 that it finds,
which would be that of the host's engine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_image import docker_archive, layer, member

from drivers.docker import DockerDriver
from lab.driver import Context, Mark
from lab.errors import CleanupError, DriverError, DriverUnavailable, LaunchError
from lab.image import source
from lab.launch.session import Session
from lab.spec import Spec
from lab.timeline import Phase, Source, SystemClock

pytestmark = [pytest.mark.engine("docker"), pytest.mark.beyond_engine]


class Daemon:
    """A dockerd with its own socket, directories and network namespace."""

    def __init__(self, root: Path) -> None:
        self.host = f"unix://{root}/docker.sock"
        self._root = root
        self.process: subprocess.Popen[bytes] | None = None
        (root / "daemon.json").write_text(json.dumps({"runtimes": {"own": {"path": shutil.which("runc")}}}))

    def start(self) -> None:
        root = self._root
        with (root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--net", "dockerd"),  # unshare(1) becomes dockerd: the pid is the daemon's
                    *("--host", self.host, "--config-file", f"{root}/daemon.json", "--pidfile", f"{root}/pid"),
                    *("--data-root", f"{root}/data", "--exec-root", f"{root}/exec"),
                    *("--bridge=none", "--iptables=false", "--ip-masq=false"),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (root / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the private dockerd did not start"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(60)

    def _answers(self) -> bool:
        import docker

        try:
            docker.DockerClient(base_url=self.host, timeout=5).close()
        except docker.errors.DockerException:
            return False
        return True


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a private dockerd needs root and a dockerd on this host")
    root = tmp_path_factory.mktemp("d")
    made = Daemon(root)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def make(make_context: Callable[..., Context], daemon: Daemon) -> Iterator[Callable[[str], DockerDriver]]:
    context = make_context(**{"docker-host": daemon.host})
    made: list[DockerDriver] = []

    def make(variant: str) -> DockerDriver:
        made.append(DockerDriver(variant, context))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


def _launched(driver: DockerDriver, labels: dict[str, str]) -> Session:
    spec = Spec(labels=labels)
    info = driver.info()
    driver.prepare(spec)
    session = Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=60)
    session.launch()
    return session


def _one_line(error: DriverError) -> None:
    assert error.brief and "\n" not in error.brief and error.resolution
    assert "dockerd" in error.brief


def test_an_engine_that_stops_gives_one_clear_error_a_call_and_is_used_again_when_back(
    daemon: Daemon, make: Callable[[str], DockerDriver], labels: dict[str, str], until: Callable[..., object]
) -> None:
    driver = make("none")
    instance = _launched(driver, labels).instance
    assert instance is not None
    daemon.stop()

    spec = Spec(labels=labels).for_launch()
    marks = _Nothing()
    calls: list[tuple[type[DriverError], Callable[[], object]]] = [
        (DriverUnavailable, driver.info),
        (DriverUnavailable, lambda: driver.prepare(spec)),
        (LaunchError, lambda: driver.launch(spec, None, marks)),
        (DriverUnavailable, lambda: driver.list_instances({})),
        (DriverUnavailable, lambda: driver.leftovers({})),
        (DriverUnavailable, instance.logs),
        (DriverUnavailable, lambda: instance.stop(timeout_s=1)),
        (DriverUnavailable, lambda: instance.exec(["/service"], timeout_s=1)),  # type: ignore[attr-defined]
        (DriverUnavailable, instance.host_pids),  # type: ignore[attr-defined]
        (CleanupError, instance.delete),
        (DriverUnavailable, make("none").info),
    ]
    for kind, call in calls:
        with pytest.raises(kind) as raised:
            call()
        _one_line(raised.value)

    daemon.start()
    (found,) = driver.list_instances({"lab.run": labels["lab.run"]})
    assert found.id == instance.id
    instance.delete()
    session = _launched(driver, labels)
    assert (Phase.STARTED, Source.RETURN) in {(mark.phase, mark.source) for mark in session.timeline}
    until(lambda: (Phase.STARTED, Source.EVENT) in {(mark.phase, mark.source) for mark in session.timeline})
    session.delete()
    for leftover in driver.leftovers({"lab.run": labels["lab.run"]}):
        leftover.delete()
    assert not driver.list_instances({})
    assert not driver.leftovers({})


def test_an_engine_that_hangs_is_told_apart_from_one_that_is_gone(
    daemon: Daemon, make: Callable[[str], DockerDriver]
) -> None:
    driver = make("none")
    driver.info()
    driver._api().timeout = 1
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(DriverUnavailable, match="no answer in time") as raised:
            driver.info()
        _one_line(raised.value)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    driver.info()


def test_any_runtime_that_the_engine_lists_is_a_variant(
    make: Callable[[str], DockerDriver], labels: dict[str, str]
) -> None:
    driver = make("own")
    with pytest.raises(DriverUnavailable, match="has no default bridge"):
        driver.info()
    driver._network = "none"  # the runtime is what is looked at
    info = driver.info()
    assert (info.isolation, info.facts["runtime"]) == ("namespaces (own)", "own")
    with _launched_without_network(driver, labels) as session:
        session.launch()
        assert session.instance is not None
        told = driver._api().inspect_container(session.instance.id)
        assert told["HostConfig"]["Runtime"] == "own"
    for leftover in driver.leftovers({"lab.run": labels["lab.run"]}):
        leftover.delete()


def _launched_without_network(driver: DockerDriver, labels: dict[str, str]) -> Session:
    spec = Spec(labels=labels)
    driver.prepare(spec)
    return Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=60)


class _Nothing:
    """A Mark that keeps nothing."""

    def __call__(self, phase: Phase, *, source: Source) -> None: ...

    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: Exception) -> None: ...


def test_one_engine_gives_the_image_to_every_target_in_whatever_order(
    daemon: Daemon, make_context: Callable[..., Context], labels: dict[str, str], engine: Any
) -> None:
    """Two engines have an image of one name: the run takes that of its own engine, for all its targets."""
    import docker

    name = f"lab-test/two-engines:{labels['lab.run']}"
    other = docker.DockerClient(base_url=daemon.host).api
    try:
        for api, content in ((engine, b"the host's"), (other, b"the run's")):
            api.load_image(docker_archive([layer(member("who", content))], tags=[name], Cmd=["/who"]))
        spec = Spec(image=name, port=8080, labels=labels)
        context = make_context(**{"docker-host": daemon.host})
        found = source.find(name, context)
        assert found.digest == other.inspect_image(name)["Id"] != engine.inspect_image(name)["Id"]
        assert daemon.host in found.origin and "-o docker-host" in found.origin
        driver = DockerDriver("none", context)
        try:
            driver.prepare(spec)
            assert driver._images[name] == found.digest
        finally:
            driver.close()
        with source.open_source(found, context) as image:
            who = image.find("/who")
            assert who is not None and image.open(who).read() == b"the run's"
    finally:
        for api in (engine, other):
            api.remove_image(name, force=True)
        other.close()
