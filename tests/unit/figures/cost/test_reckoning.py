"""What a target costs at a price: each unit once by hand, and one break-even as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from made_cost import HOST, SPEC, make_run, price, prices, table

from lab.errors import BadInput, IncomparableRuns
from lab.figures.cost import words
from lab.figures.cost.lines import Kind, Line
from lab.figures.cost.measured import CALLS, INIT, WARM, basis_of
from lab.figures.cost.prices import Machine, Prices
from lab.figures.cost.reckoning import Assumed, Costs, costs_of
from lab.store.record import RunRecord, RunStatus
from lab.units import MIB

MADE = prices()


def coldstart(*, warm_s: Sequence[Sequence[float]] = ((0.0024,) * 5,) * 8, init_s: float = 0.1001) -> RunRecord:
    of_init, of_warm = CALLS[INIT], CALLS[WARM]
    inits = make_run("coldstart", {("made", of_init[0]): [[init_s]] * len(warm_s)}, dimensions=dict([of_init]))
    warm = make_run("coldstart", {("made", of_warm[0]): warm_s}, dimensions=dict([of_warm]))
    return replace(warm, samples=[*inits.samples, *warm.samples])


def memory(held: float = 64 * MIB, *, target: str = "docker", idle: float = 0.0) -> RunRecord:
    return make_run("memory", {(target, "pss_bytes"): [[held]] * 8, (target, "idle_cpus"): [[idle]] * 8})


def overhead(call_s: float = 0.001, *, target: str = "docker") -> RunRecord:
    return make_run("overhead", {(target, "request_s"): [[call_s] * 3] * 8})


def reckon(*runs: RunRecord, table: Prices = MADE, assumed: Assumed | None = None) -> Costs:
    return costs_of(basis_of(runs), table, assumed or Assumed())


def only(costs: Costs, kind: Kind, what: str = "") -> Line:
    (line,) = [one for one in costs.lines if one.kind is kind and what in one.what]
    return line


def test_one_break_even_by_hand() -> None:
    """A warm call of 2.4 ms is billed as 3 ms of 128 MiB, an eighth of a GiB, at 0.000016 a GiB-second, and 0.20 a
    million for the request: 0.0000002 + 0.000016 / 8 * 0.003 = 0.000000206. A quarter of a vCPU at 0.04 and half a GB
    at 0.004 are 0.012 an hour, which are 58,252.4 such calls; one container can take 900,000 of 1 ms on a quarter of a
    CPU."""
    costs = reckon(coldstart(), overhead())
    (found,) = [one for one in costs.break_evens if one.function.what == "every call warm"]
    assert found.other.kind is Kind.CONTAINER
    assert found.calls_per_hour.figure == pytest.approx(0.012 / 0.000000206)
    assert found.calls_per_hour.figure == pytest.approx(58_252.427, abs=0.001)
    # Every measured value is the same, and so is every draw's.
    assert found.calls_per_hour.interval == pytest.approx((58_252.427, 58_252.427), abs=0.001)
    assert found.calls_per_hour.n == 8


def test_at_the_break_even_both_cost_the_same() -> None:
    machine = Machine(price=876, years=10, watts=0)
    costs = reckon(coldstart(), overhead(), memory(), assumed=Assumed(machine=machine, kwh_price=0.1))
    assert len(costs.break_evens) == 4  # warm and cold, against the container and the machine's share
    for found in costs.break_evens:
        at = found.calls_per_hour.figure
        ours, theirs = found.function.per_million(at), found.other.per_million(at)
        assert ours is not None and theirs is not None
        assert math.isfinite(at)
        assert ours.figure == pytest.approx(theirs.figure)


@pytest.mark.parametrize(
    "calls_s,billed_s",
    [((0.0024,), 0.003), ((0.003,), 0.003), ((0.0001,), 0.001), ((0.0024, 0.0031), 0.0035), ((0.1 + 0.2,), 0.3)],
)
def test_each_call_is_rounded_up_by_itself(calls_s: tuple[float, ...], billed_s: float) -> None:
    costs = reckon(coldstart(warm_s=[calls_s] * 6))
    call = only(costs, Kind.FUNCTION, "warm").per_call
    assert call is not None
    assert call.figure == pytest.approx(0.2e-6 + 0.000016 / 8 * billed_s)


def test_rounding_follows_the_table() -> None:
    functions = [{**table()["functions"][0], "billed_step_ms": 100.0}]
    call = only(reckon(coldstart(), table=prices(functions=functions)), Kind.FUNCTION, "warm").per_call
    assert call is not None and call.figure == pytest.approx(0.2e-6 + 0.000016 / 8 * 0.1)


def test_the_initialization_of_a_cold_call_is_billed_where_the_provider_bills_it() -> None:
    """100.1 ms and 2.4 ms are 102.5 ms, which are billed as 103."""
    cold = only(reckon(coldstart()), Kind.FUNCTION, "cold").per_call
    assert cold is not None and cold.figure == pytest.approx(0.2e-6 + 0.000016 / 8 * 0.103)
    functions = [{**table()["functions"][0], "init_is_billed": False}]
    free = only(reckon(coldstart(), table=prices(functions=functions)), Kind.FUNCTION, "cold").per_call
    assert free is not None and free.figure == pytest.approx(0.2e-6 + 0.000016 / 8 * 0.003)


def test_a_mix_of_cold_and_warm_calls_is_between_the_two() -> None:
    costs = reckon(coldstart(), assumed=Assumed(cold_share=0.25))
    (mixed,) = [line for line in costs.lines if line.per_call is not None]
    assert mixed.per_call is not None
    assert mixed.per_call.figure == pytest.approx(0.2e-6 + 0.000016 / 8 * (0.75 * 0.003 + 0.25 * 0.103))
    assert "25.0%" in mixed.what


@pytest.mark.parametrize("gigabyte,part", [("GiB", 0.125), ("GB", 128 * MIB / 1e9)])
def test_a_gigabyte_is_what_the_table_says_that_it_is(gigabyte: str, part: float) -> None:
    functions = [{**table()["functions"][0], "gigabyte": gigabyte}]
    call = only(reckon(coldstart(), table=prices(functions=functions)), Kind.FUNCTION, "warm").per_call
    assert call is not None and call.figure == pytest.approx(0.2e-6 + 0.000016 * part * 0.003)


def test_no_free_tier_is_counted() -> None:
    """The first call costs as much as the millionth: a function's cost for each does not depend on their number."""
    line = only(reckon(coldstart()), Kind.FUNCTION, "warm")
    found = [one.figure for rate in (0.001, 1, 1e6) if (one := line.per_million(rate))]
    assert found == pytest.approx([0.206] * 3)


def test_a_function_is_given_the_memory_that_has_the_declared_cpus() -> None:
    """The calls were timed with a quarter of a CPU, which this provider gives with 400 MiB."""
    functions = [{**table()["functions"][0], "mib_for_a_vcpu": price(1600)}]
    costs = reckon(coldstart(), table=prices(functions=functions))
    line = only(costs, Kind.FUNCTION, "warm")
    assert line.per_call is not None
    assert line.per_call.figure == pytest.approx(0.2e-6 + 0.000016 * 400 / 1024 * 0.003)
    assert any("400 MiB" in note for note in line.notes)
    smaller = reckon(coldstart(), table=prices(functions=functions), assumed=Assumed(function_memory_bytes=200 * MIB))
    line = only(smaller, Kind.FUNCTION, "warm")
    assert line.per_call is not None
    assert line.per_call.figure == pytest.approx(0.2e-6 + 0.000016 * 200 / 1024 * 0.003)
    assert any("0.12 of a CPU" in note for note in line.notes)


def test_a_container_is_of_the_smallest_size_that_holds_what_was_declared() -> None:
    assert only(reckon(overhead()), Kind.CONTAINER).what == "0.25 vCPU, 0.5 GB"
    larger = replace(overhead(), run=replace(overhead().run, parameters={"spec": {**SPEC, "memory_bytes": 600 * MIB}}))
    assert only(reckon(larger), Kind.CONTAINER).what == "0.25 vCPU, 1 GB"
    none = replace(overhead(), run=replace(overhead().run, parameters={"spec": {**SPEC, "cpus": 8}}))
    assert "no size" in only(reckon(none), Kind.CONTAINER).reason


def test_what_runs_all_the_time_is_paid_whether_or_not_it_is_called() -> None:
    line = only(reckon(overhead()), Kind.CONTAINER)
    idle, seldom, often = line.idle_per_hour, line.per_million(1), line.per_million(900_000)
    assert idle is not None and seldom is not None and often is not None
    assert idle.figure == pytest.approx(0.012)
    assert seldom.figure == pytest.approx(12_000)
    assert often.figure == pytest.approx(0.012 / 0.9)


def test_more_calls_than_one_can_take_need_another() -> None:
    line = only(reckon(overhead()), Kind.CONTAINER)
    two = line.per_million(900_001)
    assert two is not None and two.figure == pytest.approx(2 * 0.012 / 0.900001)


def test_a_function_that_is_never_the_dearer_one_is_told_so() -> None:
    """At 0.012 an hour of a container that takes a second a call on a quarter of a CPU, 900 calls an hour are the most:
    13.3 a million, and more than the function's 0.206 at any rate."""
    (found,) = [one for one in reckon(coldstart(), overhead(1.0)).break_evens if "warm" in one.function.what]
    assert math.isinf(found.calls_per_hour.figure)
    assert words.rate(found) == words.NONE


def test_an_interval_of_a_break_even_may_have_no_end() -> None:
    """Where some draws have no break-even, the interval has no upper end, and no figure pretends to one."""
    calls = [[0.5], [0.5], [0.5], [0.5], [0.5], [0.5], [0.5], [4.5]]
    run = make_run("overhead", {("docker", "request_s"): calls})
    functions = [{**table()["functions"][0], "per_million_requests": price(13.0)}]
    (found,) = [
        one
        for one in reckon(coldstart(), run, table=prices(functions=functions)).break_evens
        if "warm" in one.function.what
    ]
    interval = found.calls_per_hour.interval
    assert interval is not None and math.isinf(interval[1])
    assert "none" in words.rate(found) or "no end" in words.rate(found)


@pytest.mark.parametrize("idle,held,share", [(0.0, 64 * MIB, 64 / 8192), (0.4, 64 * MIB, 0.1), (0.01, 4096 * MIB, 0.5)])
def test_a_share_is_of_memory_or_of_cpus_whichever_is_larger(idle: float, held: float, share: float) -> None:
    """A machine of 876 for 10 years of 8,760 h is 0.01 an hour, and 100 W at 0.10 a kWh are another 0.01."""
    costs = reckon(
        memory(held, idle=idle),
        overhead(),
        assumed=Assumed(machine=Machine(price=876, years=10, watts=100), kwh_price=0.10),
    )
    hour = only(costs, Kind.MACHINE).idle_per_hour
    assert hour is not None
    assert hour.figure == pytest.approx(0.02 * share)
    assert any("0.0200 EUR an hour, 14.6 a month" in note for note in only(costs, Kind.MACHINE).notes)


def test_what_an_instance_holds_is_taken_from_wake_where_memory_was_not_run() -> None:
    awake = make_run("wake", {("docker", "awake_pss_bytes"): [[60.0 * MIB, 68.0 * MIB]] * 8})
    assumed = Assumed(machine=Machine(price=876, years=10, watts=0), kwh_price=0.1)
    hour = only(reckon(awake, overhead(), assumed=assumed), Kind.MACHINE).idle_per_hour
    assert hour is not None and hour.figure == pytest.approx(0.01 * 64 / 8192)
    both = only(reckon(awake, memory(32 * MIB), overhead(), assumed=assumed), Kind.MACHINE).idle_per_hour
    assert both is not None and both.figure == pytest.approx(0.01 * 32 / 8192)


def test_a_cluster_is_shared_with_its_control_plane() -> None:
    """0.10 and three nodes at 0.10 are 0.40 an hour, of which 64 MiB of 24 GiB are a 384th."""
    cluster = {
        "name": "Made cluster",
        "drivers": ["docker"],
        "nodes": 3,
        "node_vcpus": 2,
        "node_memory_gib": 8,
        "control_plane_per_hour": price(0.1),
        "node_per_hour": price(0.1),
    }
    hour = only(reckon(memory(), overhead(), table=prices(clusters=[cluster])), Kind.CLUSTER).idle_per_hour
    assert hour is not None and hour.figure == pytest.approx(0.4 / 384)


def test_the_cheapest_machine_that_fits_is_taken_and_its_credits_bound_it() -> None:
    small = {"name": "Small", "drivers": ["docker"], "vcpus": 2, "sustained_vcpus": 0.1, "memory_gib": 0.5}
    tiny = {"name": "Tiny", "drivers": ["docker"], "vcpus": 0.1, "memory_gib": 0.5, "per_hour": price(0.001)}
    large = {"name": "Large", "drivers": ["docker"], "vcpus": 2, "memory_gib": 8, "per_hour": price(0.1)}
    made = prices(vms=[large, {**small, "per_hour": price(0.005)}, tiny])
    line = only(reckon(overhead(), table=made), Kind.VM)
    assert line.offer == "Small"
    assert line.most_per_hour is not None and line.most_per_hour.figure == pytest.approx(0.1 * 3600 / 0.001)
    assert any("0.1 of a CPU" in note for note in line.notes)


def test_what_was_not_measured_is_a_row_with_its_reason() -> None:
    costs = reckon(memory())
    assert "lab run overhead -t docker" in only(costs, Kind.CONTAINER).reason
    assert "lab run coldstart" in only(costs, Kind.FUNCTION).reason
    assert "--machine-price" in only(costs, Kind.MACHINE).reason
    assert not costs.break_evens
    unpriced = reckon(memory(target="swarm"))
    assert "'swarm'" in only(unpriced, Kind.CONTAINER).reason
    skipped = make_run("overhead", {}, skipped={"docker": "dockerd does not run"})
    assert "dockerd does not run" in only(reckon(memory(), skipped), Kind.CONTAINER).reason


def test_a_function_that_was_not_called_yet_is_told_so_and_no_container() -> None:
    costs = reckon(memory(target="made"), overhead(target="made"))
    assert only(costs, Kind.FUNCTION).reason.endswith("lab run coldstart -t made")
    assert not [line for line in costs.lines if line.kind is Kind.CONTAINER]


def test_without_a_measured_initialization_no_cold_call_is_reckoned() -> None:
    of_warm = CALLS[WARM]
    run = make_run("coldstart", {("made", of_warm[0]): [[0.0024]] * 8}, dimensions=dict([of_warm]))
    assert only(reckon(run), Kind.FUNCTION, "cold").reason
    assert not only(reckon(run), Kind.FUNCTION, "warm").reason


def test_idle_cpus_that_were_not_measured_are_told() -> None:
    run = make_run("memory", {("docker", "pss_bytes"): [[64.0 * MIB]] * 8})
    line = only(
        reckon(run, overhead(), assumed=Assumed(machine=Machine(price=1, years=1, watts=1), kwh_price=1)), Kind.MACHINE
    )
    assert any("not measured" in note for note in line.notes)


def test_fewer_than_six_rounds_have_no_interval() -> None:
    costs = reckon(coldstart(warm_s=[(0.0024,)] * 5), overhead())
    (found,) = [one for one in costs.break_evens if "warm" in one.function.what]
    assert found.calls_per_hour.interval is None
    assert words.rate(found).endswith("(n < 6)")


def test_what_is_a_price_alone_has_no_interval_and_needs_none() -> None:
    line = only(reckon(overhead()), Kind.CONTAINER)
    assert line.idle_per_hour is not None
    # One instance is enough in every draw: the bill does not depend on what was measured.
    assert words.money(line.idle_per_hour) == "0.0120"


def test_emulated_guests_are_flagged() -> None:
    run = make_run(
        "overhead", {("libvirt:q35", "request_s"): [[0.001]] * 8}, qualifiers={"libvirt:q35": {"accel": "tcg"}}
    )
    vm = {"name": "Small", "drivers": ["libvirt"], "vcpus": 1, "memory_gib": 1, "per_hour": price(0.01)}
    made = prices(vms=[vm])
    costs = reckon(run, table=made)
    assert only(costs, Kind.VM).emulated
    assert any("emulated" in note for note in words.notes(basis_of([run]), made, costs))
    assert "(tcg)" in only(costs, Kind.VM).target


def test_the_same_guest_under_kvm_is_another_target() -> None:
    held = make_run("memory", {("libvirt", "pss_bytes"): [[1.0]] * 8}, qualifiers={"libvirt": {"accel": "kvm"}})
    called = make_run("overhead", {("libvirt", "request_s"): [[0.001]] * 8}, qualifiers={"libvirt": {"accel": "tcg"}})
    labels = [target.label for target in basis_of([held, called]).targets]
    assert labels == ["libvirt (kvm)", "libvirt (tcg)"]


def test_notes_say_what_no_figure_is() -> None:
    costs = reckon(coldstart(), overhead(), memory())
    told = " ".join(words.notes(basis_of([coldstart(), overhead(), memory()]), MADE, costs))
    for needed in ("what a cloud would do", "EUR", "2026-01-02", "Free tiers", "730 h", "1 ms", "2025-08"):
        assert needed in told


@pytest.mark.parametrize(
    "changes",
    [
        {"host": {**HOST, "cpu": {"model": "Another", "threads_online": 4}}},
        {"host": {**HOST, "memory": {"memory_total_bytes": 1}}},
        {"owner": "another:boot:1:1"},
        {"spec": {**SPEC, "memory_bytes": 1}},
        {"spec": {**SPEC, "cpus": 2}},
        {"spec": {**SPEC, "image": "nginx"}},
    ],
)
def test_runs_of_other_hosts_or_services_are_not_put_together(changes: dict[str, object]) -> None:
    other = make_run("memory", {("docker", "pss_bytes"): [[1.0]] * 8}, **changes)  # type: ignore[arg-type]
    with pytest.raises(IncomparableRuns):
        basis_of([overhead(), other])


def test_another_boot_of_the_same_machine_is_the_same_host() -> None:
    other = make_run("memory", {("docker", "pss_bytes"): [[1.0]] * 8}, owner="machine:later:2:2")
    assert len(basis_of([overhead(), other]).runs) == 2
    nameless = make_run("memory", {("docker", "pss_bytes"): [[1.0]] * 8}, owner="unknown:boot:2:2")
    with pytest.raises(IncomparableRuns):
        basis_of([nameless, make_run("overhead", {("docker", "request_s"): [[1.0]] * 8}, owner="unknown:later:2:2")])


def test_a_run_that_did_not_end_well_is_named_so() -> None:
    broken = replace(overhead(), run=replace(overhead().run, status=RunStatus.INTERRUPTED))
    assert basis_of([memory(), broken]).runs == ["memory 20260101-memory", "overhead 20260101-overhead (interrupted)"]


def test_runs_that_tell_nothing_of_cost_are_refused() -> None:
    with pytest.raises(BadInput, match="boot"):
        basis_of([make_run("boot", {("docker", "boot_s"): [[1.0]]})])
    with pytest.raises(BadInput, match="two runs of overhead"):
        basis_of([overhead(), replace(overhead(), run=replace(overhead().run, id="another"))])
    with pytest.raises(BadInput):
        basis_of([])
