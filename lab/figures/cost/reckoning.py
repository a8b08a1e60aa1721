"""What a target costs at a price, and at how many calls an hour a function becomes the dearer one.

A function costs for each call: a request, and its memory times the time of the call, rounded up; a cold call's
initialization is billed as well. What runs all the time costs for each hour, called or not, and takes one call at a
time on each of its CPUs, as long as the call took here; for more calls there are more of it.

Of a cluster or a machine of one's own, an instance costs the share that it holds of the memory or uses of the CPUs,
whichever is larger: so many hours of the whole are not sold to others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lab import units
from lab.figures.cost.lines import BreakEven, Kind, Line, break_even
from lab.figures.cost.measured import (
    CALL,
    COLDSTART,
    IDLE_CPUS,
    IDLE_MEMORY,
    INIT,
    MEMORY,
    OVERHEAD,
    WARM,
    Basis,
    Measured,
)
from lab.figures.cost.prices import (
    HOURS_PER_MONTH,
    ClusterOffer,
    ContainerOffer,
    FunctionOffer,
    Machine,
    Prices,
    VmOffer,
)
from lab.figures.cost.uncertain import Uncertain, known, reckoned
from lab.units import MIB

GIB = 1024 * MIB
HOUR_S = 3600.0
_HOURS_PER_YEAR = 12 * HOURS_PER_MONTH
_PROCESS = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What no run and no table tells, as the user gave it."""

    machine: Machine | None = None
    kwh_price: float | None = None
    cold_share: float | None = None
    function_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """All lines, and the break-even of each function with all that runs all the time."""

    currency: str
    lines: Sequence[Line]
    break_evens: Sequence[BreakEven]


def costs_of(basis: Basis, prices: Prices, assumed: Assumed) -> Costs:
    """What every target costs at every price of its kind."""
    lines = sorted(_lines(basis, prices, assumed), key=lambda line: list(Kind).index(line.kind))
    functions = [line for line in lines if line.per_call is not None]
    others = [line for line in lines if line.per_hour is not None]
    return Costs(
        currency=prices.currency,
        lines=lines,
        break_evens=[break_even(function, other) for function in functions for other in others],
    )


def _lines(basis: Basis, prices: Prices, assumed: Assumed) -> Iterator[Line]:
    for target in basis.targets:
        priced = False
        for function in prices.functions:
            if target.driver in function.drivers:
                priced = True
                yield from _functions(basis, target, function, assumed)
        for container in prices.containers:
            if target.driver in container.drivers:
                priced = True
                yield _container(basis, target, container)
        vms = [vm for vm in prices.vms if target.driver in vm.drivers]
        if vms:
            priced = True
            yield _vm(basis, target, vms)
        for cluster in prices.clusters:
            if target.driver in cluster.drivers:
                priced = True
                yield _cluster(basis, target, cluster)
        if not priced and target.driver != _PROCESS:
            yield Line(
                kind=Kind.FUNCTION if target.function else Kind.CONTAINER,
                target=target.label,
                offer="",
                reason=f"the table has no price whose drivers have '{target.driver}'",
                emulated=target.emulated,
            )
        yield _machine(basis, target, prices, assumed)
    if COLDSTART not in basis.scenarios:
        seen = {target.driver for target in basis.targets}
        for function in (one for one in prices.functions if not seen & set(one.drivers)):
            yield Line(
                kind=Kind.FUNCTION,
                target="a function",
                offer=function.name,
                reason=f"no run of {COLDSTART} is among these: lab run {COLDSTART} -t {','.join(function.drivers[:2])}",
            )


def _functions(basis: Basis, target: Measured, offer: FunctionOffer, assumed: Assumed) -> Iterator[Line]:
    """Called warm and called cold, which are the ends of what a mix can cost, or the mix that the user told."""
    line = Line(kind=Kind.FUNCTION, target=target.label, offer=offer.name, emulated=target.emulated)
    if not target.has_times(WARM):
        yield replace(line, reason=_lacking(target, COLDSTART, "the time of a warm call"))
        return
    bytes_, told = _function_memory(basis, offer, assumed)
    if bytes_ > offer.most_memory_mib * MIB:
        yield replace(
            line, reason=f"it would need {bytes_ / MIB:,.0f} MiB, and {offer.most_memory_mib:,} are the most there is"
        )
        return
    step_s = offer.billed_step_ms / 1000
    request = offer.per_million_requests.amount / 1e6
    per_second = offer.per_gigabyte_second.amount * bytes_ / offer.gigabyte_bytes
    warm = _per_call(request, per_second, target.billed_s(step_s, WARM))
    if target.has_times(INIT, WARM):
        seconds = target.billed_s(step_s, INIT, WARM) if offer.init_is_billed else target.billed_s(step_s, WARM)
        cold = _per_call(request, per_second, seconds)
    else:
        cold = None
    if assumed.cold_share is None:
        yield replace(line, what="every call warm", per_call=warm, notes=told)
        if cold is None:
            yield replace(
                line, what="every call cold", reason=_lacking(target, COLDSTART, "the time of initialization")
            )
        else:
            yield replace(line, what="every call cold", per_call=cold, notes=told)
        return
    share = assumed.cold_share
    if cold is None:
        yield replace(line, what=f"{share:.3g} cold", reason=_lacking(target, COLDSTART, "the time of initialization"))
        return
    mixed = reckoned(lambda w, c: (1 - share) * w + share * c, warm, cold)
    yield replace(line, what=f"{share:.1%} of calls cold", per_call=mixed, notes=told)


def _per_call(request: float, per_second: float, billed_s: Uncertain) -> Uncertain:
    return reckoned(lambda seconds: request + per_second * seconds, billed_s)


def _function_memory(basis: Basis, offer: FunctionOffer, assumed: Assumed) -> tuple[int, Sequence[str]]:
    """What the function is given: as much memory as declared, and as much as the declared CPUs ask for there, since
    the calls were timed with those (docs/method.md, rule 11)."""
    if assumed.function_memory_bytes is not None:
        mib = max(offer.least_memory_mib, math.ceil(assumed.function_memory_bytes / MIB))
        if offer.mib_for_a_vcpu is None:
            return mib * MIB, ()
        cpus = mib / offer.mib_for_a_vcpu.amount
        return mib * MIB, (
            f"{offer.name}: with {mib:,} MiB it is given {cpus:.2g} of a CPU there, and calls were timed here with "
            f"{basis.cpus:g}: there they may take longer.",
        )
    mib = max(offer.least_memory_mib, math.ceil(basis.memory_bytes / MIB))
    if offer.mib_for_a_vcpu is None or offer.mib_for_a_vcpu.amount * basis.cpus <= mib:
        return mib * MIB, ()
    mib = math.ceil(offer.mib_for_a_vcpu.amount * basis.cpus)
    return mib * MIB, (
        f"{offer.name}: reckoned with {mib:,} MiB, since it gives {basis.cpus:g} CPU only with so much, and calls were "
        f"timed here with {basis.cpus:g} (--function-memory reckons with another size, whose calls may take longer).",
    )


def _container(basis: Basis, target: Measured, offer: ContainerOffer) -> Line:
    line = Line(kind=Kind.CONTAINER, target=target.label, offer=offer.name, emulated=target.emulated)
    if (lacking := _served(target)) is not None:
        return replace(line, reason=lacking)
    fitting = [
        (offer.per_vcpu_hour.amount * size.vcpus + offer.per_gigabyte_hour.amount * memory, size.vcpus, memory)
        for size in offer.sizes
        for memory in size.memory
        if size.vcpus >= basis.cpus and memory * offer.gigabyte_bytes >= basis.memory_bytes
    ]
    if not fitting:
        return replace(line, reason=_too_small(basis))
    price, vcpus, memory = min(fitting)
    return _whole(replace(line, what=f"{vcpus:g} vCPU, {memory:g} GB"), price, _most_per_hour(target, basis.cpus))


def _vm(basis: Basis, target: Measured, offers: Sequence[VmOffer]) -> Line:
    line = Line(kind=Kind.VM, target=target.label, offer=offers[0].name, emulated=target.emulated)
    if (lacking := _served(target)) is not None:
        return replace(line, reason=lacking)
    fitting = [vm for vm in offers if vm.vcpus >= basis.cpus and vm.memory_gib * GIB >= basis.memory_bytes]
    if not fitting:
        return replace(line, reason=_too_small(basis))
    vm = min(fitting, key=lambda one: one.per_hour.amount)
    sustained = min(basis.cpus, vm.sustained_vcpus or vm.vcpus)
    line = replace(line, offer=vm.name)
    if sustained < basis.cpus:
        told = f"{vm.name}: for long it may use {sustained:g} of a CPU, which bounds how many calls one can take."
        line = replace(line, notes=(told,))
    return _whole(line, vm.per_hour.amount, _most_per_hour(target, sustained))


def _cluster(basis: Basis, target: Measured, offer: ClusterOffer) -> Line:
    price = offer.control_plane_per_hour.amount + offer.nodes * offer.node_per_hour.amount
    return _share(
        basis,
        target,
        Line(kind=Kind.CLUSTER, target=target.label, offer=offer.name, emulated=target.emulated),
        known(price),
        memory_bytes=offer.nodes * offer.node_memory_gib * GIB,
        cpus=offer.nodes * offer.node_vcpus,
    )


def _machine(basis: Basis, target: Measured, prices: Prices, assumed: Assumed) -> Line:
    line = Line(kind=Kind.MACHINE, target=target.label, offer="", emulated=target.emulated)
    machine = assumed.machine or prices.machine
    per_kwh = assumed.kwh_price
    if per_kwh is None and prices.electricity_per_kwh is not None:
        per_kwh = prices.electricity_per_kwh.amount
    if machine is None or per_kwh is None:
        lacking = "--kwh-price" if machine is not None else "--machine-price, --machine-years and --machine-watts"
        return replace(line, reason=f"its price is yours to tell ({lacking})")
    memory, cpu = (basis.host.get(name) or {} for name in ("memory", "cpu"))
    total, threads = memory.get("memory_total_bytes"), cpu.get("threads_online")
    if not total or not threads:
        return replace(line, reason="the run does not tell how much memory and how many CPUs its host has")
    price = machine.price / (machine.years * _HOURS_PER_YEAR) + machine.watts / 1000 * per_kwh
    told = (
        f"Your own machine as a whole costs {units.digits(price)} {prices.currency} an hour, "
        f"{units.digits(price * HOURS_PER_MONTH)} a month."
    )
    line = replace(line, notes=(told,))
    return _share(basis, target, line, known(price), memory_bytes=float(total), cpus=float(threads))


def _share(basis: Basis, target: Measured, line: Line, price: Uncertain, *, memory_bytes: float, cpus: float) -> Line:
    if IDLE_MEMORY not in target.means:
        return replace(line, reason=_lacking(target, MEMORY, "what an instance holds"))
    if (lacking := _served(target)) is not None:
        return replace(line, reason=lacking)
    idle = target.means.get(IDLE_CPUS)
    unknown = f"{target.label}: what it uses of the CPUs while nobody calls was not measured; taken as 0."
    return replace(
        line,
        per_hour=price,
        held=reckoned(lambda held: held / memory_bytes, target.means[IDLE_MEMORY]),
        idle=reckoned(lambda used: used / cpus, idle) if idle else known(0.0),
        per_call_used=reckoned(lambda call_s: call_s / HOUR_S / cpus, target.means[CALL]),
        most_per_hour=_most_per_hour(target, basis.cpus),
        notes=line.notes if idle else (*line.notes, unknown),
    )


def _whole(line: Line, price: float, most_per_hour: Uncertain) -> Line:
    """What is rented whole."""
    return replace(
        line,
        per_hour=known(price),
        held=known(1.0),
        idle=known(0.0),
        per_call_used=known(0.0),
        most_per_hour=most_per_hour,
    )


def _most_per_hour(target: Measured, cpus: float) -> Uncertain:
    return reckoned(lambda call_s: cpus * HOUR_S / call_s, target.means[CALL])


def _served(target: Measured) -> str | None:
    """Why it is not known how long a call takes; None where it is."""
    return None if CALL in target.means else _lacking(target, OVERHEAD, "how long a call takes")


def _lacking(target: Measured, scenario: str, what: str) -> str:
    if scenario in target.skipped:
        return target.skipped[scenario]
    return f"no run among these tells {what}: lab run {scenario} -t {target.target}"


def _too_small(basis: Basis) -> str:
    return f"no size in the table has {basis.cpus:g} CPU and {basis.memory_bytes / MIB:,.0f} MiB"
