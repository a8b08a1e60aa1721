"""`app.toml`: the lab's own description of an application, and what both kinds of file have in common."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lab.errors import BadInput
from lab.spec import SERVICE_IMAGE, Ready
from lab.units import MIB, parse_bytes, parse_statuses
from scenarios.application.described import MOST_BYTES, Application, Condition, Service, application

_SEE = "see docs/app.md"


def _conditions(value: Any) -> Any:
    """A list of names is a mapping of each to Compose's own condition."""
    if isinstance(value, list):
        return {str(name): Condition.STARTED for name in value}
    return value


Statuses = Annotated[tuple[tuple[int, int], ...], BeforeValidator(parse_statuses)]
RequestPath = Annotated[str, Field(pattern=r"^/[!-~]*$")]
Size = Annotated[int, BeforeValidator(parse_bytes), Field(ge=16 * MIB)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Strict(BaseModel):
    """A section of a file, in which no other key is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Service(Strict):
    image: Annotated[str, Field(min_length=1)]
    port: Port
    memory: Size = 128 * MIB
    cpus: Annotated[float, Field(gt=0, le=1024)] | None = None
    environment: dict[str, str] = Field(default_factory=dict, repr=False)
    command: list[str] | None = None
    depends_on: Annotated[dict[str, Condition], BeforeValidator(_conditions)] = Field(default_factory=dict)
    calls: list[str] = Field(default_factory=list)
    ready: Ready = Ready.HTTP
    ready_path: RequestPath | None = None
    ready_status: Statuses = ((200, 200),)


class _File(Strict):
    name: Annotated[str, Field(min_length=1, max_length=60)] = ""
    entry: Annotated[str, Field(min_length=1)]
    services: dict[str, _Service]


def read_toml(path: Path, *, images: Mapping[str, str]) -> Application:
    """The application of `path`; `images` take the place of those of the services that they name. Raises BadInput, on
    one line."""
    try:
        told = _File.model_validate(tomllib.loads(read_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path} is no TOML: {error}", resolution=_SEE) from error
    except ValidationError as error:
        raise BadInput(f"{path}: {problems(error)}", resolution=_SEE) from error
    require_known(path, images, told.services)
    return application(
        str(path),
        name=told.name or path.absolute().parent.name,
        entry=told.entry,
        services=[
            Service(
                name=name,
                image=image_of(path, images.get(name, one.image), given=name in images),
                port=one.port,
                memory_bytes=one.memory,
                cpus=one.cpus,
                environment=one.environment,
                command=tuple(one.command) if one.command is not None else None,
                depends_on=one.depends_on,
                calls=tuple(one.calls),
                ready=one.ready,
                ready_path=one.ready_path,
                ready_status=one.ready_status,
            )
            for name, one in told.services.items()
        ],
    )


def read_text(path: Path) -> str:
    """A file that describes an application. Raises BadInput."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise BadInput(f"{path} is larger than {MOST_BYTES // 1024} KiB", resolution=_SEE)
        return content.decode()
    except (OSError, ValueError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", "") or error
        raise BadInput(f"{path} cannot be read: {why}", resolution=_SEE) from error


def image_of(path: Path, image: str, *, given: bool) -> str:
    """What the lab launches for `image`: an archive that lies beside the file `path` (or, where it was `given` on the
    command line, where the user stands), else a reference. Raises BadInput for a file that is not there."""
    if image == SERVICE_IMAGE:
        return image
    folder = Path.cwd() if given else path.absolute().parent
    wanted = Path(image).expanduser()
    file = wanted if wanted.is_absolute() else folder / wanted
    if file.exists():
        return str(file)
    if image.startswith(("/", "./", "../", "~/")) or image.endswith(".tar"):
        raise BadInput(f"{path}: there is no image {file}", resolution="make it first, or name an image by a reference")
    return image


def require_known(path: Path, images: Mapping[str, str], services: Mapping[str, object]) -> None:
    """Raises BadInput where an image is given for a service that is not there."""
    for name in images:
        if name not in services:
            raise BadInput(f"an image is given for '{name}', and {path} has no such service")


def problems(error: ValidationError) -> str:
    """All that is wrong, in one line."""
    told = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"] if part not in ("[key]",))
        said = problem["msg"].removeprefix("Value error, ")
        said = "there is no such key" if problem["type"] == "extra_forbidden" else said
        told.append(f"{place}: {said}" if place else said)
    return "; ".join(told)
