"""What a user may write, and the one line for what may not."""

from pathlib import Path

import pytest

from lab.cli.options import read_options
from lab.errors import BadInput
from lab.spec import Endpoint, Ready, Spec, Target
from lab.units import MIB


@pytest.mark.parametrize(
    "given,expected",
    [
        ({"memory": "1G"}, {"memory": 1024 * MIB}),
        ({"memory": "256MiB"}, {"memory": 256 * MIB}),
        ({"until_ci": "5%"}, {"until_ci": 0.05}),
        ({"max_time": "10m"}, {"max_time": 600.0}),
        ({"timeout": "90"}, {"timeout": 90.0}),
        ({"env": ["A=b=c"]}, {"env": {"A": "b=c"}}),
        ({"ready_status": "200-399"}, {"ready_status": ((200, 399),)}),
        ({"ready_status": "200, 204,301-302"}, {"ready_status": ((200, 200), (204, 204), (301, 302))}),
        ({"ready_status": [200, "401"]}, {"ready_status": ((200, 200), (401, 401))}),
        ({"header": ["Host: a.test:80", "X-Empty:"]}, {"header": (("Host", "a.test:80"), ("X-Empty", ""))}),
        ({"header": {"Host": "a.test"}}, {"header": (("Host", "a.test"),)}),
        ({"ready": "tcp", "image": "somebody/else"}, {"ready": Ready.TCP}),
        ({"env": {"A": "b"}}, {"env": {"A": "b"}}),
        ({"targets": ["process, docker", "libvirt:q35"]}, {"targets": ["process", "docker", "libvirt:q35"]}),
    ],
)
def test_what_users_write_is_understood(given: dict[str, object], expected: dict[str, object]) -> None:
    options = read_options({"targets": ["process"], **given}, None)
    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize(
    "given,named",
    [
        ({"rounds": 0}, "rounds"),
        ({"memory": "lots"}, "128M"),
        ({"until_ci": "0%"}, "until-ci"),
        ({"until_ci": "five"}, "5%"),
        ({"ready_path": "no-slash"}, "ready-path"),
        ({"ready_path": "/a b"}, "ready-path"),
        ({"env": ["=secret"]}, "--env number 1 names no variable"),
        ({"env": 5}, "env names no variables"),
        ({"env": ["A=b\0c"]}, "NUL"),
        ({"env_file": ["/not/there"]}, "--env-file /not/there cannot be read"),
        ({"env_file": 7}, "env_file names no file"),
        ({"targets": ["process", "process"]}, "twice"),
        ({"targets": []}, "targets"),
        ({"port": 70000}, "port"),
        ({"cpus": 0}, "cpus"),
        ({"max_time": "-5s"}, "90s"),
        ({"ready_status": "ok"}, "200-399"),
        ({"ready_status": "100"}, "ready-status"),
        ({"ready_status": "399-200"}, "the lower first"),
        ({"ready_status": "200-"}, "ready-status"),
        ({"ready_status": ""}, "ready-status"),
        ({"header": ["Host"]}, "Host: example"),
        ({"header": ["X: a\r\nY: b"]}, "header"),
        ({"header": ["Bad Name: a"]}, "header"),
        ({"header": ["Connection: keep-alive"]}, "lab's own"),
        ({"header": ["Host: a", "host: b"]}, "one Host"),
        ({"ready": "tcp"}, "speaks HTTP"),
        ({"ready": "udp", "image": "x"}, "ready"),
        ({"ready": "tcp", "image": "x", "ready_path": "/"}, "leave out"),
    ],
)
def test_bad_input_is_one_line_that_names_it(given: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=named) as raised:
        read_options({"targets": ["process"], **given}, None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "given,exposed,port",
    [
        (None, (), 8080),
        (None, (80,), 80),
        (None, (80, 443), 80),
        (None, (80, 8080, 9000), 8080),
        (81, (80,), 81),
    ],
)
def test_the_port_is_the_users_or_what_the_image_exposes(
    given: int | None, exposed: tuple[int, ...], port: int
) -> None:
    options = read_options({"targets": ["docker"], "image": "x", "port": given}, None).listening_at(exposed)
    assert options.spec({}).port == options.port == port


def test_env_goes_over_env_files_and_the_later_file_over_the_earlier(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("A=1\nB=1\nC=1\n")
    (tmp_path / "2").write_text("B=2\nC=2\n")
    given = {"targets": ["process"], "env_file": [tmp_path / "1", tmp_path / "2"], "env": ["C=3"]}
    assert read_options(given, None).env == {"A": "1", "B": "2", "C": "3"}


def test_no_message_and_no_printed_options_tell_a_value() -> None:
    with pytest.raises(BadInput) as raised:
        read_options({"targets": ["process"], "env": ["A=hush-hush\0"], "rounds": 0}, None)
    assert "hush" not in f"{raised.value!r} {raised.value.details} {raised.value.resolution}"
    options = read_options({"targets": ["process"], "env": ["A=hush-hush"]}, None)
    assert "hush" not in f"{options!r} {options.spec({})!r}"


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "lab.toml"
    config.write_text('targets = ["docker"]\nrounds = 30\nmemory = "64M"\n')
    options = read_options({"targets": None, "rounds": 5}, config)
    assert (options.targets, options.rounds, options.memory) == (["docker"], 5, 64 * MIB)


@pytest.mark.parametrize(
    "text", ["rounds = [", "unknown = 1\ntargets = ['process']", "targets = 'process'\nrounds = 'x'"]
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str) -> None:
    config = tmp_path / "lab.toml"
    config.write_text(text)
    with pytest.raises(BadInput) as raised:
        read_options({}, config)
    assert "\n" not in raised.value.brief


@pytest.mark.parametrize("text", ["", "Docker", "docker:", ":x", "docker:a:b", "docker host", "../x", "docker:a/b"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        Target.parse(text)


def test_a_target_reads_back() -> None:
    assert str(Target.parse("libvirt:microvm")) == "libvirt:microvm"
    assert Target.parse("docker") == Target("docker", "")


def test_each_launch_has_its_own_nonce_and_label() -> None:
    spec = Spec(labels={"lab.run": "r"})
    first, second = spec.for_launch(), spec.for_launch()
    assert first.nonce != second.nonce and len(first.nonce) == 32
    assert first.labels["lab.launch"] != second.labels["lab.launch"]
    assert first.labels["lab.run"] == "r" and "lab.launch" not in spec.labels


def test_a_users_image_gets_its_environment_and_nothing_of_the_labs() -> None:
    foreign = Spec(image="nginx:alpine", environment={"A": "1"}).for_launch()
    assert foreign.service_environment(host="127.0.0.1", port=80) == {"A": "1"}
    own = Spec().for_launch().service_environment(host="127.0.0.1", port=81)
    assert own["LAB_HOST"] == "127.0.0.1" and own["LAB_PORT"] == "81" and len(own["LAB_NONCE"]) == 32
    assert str(Endpoint("127.0.0.1", 81)) == "127.0.0.1:81"
