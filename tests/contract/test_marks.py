"""Only instants that the engine showed, in their order, made when they were seen, and none after the end."""

from __future__ import annotations

import re

from contract_rig import Rig

from lab.errors import MeasurementError
from lab.features import Feature
from lab.timeline import CHAINS, Phase, Source

_TOLD = {Source.RETURN, Source.EVENT}
ALLOWED = {
    Phase.CREATED: _TOLD,
    Phase.SCHEDULED: {Source.EVENT},
    Phase.POD_IP: {Source.EVENT},
    Phase.STARTED: _TOLD,
    Phase.ENGINE_READY: {Source.EVENT},
    Phase.KERNEL: {Source.CONSOLE},
}
OF_WHOLE_GUESTS = {
    Phase.INIT: {Source.CONSOLE},
    Phase.USERSPACE: {Source.CONSOLE},
    Phase.SSHD: {Source.CONSOLE},
    Phase.LOGIN: {Source.RETURN},
    Phase.SETTLED: {Source.CONSOLE},
}
"""What a driver marks, and from where it may know; all else the lab marks, of itself or from the service's lines."""
_LINE = re.compile(rb"lab ([0-9a-f]{32}) (init|main|listening) \d+")


def test_it_marks_only_what_an_engine_can_show_and_from_where_it_can_know_it(rig: Rig) -> None:
    allowed = {**ALLOWED, **(OF_WHOLE_GUESTS if "whole_guest" in rig.info.facts else {})}
    for phase, source in rig.served.heard.phases:
        assert source in allowed.get(phase, ()), f"a driver does not mark {phase} by {source}"


def test_it_marks_no_phase_that_its_kind_of_engine_does_not_have(rig: Rig) -> None:
    marked = {phase for phase, _ in rig.served.heard.phases}
    if not (rig.has(Feature.CLUSTER) or rig.has(Feature.REPLICAS) or rig.info.isolation.endswith("in a pod")):
        assert not marked & {Phase.SCHEDULED, Phase.POD_IP, Phase.ENGINE_READY}, "no orchestrator"
    if not rig.isolated("virtual machine"):
        assert not marked & {Phase.KERNEL, Phase.INIT}, "no kernel of its own"


def test_the_engine_says_at_least_once_that_it_runs(rig: Rig) -> None:
    assert {Phase.CREATED, Phase.STARTED} & {phase for phase, _ in rig.served.heard.phases}


def test_what_is_created_or_started_is_there_when_it_is_marked(rig: Rig) -> None:
    early = [phase for (phase, _), existed in rig.served.heard.existed.items() if not existed]
    assert not early, f"marked before it was so: {early}"


def test_the_phases_of_each_chain_come_in_their_order(rig: Rig) -> None:
    timeline = rig.life.timeline
    assert (Phase.READY in timeline) == rig.has(Feature.NETWORK)
    disorder = ""
    try:
        for chain in CHAINS:
            timeline.steps(chain)
    except MeasurementError as error:
        disorder = error.brief
    assert not disorder
    end = Phase.READY if rig.has(Feature.NETWORK) else Phase.LISTENING
    assert timeline.duration_s(Phase.REQUESTED, end) > 0
    assert Phase.STOPPED in timeline and Phase.DELETED in timeline


def test_the_services_lines_reach_the_lab_whole_and_once(rig: Rig) -> None:
    rig.needs(Feature.MARKER)
    served = rig.served
    found = [match for line, _ in served.heard.lines if (match := _LINE.search(line))]
    own = [match[2] for match in found if match[1] == served.session.spec.nonce.encode()]
    assert [one for one in own if one != b"init"] == [b"main", b"listening"]
    assert not [line for line, _ in served.heard.lines if b"\n" in line]


def test_nothing_is_marked_after_the_instance_is_deleted(rig: Rig) -> None:
    assert rig.life.heard_later == rig.life.heard_at_delete


def test_an_end_that_was_asked_for_is_no_failure(rig: Rig) -> None:
    assert not rig.life.heard.failures
