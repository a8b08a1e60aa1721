"""Each feature that is claimed is there: reached by its Protocol, and seen to do what that says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract_rig import Rig, clock_of, who_answers

from lab.features import (
    Clustered,
    Coldable,
    EngineOnThisHost,
    Execs,
    Feature,
    HasGuestMemory,
    Invoked,
    OnThisHost,
    Peers,
    Replicates,
    Role,
    Sleeps,
    StoredHere,
)
from lab.host.procs import Process, arguments

OF_INSTANCE: Mapping[Feature, Any] = {
    Feature.EXEC: Execs,
    Feature.HOST_PIDS: OnThisHost,
    Feature.STORAGE: StoredHere,
    Feature.GUEST_MEMORY: HasGuestMemory,
    Feature.REPLICAS: Replicates,
    Feature.FUNCTION: Invoked,
    Feature.SLEEP: Sleeps,
    Feature.PEERS: Peers,
}
OF_DRIVER: Mapping[Feature, Any] = {
    Feature.ENGINE_PIDS: EngineOnThisHost,
    Feature.COLD: Coldable,
    Feature.CLUSTER: Clustered,
}
_PARTS = {"image", "writable", "kernel", "initramfs", "root"}


def test_each_feature_that_is_claimed_has_its_protocol(rig: Rig) -> None:
    instance = rig.served.instance
    of_instance = {feature for feature, protocol in OF_INSTANCE.items() if not isinstance(instance, protocol)}
    of_driver = {feature for feature, protocol in OF_DRIVER.items() if not isinstance(rig.driver, protocol)}
    assert not (of_instance | of_driver) & rig.info.features


def test_a_guest_of_its_own_is_claimed_by_virtual_machines_alone(rig: Rig) -> None:
    if rig.has(Feature.OWN_KERNEL) or rig.has(Feature.GUEST_MEMORY):
        assert rig.isolated("virtual machine")


def test_an_address_is_had_by_those_that_claim_a_network_alone(rig: Rig) -> None:
    assert (rig.served.instance.endpoint is not None) == rig.has(Feature.NETWORK)


def test_host_pids_are_processes_of_this_host_and_one_of_them_does_the_work(rig: Rig) -> None:
    rig.needs(Feature.HOST_PIDS)
    pids = rig.served.pids
    assert pids and all(Process.of(pid) is not None for pid in pids)
    assert {Role.SERVICE, Role.VMM} & set(pids.values())


def test_every_process_that_came_with_the_instance_is_among_its_host_pids(rig: Rig) -> None:
    rig.needs(Feature.HOST_PIDS)
    missing = {
        pid: arguments(pid) or entry.name for pid, entry in rig.served.born.items() if pid not in rig.served.pids
    }
    assert not missing


def test_the_service_and_nothing_else_has_the_role_of_the_service(rig: Rig) -> None:
    rig.needs(Feature.HOST_PIDS)
    if rig.isolated("namespaces"):
        host = rig.view.namespace("self", "pid")
        outside = {pid for pid in rig.served.pids if rig.view.namespace(pid, "pid") in ("", host)}
        assert not [pid for pid in outside if rig.served.pids[pid] is Role.SERVICE]
        assert not [pid for pid in set(rig.served.pids) - outside if rig.served.pids[pid] is Role.SHIM]


def test_the_engines_own_processes_are_no_instances(rig: Rig) -> None:
    rig.needs(Feature.ENGINE_PIDS)
    assert isinstance(rig.driver, EngineOnThisHost)
    mine = set(rig.served.pids)
    daemons = rig.driver.engine_pids()
    assert all(Path(f"/proc/{pid}").exists() and name for pid, name in daemons.items())
    assert not mine & set(daemons)


def test_what_it_stores_is_on_this_hosts_disks(rig: Rig) -> None:
    rig.needs(Feature.STORAGE)
    instance = rig.served.instance
    assert isinstance(instance, StoredHere)
    stored = instance.storage()
    assert {"image", "kernel"} & set(stored), "what launches share"
    assert set(stored) <= _PARTS
    assert all(path.is_absolute() and path.exists() for paths in stored.values() for path in paths)
    assert all(stored.values())


def test_what_a_cold_launch_reads_is_there_and_others_are_named(rig: Rig) -> None:
    rig.needs(Feature.COLD)
    assert isinstance(rig.driver, Coldable)
    files = rig.driver.launch_files(rig.spec)
    assert files and all(path.exists() for path in files)
    assert all(isinstance(name, str) and name for name in rig.driver.others_running())


def test_what_others_run_is_not_the_labs(rig: Rig) -> None:
    rig.needs(Feature.COLD)
    assert isinstance(rig.driver, Coldable)
    mine = {rig.served.instance.id, rig.served.session.spec.labels["lab.launch"]}  # while it runs
    assert not [name for name in rig.driver.others_running() if any(one in name or name in one for one in mine)]


def test_a_cluster_tells_what_it_is(rig: Rig) -> None:
    rig.needs(Feature.CLUSTER)
    assert isinstance(rig.driver, Clustered)
    told = dict(rig.driver.cluster_status())
    assert told and json.loads(json.dumps(told)) == told


def test_replicas_are_as_many_as_asked_for_and_an_update_replaces_them(rig: Rig) -> None:
    rig.needs(Feature.REPLICAS, Feature.NETWORK)
    with rig.session() as session:
        session.launch()
        instance = session.instance
        assert isinstance(instance, Replicates)
        first = {who_answers(session, one) for one in instance.endpoints()}
        assert len(first) == 1 and None not in first, "one at first"
        instance.scale(2)
        _until(rig, "two replicas", lambda: len(_answering(session, instance)) >= 2)
        changed = replace(session.spec, environment={**session.spec.environment, "LAB_VERSION": "contract-2"})
        instance.update(changed)
        _until(rig, "the new version alone", lambda: _versions(session, instance) == {"contract-2"})
        instance.scale(1)
        _until(rig, "one replica", lambda: len(_answering(session, instance)) == 1)


def test_its_policy_of_updates_is_told_whole(rig: Rig) -> None:
    rig.needs(Feature.REPLICAS)
    instance = rig.served.instance
    assert isinstance(instance, Replicates)
    policy = instance.update_policy()
    assert {key for key, value in policy.items() if value} >= {"order", "readiness", "grace", "pre_stop"}


def _answering(session: Any, instance: Replicates) -> set[object]:
    """Who answers within several requests to each address: behind one there may be several."""
    found = {who_answers(session, one) for one in instance.endpoints() for _ in range(8)}
    return found - {None}


def _versions(session: Any, instance: Replicates) -> set[object]:
    return {clock_of(session, one).get("version") for one in instance.endpoints() for _ in range(8)} - {None}


def _until(rig: Rig, what: str, seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + min(90.0, rig.timeout_s)
    while not seen():
        assert time.monotonic() < deadline, f"there is not {what}"
        time.sleep(0.05)
