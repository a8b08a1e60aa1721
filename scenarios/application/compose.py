"""The subset of a Compose file that an application's launch needs; all else is named, and left out.

Source: https://github.com/compose-spec/compose-spec/blob/main/05-services.md. What only the lab needs to know stands
under `x-lab`, which other readers of the file pass over.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from lab.errors import BadInput
from lab.spec import SERVICE_IMAGE, Ready
from lab.units import MIB, parse_bytes
from scenarios.application.described import Application, Condition, Service, application, variable_of
from scenarios.application.interpolation import interpolated
from scenarios.application.toml_file import (
    Port,
    RequestPath,
    Statuses,
    Strict,
    image_of,
    problems,
    read_text,
    require_known,
)

_SEE = "see docs/app.md"
_ALONE = ("version", "name", "services")
_REFUSED = {
    "include": "other files are not read",
    "extends": "other services' keys are not taken over",
}
_READ = frozenset(
    {"image", "ports", "expose", "environment", "depends_on", "command", "mem_limit", "cpus", "deploy", "profiles"}
)
_PORTS = re.compile(r"(?:(?:\[[0-9A-Fa-f:]+\]:|[0-9.]+:)?(?P<host>\d*):)?(?P<port>\d{1,5})(?:/(?P<protocol>\w+))?")
_COMPLETED = "service_completed_successfully"


class _OwnOfService(Strict):
    image: Annotated[str, Field(min_length=1)] | None = None
    port: Port | None = None
    ready: Ready | None = None
    ready_path: RequestPath | None = None
    ready_status: Statuses | None = None


class _Own(Strict):
    entry: Annotated[str, Field(min_length=1)] | None = None
    ready_path: RequestPath | None = None
    ready_status: Statuses | None = None


def read_compose(path: Path, *, entry: str, ready_path: str, images: Mapping[str, str]) -> Application:
    """The application of a Compose file; what is not empty takes the place of what the file's `x-lab` says. Raises
    BadInput, on one line."""
    document = _Document(path, _parsed(path))
    found = document.top
    own = document.own(_Own, found.get("x-lab"), "x-lab")
    raw = document.mapping(found.get("services"), "services")
    services = {name: document.mapping(one, f"services.{name}") for name, one in raw.items()}
    apart = [name for name, one in services.items() if one.get("profiles")]
    for name in apart:
        document.leave(f"services.{name}", "it is of a profile, and so not started by itself")
    chosen = {name: one for name, one in services.items() if name not in apart}
    require_known(path, images, chosen)
    document.places = frozenset(f"{variable_of(name)}_{end}" for name in chosen for end in ("HOST", "PORT"))
    whole = entry or own.entry or _guessed_entry(path, chosen)
    read = []
    for name, one in chosen.items():
        read.append(_service(document, name, one, images, whole=own if name == whole else None, ready_path=ready_path))
    for key in found:
        if key in _REFUSED:
            raise BadInput(f"{path}: {key}: {_REFUSED[key]}", resolution="write it out in this file")
        if key not in _ALONE and not key.startswith("x-"):
            document.leave(key, "")
    if (path.absolute().parent / ".env").exists():
        document.leave(".env", "variables are taken from the lab's own environment")
    named = found.get("name")
    return application(
        str(path),
        name=named if isinstance(named, str) and named else path.absolute().parent.name,
        entry=whole,
        services=read,
        left_out=document.left_out,
    )


@dataclass(slots=True)
class _Document:
    """One file: what of it is at hand, and what is left out."""

    path: Path
    top: Mapping[str, Any]
    left_out: list[str] = field(default_factory=list)
    places: frozenset[str] = frozenset()

    def wrong(self, place: str, said: str, *, resolution: str = _SEE) -> BadInput:
        return BadInput(f"{self.path}: {place}: {said}", resolution=resolution)

    def leave(self, place: str, why: str) -> None:
        self.left_out.append(f"left out of {self.path.name}: {place}{f' ({why})' if why else ''}")

    def mapping(self, value: Any, place: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(place, "it must be a mapping")
        return value

    def text(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise self.wrong(place, "it must be a text or a number")
        return interpolated(value, os.environ, kept=self.places, where=f"{self.path}: {place}")

    def plain(self, value: Any, place: str) -> str:
        """A text in which no service's place can stand."""
        return self.text(value, place).replace("$$", "$")

    def texts(self, value: Any, place: str) -> list[str]:
        if not isinstance(value, list):
            raise self.wrong(place, "it must be a list")
        return [self.text(one, f"{place}[{number}]") for number, one in enumerate(value)]

    def own(self, kind: Any, value: Any, place: str) -> Any:
        try:
            return kind.model_validate({} if value is None else value)
        except ValidationError as error:
            raise self.wrong(place, problems(error)) from error


def _service(
    document: _Document,
    name: str,
    told: Mapping[str, Any],
    images: Mapping[str, str],
    *,
    whole: _Own | None,
    ready_path: str,
) -> Service:
    """One service; the entry's, by which the `whole` is asked, with what is said of that."""
    place = f"services.{name}"
    own = document.own(_OwnOfService, told.get("x-lab"), f"{place}.x-lab")
    for key in told:
        if key in _REFUSED:
            raise document.wrong(f"{place}.{key}", _REFUSED[key], resolution="write it out in this file")
        if key not in _READ and not key.startswith("x-"):
            document.leave(f"{place}.{key}", _why_left(key))
    image = images.get(name) or own.image or document.plain(told.get("image", ""), f"{place}.image")
    if not image:
        build = "the lab builds none" if "build" in told else "none is named"
        raise document.wrong(f"{place}.image", f"it has no image: {build}", resolution="name one, or give --image")
    path = own.ready_path if whole is None else ready_path or whole.ready_path or own.ready_path
    by_http = whole is not None or path is not None or image == SERVICE_IMAGE
    statuses = own.ready_status or (whole.ready_status if whole is not None else None)
    values: dict[str, Any] = {"ready_status": statuses} if statuses else {}
    return Service(
        name=name,
        image=image_of(document.path, image, given=name in images),
        port=own.port or _port(document, told, place),
        environment=_environment(document, told.get("environment"), f"{place}.environment"),
        command=_command(document, told.get("command"), f"{place}.command"),
        depends_on=_depends_on(document, told.get("depends_on"), f"{place}.depends_on"),
        ready=own.ready or (Ready.HTTP if by_http else Ready.TCP),
        ready_path=path,
        **values,
        **_limits(document, told, place),
    )


def _why_left(key: str) -> str:
    reasons = {
        "healthcheck": "service_healthy is the lab's own look, by HTTP or TCP, at the service's port",
        "restart": "`recover` asks for the best policy that each engine has",
        "networks": "all services of the application are on one network of the run's",
        "build": "the lab builds no images",
        "env_file": "name the variables under environment",
        "entrypoint": "the image's own stays",
        "volumes": "what a service writes goes with it",
    }
    return reasons.get(key, "")


def _environment(document: _Document, value: Any, place: str) -> dict[str, str]:
    """A list of NAME=VALUE or a mapping; a name without a value is taken from here, where it is set."""
    if value is None:
        return {}
    if isinstance(value, list):
        pairs = [(text.partition("=")[0], text.partition("=")[2] if "=" in text else None) for text in _strings(value)]
        if len(pairs) != len(value):
            raise document.wrong(place, "a list holds NAME=VALUE")
    else:
        pairs = list(document.mapping(value, place).items())
    found = {}
    for name, text in pairs:
        if text is None:
            if name in os.environ:
                found[name] = os.environ[name].replace("$", "$$")
        else:
            found[name] = document.text(text, f"{place}.{name}")
    return found


def _strings(values: list[Any]) -> Iterator[str]:
    yield from (one for one in values if isinstance(one, str))


def _command(document: _Document, value: Any, place: str) -> tuple[str, ...] | None:
    """As Compose: a text is parted as a shell would, and no shell runs it."""
    if value is None:
        return None
    if isinstance(value, list):
        return tuple(document.texts(value, place))
    text = document.text(value, place)
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise document.wrong(place, f"it cannot be parted into words: {error}") from error


def _depends_on(document: _Document, value: Any, place: str) -> dict[str, Condition]:
    if value is None:
        return {}
    if isinstance(value, list):
        return dict.fromkeys(document.texts(value, place), Condition.STARTED)
    found = {}
    for name, told in document.mapping(value, place).items():
        about = document.mapping(told if told is not None else {}, f"{place}.{name}")
        wanted = about.get("condition", Condition.STARTED)
        if wanted == _COMPLETED:
            raise document.wrong(
                f"{place}.{name}", f"{_COMPLETED}: a service that is to end is not launched", resolution="leave it out"
            )
        if wanted not in list(Condition):
            raise document.wrong(f"{place}.{name}", f"'{wanted}' is no condition: write {' or '.join(Condition)}")
        found[name] = Condition(wanted)
        for key in about.keys() - {"condition"}:
            document.leave(f"{place}.{name}.{key}", "")
    return found


def _port(document: _Document, told: Mapping[str, Any], place: str) -> int:
    """The first TCP port of `ports`, inside, or of `expose`."""
    found: list[int] = []
    for key in ("ports", "expose"):
        given = told.get(key, [])
        if not isinstance(given, list):
            raise document.wrong(f"{place}.{key}", "it must be a list")
        for number, one in enumerate(given):
            where = f"{place}.{key}[{number}]"
            port, published = _one_port(document, one, where)
            if port is None or (found and port not in found):
                document.leave(where, "a service has one TCP port" if port else "it is not TCP")
                continue
            found.append(port)
            if published:
                document.leave(f"{where}, published as {published}", "the lab draws a free port on 127.0.0.1")
    if not found:
        raise document.wrong(
            f"{place}.ports", "nobody says at which port it listens", resolution="write `expose: [PORT]`"
        )
    return found[0]


def _one_port(document: _Document, told: Any, place: str) -> tuple[int | None, str]:
    """The port inside, None where it is no TCP, and at which of the host it would be published."""
    if isinstance(told, dict):
        text, protocol = document.plain(told.get("target", ""), f"{place}.target"), told.get("protocol", "tcp")
        published = document.plain(told.get("published", ""), f"{place}.published")
    else:
        written = document.plain(told, place)
        parted = _PORTS.fullmatch(written)
        if parted is None:
            raise document.wrong(place, f"'{written}' is no port", resolution="write HOST:PORT, or PORT; no ranges")
        text, protocol, published = parted["port"], parted["protocol"] or "tcp", parted["host"] or ""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise document.wrong(place, f"'{text}' is no port: they go from 1 to 65535")
    return (int(text) if protocol == "tcp" else None), published


def _limits(document: _Document, told: Mapping[str, Any], place: str) -> dict[str, Any]:
    """`mem_limit` and `cpus`, or the limits of `deploy`."""
    deploy = document.mapping(told.get("deploy", {}), f"{place}.deploy")
    resources = document.mapping(deploy.get("resources", {}), f"{place}.deploy.resources")
    limits = document.mapping(resources.get("limits", {}), f"{place}.deploy.resources.limits")
    for key in (*(f"deploy.{one}" for one in deploy if one != "resources"),
                *(f"deploy.resources.{one}" for one in resources if one != "limits"),
                *(f"deploy.resources.limits.{one}" for one in limits if one not in ("memory", "cpus"))):  # fmt: skip
        document.leave(f"{place}.{key}", "")
    found: dict[str, Any] = {}
    if memory := told.get("mem_limit") or limits.get("memory"):
        try:
            found["memory_bytes"] = parse_bytes(document.plain(memory, f"{place}.memory"))
        except ValueError as error:
            raise document.wrong(f"{place}.memory", str(error)) from error
        if found["memory_bytes"] < 16 * MIB:
            raise document.wrong(f"{place}.memory", "16 MiB are the least")
    if cpus := told.get("cpus") or limits.get("cpus"):
        text = document.plain(cpus, f"{place}.cpus")
        if not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", text) or not float(text):
            raise document.wrong(f"{place}.cpus", f"'{text}' is no number of CPUs")
        found["cpus"] = float(text)
    return found


def _guessed_entry(path: Path, services: Mapping[str, Mapping[str, Any]]) -> str:
    """The only service that publishes a port, or else the only one that no other waits for."""
    published = [name for name, one in services.items() if one.get("ports")]
    awaited = {other for one in services.values() for other in one.get("depends_on") or ()}
    last = [name for name in services if name not in awaited]
    for found in (published, last):
        if len(found) == 1:
            return found[0]
    raise BadInput(
        f"{path}: nothing says by which service the whole is asked", resolution=f"give --entry: {', '.join(services)}"
    )


def _parsed(path: Path) -> Mapping[str, Any]:
    """The file's YAML: texts, lists and mappings alone, each value as it is written, since YAML's own types (`no`,
    `22:22`, `1e3`) are no part of Compose's. Raises BadInput."""
    try:
        import yaml
    except ImportError as error:
        raise BadInput(
            f"{path} is YAML, and nothing here reads that", resolution="pip install 'stratalab[compose]'"
        ) from error
    text = read_text(path)
    try:
        found = yaml.load(text, Loader=_loader(yaml, path))  # noqa: S506  it makes nothing but texts, lists, mappings
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise BadInput(f"{path}{where} is no YAML: {said}", resolution=_SEE) from error
    except RecursionError as error:
        raise BadInput(f"{path} is nested too deeply", resolution=_SEE) from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no mapping, as a Compose file is", resolution=_SEE)
    return found


def _loader(yaml: Any, path: Path) -> Any:
    """A loader that takes no aliases, by which a small file can say a lot, and no key twice."""
    null = "tag:yaml.org,2002:null"
    known = yaml.SafeLoader.yaml_implicit_resolvers
    resolvers = {first: [one for one in each if one[0] == null] for first, each in known.items()}

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # it is imported on use
        yaml_implicit_resolvers = resolvers

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                event = self.peek_event()
                raise BadInput(
                    f"{path}, line {event.start_mark.line + 1}: *{event.anchor}: aliases are not taken",
                    resolution="write it out",
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag == null:
                    raise BadInput(f"{path}, line {line}: a key must be a text", resolution=_SEE)
                if key.value in seen:
                    raise BadInput(f"{path}, line {line}: '{key.value}' is there twice", resolution=_SEE)
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return Loader
