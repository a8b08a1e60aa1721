"""What a spec allows is what the kernel, or the guest's machine, holds the instance to: read back, never believed."""

from __future__ import annotations

import os
import re

import pytest
from contract_rig import Rig, not_promised, whole_cpus

from lab.features import Feature, GuestMemory, HasGuestMemory, OnThisHost
from lab.host.limits import Held, Limit
from lab.host.pinning import pinned_to
from lab.service.ask import believed_bytes
from lab.units import MIB


def test_memory_is_limited_to_what_the_spec_says(rig: Rig) -> None:
    if rig.limit_not_set("memory"):
        not_promised(rig.limit_not_set("memory"))
    if rig.has(Feature.OWN_KERNEL):
        instance = rig.served.instance
        assert isinstance(instance, HasGuestMemory)
        given: GuestMemory = instance.guest_memory()
        inside = believed_bytes(rig.served.facts)["total"]
        assert given.declared_bytes == rig.spec.memory_bytes
        assert rig.spec.memory_bytes - 48 * MIB < inside <= rig.spec.memory_bytes, "what its own kernel has to give"
    elif rig.has(Feature.HOST_PIDS):
        held = _held(rig, Limit.MEMORY)
        assert abs(held.amount - rig.spec.memory_bytes) < os.sysconf("SC_PAGESIZE"), held
    else:
        assert believed_bytes(rig.served.facts).get("limit") == rig.spec.memory_bytes


def test_no_swap_is_allowed_on_top_of_memory(rig: Rig) -> None:
    if rig.limit_not_set("swap") or rig.limit_not_set("memory"):
        not_promised(rig.limit_not_set("swap") or rig.limit_not_set("memory"))
    if rig.has(Feature.OWN_KERNEL):
        not_promised("a guest has the swap that its own image brings, and the lab's brings none")
    rig.needs(Feature.HOST_PIDS)
    held = _held(rig, Limit.MEMORY)
    assert held.swap_bytes == 0, held
    # A limit on swap is asked for also where the host has none today.
    both, beside = (held.file.with_name(name) for name in ("memory.memsw.limit_in_bytes", "memory.swap.max"))
    if both.exists():
        assert int(both.read_text()) == held.amount, both
    elif beside.exists():
        assert beside.read_text().strip() == "0", beside


def test_cpus_are_limited_to_what_the_spec_says(rig: Rig) -> None:
    if rig.limit_not_set("cpus"):
        not_promised(rig.limit_not_set("cpus"))
    if rig.has(Feature.OWN_KERNEL):
        assert int(rig.served.facts["cpus_online"]) == whole_cpus(rig.spec.cpus)
        return
    rig.needs(Feature.HOST_PIDS)
    held = _held(rig, Limit.CPUS)
    assert held.amount == pytest.approx(rig.spec.cpus, rel=0.01), held


def test_processes_are_limited_to_what_the_spec_says(rig: Rig) -> None:
    if rig.limit_not_set("pids"):
        not_promised(rig.limit_not_set("pids"))
    rig.needs(Feature.HOST_PIDS)
    held = _held(rig, Limit.PIDS)
    assert held.amount == rig.spec.pids, held


def test_what_it_may_write_to_tmp_is_bounded_by_the_spec(rig: Rig) -> None:
    said = str(rig.info.facts.get("surroundings", {}).get("/tmp", ""))
    if said.startswith("not "):
        not_promised(said)
    if rig.has(Feature.OWN_KERNEL):
        not_promised("/tmp is the guest's own memory, which is limited")
    if rig.isolated("user-space kernel"):
        not_promised("its mounts are in a kernel of its own, which is limited as a whole")
    rig.needs(Feature.HOST_PIDS)
    mount = rig.view.mounts(rig.served.workload[0]).get("/tmp")
    assert mount is not None and mount.type == "tmpfs", "/tmp is a tmpfs of its own"
    size = re.search(r"(?:^|,)size=(\d+)k(?:,|$)", mount.super_options)
    assert size and int(size[1]) * 1024 == rig.spec.scratch_bytes, mount


def test_every_process_is_held_to_the_cpus_of_the_spec(rig: Rig) -> None:
    rig.needs(Feature.PINNING, Feature.HOST_PIDS)
    assert pinned_to(rig.served.instance) == set(rig.served.session.spec.cpuset) != set()


def _held(rig: Rig, limit: Limit) -> Held:
    instance = rig.served.instance
    assert isinstance(instance, OnThisHost)
    own = {*rig.served.pids, *instance.host_pids()}  # a kernel in user space makes more as it goes
    found = rig.view.held(limit, rig.served.workload, own)
    assert isinstance(found, Held), found
    return found
