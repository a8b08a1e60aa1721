"""What real platforms share and let be touched: told from inside as the host's kernel tells it of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.driver import Context, Driver
from lab.features import OnThisHost, Role
from lab.figures.series import ABSENT, FACT
from lab.host import capabilities
from lab.host.facts import boot_id
from lab.host.procfs import read_fields
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.store.record import Outcome, RunRecord
from lab.timeline import SystemClock
from scenarios.surface import Surface, calls, inside, outside, syscalls
from scenarios.surface.inside import Host, Inside

MASKS = {
    "capabilities: effective": "CapEff",
    "capabilities: permitted": "CapPrm",
    "capabilities: inheritable": "CapInh",
    "capabilities: bounding": "CapBnd",
    "capabilities: ambient": "CapAmb",
}


def on(*targets: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "target", [pytest.param(target, marks=pytest.mark.engine(target)) for target in targets]
    )


@pytest.fixture
def driver(target: str, make_context: Callable[..., Context]) -> Iterator[Driver]:
    made = make_driver(Target.parse(target), make_context())
    yield made
    made.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One running instance, and what was told of it; `status` is what the host's kernel tells of `pid`."""

    session: Session
    inside: Inside
    said: Mapping[str, str]
    from_host: Mapping[str, str]
    pid: int

    @property
    def status(self) -> Mapping[str, str]:
        return read_fields(Path(f"/proc/{self.pid}/status"))


@pytest.fixture
def looked(driver: Driver, labels: dict[str, str]) -> Iterator[Looked]:
    spec = Spec(labels=labels)
    driver.prepare(spec)
    try:
        with Session(driver, driver.info(), spec.for_launch(), SystemClock()) as session:
            session.launch()
            assert isinstance(session.instance, OnThisHost)
            pids = session.instance.host_pids()
            role = outside.carrier(pids)
            (pid,) = [pid for pid, own in pids.items() if own is role]
            from_host = outside.facts(outside.look(pids), role)
            found = inside.look(session, Host.here())
            yield Looked(session=session, inside=found, said=inside.facts(found), from_host=from_host, pid=pid)
    finally:
        for leftover in driver.leftovers(labels):
            leftover.delete()


def links(pid: int) -> dict[str, str]:
    return {kind: str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in inside.NAMESPACES}


@on("docker", "docker:none")
def test_a_container_is_seen_alike_from_both_sides(looked: Looked, target: str) -> None:
    told, status = looked.inside.found, looked.status
    assert not [probe for probe, said in looked.said.items() if said in ("timed out", "failed", "not tried")]
    assert not looked.inside.dropped
    assert isinstance(told["kernel"], Mapping)
    assert isinstance(told["namespaces"], Mapping)
    assert isinstance(told["status"], Mapping)
    assert told["kernel"]["boot_id"] == boot_id()
    assert looked.said["kernel: boot id"] == "the host's"
    # Its namespaces, by their links as root on the host reads them.
    theirs, ours = links(looked.pid), links(os.getpid())
    assert {kind: told["namespaces"][kind] for kind in theirs} == theirs
    shared = sorted(kind for kind in theirs if theirs[kind] == ours[kind])
    assert looked.said["namespaces: shared with the host"] == (", ".join(shared) or "none")
    assert looked.from_host["its process: namespaces shared"] == looked.said["namespaces: shared with the host"]
    assert "net" not in shared
    assert "pid" not in shared
    # Its rights, by the host's kernel; their names are held against libcap's in tests/unit/host/test_capabilities.py.
    for probe, key in MASKS.items():
        assert told["status"][key] == status[key]
        assert looked.said[probe] == capabilities.said(status[key]), probe
    assert looked.said["capabilities: bounding"] not in ("none", "all", inside.NOT_TOLD)
    assert inside.counts(looked.inside)["capabilities_effective"] == int(status["CapEff"], 16).bit_count()
    assert told["status"]["Seccomp"] == status["Seccomp"] == "2"
    assert looked.said["seccomp"] == looked.from_host["its process: seccomp"] == inside.seccomp(status)
    assert told["status"]["NoNewPrivs"] == status["NoNewPrivs"]
    assert looked.from_host["its process: root"] == "its own"
    assert looked.from_host["host processes"] == (
        "service, shim" if target == "docker:none" else "proxy, service, shim"
    )
    # Docker's declared masks and its few devices.
    assert "/proc/timer_list" in looked.said["kernel files: hidden"]
    assert {"null", "zero", "urandom"} <= set(looked.said["devices"].split(", "))
    assert looked.said["devices: of blocks"] == looked.said["kernel files: it may write"] == "none"
    assert looked.said["processes in sight"] == "those of its pid namespace only"


@on("process")
def test_the_bare_process_is_looked_at_without_root_or_capabilities(looked: Looked) -> None:
    told = looked.inside.found
    assert looked.inside.dropped
    assert isinstance(told["status"], Mapping)
    assert told["status"]["Uid"].split() == ["65534"] * 4
    assert {key: int(told["status"][key], 16) for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == dict.fromkeys(
        ("CapEff", "CapPrm", "CapInh", "CapAmb"), 0
    )
    assert looked.said["namespaces: shared with the host"] == "all"
    assert looked.said["kernel: boot id"] == looked.said["host name"] == "the host's"
    assert looked.said["processes in sight"] == "the host's, kernel threads too"
    assert looked.said["devices: it may read"] != "all of them"
    probed = syscalls.probe(looked.session, drop=looked.inside.dropped)
    assert (set(probed.user_ids), probed.capabilities) == ({65534}, 0)
    counts = inside.counts(looked.inside)
    assert (counts["namespaces_own"], counts["capabilities_effective"]) == (0, 0)
    assert looked.from_host["its process: namespaces shared"] == "all"
    assert looked.from_host["its process: root"] == "the host's"


@on("libvirt:microvm")
def test_a_guest_has_all_rights_over_its_own_kernel_and_its_monitor_few_over_the_host(looked: Looked) -> None:
    told, status = looked.inside.found, looked.status
    assert not [probe for probe, said in looked.said.items() if said in ("timed out", "failed", "not tried")]
    assert isinstance(told["kernel"], Mapping)
    assert re.fullmatch(r"[0-9a-f-]{36}", told["kernel"]["boot_id"])
    assert told["kernel"]["boot_id"] != boot_id()
    assert looked.said["kernel: boot id"] == looked.said["host name"] == "its own"
    assert looked.said["namespaces: shared with the host"] == "none: its kernel is its own"
    assert inside.counts(looked.inside)["namespaces_own"] == len(inside.NAMESPACES)
    assert inside.counts(looked.inside)["host_processes_seen"] == 0
    assert looked.said["capabilities: effective"] == "all"
    # Of the monitor, what the host's own /proc says.
    uid = status["Uid"].split()[0]
    assert looked.from_host["host processes"] == str(Role.VMM)
    assert looked.from_host["its process: user"].endswith(f"({uid})")
    assert looked.from_host["its process: seccomp"] == inside.seccomp(status)
    assert (looked.from_host["its process: capabilities"] == "none") == (int(status["CapEff"], 16) == 0)
    assert looked.from_host["its process: no new privileges"] == {"0": "no", "1": "yes"}[status["NoNewPrivs"]]
    assert looked.from_host["its process: program"].startswith("qemu-system")
    open_now = {str(link.readlink()) for link in Path(f"/proc/{looked.pid}/fd").iterdir()}
    assert ("kvm" in looked.from_host["its process: open devices"]) == ("/dev/kvm" in open_now)
    launch = looked.session.spec.labels["lab.launch"]
    assert not [said for said in looked.from_host.values() if launch[:8] in said]


@on("process", "docker:none")
def test_the_scenario_tells_every_fact_and_figure(
    driver: Driver, measure: Callable[..., RunRecord], target: str
) -> None:
    record = measure(Surface(), driver)
    assert [launch.error for launch in record.launches if launch.outcome is not Outcome.OK] == []
    facts = {
        (sample.dimensions["seen"], sample.dimensions["probe"]): sample.dimensions["said"]
        for sample in record.samples
        if sample.metric == FACT
    }
    assert facts["inside", "clock"] == "the host's"
    assert facts["inside", "kernel: boot id"] == "the host's"
    assert not [sample for sample in record.samples if sample.metric == ABSENT]
    figures = {sample.metric: sample.value for sample in record.samples if sample.metric != FACT}
    assert figures["calls_tried"] > 250
    assert figures["calls_not_tried"] > 0
    assert figures["calls_refused"] > 0
    filtered = facts["inside", "system calls: refused by a filter for certain"]
    if target == "process":
        assert (filtered, figures["calls_filtered"], figures["namespaces_own"]) == ("none", 0, 0)
    else:
        assert "keyctl" in filtered.split(", ")  # of Docker's documented profile
        assert figures["calls_filtered"] == len(filtered.split(", "))
        assert figures["namespaces_own"] >= 4
    assert calls.facts([]).keys() <= {probe for _, probe in facts}
