"""What a whole guest promises beside: each phase seen once, its own words as facts, an end that it agrees to."""

from __future__ import annotations

import json

import pytest
from contract_rig import Rig, not_promised

from lab.features import Execs, Reports
from lab.timeline import LOGIN_CHAIN, SERVICE_CHAIN, SETTLING_CHAIN, Phase, Source

_SHOWN = {
    Phase.KERNEL: Source.CONSOLE,
    Phase.INIT: Source.CONSOLE,
    Phase.USERSPACE: Source.CONSOLE,
    Phase.MAIN: Source.CONSOLE,
    Phase.LISTENING: Source.CONSOLE,
    Phase.SSHD: Source.CONSOLE,
    Phase.LOGIN: Source.RETURN,
    Phase.SETTLED: Source.CONSOLE,
}


@pytest.fixture
def whole(rig: Rig) -> Rig:
    """One that serves, if its guests are whole."""
    if "whole_guest" not in rig.info.facts:
        not_promised("its instances are no distributions")
    return rig


def test_each_of_its_phases_is_seen_from_where_it_can_be_and_in_order(whole: Rig) -> None:
    timeline = whole.served.session.timeline
    assert {phase: source for phase, source in _SHOWN.items() if phase in timeline} == _SHOWN
    assert all(any(m.phase is phase and m.source is source for m in timeline) for phase, source in _SHOWN.items())
    steps = [timeline.steps(chain) for chain in (SERVICE_CHAIN, LOGIN_CHAIN, SETTLING_CHAIN)]
    assert [len(found) for found in steps] == [len(SERVICE_CHAIN) - 1, 2, 1], "in order, and none at one instant"
    assert sum(phase is Phase.USERSPACE for phase, _ in whole.served.heard.phases) == 1


def test_its_systemd_finds_nothing_amiss_and_its_own_word_is_a_fact_beside(whole: Rig) -> None:
    instance = whole.served.instance
    assert isinstance(instance, Reports) and isinstance(instance, Execs)
    told = instance.reported()
    failed = instance.exec(["systemctl", "list-units", "--failed", "--no-legend"], timeout_s=60).stdout
    assert told["systemd's state"] == "running", failed.decode()
    assert told["systemd-analyze"].startswith("Startup finished in ")


def test_its_keys_and_its_environment_are_for_roots_eyes(whole: Rig) -> None:
    instance = whole.served.instance
    assert isinstance(instance, Execs)
    look = "stat -c '%a %U' /etc/ssh/ssh_host_*_key /root/.ssh/authorized_keys /etc/stratalab/environment"
    modes = instance.exec(["sh", "-c", look], timeout_s=60).stdout.decode().split("\n")[:-1]
    assert modes == ["600 root"] * 3, "one host key: the launch's own"


def test_its_service_is_a_unit_of_its_systemd(whole: Rig) -> None:
    instance, told = whole.served.instance, whole.served.session.answer
    assert isinstance(instance, Execs) and told is not None
    clock = told.clock()
    shown = instance.exec(["systemctl", "status", "--no-pager", f"{json.loads(told.body)['pid']}"], timeout_s=60)
    assert clock is not None and b"lab-service.service" in shown.stdout, shown


def test_stop_is_agreed_to_by_the_guest_and_told_how(whole: Rig) -> None:
    """The last: what serves is gone after it."""
    session = whole.served.session
    instance = session.instance
    assert isinstance(instance, Reports)
    session.stop(timeout_s=240)
    assert instance.reported()["stopped by"] in ("ACPI", "SSH")
    assert session.facts()["reported"]["stopped by"] in ("ACPI", "SSH")
