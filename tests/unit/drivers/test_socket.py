"""What the driver `socket` makes of options, of a host without systemd, and of what systemd says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from drivers import socket as driver
from drivers.barehost import labelled
from drivers.socket import SocketDriver, units
from drivers.socket.options import keep_alive_s
from lab.driver import Context
from lab.errors import BadInput, DriverError, DriverUnavailable, Unsupported
from lab.features import SleepState
from lab.host.programs import Ran
from lab.spec import Endpoint, Spec

LABELS = {"lab.run": "r1", "lab.launch": "00ff", "lab.owner": "a:b:1:2:3", "lab.target": "socket:systemd"}
SYSTEM = units.Manager("--system", {})


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(run_dir=tmp_path, cache_dir=tmp_path)


@pytest.mark.parametrize("text", ["", "soon", "0", "0.05", "-1", "nan", "inf", "86401", "1e99"])
def test_a_keep_alive_that_is_none_is_refused_on_one_line_with_the_remedy(text: str) -> None:
    with pytest.raises(BadInput, match="socket-keep-alive") as error:
        keep_alive_s({"socket-keep-alive": text})
    assert "\n" not in error.value.brief and "-o socket-keep-alive=2" in error.value.resolution


def test_a_keep_alive_is_in_seconds_and_five_minutes_unless_given() -> None:
    assert (keep_alive_s({}), keep_alive_s({"socket-keep-alive": "0.5"})) == (300.0, 0.5)


def test_an_unknown_variant_is_refused_with_those_that_there_are(context: Context) -> None:
    with pytest.raises(BadInput, match="no variant 'cloud'") as error:
        SocketDriver("cloud", context)
    assert "socket:activator" in error.value.resolution and "socket:systemd" in error.value.resolution


@pytest.mark.parametrize(("managed", "variant"), [(True, "systemd"), (False, "activator")])
def test_the_default_is_what_this_host_has(monkeypatch: pytest.MonkeyPatch, managed: bool, variant: str) -> None:
    monkeypatch.setattr(units, "manages", lambda: managed)
    assert SocketDriver.variants()[""] == f"the same as {variant}"
    assert variant in SocketDriver.variants()


def test_what_the_default_stands_for_is_told_in_its_row(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    monkeypatch.setattr(units, "manages", lambda: False)
    assert SocketDriver("", context).info().qualifiers == {"activation": "activator"}
    assert not SocketDriver("activator", context).info().qualifiers


def test_without_systemd_its_variant_says_why_and_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, context: Context
) -> None:
    monkeypatch.setattr(units.shutil, "which", lambda _: "/usr/bin/it")
    monkeypatch.setattr(units, "_SYSTEM", tmp_path / "nothing")
    with pytest.raises(DriverUnavailable, match="not PID 1") as error:
        SocketDriver("systemd", context).info()
    assert "socket:activator" in error.value.resolution
    monkeypatch.setattr(units, "_SYSTEM", tmp_path)
    monkeypatch.setattr(units.os, "geteuid", lambda: 4711)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(DriverUnavailable, match="no systemd manages a session of user 4711") as error:
        units.manager()
    assert "enable-linger" in error.value.resolution
    monkeypatch.setattr(units.shutil, "which", lambda _: None)
    with pytest.raises(DriverUnavailable, match="there is no systemd-run"):
        units.manager()


def test_without_its_program_proxyd_says_what_to_install(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    monkeypatch.setattr(driver, "_PROXYD_DIRS", ("/nonexistent",))
    with pytest.raises(DriverUnavailable, match="no systemd-socket-proxyd") as error:
        SocketDriver("proxyd", context).info()
    assert error.value.resolution == "apt-get install systemd"


def test_values_of_the_environment_are_in_a_file_and_not_in_what_systemd_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[list[str]] = []

    def run(argv: list[str], **_: object) -> Ran:
        told.append(argv)
        if argv[0] == "systemd-run":
            raise DriverError("systemd-run could not listen: the address is in use")
        return Ran(0, b"LoadState=not-found\nActiveState=inactive\n")

    monkeypatch.setattr(units, "run", run)
    written: list[str] = []
    write = Path.write_text
    monkeypatch.setattr(Path, "write_text", lambda self, text: (written.append(text), write(self, text)))
    spec = Spec(labels=LABELS, environment={"SECRET": 'a "b"\n$c\\'}, cpus=0.5, cpuset=(0, 2), nonce="5eed")
    with pytest.raises(DriverError, match="in use"):
        units.start(
            SYSTEM,
            Path("/cache/service"),
            spec,
            Endpoint("127.0.0.1", 4242),
            lambda *_, **__: None,  # type: ignore[arg-type]
            run_dir=tmp_path,
            rlimits={"nofile": (1024, 4096), "stack": (8, units.UNLIMITED)},
            keep_alive_s=1.5,
        )
    assert not list(tmp_path.iterdir()), "what had been made is removed"
    (argv,) = (one for one in told if one[0] == "systemd-run")
    assert "SECRET" not in shlex.join(argv) and "5eed" not in shlex.join(argv)
    assert 'SECRET="a \\"b\\"\n\\$c\\\\"\n' in written[0] and 'LAB_IDLE_MS="1500"\n' in written[0]
    for word in (
        "--system",
        "--unit=stratalab-00ff",
        "--socket-property=ListenStream=127.0.0.1:4242",
        "--property=CPUQuota=50%",
        "--property=MemoryMax=134217728",
        "--property=MemorySwapMax=0",
        "--property=TasksMax=128",
        "--property=CPUAffinity=0,2",
        "--property=LimitNOFILE=1024:4096",
        "--property=LimitSTACK=8:infinity",
    ):
        assert word in argv
    assert argv[argv.index("--") :] == ["--", "/cache/service"]
    (description,) = (one.removeprefix("--description=") for one in argv if one.startswith("--description="))
    assert units._labels(description) == LABELS


@pytest.mark.parametrize("text", ["", "A unit of somebody's", "{", "[]", '{"run": "r1"}'])
def test_a_unit_that_is_not_the_labs_bears_no_labels(text: str) -> None:
    assert units._labels(text) == {}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "3"}, "ended with exit status 3"),
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "11"}, "ended by signal SIGSEGV"),
        ({"Result": "oom-kill", "ExecMainCode": "2", "ExecMainStatus": "9"}, "was killed: it wanted more"),
        ({"Result": "resources"}, "ended by itself"),
    ],
)
def test_what_systemd_tells_of_an_end_is_told_as_everywhere(told: dict[str, str], said: str) -> None:
    assert said in units._ending(told).error(memory_bytes=1 << 27).brief


def test_it_does_not_sleep_but_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = units.UnitInstance(SYSTEM, "stratalab-1", labels=LABELS, endpoint=None)
    assert set(instance.sleep_states()) == {SleepState.ZERO}
    with pytest.raises(Unsupported, match="no state 'paused'"):
        instance.sleep(SleepState.PAUSED, timeout_s=1)


@pytest.mark.parametrize(
    ("labels", "whose"),
    [
        ({"lab.target": "socket:proxyd"}, "socket"),
        ({"lab.target": "process"}, "process"),
        ({}, "process"),
    ],
)
def test_bare_processes_are_told_apart_by_their_target(labels: dict[str, str], whose: str) -> None:
    assert labelled.driver_of(labels) == whose
