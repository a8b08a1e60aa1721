"""What a user may ask of `lab run`, validated: from the command line, over an optional TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lab.cli.environment import read_environment
from lab.cli.guests.units import read_unit
from lab.errors import BadInput
from lab.run.runner import Plan
from lab.spec import SERVICE_IMAGE, Ready, Spec, Target
from lab.units import MIB, parse_bytes, parse_seconds, parse_share, parse_statuses


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


def _headers(value: Any) -> Any:
    """`Name: value`, as curl has it, or a table of them."""
    lines = [f"{name}:{text}" for name, text in value.items()] if isinstance(value, Mapping) else list(value)
    if any(isinstance(line, tuple) for line in lines):
        return value
    found = tuple((name.strip(), text.strip()) for name, _, text in (str(line).partition(":") for line in lines))
    if without := next((line for line in lines if ":" not in str(line)), None):
        raise ValueError(f"'{without}' has no value: write 'Host: example.org'")
    for name, text in found:
        if not _TOKEN.fullmatch(name) or not _FIELD.fullmatch(text):
            raise ValueError(f"'{name}' is not the beginning of a header: write 'Host: example.org'")
        if name.lower() in _FRAMING:
            raise ValueError(f"the header {name} is the lab's own")
    if sum(name.lower() == "host" for name, _ in found) > 1:
        raise ValueError("there can be one Host only")
    return found


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FIELD = re.compile(r"[\x20-\x7e\x80-\xff]*")
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding", "upgrade", "te", "expect", "x-lab-nonce"})

Statuses = Annotated[tuple[tuple[int, int], ...], BeforeValidator(parse_statuses)]
Headers = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_headers)]
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


DEFAULT_PORT, DEFAULT_STATUS = 8080, ((200, 200),)
"""Where an image listens that does not say so, and the statuses of an answer that counts."""
ROUNDS, WARMUP = 10, 1
"""What a run has where nobody says how many."""


OWN_MEMORY_BYTES = 1024 * MIB
"""What a whole system with a service of its own has, where nobody says."""


def requires(name: str, target: str) -> bool:
    """Whether `name` requires `target`: by its own name, or as all of a driver's."""
    return name in (target, target.partition(":")[0])


DISKS = frozenset({"guest-image", "vmi-image"})
"""The driver options that name a disk, whose system serves what it likes."""
EACH_NODE = ("nodes", "each")
"""The one parameter of all scenarios: once on each machine that the engine has."""


class RunOptions(BaseModel):
    """Options of `lab run`; a TOML file given by `--config` has the same names, dashes as underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: Annotated[list[str], BeforeValidator(_split), Field(min_length=1)]
    require: Annotated[list[str], BeforeValidator(_split)] = Field(default_factory=list)
    rounds: Annotated[int, Field(ge=1, le=100_000)] | None = None
    warmup: Annotated[int, Field(ge=0, le=1000)] | None = None
    until_ci: Share | None = None
    max_time: Annotated[Seconds, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    timeout: Annotated[Seconds, Field(ge=1, le=3600)] | None = None
    cold: bool = False
    image: Annotated[str, Field(min_length=1)] = SERVICE_IMAGE
    unit: Path | None = None
    copies: list[str] = Field(default_factory=list)
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    ready: Ready = Ready.HTTP
    ready_path: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = None
    ready_status: Statuses | None = None
    header: Headers = ()
    command: list[str] | None = None
    env: Annotated[Pairs, Field(repr=False)] = Field(default_factory=dict, repr=False)
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
        for name in self.require:
            if not any(requires(name, target) for target in self.targets):
                raise ValueError(f"--require {name}: that is none of the run's targets, {', '.join(self.targets)}")
        if any("=" in key or "\0" in key + value for key, value in self.env.items()):
            raise ValueError("env: a name has no '=', and nothing has a NUL byte")
        if EACH_NODE[0] in self.param and not self.each_node:
            raise ValueError(f"nodes={self.param[EACH_NODE[0]]}: it is nodes=each; one alone is named by -o node=NAME")
        if self.each_node and self.until_ci is not None:
            raise ValueError("--until-ci and nodes=each: nodes differ, so that no width is of all; give --rounds")
        if self.unit is not None and self.image != SERVICE_IMAGE:
            raise ValueError("--unit: what is launched is that unit or an image, and not both")
        if self.copies and self.unit is None:
            raise ValueError("--copy goes with --unit: it is what that unit needs")
        if self.ready is Ready.TCP and self.own_service and not DISKS & self.driver_options.keys():
            raise ValueError("--ready tcp: the lab's own service speaks HTTP, and shows by its nonce who answers")
        if self.ready is Ready.TCP and (self.ready_path or self.ready_status or self.header):
            raise ValueError("--ready tcp asks for nothing: leave out --ready-path, --ready-status and --header")
        return self

    def parsed_targets(self) -> list[Target]:
        """Raises BadInput."""
        return [Target.parse(text) for text in self.targets]

    def listening_at(self, exposed: Sequence[int]) -> RunOptions:
        """These options with a port, where the user named none: the only one that the image exposes; of several 8080,
        or else the first."""
        if self.port is not None or not exposed:
            return self.model_copy(update={"port": self.port or DEFAULT_PORT})
        return self.model_copy(update={"port": DEFAULT_PORT if DEFAULT_PORT in exposed else exposed[0]})

    @property
    def each_node(self) -> bool:
        """Whether a target is measured on each of its engine's machines."""
        return EACH_NODE in self.param.items()

    @property
    def scenario_param(self) -> dict[str, str]:
        """The parameters that are the scenario's own, and not of every scenario."""
        return {key: value for key, value in self.param.items() if key != EACH_NODE[0]}

    @property
    def own_service(self) -> bool:
        """Whether it is the lab's own service that is launched."""
        return self.image == SERVICE_IMAGE and self.unit is None

    def spec(self, labels: Mapping[str, str]) -> Spec:
        """The spec that every target launches. Raises BadInput for a unit, or files for it, that cannot be read."""
        builtin = self.own_service
        return Spec(
            image=self.image,
            unit=read_unit(self.unit, self.copies) if self.unit is not None else None,
            port=self.port or DEFAULT_PORT,
            ready=self.ready,
            ready_path=self.ready_path or ("/clock" if builtin else "/"),
            ready_status=self.ready_status or DEFAULT_STATUS,
            ready_headers=self.header,
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
            each_node=self.each_node,
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
    resolve_environment(values)
    try:
        return RunOptions.model_validate(values)
    except ValidationError as error:
        raise BadInput(problems(error), resolution="see `lab run --help`") from error


def resolve_environment(values: dict[str, Any]) -> None:
    """Put what `env_file` names, and what `env` adds, into `env`; a TOML table is taken as it is. Raises BadInput."""
    files, env = values.pop("env_file", None) or [], values.get("env") or []
    files = files if isinstance(files, list | tuple) else [files]
    if not all(isinstance(file, str | Path) for file in files):
        raise BadInput("env_file names no file", resolution='write env_file = "FILE" or a list of files')
    named = dict(env) if isinstance(env, Mapping) else {}
    listed = [] if isinstance(env, Mapping) else env if isinstance(env, list | tuple) else [env]
    if not all(isinstance(item, str) for item in listed):
        raise BadInput("env names no variables", resolution='write env = { NAME = "VALUE" } or a list of NAME=VALUE')
    found = {**read_environment(listed, map(Path, files)), **named}
    if found or "env" in values:
        values["env"] = found


def problems(error: ValidationError) -> str:
    """All that is wrong, in one line, by the options' names."""
    parts = []
    for problem in error.errors():
        name = "--" + ".".join(str(part) for part in problem["loc"]).replace("_", "-") if problem["loc"] else ""
        text = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{name}: {text}" if name else text)
    return "; ".join(parts)
