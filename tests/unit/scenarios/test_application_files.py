"""What is read of an application's file: of the lab's own, and of Compose's; and what is refused, on one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.spec import Ready
from lab.units import MIB
from scenarios.application.compose import read_compose
from scenarios.application.described import Application, Condition
from scenarios.application.interpolation import filled, interpolated
from scenarios.application.toml_file import read_toml

EXAMPLE = Path(__file__).parents[3] / "examples" / "app"

WEB = '[services.web]\nimage = "w:1"\nport = 80\n'
STORE = '[services.store]\nimage = "s:1"\nport = 6379\nready = "tcp"\n'

Read = Callable[..., Application]


@pytest.fixture
def toml(tmp_path: Path) -> Read:
    def read(text: str, **images: str) -> Application:
        path = tmp_path / "app.toml"
        path.write_text(text)
        return read_toml(path, images=images)

    return read


@pytest.fixture
def compose(tmp_path: Path) -> Read:
    def read(
        text: str, *, entry: str = "", ready_path: str = "", images: Mapping[str, str] | None = None
    ) -> Application:
        path = tmp_path / "compose.yaml"
        path.write_text(text)
        return read_compose(path, entry=entry, ready_path=ready_path, images=images or {})

    return read


def refused(read: Read, text: str) -> str:
    with pytest.raises(BadInput) as caught:
        read(text)
    assert "\n" not in f"{caught.value}"
    return caught.value.brief


def test_services_come_after_those_that_they_wait_for(toml: Read) -> None:
    text = f'entry = "web"\n{WEB}depends_on = {{ store = "service_healthy" }}\nmemory = "64M"\n{STORE}'
    found = toml(text)
    assert list(found.services) == ["store", "web"]
    assert found.services["web"].depends_on == {"store": Condition.HEALTHY}
    assert (found.services["web"].memory_bytes, found.services["store"].ready) == (64 * MIB, Ready.TCP)
    again = toml(text.replace('{ store = "service_healthy" }', '["store"]'))
    assert again.services["web"].depends_on == {"store": Condition.STARTED}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("entry = ", "is no TOML"),
        (WEB, "entry: Field required"),
        (f'entry = "web"\nentries = 1\n{WEB}', "entries: there is no such key"),
        (f'entry = "web"\n{WEB}prot = 1\n', "services.web.prot: there is no such key"),
        (f'entry = "web"\n{WEB.replace("80", "65536")}', "services.web.port: "),
        (f'entry = "web"\n{WEB.replace("80", "0")}', "services.web.port: "),
        (f'entry = "web"\n{WEB}memory = "1M"\n', "services.web.memory: "),
        (f'entry = "web"\n{WEB}ready_status = "600"\n', "services.web.ready_status: "),
        (f'entry = "shop"\n{WEB}', "entry: there is no service 'shop'"),
        (f'entry = "store"\n{STORE}', "services.store.ready: "),
        (f'entry = "web"\n{WEB}depends_on = ["db"]\n', "services.web.depends_on: there is no service 'db'"),
        (f'entry = "web"\n{WEB}depends_on = ["web"]\n', "services.web.depends_on: it names itself"),
        (f'entry = "web"\n{WEB}depends_on = {{ web = "service_done" }}\n', "services.web.depends_on.web: "),
        (f'entry = "web"\n{WEB}depends_on = ["store"]\n{STORE}depends_on = ["web"]\n', "goes in a circle: "),
        (f'entry = "web"\n{WEB}calls = ["web"]\n{STORE}', "services.web.calls: it names itself"),
        (f'entry = "web"\n{WEB}{STORE}calls = ["web"]\n', "no answer of web passes through store"),
        ('entry = "my_web"\n[services.my_web]\nimage = "w"\nport = 80\n', "'my_web' is no name"),
        (f'entry = "web"\n{WEB}environment = {{ "a b" = "c" }}\n', "'a b' is no variable's name"),
        (f'entry = "web"\n{WEB.replace("w:1", "./w.tar")}', "there is no image "),
        ('entry = "web"\nservices = {}\n', "has no services"),
    ],
)
def test_a_bad_file_is_refused_on_one_line(toml: Read, text: str, said: str) -> None:
    assert said in refused(toml, text)


def test_a_file_that_is_not_there_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.toml"
    assert "cannot be read: No such file" in refused(lambda _: read_toml(path, images={}), "")
    path.write_bytes(b"\xff\xfe")
    assert "it is not UTF-8" in refused(lambda _: read_toml(path, images={}), "")
    path.write_bytes(b"#" * 300_000)
    assert "larger than 256 KiB" in refused(lambda _: read_toml(path, images={}), "")


def test_an_archive_lies_beside_its_file_and_one_that_is_given_where_the_user_stands(
    toml: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (tmp_path / "w.tar", here / "own.tar"):
        path.touch()
    text = f'entry = "web"\n{WEB.replace("w:1", "w.tar")}'
    assert toml(text).services["web"].image == str(tmp_path / "w.tar")
    assert toml(text, web="own.tar").services["web"].image == str(here / "own.tar")
    with pytest.raises(BadInput, match="no such service"):
        toml(text, shop="own.tar")


COMPOSE = """
name: shop
version: "3.8"
networks: {back: {}}
services:
  web:
    image: shop/web:1
    ports: ["127.0.0.1:8000:80", "443:443/tcp"]
    mem_limit: 64m
    command: serve --name "a b" --to http://worker:8080
    networks: [back]
    depends_on:
      worker: {condition: service_healthy, restart: true}
  worker:
    image: shop/worker:${TAG:-2}
    expose: [8080]
    build: .
    environment:
      - STORE=store:6379
      - COUNTRY=no
      - FROM_HERE
    depends_on: [store]
    deploy: {replicas: 2, resources: {limits: {memory: 96M, cpus: "0.5"}}}
  store:
    image: shop/store:1
    ports: [{target: 6379, published: "6379"}]
    healthcheck: {test: [CMD, ping]}
    x-lab: {port: 6380}
  debug:
    image: shop/debug:1
    profiles: [debug]
"""


def test_of_a_compose_file_is_read_what_a_launch_needs(compose: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "a $ sign")
    monkeypatch.delenv("TAG", raising=False)
    found = compose(COMPOSE, entry="web", ready_path="/cart")
    assert (found.name, found.entry, list(found.services)) == ("shop", "web", ["store", "worker", "web"])
    web, worker, store = (found.services[name] for name in ("web", "worker", "store"))
    assert web.command == ("serve", "--name", "a b", "--to", "http://worker:8080")
    assert (web.port, web.memory_bytes, web.ready, web.ready_path) == (80, 64 * MIB, Ready.HTTP, "/cart")
    assert worker.environment == {"STORE": "store:6379", "COUNTRY": "no", "FROM_HERE": "a $$ sign"}
    assert (worker.image, worker.memory_bytes, worker.cpus, worker.ready) == ("shop/worker:2", 96 * MIB, 0.5, Ready.TCP)
    assert (web.depends_on, worker.depends_on) == ({"worker": Condition.HEALTHY}, {"store": Condition.STARTED})
    assert store.port == 6380


def test_what_is_left_out_is_named_one_line_each(compose: Read) -> None:
    told = [
        line.removeprefix("left out of compose.yaml: ").partition(" (")[0]
        for line in compose(COMPOSE, entry="web").left_out
    ]
    assert sorted(told) == sorted(
        [
            "networks",
            "services.debug",
            "services.store.healthcheck",
            "services.web.depends_on.worker.restart",
            "services.web.networks",
            "services.web.ports[0], published as 8000",
            "services.web.ports[1]",
            "services.worker.build",
            "services.worker.deploy.replicas",
        ]
    )


ONE = "services:\n  web:\n    image: w\n    ports: [80]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "is no mapping"),
        ("", "is no mapping"),
        ("services: [a\n", "is no YAML"),
        ("services: !!python/object/apply:os.system [id]\n", "is no YAML"),
        ("a: 1\na: 2\n", "line 2: 'a' is there twice"),
        ("? [a]\n: 1\n", "a key must be a text"),
        ("a: &x {b: 1}\nservices: *x\n", "line 2: *x: aliases are not taken"),
        ("a: &x [b]\nb: &y [*x, *x]\nc: [*y, *y]\n", "aliases are not taken"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("services: [web]\n", "services: it must be a mapping"),
        ("services: {}\n", "nothing says by which service"),
        ("services: {web: nginx}\n", "services.web: it must be a mapping"),
        (f"include: [other.yaml]\n{ONE}", "include: other files are not read"),
        (f"{ONE}    extends: {{service: a}}\n", "services.web.extends: "),
        ("services: {web: {build: ., ports: [80]}}\n", "services.web.image: it has no image: the lab builds none"),
        ("services: {web: {image: w}}\n", "services.web.ports: nobody says at which port it listens"),
        (ONE.replace("80", "65536"), "'65536' is no port"),
        (ONE.replace("80", "8000-8010:80-90"), "'8000-8010:80-90' is no port"),
        (ONE.replace("80", "53/udp"), "nobody says at which port it listens"),
        (ONE.replace("image: w", "image: w:${NOT_SET_HERE}"), "services.web.image: ${NOT_SET_HERE} is not set"),
        (ONE.replace("image: w", "image: w:${NOT_SET_HERE:?say it}"), "${NOT_SET_HERE} is not set: say it"),
        (ONE.replace("image: w", "image: w:${A:-${B}}"), "is no variable"),
        (f"{ONE}    depends_on: [db]\n", "services.web.depends_on: there is no service 'db'"),
        (f"{ONE}    depends_on: {{web: {{condition: service_completed_successfully}}}}\n", "that is to end"),
        (f"{ONE}    depends_on: {{web: {{condition: ready}}}}\n", "'ready' is no condition"),
        (f"{ONE}    mem_limit: lots\n", "services.web.memory: "),
        (f"{ONE}    cpus: many\n", "'many' is no number of CPUs"),
        (f"{ONE}    environment: {{A: {{b: c}}}}\n", "services.web.environment.A: it must be a text"),
        (f"{ONE}    x-lab: {{prot: 80}}\n", "services.web.x-lab: prot: there is no such key"),
        (f"{ONE}    command: 'a \"b'\n", "cannot be parted into words"),
        (f"{ONE}  b:\n    image: b\n    ports: [81]\n", "nothing says by which service the whole is asked"),
    ],
)
def test_a_bad_compose_file_is_refused_on_one_line(compose: Read, text: str, said: str) -> None:
    assert said in refused(compose, text)


def test_a_value_is_what_is_written_and_not_what_yaml_makes_of_it(compose: Read) -> None:
    text = (
        f"{ONE.replace('80', '8080:22')}    environment: {{A: no, B: 1e3, C: 0x10, D: 2001-01-01, E: '', F: 22:22}}\n"
    )
    web = compose(text).services["web"]
    assert (web.port, dict(web.environment)) == (
        22,
        {"A": "no", "B": "1e3", "C": "0x10", "D": "2001-01-01", "E": "", "F": "22:22"},
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a$$b", "a$$b"),
        ("$SET-${SET}", "x-x"),
        ("${EMPTY:-d}${EMPTY-d}${UNSET-d}", "dd"),
        ("${SET:+y}${EMPTY:+y}${EMPTY+y}", "yy"),
        ("${DOLLAR}", "a$$b"),
        ("${STORE_HOST:-store}:${STORE_PORT}", "${STORE_HOST}:${STORE_PORT}"),
    ],
)
def test_variables_are_put_in_by_composes_rules(text: str, found: str) -> None:
    environment = {"SET": "x", "EMPTY": "", "DOLLAR": "a$b"}
    assert interpolated(text, environment, kept={"STORE_HOST", "STORE_PORT"}, where="here") == found


def test_a_place_is_put_in_and_a_doubled_dollar_is_one() -> None:
    assert filled("${STORE_HOST}:$$5 $HOME", {"STORE_HOST": "a"}, where="here") == "a:$5 $HOME"
    with pytest.raises(BadInput, match="HOME"):
        filled("${HOME}", {}, where="here")


def test_both_files_of_the_example_describe_the_same_application(tmp_path: Path) -> None:
    images = {}
    for name in ("web", "worker", "store"):
        (tmp_path / f"{name}.tar").touch()
        images[name] = str(tmp_path / f"{name}.tar")
    own = read_toml(EXAMPLE / "app.toml", images=images)
    other = read_compose(EXAMPLE / "compose.yaml", entry="", ready_path="", images=images)
    assert (own.name, own.entry, list(own.services)) == (other.name, other.entry, list(other.services))
    for name, one in own.services.items():
        beside = other.services[name]
        assert (one.image, one.port, one.ready, one.depends_on) == (
            beside.image,
            beside.port,
            beside.ready,
            beside.depends_on,
        )


def test_without_a_reader_of_yaml_the_way_to_one_is_told(compose: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(BadInput) as caught:
        compose(ONE)
    assert "stratalab[compose]" in caught.value.resolution
