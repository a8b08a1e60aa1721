"""What the questions about an application have in common: which one it is, and what of it is launched on a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from lab.driver import Driver
from lab.errors import BadInput
from lab.launch.waiter import reserve_port
from lab.scenario import Bench
from lab.spec import Restart, Spec
from scenarios.application.compose import read_compose
from scenarios.application.described import Application
from scenarios.application.placed import placed, spec_of
from scenarios.application.toml_file import read_toml


def _images(value: Any) -> Any:
    """`store=FILE,web=FILE`, or a mapping of such."""
    text = ",".join(f"{name}={image}" for name, image in value.items()) if isinstance(value, Mapping) else str(value)
    if not all(name and image for name, image in _pairs(text)):
        raise ValueError("write SERVICE=FILE")
    return text


def _pairs(text: str) -> list[tuple[str, str]]:
    parted = (part.partition("=") for part in text.split(",") if part.strip())
    return [(name.strip(), image.strip()) for name, _, image in parted]


@dataclass(frozen=True, kw_only=True)
class Applied:
    """An application, of `file` or of a Compose file, of which `entry` and `ready_path` may be said here. (A class of
    its own, and not functions, since a scenario's parameters are its fields.)"""

    file: str = ""
    compose: str = ""
    entry: str = ""
    ready_path: Annotated[str, Field(pattern=r"^(/[!-~]*)?$")] = ""
    images: Annotated[str, BeforeValidator(_images)] = ""

    restart: ClassVar[Restart] = Restart.DEFAULT
    memory_bytes: ClassVar[int] = 0  # beside the services' own

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.file and self.compose:
            raise ValueError("an application is described by one file: give the lab's own, or a Compose file")
        if self.file and (self.entry or self.ready_path):
            raise ValueError("entry and ready_path stand in the lab's own file: they are given for a Compose file")
        if self.file or self.compose:
            _ = self.application  # what is wrong with it is told before any engine is asked
        return self

    @cached_property
    def application(self) -> Application:
        """As its file has it. Raises BadInput."""
        images = dict(_pairs(self.images))
        if self.compose:
            path = Path(self.compose).expanduser()
            return read_compose(path, entry=self.entry, ready_path=self.ready_path, images=images)
        if not self.file:
            raise BadInput(
                "no application is named", resolution="lab app boot -c app.toml, or --compose compose.yaml: docs/app.md"
            )
        return read_toml(Path(self.file).expanduser(), images=images)

    @property
    def launches(self) -> int:
        return len(self.application.services)

    @property
    def at_once(self) -> int:
        return len(self.application.services)

    def services(self, spec: Spec) -> Mapping[str, Spec]:
        return {name: spec_of(one, spec) for name, one in self.application.services.items()}

    def specs(self, spec: Spec, driver: Driver) -> Mapping[str, Spec]:
        ports = self.ports(spec.labels.get("lab.target", ""))
        return placed(self.application, spec, driver, ports, restart=self.restart)

    def told(self) -> Sequence[str]:
        services = self.application.services.values()
        named = ", then ".join(f"{one.name} ({one.image}, port {one.port})" for one in services)
        return [f"launches the application {self.application.name}: {named}", *self.application.left_out]

    def ports(self, target: str) -> Mapping[str, int]:
        """Of this host, one for each service: the same in each round, since guests have others' in what they boot
        from."""
        return self._ports.setdefault(target, {name: reserve_port(None) for name in self.application.services})

    def begin(self, bench: Bench) -> Mapping[str, Spec]:
        """The specs of a round. Where somebody has taken one of the ports meanwhile, others are drawn, and prepared
        for. Raises DriverError."""
        target = bench.spec.labels.get("lab.target", "")
        if all(map(_free, self.ports(target).values())):
            return self.specs(bench.spec, bench.driver)
        del self._ports[target]
        specs = self.specs(bench.spec, bench.driver)
        for spec in specs.values():
            bench.driver.prepare(spec)
        return specs

    @cached_property
    def _ports(self) -> dict[str, Mapping[str, int]]:
        return {}


def _free(port: int) -> bool:
    try:
        return reserve_port(port) == port
    except OSError:
        return False
