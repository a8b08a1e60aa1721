"""Nothing privileged, what `isolation` says is there, and nobody beyond this host reaches it."""

from __future__ import annotations

import socket

import psutil
from contract_rig import Rig, not_promised
from host_view import sockets_of

from lab.features import Feature, Role
from lab.host import capabilities
from lab.launch.kernels import is_this_hosts

_DEFAULT = set(capabilities.names("00000000a80425fb"))
"""What container engines leave by default (moby, oci/caps/defaults.go)."""


def test_it_has_no_more_capabilities_than_engines_leave_by_default(rig: Rig) -> None:
    _needs_namespaces(rig)
    told = set(rig.info.facts.get("capabilities_more", ()))
    for pid in rig.served.workload:
        status = rig.view.status(pid)
        for mask in ("CapEff", "CapBnd"):
            assert set(capabilities.names(status[mask])) <= _DEFAULT | told, f"{mask} of process {pid}"


def test_system_calls_are_filtered_unless_its_facts_say_that_they_are_not(rig: Rig) -> None:
    _needs_namespaces(rig)
    said = str(rig.info.facts.get("surroundings", {}).get("seccomp", ""))
    if said.startswith("no "):
        not_promised(said)
    assert {rig.view.status(pid).get("Seccomp") for pid in rig.served.workload} == {"2"}


def test_no_disk_of_the_host_is_in_its_dev(rig: Rig) -> None:
    _needs_namespaces(rig)
    assert not rig.view.disks(rig.served.workload[0])


def test_the_kernels_settings_are_not_its_to_write(rig: Rig) -> None:
    _needs_namespaces(rig)
    mount = rig.view.mounts(rig.served.workload[0]).get("/sys")
    assert mount is None or "ro" in mount.options.split(","), mount


def test_it_has_a_pid_namespace_and_mounts_of_its_own(rig: Rig) -> None:
    _needs_namespaces(rig)
    service = [pid for pid, role in rig.served.pids.items() if role is Role.SERVICE]
    assert service
    for kind in ("pid", "mnt"):
        found = {rig.view.namespace(pid, kind) for pid in service}
        assert len(found) == 1 and "" not in found, f"its processes are in one {kind} namespace: {found}"
        assert found != {rig.view.namespace("self", kind)}


def test_a_kernel_of_its_own_is_no_claim_alone(rig: Rig) -> None:
    claimed = rig.isolated("virtual machine") or rig.isolated("user-space kernel")
    facts = rig.served.facts
    told = {"boot_id": facts["boot_id"], "pid_namespace": facts.get("namespaces", {}).get("pid")}
    assert is_this_hosts(told, rig.served.instance) != claimed
    if claimed and rig.has(Feature.HOST_PIDS):
        assert Role.VMM in rig.served.pids.values()


def test_only_this_host_reaches_it(rig: Rig) -> None:
    rig.needs(Feature.NETWORK)
    endpoint = rig.served.instance.endpoint
    assert endpoint is not None
    own = sockets_of(rig.served.pids)
    wide = [one for one in rig.served.new_listeners if one.beyond_loopback]
    assert not [one for one in wide if one.port == endpoint.port or one.inode in own]
    if endpoint.host.startswith("127."):
        for address in _own_addresses():
            with socket.socket() as tried:
                tried.settimeout(2)
                assert tried.connect_ex((address, endpoint.port)) != 0, f"{address}:{endpoint.port} answers"


def _own_addresses() -> list[str]:
    """This host's own IPv4 addresses that are not loopback."""
    every = (one for found in psutil.net_if_addrs().values() for one in found if one.family == socket.AF_INET)
    return sorted({one.address for one in every if not one.address.startswith("127.")})


def _needs_namespaces(rig: Rig) -> None:
    if not rig.isolated("namespaces"):
        not_promised(f"the isolation is '{rig.info.isolation}'")
    rig.needs(Feature.HOST_PIDS)
