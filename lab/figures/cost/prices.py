"""The table of prices: a TOML file, each number with its source and date, that ships with the lab and that a user may
replace."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.errors import BadInput
from lab.units import MIB

SHIPPED = Path(__file__).with_name("prices.toml")
HOURS_PER_MONTH = 730
"""A twelfth of 365 days, which providers' own calculators reckon with."""

_MOST_PROBLEMS = 3
_GIGABYTES = {"GiB": 1024 * MIB, "GB": 1_000_000_000}
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Gigabyte = Literal["GiB", "GB"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Price(_Strict):
    """One number, where it was read, when, and by what it was checked."""

    amount: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    source: Annotated[str, Field(min_length=1)]
    date: datetime.date
    checked: str = ""


class _Offer(_Strict):
    name: Annotated[str, Field(min_length=1)]
    drivers: Annotated[list[str], Field(min_length=1)]


class FunctionOffer(_Offer):
    """A function's: for each request, and for memory times time, each call's time rounded up to `billed_step_ms`."""

    gigabyte: _Gigabyte
    billed_step_ms: _Positive
    least_memory_mib: Annotated[int, Field(gt=0)]
    most_memory_mib: Annotated[int, Field(gt=0)]
    init_is_billed: bool
    per_million_requests: Price
    per_gigabyte_second: Price
    mib_for_a_vcpu: Price | None = None

    @property
    def gigabyte_bytes(self) -> int:
        """What the provider takes for a gigabyte."""
        return _GIGABYTES[self.gigabyte]


class Size(_Strict):
    """So many CPUs, with each of these memories in gigabytes."""

    vcpus: _Positive
    memory: Annotated[list[_Positive], Field(min_length=1)]


class ContainerOffer(_Offer):
    """A container's that runs all the time: for its CPUs and its memory, in one of the `sizes`."""

    gigabyte: _Gigabyte
    sizes: Annotated[list[Size], Field(min_length=1)]
    per_vcpu_hour: Price
    per_gigabyte_hour: Price

    @property
    def gigabyte_bytes(self) -> int:
        """What the provider takes for a gigabyte."""
        return _GIGABYTES[self.gigabyte]


class VmOffer(_Offer):
    """A virtual machine's: `sustained_vcpus` is what it may use for long, all of `vcpus` where it is not told."""

    vcpus: _Positive
    sustained_vcpus: _Positive | None = None
    memory_gib: _Positive
    per_hour: Price


class ClusterOffer(_Offer):
    """A cluster's: its control plane, and each of its nodes."""

    nodes: Annotated[int, Field(ge=1)]
    node_vcpus: _Positive
    node_memory_gib: _Positive
    control_plane_per_hour: Price
    node_per_hour: Price


class Machine(_Strict):
    """The user's own: what it cost, for how many years that is to last, and what it draws on average."""

    price: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    years: _Positive
    watts: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Prices(_Strict):
    """The whole table, in one currency."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    place: str = ""
    functions: list[FunctionOffer] = Field(default_factory=list)
    containers: list[ContainerOffer] = Field(default_factory=list)
    vms: list[VmOffer] = Field(default_factory=list)
    clusters: list[ClusterOffer] = Field(default_factory=list)
    machine: Machine | None = None
    electricity_per_kwh: Price | None = None

    @model_validator(mode="after")
    def _named_once(self) -> Prices:
        names = [offer.name for offer in self.offers()]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"'{twice}' is named twice")
        return self

    def offers(self) -> Sequence[FunctionOffer | ContainerOffer | VmOffer | ClusterOffer]:
        """All that can be rented."""
        return [*self.functions, *self.containers, *self.vms, *self.clusters]

    def each(self) -> Iterator[tuple[str, Price]]:
        """Every number that has a source, by what it is the price of."""
        for offer in self.offers():
            for name in type(offer).model_fields:
                if isinstance(value := getattr(offer, name), Price):
                    yield f"{offer.name}, {name.replace('_', ' ')}", value
        if self.electricity_per_kwh is not None:
            yield "electricity, per kWh", self.electricity_per_kwh

    def dates(self) -> tuple[datetime.date, datetime.date] | None:
        """The oldest and the newest date; None in a table without any."""
        found = [price.date for _, price in self.each()]
        return (min(found), max(found)) if found else None


def read_prices(path: Path | None) -> Prices:
    """The table in `path`, or the one that ships with the lab. Raises BadInput, which names what is wrong."""
    place = path or SHIPPED
    remedy = "`lab cost --print-prices` prints the table that ships with the lab, in the form that it must have"
    try:
        told: dict[str, Any] = tomllib.loads(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{place} cannot be read as a table of prices: {error}", resolution=remedy) from error
    try:
        return Prices.model_validate(told)
    except ValidationError as error:
        problems = error.errors()
        said = [_problem(one) for one in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            said.append(f"and {len(problems) - _MOST_PROBLEMS} more")
        raise BadInput(f"{place}: {'; '.join(said)}", resolution=remedy) from error


def _problem(found: Any) -> str:
    """One of pydantic's, with its place in the table: `functions, entry 1, name: it is missing`."""
    place = ", ".join(str(part) if isinstance(part, str) else f"entry {part + 1}" for part in found["loc"])
    said = str(found["msg"]).removeprefix("Value error, ")
    said = {"Field required": "it is missing", "Extra inputs are not permitted": "there is no such field"}.get(
        said, said[:1].lower() + said[1:]
    )
    return f"{place}: {said}" if place else said
