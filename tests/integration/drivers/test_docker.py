"""Docker's driver against the real engine: what only Docker does."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from drivers.docker import DockerDriver
from drivers.dockerapi import images
from drivers.dockerapi.client import is_local, is_remote
from lab.driver import Context, Mark
from lab.errors import BadInput, DriverError, DriverUnavailable, LabError, LaunchError, Unsupported
from lab.features import Execs, Feature, Role
from lab.host import cgroup
from lab.host.procs import Process
from lab.launch.session import Session
from lab.service.build import build_service
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source, SystemClock
from lab.units import MIB

pytestmark = pytest.mark.engine("docker")

MakeDriver = Callable[..., DockerDriver]
Until = Callable[..., object]


@pytest.fixture
def make_driver(context: Context, labels: dict[str, str]) -> Iterator[MakeDriver]:
    made: list[DockerDriver] = []

    def make(variant: str = "", **options: str) -> DockerDriver:
        made.append(
            DockerDriver(variant, Context(run_dir=context.run_dir, cache_dir=context.cache_dir, options=options))
        )
        return made[-1]

    yield make
    cleaner = make()
    for instance in cleaner.list_instances({"lab.run": labels["lab.run"]}):
        instance.delete()
    for leftover in cleaner.leftovers({"lab.run": labels["lab.run"]}):
        leftover.delete()
    for driver in made:
        driver.close()


def _session(driver: DockerDriver, labels: Mapping[str, str], **changes: Any) -> Session:
    spec = Spec(labels={**labels, "lab.target": "docker"}, **changes)
    info = driver.info()
    driver.prepare(spec)
    return Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=120)


def _listening(port: int) -> set[str]:
    """The local addresses, as the kernel writes them, of the listening sockets with `port` in this network."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            if state == "0A" and int(address.rpartition(":")[2], 16) == port:
                found.add(address.rpartition(":")[0])
    return found


LOOPBACK = int.from_bytes(socket.inet_aton("127.0.0.1"), "little")


@pytest.mark.parametrize("variant", ["", "host"])
def test_a_launch_is_marked_by_return_and_by_event_and_listens_on_loopback_only(
    make_driver: MakeDriver, labels: dict[str, str], variant: str, until: Until
) -> None:
    with _session(make_driver(variant), labels) as session:
        session.launch()
        line = session.timeline
        told = {(phase, Source.EVENT) for phase in (Phase.CREATED, Phase.STARTED)}
        until(lambda: told <= {(mark.phase, mark.source) for mark in line})  # on a connection of their own
        seen = {(mark.phase, mark.source): mark.ns for mark in line}
        assert seen[Phase.CREATED, Source.EVENT] < seen[Phase.STARTED, Source.EVENT]
        assert seen[Phase.CREATED, Source.RETURN] < seen[Phase.STARTED, Source.RETURN]
        assert {(Phase.MAIN, Source.LOG), (Phase.LISTENING, Source.LOG)} <= set(seen)
        assert line.duration_s(Phase.MAIN, Phase.READY) > 0


@pytest.mark.parametrize("variant", ["", "host"])
def test_the_port_is_open_on_loopback_only(make_driver: MakeDriver, labels: dict[str, str], variant: str) -> None:
    with _session(make_driver(variant), labels) as session:
        session.launch()
        endpoint = session.instance.endpoint  # type: ignore[union-attr]
        assert endpoint is not None
        assert {int(address, 16) for address in _listening(endpoint.port)} == {LOOPBACK}
        request = f"GET /clock HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Lab-Nonce: {session.spec.nonce}\r\n\r\n"
        with socket.create_connection((endpoint.host, endpoint.port), 10) as connection:
            connection.sendall(request.encode())
            answer = b""
            while part := connection.recv(4096):
                answer += part
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["nonce"] == session.spec.nonce


def test_without_a_network_there_is_listening_and_no_ready(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    driver = make_driver("none")
    assert Feature.NETWORK not in driver.info().features
    with _session(driver, labels) as session:
        session.launch()
        assert Phase.LISTENING in session.timeline and Phase.READY not in session.timeline
        assert session.instance.endpoint is None  # type: ignore[union-attr]


def test_the_kernel_holds_the_limits_of_the_spec(make_driver: MakeDriver, labels: dict[str, str], engine: Any) -> None:
    driver = make_driver()
    told = driver.info()
    with _session(driver, labels, cpus=0.5, memory_bytes=64 * MIB, pids=17, scratch_bytes=2 * MIB) as session:
        session.launch()
        if Feature.HOST_PIDS not in told.features:
            return
        (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]  # type: ignore[union-attr]
        held = cgroup.of_process(pid).limits()
        have = {"memory": held.memory_bytes, "swap": held.swap_bytes, "cpus": held.cpus, "pids": held.pids}
        for limit, wanted in (("memory", 64 * MIB), ("swap", 0), ("cpus", 0.5), ("pids", 17)):
            if told.facts["limits"][limit].startswith("set"):
                assert have[limit] == wanted, limit
        mounts = Path(f"/proc/{pid}/mounts").read_text()
        assert any(line.split()[1] == "/tmp" and "size=2048k" in line for line in mounts.splitlines())
        assert engine.inspect_container(session.instance.id)["HostConfig"]["RestartPolicy"]["Name"] == "no"  # type: ignore[union-attr]


def _status(session: Session) -> dict[str, str]:
    """What the host's kernel says of the service's process."""
    (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]  # type: ignore[union-attr]
    fields = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in fields}


def _capabilities(status: Mapping[str, str]) -> dict[str, int]:
    return {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")}


def test_with_capabilities_dropped_the_kernel_grants_none_and_gives_none_back(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    driver = make_driver("cap-drop")
    told = driver.info()
    assert "every capability dropped, no new privileges" in told.isolation
    assert (told.facts["capabilities"], told.facts["privileged"]) == ("none", False)
    with _session(driver, labels) as dropped, _session(make_driver(), labels) as plain:
        dropped.launch()
        plain.launch()
        if Feature.HOST_PIDS not in told.features:
            return
        held, usual = _status(dropped), _status(plain)
        assert set(_capabilities(held).values()) == {0}
        assert held["NoNewPrivs"] == "1"
        assert _capabilities(usual)["CapBnd"] and usual["NoNewPrivs"] == "0", "what is compared with must differ"
        assert held["Seccomp"] == usual["Seccomp"]


@pytest.mark.parametrize(("said", "kind"), [(None, Unsupported), ("no", Unsupported), ("perhaps", BadInput)])
def test_a_privileged_container_is_refused_without_its_flag(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any, said: str | None, kind: type[LabError]
) -> None:
    driver = make_driver("privileged", **({"allow-privileged": said} if said else {}))
    spec = Spec(labels=labels).for_launch()
    for call in (driver.info, lambda: driver.prepare(spec), lambda: driver.launch(spec, None, Seen())):
        with pytest.raises(kind) as raised:
            call()
        assert "\n" not in raised.value.brief and "-o allow-privileged=yes" in raised.value.resolution
    assert not engine.containers(all=True, filters={"label": f"lab.run={labels['lab.run']}"})


def test_a_privileged_container_by_its_flag_has_all_that_the_host_can_give_or_one_clear_line_says_why_not(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    driver = make_driver("privileged", **{"allow-privileged": "yes"})
    told = driver.info()
    assert "PRIVILEGED" in told.isolation and told.facts["privileged"] is True
    with _session(driver, labels) as session:
        try:
            session.launch()
        except LaunchError as error:
            assert "a capability that dockerd's own bounding set lacks" in error.brief and "\n" not in error.brief
            assert "CapBnd" in error.resolution
            assert not driver.list_instances({"lab.run": labels["lab.run"]})
            return
        assert engine.inspect_container(session.instance.id)["HostConfig"]["Privileged"] is True  # type: ignore[union-attr]
        if Feature.HOST_PIDS in told.features:
            held = _status(session)
            assert _capabilities(held)["CapEff"] == _capabilities(held)["CapBnd"] != 0
            assert (held["Seccomp"], held["NoNewPrivs"]) == ("0", "0")


def test_it_ends_by_sigterm_and_its_host_processes_with_it(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    driver = make_driver()
    with _session(driver, labels) as session:
        session.launch()
        instance = session.instance
        pids = instance.host_pids()  # type: ignore[union-attr]
        processes = [process for pid in pids if (process := Process.of(pid))]
        if Feature.HOST_PIDS in driver.info().features:
            assert set(pids.values()) >= {Role.SERVICE, Role.SHIM}
        session.stop()
        state = engine.inspect_container(instance.id)["State"]  # type: ignore[union-attr]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        assert session.spec.nonce.encode() in instance.logs()  # type: ignore[union-attr]
        session.delete()
        assert not [process for process in processes if process.alive()]
        with pytest.raises(docker.errors.NotFound):
            engine.inspect_container(instance.id)  # type: ignore[union-attr]
        instance.delete()  # type: ignore[union-attr]
        assert instance.logs() == b""  # type: ignore[union-attr]


def test_a_fresh_driver_finds_the_container_its_endpoint_and_the_image(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        fresh = make_driver()
        (found,) = fresh.list_instances({"lab.run": labels["lab.run"]})
        assert (found.id, found.endpoint) == (session.instance.id, session.instance.endpoint)  # type: ignore[union-attr]
        (left,) = fresh.leftovers({"lab.run": labels["lab.run"]})
        assert left.kind == "image" and left.labels["lab.owner"] == labels["lab.owner"]
        found.delete()
        left.delete()
        left.delete()
        assert not fresh.list_instances({"lab.run": labels["lab.run"]})
        assert not fresh.leftovers({"lab.run": labels["lab.run"]})


def test_networks_and_volumes_of_the_labs_are_leftovers(
    make_driver: MakeDriver, labels: dict[str, str], engine: Any
) -> None:
    volume = engine.create_volume(labels=labels)["Name"]
    engine.create_network(f"lab-{labels['lab.run']}", driver="bridge", internal=True, labels=labels)
    driver = make_driver()
    found = driver.leftovers({"lab.run": labels["lab.run"]})
    assert sorted(left.kind for left in found) == ["network", "volume"]
    for left in found:
        left.delete()
        left.delete()
    assert not driver.leftovers({"lab.run": labels["lab.run"]})
    assert volume not in [one["Name"] for one in engine.volumes()["Volumes"] or ()]


def test_exec_gives_output_and_status_and_keeps_its_time(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        instance = session.instance
        assert isinstance(instance, Execs)
        watch = ["/service", "watch", "--host", "127.0.0.1", "--port", "8080", "--interval-ms", "500", "--seconds"]
        result = instance.exec([*watch, "1"], timeout_s=60)
        assert result.exit_code == 0, result.stderr
        assert b'"summary"' in result.stdout
        bad = instance.exec(["/service", "watch", "--nonsense"], timeout_s=60)
        assert bad.exit_code == 2 and bad.stderr and not bad.stdout
        with pytest.raises(DriverError, match="did not end in the container within"):
            instance.exec([*watch, "60"], timeout_s=1)
        with pytest.raises(DriverError, match="/nope"):
            instance.exec(["/nope"], timeout_s=60)


@pytest.mark.parametrize("variant", ["", "none"])
def test_a_service_that_dies_before_it_is_ready_fails_its_launch_at_once(
    make_driver: MakeDriver, labels: dict[str, str], variant: str
) -> None:
    command = ("/service", "watch", "--nonsense")
    ended = pytest.raises(LaunchError, match="the service ended with exit status 2")
    with _session(make_driver(variant), labels, command=command) as session, ended:
        session.launch()


def test_an_end_that_was_asked_for_is_no_failure(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    driver = make_driver("none")
    for end in ("stop", "delete"):
        seen = Seen()
        spec = Spec(labels=labels).for_launch()
        driver.prepare(spec)
        instance = driver.launch(spec, None, seen)
        if end == "stop":
            instance.stop(timeout_s=10)
        instance.delete()
        driver.list_instances(labels)
        assert seen.failures == []


class Seen:
    """A Mark that keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[tuple[Phase, Source]] = []
        self.failures: list[Exception] = []

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.phases.append((phase, source))

    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: Exception) -> None:
        self.failures.append(error)


def test_a_port_in_use_is_one_clear_line_and_leaves_no_container(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    driver = make_driver()
    spec = Spec(labels=labels).for_launch()
    driver.prepare(spec)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError) as raised:
            driver.launch(spec, Endpoint("127.0.0.1", port), Seen())
    assert raised.value.brief == f"127.0.0.1:{port} is in use by another program"
    assert raised.value.resolution
    assert not driver.list_instances({"lab.run": labels["lab.run"]})


def test_a_users_image_is_handed_over_without_a_copy(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[list[str]] = []
    load = images.load

    def seen(api: Any, archive: Any) -> None:
        files = [path for path in context.run_dir.rglob("*") if path.is_file()]
        handed.append(sorted(path.name for path in files if path.stat().st_size > 2048))
        load(api, archive)

    monkeypatch.setattr(images, "load", seen)
    make_driver().prepare(Spec(image=str(foreign), labels=labels))
    assert handed == [[]], "the image may hold files that are not for all"


def test_a_command_that_is_not_there_is_one_clear_line_and_leaves_no_container(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path
) -> None:
    driver = make_driver("none")
    spec = Spec(image=str(foreign), command=("/nope",), labels=labels).for_launch()
    driver.prepare(spec)
    seen = Seen()
    with pytest.raises(LaunchError, match="/nope") as raised:
        driver.launch(spec, None, seen)
    assert "\n" not in raised.value.brief and raised.value.details
    assert (Phase.STARTED, Source.RETURN) not in seen.phases
    assert not driver.list_instances({"lab.run": labels["lab.run"]})


@pytest.fixture
def foreign(context: Context, tmp_path: Path) -> Path:
    """A user's image in a file: not the lab's layout, with a user, a directory and an environment of its own."""

    def tar(files: Mapping[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o755
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    layer = tar({"opt/server": build_service(context.cache_dir).read_bytes()})
    config = {
        "architecture": docker.from_env().info()["Architecture"].replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": {
            "Cmd": ["/opt/server"],
            "Env": ["LAB_HOST=0.0.0.0", "LAB_PORT=9000"],
            "User": "1234:4321",
            "WorkingDir": "/opt",
            "Labels": {"their.own": "label"},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["theirs/server:1"], "Layers": ["l/layer.tar"]}]
    path = tmp_path / "image.tar"
    path.write_bytes(
        tar(
            {
                "c.json": json.dumps(config).encode(),
                "l/layer.tar": layer,
                "manifest.json": json.dumps(manifest).encode(),
            }
        )
    )
    return path


def test_a_users_image_from_a_file_runs_as_it_says_and_is_this_runs_leftover(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path, engine: Any, context: Context
) -> None:
    driver = make_driver()
    with _session(driver, labels, image=str(foreign), port=9000, ready_path="/healthz") as session:
        session.launch()
        assert Phase.READY in session.timeline and Phase.MAIN not in session.timeline
        told = engine.inspect_container(session.instance.id)  # type: ignore[union-attr]
        assert told["Config"]["User"] == "1234:4321"
        if Feature.HOST_PIDS in driver.info().features:
            (pid,) = [pid for pid, role in session.instance.host_pids().items() if role is Role.SERVICE]  # type: ignore[union-attr]
            assert Path(f"/proc/{pid}").stat().st_uid == 1234
    (left,) = driver.leftovers({"lab.run": labels["lab.run"]})
    assert left.kind == "image" and left.labels["their.own"] == "label"
    assert not engine.images(name="theirs/server")
    assert not list(context.run_dir.glob("*.tar"))
    left.delete()


@pytest.mark.parametrize("from_a_file", [False, True])
def test_what_a_user_made_of_the_labs_image_stays(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path, engine: Any, from_a_file: bool
) -> None:
    driver, wanted = make_driver(), {"lab.run": labels["lab.run"]}
    driver.prepare(Spec(labels=labels, image=str(foreign)) if from_a_file else Spec(labels=labels))
    (image,) = driver.leftovers(wanted)
    kept = f"theirs/kept-{labels['lab.run']}".lower()
    engine.tag(image.id, kept, "1")
    theirs = engine.create_container(f"{kept}:1", command=["/service"])["Id"]
    try:
        assert not driver.list_instances(wanted), "a container that inherits an image's labels is no launch"
        image.delete()
        image.delete()
        assert not driver.leftovers(wanted)
        assert engine.inspect_image(f"{kept}:1")["RepoTags"] == [f"{kept}:1"]
        assert engine.inspect_container(theirs)["Id"] == theirs
    finally:
        engine.remove_container(theirs)
        engine.remove_image(f"{kept}:1")


def test_a_users_image_in_the_hosts_network_is_refused(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    with pytest.raises(Unsupported, match="every address"):
        make_driver("host").prepare(Spec(image="nginx:alpine", labels=labels))


def test_files_that_are_no_images_are_bad_input(
    make_driver: MakeDriver, labels: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"no tar at all")
    for image in (str(path), str(tmp_path / "absent.tar")):
        with pytest.raises(BadInput, match=Path(image).name):
            make_driver().prepare(Spec(image=image, labels=labels))


def test_an_image_that_cannot_be_had_is_one_clear_line(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    with pytest.raises(DriverError, match=r"the image '127.0.0.1:1/no/such:1' is not here") as raised:
        make_driver().prepare(Spec(image="127.0.0.1:1/no/such:1", labels=labels))
    assert "\n" not in raised.value.brief and raised.value.resolution


def test_an_engine_on_another_machine_is_told_apart(make_driver: MakeDriver) -> None:
    api, told = make_driver()._api(), {"Name": platform.node(), "KernelVersion": platform.release()}
    api.base_url = "http://192.0.2.1:2375"
    assert is_remote(api) and not is_local(api, told)
    api.base_url = "http+docker://localhost"
    assert is_local(api, told) and not is_remote(api)


def test_a_runtime_that_is_not_listed_is_named_with_those_that_are(make_driver: MakeDriver) -> None:
    with pytest.raises(DriverUnavailable, match=r"no OCI runtime 'no-such'; it lists .*runc") as raised:
        make_driver("no-such").info()
    assert "daemon.json" in raised.value.resolution


@pytest.mark.beyond_engine
def test_crun_where_the_engine_lists_it(make_driver: MakeDriver, labels: dict[str, str], engine: Any) -> None:
    if "crun" not in engine.info()["Runtimes"]:
        pytest.skip("this engine does not list crun")
    with _session(make_driver("crun"), labels) as session:
        session.launch()
        assert engine.inspect_container(session.instance.id)["HostConfig"]["Runtime"] == "crun"  # type: ignore[union-attr]


def test_a_socket_that_is_not_there_is_unavailable_with_its_remedy(make_driver: MakeDriver, tmp_path: Path) -> None:
    driver = make_driver(**{"docker-host": f"unix://{tmp_path}/docker.sock"})
    with pytest.raises(DriverUnavailable, match="socket is not there") as raised:
        driver.info()
    assert raised.value.resolution
    driver.close()


def test_what_a_cold_launch_reads_is_on_this_hosts_disk(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    driver = make_driver()
    if Feature.COLD not in driver.info().features:
        return
    spec = Spec(labels=labels)
    driver.prepare(spec)
    files = driver.launch_files(spec)
    assert all(path.exists() for path in files)
    assert any((path / "service").is_file() for path in files)
    assert any(path.name == "runc" for path in files)
    with _session(driver, labels) as session:
        session.launch()
        names = driver.others_running()
        assert session.instance.id[:12] not in names  # type: ignore[union-attr]
