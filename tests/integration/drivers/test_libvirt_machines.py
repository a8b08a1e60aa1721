"""Guests with another kernel, and of another machine than this host: told from inside, by the service itself."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from lab.driver import Context, Info
from lab.features import TellsKill
from lab.host.facts import boot_id
from lab.launch.session import Session
from lab.registry import make_driver
from lab.service import ask
from lab.spec import Spec, Target
from lab.timeline import Phase, SystemClock
from scenarios.surface import inside, syscalls

READY_S = 120.0  # an emulated guest on a busy machine


@pytest.fixture
def booted(target: str, make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[tuple[Session, Info]]:
    driver = make_driver(Target.parse(target), make_context())
    spec = Spec(labels=labels)
    try:
        driver.prepare(spec)
        info = driver.info()
        with Session(driver, info, spec.for_launch(), SystemClock(), timeout_s=READY_S) as session:
            session.launch()
            yield session, info
            session.stop(timeout_s=READY_S)
    finally:
        driver.close()


def kernel_of(session: Session) -> Mapping[str, Any]:
    """What the guest tells of its kernel."""
    found = inside.look(session, inside.Host.here()).found["kernel"]
    assert isinstance(found, Mapping)
    return found


@pytest.mark.engine("libvirt:arm64")
@pytest.mark.parametrize("target", ["libvirt:arm64"])
def test_an_arm_guest_runs_a_kernel_and_a_service_of_its_own_machine(booted: tuple[Session, Info], target: str) -> None:
    session, _ = booted
    told = kernel_of(session)
    assert told["machine"] == "aarch64" != platform.machine()
    assert told["release"].endswith("-arm64") and told["release"] in told["version"] != os.uname().release
    assert told["boot_id"] != boot_id()
    phases = {mark.phase for mark in session.timeline}
    assert {Phase.KERNEL, Phase.INIT, Phase.MAIN, Phase.LISTENING, Phase.READY} <= phases
    calls = {call.name: call for call in syscalls.probe_calls(session, drop=False)}
    assert (calls["read"].number, calls["read"].said) == (63, "EBADF")
    assert (calls["getpid"].number, calls["getpid"].said) == (172, "ok")
    assert "open" not in calls, "of x86-64's own calls none is tried"
    assert not [call.name for call in calls.values() if call.outcome is syscalls.Outcome.SIGNAL]
    assert ask.facts(session)["machine"] == "aarch64"
    session.stop(timeout_s=READY_S)
    assert isinstance(session.instance, TellsKill) and not session.instance.was_killed(), (
        "it powers off when it is asked"
    )


@pytest.mark.engine("libvirt:q35")
@pytest.mark.parametrize("target", ["libvirt:q35+6.12"])
def test_a_guest_boots_the_kernel_of_the_version_that_its_target_names(
    booted: tuple[Session, Info], target: str
) -> None:
    session, info = booted
    told = kernel_of(session)
    assert re.match(r"6\.12\.\d+", told["release"]) and told["machine"] == platform.machine()
    assert info.qualifiers["kernel"] == info.facts["guest_kernel"] == told["release"]
