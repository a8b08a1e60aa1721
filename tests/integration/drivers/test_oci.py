"""Bare OCI runtimes on this host: what only they do."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers.oci import BUNDLES, OciDriver
from drivers.oci.instance import CGROUPS, OciContainer
from lab.driver import Context, Mark
from lab.errors import BadInput, DriverError, DriverUnavailable, LaunchError
from lab.features import SleepState
from lab.host import cgroup, procs
from lab.host.ownership import Owner
from lab.host.procfs import read_fields
from lab.image.archive import machine_architecture
from lab.launch.session import Session
from lab.service.build import build_service
from lab.spec import Endpoint, Spec
from lab.timeline import Phase, Source, SystemClock
from lab.units import MIB

pytestmark = pytest.mark.engine("oci")

MakeDriver = Callable[..., OciDriver]


@pytest.fixture
def make_driver(context: Context, labels: dict[str, str]) -> Iterator[MakeDriver]:
    yield lambda variant="": OciDriver(variant, context)
    cleaner = OciDriver("", context)
    for thing in (*cleaner.list_instances({"lab.run": labels["lab.run"]}), *cleaner.leftovers(labels)):
        thing.delete()


def _session(driver: OciDriver, labels: Mapping[str, str], **changes: Any) -> Session:
    spec = Spec(labels={**labels, "lab.target": "oci"}, **changes)
    info = driver.info()
    driver.prepare(spec)
    return Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=60)


def _main(session: Session) -> int:
    (pid,) = session.instance.host_pids()  # type: ignore[union-attr]
    return int(pid)


class Deaf:
    """A Mark that nobody listens to."""

    def __call__(self, phase: Phase, *, source: Source) -> None: ...
    def line(self, text: bytes, *, source: Source) -> None: ...
    def moment(self) -> Mark:
        return self

    def failed(self, error: DriverError) -> None: ...


def test_create_and_start_are_marked_on_return_and_output_as_it_comes(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        seen = {(mark.phase, mark.source): mark.ns for mark in session.timeline}
        assert seen[Phase.CREATED, Source.RETURN] < seen[Phase.STARTED, Source.RETURN]
        assert {(Phase.MAIN, Source.LOG), (Phase.LISTENING, Source.LOG), (Phase.MAIN, Source.SERVICE)} <= set(seen)


def test_the_kernel_holds_the_limits_and_the_capabilities_of_a_docker_container(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    with _session(make_driver(), labels, memory_bytes=96 * MIB, cpus=0.5, pids=32) as session:
        session.launch()
        pid = _main(session)
        held = cgroup.of_process(pid).limits()
        assert (held.memory_bytes, held.cpus, held.pids) == (96 * MIB, 0.5, 32)
        status = read_fields(Path(f"/proc/{pid}/status"))
        docker_default = 0xA80425FB  # what `docker run` shows as CapEff
        bounding = int(read_fields(Path("/proc/self/status"))["CapBnd"], 16)
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == docker_default & bounding
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        assert " / / rw" in mounts and " - overlay " in mounts
        assert " /proc/sys ro" in mounts and " /sys/firmware ro" in mounts
        scratch = next(line for line in mounts.splitlines() if " /tmp " in line)
        assert "size=16384k" in scratch and "noexec" not in scratch
        for kind in ("mnt", "pid", "ipc", "uts"):
            assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()


def test_exec_gives_code_and_output_and_a_missing_program_is_one_clear_line(
    make_driver: MakeDriver, labels: dict[str, str]
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        told = session.instance.exec(["/service", "load"], timeout_s=20)  # type: ignore[union-attr]
        assert told.exit_code != 0 and told.stdout + told.stderr
        with pytest.raises(DriverError, match="/nope") as raised:
            session.instance.exec(["/nope"], timeout_s=20)  # type: ignore[union-attr]
        assert "\n" not in raised.value.brief
        with pytest.raises(DriverError, match=r"could not run .* in the container within"):
            endless = ["/service", "watch", "--host", "127.0.0.1", "--port", "1", "--seconds", "30"]
            session.instance.exec(endless, timeout_s=1)  # type: ignore[union-attr]
        assert list(session.instance.host_pids()) == [_main(session)]  # type: ignore[union-attr]


def test_nothing_is_left_on_the_host_after_delete(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        (bundle,) = [path for path in BUNDLES.iterdir() if session.spec.labels["lab.launch"] in path.name]
        assert str(bundle) in Path("/proc/self/mountinfo").read_text()
        assert CGROUPS.of(bundle.name).exists()
    assert not bundle.exists()
    assert str(bundle) not in Path("/proc/self/mountinfo").read_text()
    assert not CGROUPS.of(bundle.name).exists()
    assert not list((session._driver._images.folder()).glob("lab-*"))  # type: ignore[attr-defined]


def test_a_container_of_a_dead_lab_is_found_by_another_and_removed(
    make_driver: MakeDriver, labels: dict[str, str], make_context: Callable[..., Context]
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        other = OciDriver("", make_context())
        (found,) = other.list_instances({"lab.run": labels["lab.run"]})
        assert found.endpoint == session.instance.endpoint  # type: ignore[union-attr]
        assert found.logs() == b""
        pid = _main(session)
        found.stop(timeout_s=5)
        assert not Path(f"/proc/{pid}/exe").exists()
        found.delete()
        assert not other.list_instances({"lab.run": labels["lab.run"]})


@pytest.mark.parametrize("how_far", ["named", "written", "created"])
def test_a_launch_that_died_half_way_is_found_and_removed(
    make_driver: MakeDriver, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch, how_far: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*args: object, **more: object) -> None:
        raise Killed

    step = {"named": "drivers.oci.OciDriver._write", "written": "drivers.oci.OciDriver._run"}
    monkeypatch.setattr(step.get(how_far, "drivers.oci.runtime.Runtime.start"), die)
    monkeypatch.setattr("drivers.oci._undo", lambda _: [])  # a killed lab undoes nothing
    driver = make_driver()
    spec = Spec(labels={**labels, "lab.target": "oci"}).for_launch()
    driver.prepare(spec)
    with pytest.raises(Killed):
        driver.launch(spec, Endpoint("127.0.0.1", 20_001), Deaf())
    (found,) = make_driver().list_instances({"lab.run": labels["lab.run"]})
    assert found.labels["lab.owner"] == labels["lab.owner"]
    found.delete()
    assert not make_driver().list_instances({"lab.run": labels["lab.run"]})
    assert not [name for name in CGROUPS.names() if labels["lab.run"] in name]


def test_a_cgroup_without_a_bundle_is_a_leftover(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    group = CGROUPS.of(cgroup.name_of({**labels, "lab.launch": "half"}))
    for directory in group.directories:
        directory.path.mkdir(parents=True)
    (left,) = make_driver().leftovers({"lab.run": labels["lab.run"]})
    assert left.kind == "cgroup" and left.labels["lab.owner"] == labels["lab.owner"]
    left.delete()
    assert not group.exists() and not make_driver().leftovers({"lab.run": labels["lab.run"]})


def test_a_command_that_is_not_there_is_one_clear_line_and_leaves_nothing(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path
) -> None:
    driver = make_driver()
    spec = Spec(image=str(foreign), command=("/nope",), port=9000, labels=labels).for_launch()
    driver.prepare(spec)
    with pytest.raises(LaunchError, match="/nope") as raised:
        driver.launch(spec, Endpoint("127.0.0.1", 20_002), Deaf())
    assert "\n" not in raised.value.brief
    assert not driver.list_instances({"lab.run": labels["lab.run"]})
    assert not driver.leftovers({"lab.run": labels["lab.run"]})


def test_a_port_in_use_is_named_for_an_image_behind_the_relay(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path
) -> None:
    driver = make_driver()
    spec = Spec(image=str(foreign), port=9000, labels=labels).for_launch()
    driver.prepare(spec)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(LaunchError, match=f"{endpoint} is in use"):
            driver.launch(spec, endpoint, Deaf())
    assert not driver.list_instances({"lab.run": labels["lab.run"]})


@pytest.fixture
def foreign(context: Context, tmp_path: Path) -> Path:
    """A user's image: a user, a directory and an environment of its own, and it listens on every address."""

    def tar(files: Mapping[str, bytes]) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(content), 0o755
                archive.addfile(info, io.BytesIO(content))
        return out.getvalue()

    layer = tar({"opt/server": build_service(context.cache_dir).read_bytes()})
    told = {
        "architecture": machine_architecture(),
        "os": "linux",
        "config": {
            "Cmd": ["/opt/server"],
            "Env": ["LAB_HOST=0.0.0.0", "LAB_PORT=9000", "THEIRS=yes"],
            "User": "1234:4321",
            "WorkingDir": "/opt",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["theirs/server:1"], "Layers": ["layer.tar"]}]
    files = {"c.json": json.dumps(told).encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    path = tmp_path / "image.tar"
    path.write_bytes(tar(files))
    return path


def test_a_users_image_runs_as_it_says_in_a_network_of_its_own(
    make_driver: MakeDriver, labels: dict[str, str], foreign: Path
) -> None:
    with _session(make_driver(), labels, image=str(foreign), port=9000, ready_path="/healthz") as session:
        session.launch()
        assert Phase.READY in session.timeline and Phase.MAIN not in session.timeline
        pid = _main(session)
        status = read_fields(Path(f"/proc/{pid}/status"))
        assert status["Uid"].split()[0] == "1234" and status["Gid"].split()[0] == "4321"
        assert int(status["CapEff"], 16) == 0
        assert b"THEIRS=yes\0" in Path(f"/proc/{pid}/environ").read_bytes()
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/opt")
        assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        endpoint = session.instance.endpoint  # type: ignore[union-attr]
        for _ in range(3):
            with socket.create_connection((endpoint.host, endpoint.port), 5) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while part := connection.recv(4096):
                    answer += part
            assert answer.startswith(b"HTTP/1.1 200")
    with pytest.raises(OSError), socket.create_connection((endpoint.host, endpoint.port), 2):
        pass


def test_a_runtime_that_is_not_here_is_told_with_its_remedy(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DriverUnavailable, match="no OCI runtime on this host") as raised:
        make_driver().info()
    assert raised.value.resolution == "sudo apt-get install runc"


def test_a_program_that_is_no_runtime_is_refused(make_driver: MakeDriver) -> None:
    with pytest.raises(DriverUnavailable, match="is not an OCI runtime"):
        make_driver("ls").info()


def test_a_runtime_that_makes_no_container_here_is_unavailable_with_its_own_words(
    make_driver: MakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = shutil.which("runc")
    script = tmp_path / "broken"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\necho cannot work here >&2\nexit 1\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DriverUnavailable, match="broken makes no container on this host") as raised:
        make_driver("broken").info()
    assert raised.value.resolution
    bundles = [cgroup.labels_of(path.name) for path in BUNDLES.iterdir()] if BUNDLES.exists() else []
    assert str(Owner.current()) not in [found.get("lab.owner") for found in bundles]


def test_files_that_are_no_images_are_bad_input(
    make_driver: MakeDriver, labels: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"no tar at all")
    with pytest.raises(BadInput, match="image"):
        make_driver().prepare(Spec(image=str(path), labels=labels))


def test_what_a_cold_launch_reads_is_on_disk(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    driver = make_driver()
    files = driver.launch_files(Spec(labels=labels))
    assert any(path.is_dir() and (path / "service").is_file() for path in files)
    assert Path(str(shutil.which("runc"))) in files
    assert isinstance(driver.others_running(), list | tuple)


@pytest.mark.beyond_engine
def test_crun_where_it_works_here(make_driver: MakeDriver, labels: dict[str, str]) -> None:
    driver = make_driver("crun")
    try:
        info = driver.info()
    except DriverUnavailable as error:
        pytest.skip(str(error))
    assert info.engine == "crun"
    with _session(driver, labels) as session:
        session.launch()
        assert Phase.READY in session.timeline and Phase.MAIN in session.timeline
        assert session.instance.host_pids()  # type: ignore[union-attr]


@pytest.mark.beyond_engine
def test_crun_behind_a_wrapper_that_hides_the_second_hierarchy(
    make_driver: MakeDriver, labels: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crun = shutil.which("crun")
    if crun is None or not Path("/sys/fs/cgroup/unified").is_dir() or shutil.which("unshare") is None:
        pytest.skip("needs crun, unshare and a host with cgroups in hybrid mode")
    script = tmp_path / "crun-hybrid"
    inner = f'umount /sys/fs/cgroup/unified; exec {crun} "$@"'
    script.write_text(f"#!/bin/sh\nexec unshare -m --propagation slave sh -c '{inner}' crun \"$@\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{tmp_path}")
    with _session(make_driver("crun-hybrid"), labels, pids=33) as session:
        session.launch()
        assert Phase.READY in session.timeline
        assert cgroup.of_process(_main(session)).limits().pids == 33
        assert session.instance.exec(["/service", "load"], timeout_s=20).exit_code != 0  # type: ignore[union-attr]
    assert subprocess.run(["pgrep", "-f", session.spec.labels["lab.launch"]], check=False).returncode == 1


def test_a_frozen_container_hears_its_stop_signal_and_goes_without_its_runtime(
    make_driver: MakeDriver, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with _session(make_driver(), labels) as session:
        session.launch()
        instance = session.instance
        assert isinstance(instance, OciContainer)
        instance.sleep(SleepState.PAUSED, timeout_s=10)
        instance.stop(timeout_s=30)
        assert not instance.was_killed()
    with _session(make_driver(), labels) as session:
        session.launch()
        instance = session.instance
        assert isinstance(instance, OciContainer)
        instance.sleep(SleepState.PAUSED, timeout_s=10)
        monkeypatch.setattr(instance, "_runtime", lambda: None)
        processes = procs.present(instance.host_pids())
        instance.delete()
        assert processes and not procs.all_ended(processes, 1)
