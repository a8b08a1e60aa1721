"""One image starts in the same surroundings on every target: a service that tells what it found, row by row.

What is expected is written out, and is what Docker does: that Docker's own row holds is a test of the expectation.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from witness_image import File, build_witness, write_image

from drivers.docker import DockerDriver
from drivers.swarm import SwarmDriver
from lab.driver import Context, Driver
from lab.errors import LabError
from lab.host.rlimits import granted
from lab.image.config import DEFAULT_PATH
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.timeline import SystemClock
from lab.units import MIB

pytestmark = pytest.mark.timeout(300)

TARGETS = [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("docker", "oci", "swarm", "libvirt:microvm")]
READY_S = 120
SCRATCH_BYTES = 4 * MIB
NUMBERS = {"core": 4, "memlock": 8, "nofile": 7, "nproc": 6, "sigpending": 11, "stack": 3}  # asm-generic/resource.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An image, and what its service must find. `environment` is all of it but HOSTNAME where that is the engine's."""

    run: Mapping[str, Any]
    files: tuple[File, ...] = ()
    argv: tuple[str, ...]
    ids: tuple[int, int, tuple[int, ...]]
    cwd: str
    environment: Mapping[str, str]
    stop: int
    hostname_told: bool = True
    own_tmp: bool = False
    directories: tuple[str, ...] = field(default=())


CASES = {
    "by name": Case(
        run={
            "User": "app",
            "Entrypoint": ["witness"],
            "Cmd": ["one", "two words"],
            "Env": ["PATH=/nowhere:/opt/bin", "EMPTY=", "BARE", "EQUALS=a=b", "TWICE=1", "TWICE=2", "HOME="],
            "WorkingDir": "/srv/made",
            "Volumes": {"/data": {}, "/srv/deep/volume": {}},
            "StopSignal": "SIGRTMIN+3",
        },
        argv=("witness", "one", "two words"),
        ids=(1000, 50, (50, 200, 300)),
        cwd="/srv/made",
        environment={
            "PATH": "/nowhere:/opt/bin",
            "EMPTY": "",
            "EQUALS": "a=b",
            "TWICE": "2",
            "HOME": "/home/app",
        },
        stop=37,
        directories=("/data", "/srv/deep/volume", "/srv/made"),
    ),
    "own tmp": Case(
        run={"User": "alias", "Entrypoint": ["./app"], "WorkingDir": "/tmp", "StopSignal": "10"},
        files=(("tmp/app", b"", 0o755),),  # the witness; see `image`
        argv=("./app",),
        ids=(1000, 60, (60, 300)),
        cwd="/tmp",
        environment={"PATH": DEFAULT_PATH, "HOME": "/home/app"},  # the uid's first entry's home
        stop=10,
        own_tmp=True,
    ),
    "by number": Case(
        run={
            "User": "1234:0",
            "Cmd": ["/bin/sh", "-c", "shell form"],
            "Env": ["PATH", "HOSTNAME=own"],
            "Volumes": {"/tmp": {}},
            "StopSignal": "quit",
        },
        argv=("/bin/sh", "-c", "shell form"),
        ids=(1234, 0, (0,)),
        cwd="/",
        environment={"HOME": "/", "HOSTNAME": "own"},
        stop=signal.SIGQUIT,
        hostname_told=False,
        own_tmp=True,
    ),
}


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_witness(tmp_path_factory.mktemp("witness"))


@pytest.fixture
def make(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Callable[[str], Driver]]:
    with contextlib.ExitStack() as closing:

        def made(target: str) -> Driver:
            driver = make_driver(Target.parse(target), make_context())
            closing.callback(driver.close)
            closing.callback(_remove_all, driver, labels)
            return driver

        yield made


def _remove_all(driver: Driver, labels: Mapping[str, str]) -> None:
    wanted = {"lab.run": labels["lab.run"]}
    for thing in (*driver.list_instances(wanted), *driver.leftovers(wanted)):
        thing.delete()


def image(tmp_path: Path, witness: bytes, case: Case) -> Path:
    files = [(name, content or witness if content == b"" else content, mode) for name, content, mode in case.files]
    return write_image(tmp_path / "witness.tar", witness, case.run, files)


@contextlib.contextmanager
def launched(driver: Driver, target: str, labels: Mapping[str, str], **spec: Any) -> Iterator[Session]:
    wanted = Spec(
        port=8080, ready_path="/", labels={**labels, "lab.target": target}, scratch_bytes=SCRATCH_BYTES, **spec
    )
    info = driver.info()
    driver.prepare(wanted)
    with Session(driver, info, wanted.for_launch(), SystemClock(), timeout_s=READY_S) as session:
        session.launch()
        yield session


def ask(session: Session, path: str = "/") -> dict[str, Any]:
    endpoint = session.instance.endpoint
    with socket.create_connection((endpoint.host, endpoint.port), 30) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_an_image_finds_what_its_maker_meant(
    target: str, name: str, make: Callable[[str], Driver], labels: dict[str, str], tmp_path: Path, witness: bytes
) -> None:
    case = CASES[name]
    driver = make(target)
    with launched(driver, target, labels, image=str(image(tmp_path, witness, case))) as session:
        told = ask(session)
        _check_process(told, case)
        _check_names(told, case)
        _check_places(told, case)
        _check_limits(told, driver)
        if target in ("oci", "libvirt:microvm"):  # those without a way to a server of names
            answer = ask(session, "/resolve")
            assert answer["found"] < 0 and answer["ms"] < 1000, answer
        session.stop(timeout_s=30)
        if target != "swarm":  # which removes the task with its log
            assert b"ended by %02d" % case.stop in session.instance.logs()
    assert not driver.list_instances({"lab.run": labels["lab.run"]})


def _check_process(told: Mapping[str, Any], case: Case) -> None:
    assert tuple(told["argv"]) == case.argv
    assert (told["uid"], told["gid"], tuple(sorted(told["groups"]))) == case.ids
    assert told["cwd"] == case.cwd
    environment = dict(entry.split("=", 1) for entry in told["env"])
    assert len(environment) == len(told["env"]), "each variable once"
    hostname = {"HOSTNAME": told["hostname"]} if case.hostname_told else {}
    assert environment == {**hostname, **case.environment}


def _check_names(told: Mapping[str, Any], case: Case) -> None:
    files, hostname = told["files"], told["hostname"]
    assert re.fullmatch("[0-9a-f]{12}", hostname)
    assert files["/etc/hostname"] == f"{hostname}\n"
    named = [line.split() for line in files["/etc/hosts"].splitlines()]
    assert any("localhost" in words and words[0] == "127.0.0.1" for words in named)
    (own,) = [words[0] for words in named if hostname in words[1:]]
    assert not own.startswith("127."), "who listens at its own name is to be reached"
    assert files["/etc/resolv.conf"]
    assert files["/proc/sys/net/ipv4/ip_unprivileged_port_start"] == "0\n"


def _check_places(told: Mapping[str, Any], case: Case) -> None:
    places = told["places"]
    assert places["/"]["mode"] == "40755"
    for path in case.directories:
        found = places[path]
        assert found and (found["mode"], found["uid"], found["gid"]) == ("40755", 0, 0), path
    shm = places["/dev/shm"]
    assert (shm["mode"], shm["tmpfs"], shm["noexec"], shm["nosuid"]) == ("41777", True, True, True)
    assert shm["bytes"] == 64 * MIB
    tmp = places["/tmp"]
    assert not tmp["noexec"]
    assert told["listing"] == [name.removeprefix("tmp/") for name, _, _ in case.files]
    assert tmp["tmpfs"] is not case.own_tmp
    if case.own_tmp:
        assert tmp["mode"] == "40755"
    else:
        assert (tmp["mode"], tmp["nosuid"], tmp["bytes"]) == ("41777", True, SCRATCH_BYTES)
        assert told["runs_from_tmp"] is True


def _check_limits(told: Mapping[str, Any], driver: Driver) -> None:
    for name, pair in granted().items():
        assert tuple(told["rlimits"][NUMBERS[name]]) == pair, name
    facts = driver.info().facts["surroundings"]
    assert facts["rlimit nofile"] == f"{granted()['nofile'][0]}:{granted()['nofile'][1]}"
    status = dict(line.split(":", 1) for line in told["files"]["/proc/self/status"].splitlines())
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & ~_ignored_by_the_engine(driver) == 0
    assert status["Umask"].strip() == "0022"
    assert (status["Seccomp"].strip() == "0") == (facts["seccomp"] == "no filter")
    assert told["files"]["/proc/self/oom_score_adj"] == f"{facts['oom_score_adj']}\n"
    assert (told["pid"] == 1) == facts["init"].startswith("none")
    assert told["random_ms"] < 100, "a guest that waits for its own jitter needs a second"


def _ignored_by_the_engine(driver: Driver) -> int:
    """What a daemon of Docker's itself was started to ignore: of that no runtime in Go can free its containers where
    it is one of the two signals that the C library keeps for itself (signal(7)), and who starts the daemon decides."""
    if not isinstance(driver, DockerDriver | SwarmDriver):
        return 0
    kept = 0
    for daemon in psutil.process_iter(["name"]):
        if daemon.info["name"] in ("dockerd", "containerd"):
            status = Path(f"/proc/{daemon.pid}/status").read_text()
            kept |= int(status.partition("SigIgn:")[2].split()[0], 16)
    return kept & (1 << 31 | 1 << 32)


@pytest.mark.parametrize("user", ["", "app", "1000", "alias", "app:logs", "app:0", "4321", "4321:logs", ":300", "1001"])
@pytest.mark.parametrize("target", TARGETS[:2])
def test_users_are_who_docker_takes_them_for(
    target: str, user: str, make: Callable[[str], Driver], labels: dict[str, str], tmp_path: Path, witness: bytes
) -> None:
    expected = {
        "": (0, 0, (0, 200), "/root"),
        "app": (1000, 50, (50, 200, 300), "/home/app"),
        "1000": (1000, 50, (50, 200, 300), "/home/app"),
        "alias": (1000, 60, (60, 300), "/home/app"),
        "app:logs": (1000, 200, (200,), "/home/app"),
        "app:0": (1000, 0, (0,), "/home/app"),
        "4321": (4321, 0, (0,), "/"),
        "4321:logs": (4321, 200, (200,), "/"),
        ":300": (0, 300, (300,), "/root"),
        "1001": (1001, 50, (50,), ""),
    }
    path = write_image(tmp_path / "witness.tar", witness, {"User": user, "Cmd": ["/opt/bin/witness"]})
    with launched(make(target), target, labels, image=str(path)) as session:
        told = ask(session)
    home = dict(entry.split("=", 1) for entry in told["env"])["HOME"]
    assert (told["uid"], told["gid"], tuple(sorted(told["groups"])), home) == expected[user]


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_that_its_stop_signal_does_not_end_is_killed_and_that_is_told(
    target: str, make: Callable[[str], Driver], labels: dict[str, str], tmp_path: Path, witness: bytes
) -> None:
    path = write_image(tmp_path / "witness.tar", witness, {"Cmd": ["/opt/bin/witness"], "Env": ["DEAF=1"]})
    with launched(make(target), target, labels, image=str(path)) as session:
        session.stop(timeout_s=2)
        assert session.facts()["stop_killed_after_s"] == 2
        session.delete()


@pytest.mark.engine("oci")
def test_nothing_of_the_calling_shell_reaches_a_bare_container(tmp_path: Path, witness: bytes) -> None:
    path = write_image(tmp_path / "witness.tar", witness, {"User": "app", "Cmd": ["/opt/bin/witness"]})
    tests = Path(__file__).parents[2]
    program = tests / "helpers/launch_witness.py"
    shell = 'umask 077; ulimit -n 300; trap "" HUP INT QUIT; exec "$@"'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", sys.executable, str(program), str(path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["uid"] == 1000 and told["rlimits"][NUMBERS["nofile"]] == [300, 300]  # which that shell cannot raise
    status = told["files"]["/proc/self/status"]
    assert re.search(r"SigIgn:\t0+\n", status) and "Umask:\t0022\n" in status
    assert told["places"]["/"]["mode"] == "40755"


@pytest.mark.parametrize("target", ["oci", "docker"])
@pytest.mark.parametrize(
    "run",
    [{"WorkingDir": "/etc/passwd"}, {"Volumes": {"/etc/passwd": {}}}, {"User": "nobody"}, {"User": "app:nogroup"}],
    ids=str,
)
def test_what_docker_refuses_is_refused(
    target: str,
    run: Mapping[str, Any],
    make: Callable[[str], Driver],
    labels: dict[str, str],
    tmp_path: Path,
    witness: bytes,
) -> None:
    path = write_image(tmp_path / "witness.tar", witness, {"Cmd": ["/opt/bin/witness"], **run})
    with pytest.raises(LabError) as raised, launched(make(target), target, labels, image=str(path)):
        pass
    assert "\n" not in raised.value.brief
