"""What a user may ask of `lab run`, validated: from the command line, over an optional TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lab.errors import BadInput
from lab.run.runner import Plan
from lab.spec import SERVICE_IMAGE, Spec, Target
from lab.units import MIB, parse_bytes, parse_seconds, parse_share


def _split(value: Any) -> Any:
    items = value if isinstance(value, list | tuple) else [value]
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()]


def _pairs(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): str(item) for key, item in value.items()}
    pairs = [str(item).partition("=") for item in value]
    if any(not key or not equals for key, equals, _ in pairs):
        raise ValueError("write KEY=VALUE")
    return {key: item for key, _, item in pairs}


Size = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, BeforeValidator(parse_seconds)]
Share = Annotated[float, BeforeValidator(parse_share), Field(gt=0, lt=1)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]


def driver_options(given: list[str] | None) -> dict[str, str]:
    """What `--driver-option` gave, by key. Raises BadInput."""
    try:
        return dict(_pairs(given or []))
    except ValueError as error:
        raise BadInput(f"--driver-option: {error}", resolution="such as docker-host=unix:///run/docker.sock") from error


ROUNDS, WARMUP = 10, 1
"""What a run has where nobody says how many."""


class RunOptions(BaseModel):
    """Options of `lab run`; a TOML file given by `--config` has the same names, dashes as underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: Annotated[list[str], BeforeValidator(_split), Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1, le=100_000)] | None = None
    warmup: Annotated[int, Field(ge=0, le=1000)] | None = None
    until_ci: Share | None = None
    max_time: Annotated[Seconds, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    timeout: Annotated[Seconds, Field(ge=1, le=3600)] = 60.0
    cold: bool = False
    image: Annotated[str, Field(min_length=1)] = SERVICE_IMAGE
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    ready_path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = None
    command: list[str] | None = None
    env: Pairs = Field(default_factory=dict)
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1.0
    memory: Annotated[Size, Field(ge=16 * MIB)] = 128 * MIB
    pids: Annotated[int, Field(ge=4, le=1_000_000)] = 128
    scratch: Annotated[Size, Field(ge=MIB)] = 16 * MIB
    host_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    driver_options: Pairs = Field(default_factory=dict)
    param: Pairs = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> RunOptions:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("a target is named twice")
        if any("=" in key or "\0" in key + value for key, value in self.env.items()):
            raise ValueError("env: a name has no '=', and nothing has a NUL byte")
        return self

    def parsed_targets(self) -> list[Target]:
        """Raises BadInput."""
        return [Target.parse(text) for text in self.targets]

    def spec(self, labels: Mapping[str, str]) -> Spec:
        """The spec that every target launches."""
        builtin = self.image == SERVICE_IMAGE
        return Spec(
            image=self.image,
            port=self.port,
            ready_path=self.ready_path or ("/clock" if builtin else "/"),
            command=tuple(self.command) if self.command else None,
            environment=self.env,
            cpus=self.cpus,
            memory_bytes=self.memory,
            pids=self.pids,
            scratch_bytes=self.scratch,
            labels=labels,
        )

    def paced(self, rounds: int, warmup: int) -> RunOptions:
        """These options, with so many rounds and warm-up where the user named none, nor a width to stop at."""
        return self.model_copy(
            update={
                "rounds": rounds if self.rounds is None and self.until_ci is None else self.rounds,
                "warmup": warmup if self.warmup is None else self.warmup,
            }
        )

    @property
    def most_rounds(self) -> int:
        """The rounds asked for; without: ten, or with `until_ci` as many as that may take at most."""
        return self.rounds or (ROUNDS if self.until_ci is None else 160)

    @property
    def warmup_rounds(self) -> int:
        """The rounds of warm-up asked for; without: one."""
        return WARMUP if self.warmup is None else self.warmup

    def plan(self, seed: int) -> Plan:
        """How the run goes."""
        return Plan(
            rounds=self.most_rounds,
            warmup=self.warmup_rounds,
            seed=seed,
            until_ci=self.until_ci,
            max_s=self.max_time,
            timeout_s=self.timeout,
            host_port=self.host_port,
        )


def read_options(given: Mapping[str, Any], config: Path | None) -> RunOptions:
    """The options `given` on the command line (None: not given) over those of the file. Raises BadInput."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise BadInput(f"{config} cannot be read as TOML: {error}", resolution="see `lab run --help`") from error
    values |= {key: value for key, value in given.items() if value is not None}
    try:
        return RunOptions.model_validate(values)
    except ValidationError as error:
        raise BadInput(_one_line(error), resolution="see `lab run --help`") from error


def _one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        name = "--" + ".".join(str(part) for part in problem["loc"]).replace("_", "-") if problem["loc"] else ""
        text = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{name}: {text}" if name else text)
    return "; ".join(parts)
