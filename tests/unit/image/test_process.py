"""What an image says of how to run it, and what that means, by Docker's rules."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import IO, Any

import pytest

from lab.errors import BadInput
from lab.image.config import DEFAULT_PATH, ImageConfig, config_of, stop_signal, volumes_of
from lab.image.layers import Entry, Kind
from lab.image.process import has_own_tmp, hosts_file, process_of


class FakeImage:
    """An image of a config and a few files."""

    def __init__(self, run: Mapping[str, Any], files: Mapping[str, bytes] | None = None, names: Any = ()) -> None:
        self.config: ImageConfig = config_of({"architecture": "amd64", "config": run})
        self._files = dict(files or {})
        self._names = list(names)

    def entries(self) -> Iterator[Entry]:
        yield from self._names

    def find(self, path: str) -> Entry | None:
        return Entry(path=path[1:], kind=Kind.FILE, mode=0o644) if path in self._files else None

    def open(self, entry: Entry) -> IO[bytes]:
        return io.BytesIO(self._files["/" + entry.path])


def directory(path: str) -> Entry:
    return Entry(path=path, kind=Kind.DIRECTORY, mode=0o755)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 15),
        ("SIGTERM", 15),
        ("TERM", 15),
        ("sigquit", 3),
        ("3", 3),
        ("37", 37),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMIN+3", 37),
        ("rtmin+15", 49),
        ("SIGRTMAX", 64),
        ("SIGRTMAX-1", 63),
        ("WINCH", 28),
        ("SIGPOLL", 29),
        ("CLD", 17),
        # What Docker does not know ends as SIGTERM does.
        ("SIGRTMIN-1", 15),
        ("SIGRTMAX+1", 15),
        ("0", 15),
        ("65", 15),
        ("NONSENSE", 15),
    ],
)
def test_stop_signals_by_name_and_number(text: str, number: int) -> None:
    assert stop_signal(text) == number
    assert process_of(FakeImage({"Cmd": ["x"], "StopSignal": text})).stop_signal == number


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (None, {"PATH": DEFAULT_PATH}),
        (["A=1"], {"PATH": DEFAULT_PATH, "A": "1"}),
        (["A="], {"PATH": DEFAULT_PATH, "A": ""}),
        (["A"], {"PATH": DEFAULT_PATH}),
        (["A=1", "A"], {"PATH": DEFAULT_PATH, "A": "1"}),
        (["A=b=c"], {"PATH": DEFAULT_PATH, "A": "b=c"}),
        (["A=1", "A=2"], {"PATH": DEFAULT_PATH, "A": "2"}),
        (["PATH=/bin"], {"PATH": "/bin"}),
        (["PATH="], {"PATH": ""}),
        (["PATH"], {}),
        (["PATH=/bin", "PATH"], {}),
        (["PATH", "PATH=/bin"], {"PATH": "/bin"}),
    ],
)
def test_odd_variables_mean_what_they_mean_to_docker(entries: list[str] | None, expected: dict[str, str]) -> None:
    process = process_of(FakeImage({"Cmd": ["x"], "Env": entries}))
    assert process.environment == {"HOME": "/", **expected}


def test_a_variable_without_a_name_is_refused() -> None:
    with pytest.raises(BadInput, match="which no program can be given"):
        FakeImage({"Cmd": ["x"], "Env": ["=1"]})


@pytest.mark.parametrize(
    "run",
    [{"Env": [1]}, {"Env": {"A": "1"}}, {"Cmd": 5}, {"Volumes": 7}, {"Volumes": ["/a"]}, {"Labels": "x"}],
    ids=str,
)
def test_what_is_no_config_is_refused_in_one_line(run: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput) as raised:
        FakeImage(run)
    assert "\n" not in raised.value.brief


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 30, "9999999999"])
def test_ids_of_any_length_are_refused(number: str) -> None:
    with pytest.raises(BadInput, match="no id that a process can have"):
        process_of(FakeImage({"Cmd": ["x"], "User": number}))
    passwd = {"/etc/passwd": f"far:x:{number}:0::/:\n".encode()}
    with pytest.raises(BadInput, match="no id that a process can have"):
        process_of(FakeImage({"Cmd": ["x"], "User": "far"}, passwd))


def test_no_value_of_a_variable_is_in_what_a_process_shows_of_itself() -> None:
    assert "secret" not in repr(process_of(FakeImage({"Cmd": ["x"]}), environment={"A": "secret"}))


def test_the_host_name_is_told_unless_the_image_says_otherwise() -> None:
    def told(entries: list[str], **given: str) -> str | None:
        process = process_of(FakeImage({"Cmd": ["x"], "Env": entries}), environment=given)
        return process.environment_on("box").get("HOSTNAME")

    assert told([]) == "box"
    assert told(["HOSTNAME=own"]) == "own"
    assert told(["HOSTNAME"]) is None
    assert told(["HOSTNAME"], HOSTNAME="given") == "given"
    assert told([], HOSTNAME="") == ""


def test_an_empty_home_is_looked_up() -> None:
    passwd = {"/etc/passwd": b"root:x:0:0::/root:/bin/sh\n"}
    assert process_of(FakeImage({"Cmd": ["x"], "Env": ["HOME="]}, passwd)).environment["HOME"] == "/root"
    assert process_of(FakeImage({"Cmd": ["x"], "Env": ["HOME=/own"]}, passwd)).environment["HOME"] == "/own"


@pytest.mark.parametrize(
    ("run", "argv"),
    [
        ({"Cmd": ["/app", "a"]}, ("/app", "a")),
        ({"Entrypoint": ["/app"]}, ("/app",)),
        ({"Entrypoint": ["/app", "a"], "Cmd": ["b"]}, ("/app", "a", "b")),
        ({"Entrypoint": ["/bin/sh", "-c", "exec app"], "Cmd": ["b"]}, ("/bin/sh", "-c", "exec app", "b")),
        ({"Cmd": ["/bin/sh", "-c", "exec app"]}, ("/bin/sh", "-c", "exec app")),
        ({"Entrypoint": [""], "Cmd": ["app"]}, ("app",)),
        ({"Entrypoint": [], "Cmd": ["app"]}, ("app",)),
        ({"Entrypoint": "/app", "Cmd": None}, ("/app",)),
    ],
)
def test_entrypoints_and_commands_in_every_form(run: Mapping[str, Any], argv: tuple[str, ...]) -> None:
    assert process_of(FakeImage(run)).argv == argv


@pytest.mark.parametrize("run", [{}, {"Entrypoint": [""]}, {"Cmd": [""]}])
def test_an_image_without_a_program_is_refused(run: Mapping[str, Any]) -> None:
    with pytest.raises(BadInput, match="no program"):
        process_of(FakeImage(run))


def test_directories_are_made_plain() -> None:
    config = FakeImage({"Cmd": ["x"], "WorkingDir": "/a//b/../c/", "Volumes": {"/data/": {}, "/data/x": {}, "y": {}}})
    assert config.config.working_dir == "/a/c"
    assert config.config.volumes == ("/data", "/data/x", "/y")
    assert volumes_of({"//tmp/": {}}) == ("/tmp",)
    with pytest.raises(BadInput, match="working directory"):
        FakeImage({"Cmd": ["x"], "WorkingDir": "srv"})


@pytest.mark.parametrize(
    ("names", "volumes", "own"),
    [
        ([], [], False),
        ([directory("tmp")], [], False),
        ([directory("tmp"), directory("tmpfs"), directory("tmpfs/x")], [], False),
        ([directory("tmp"), Entry(path="tmp/app", kind=Kind.FILE, mode=0o755)], [], True),
        ([directory("tmp"), directory("tmp/d")], [], True),
        ([Entry(path="tmp", kind=Kind.SYMLINK, mode=0o777, target="var/tmp")], [], True),
        ([directory("tmp")], ["/tmp"], True),
        ([directory("tmp")], ["/tmp/cache"], True),
        ([directory("tmp")], ["/tmpfs"], False),
    ],
)
def test_scratch_space_hides_nothing_of_the_images(names: list[Entry], volumes: list[str], own: bool) -> None:
    image = FakeImage({"Cmd": ["x"], "Volumes": {path: {} for path in volumes}}, names=names)
    assert process_of(image).own_tmp is own
    assert has_own_tmp(volumes, names) is own


def test_hosts_names_the_instance() -> None:
    assert "10.0.2.15\tbox\n" in hosts_file("box", "10.0.2.15")
