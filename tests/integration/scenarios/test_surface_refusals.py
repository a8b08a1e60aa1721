"""Which system calls real engines refuse: a filter shows as the difference that it makes, and a guest's kernel answers
for itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from drivers.docker.variants import VARIANTS, Variant
from lab.driver import Context, Driver
from lab.features import OnThisHost, Role
from lab.launch.session import Session
from lab.registry import make_driver
from lab.spec import Spec, Target
from lab.timeline import SystemClock
from scenarios.surface.syscalls import Outcome, Probed, Sees, differs, probe, refused

Launch = Callable[[str], contextlib.AbstractContextManager[Session]]

# Of the list in Docker's "Seccomp security profiles for Docker", what no capability of a plain container lets through.
BLOCKED = {"add_key", "keyctl", "request_key", "perf_event_open", "setns", "umount2", "unshare", "move_pages"}


@pytest.fixture
def launch(make_context: Callable[..., Context], labels: dict[str, str]) -> Iterator[Launch]:
    drivers: list[Driver] = []

    @contextlib.contextmanager
    def make(target: str) -> Iterator[Session]:
        drivers.append(driver := make_driver(Target.parse(target), make_context()))
        spec = Spec(labels={**labels, "lab.target": target})
        driver.prepare(spec)
        with Session(driver, driver.info(), spec.for_launch(), SystemClock(), timeout_s=120) as session:
            session.launch()
            yield session

    yield make
    for driver in drivers:  # once nothing runs: what was loaded is every launch's
        for leftover in driver.leftovers(labels):
            leftover.delete()
        driver.close()


def said(probed: Probed) -> dict[str, str]:
    return {call.name: call.said for call in probed.calls}


def services(session: Session) -> int:
    """How many processes the instance's own service is."""
    assert isinstance(session.instance, OnThisHost)
    return list(session.instance.host_pids().values()).count(Role.SERVICE)


def require_answers(probed: Probed) -> None:
    """Every try was answered, and none hung, crashed or was left out."""
    kinds = {Outcome.OK, Outcome.ERRNO, Outcome.UNTRIED}
    assert [call for call in probed.calls if call.outcome not in kinds] == []
    assert len(probed.calls) > 300


@pytest.mark.engine("docker")
@pytest.mark.engine("process")
def test_docker_refuses_what_its_filter_lists(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, until: Callable[..., object]
) -> None:
    unfiltered = Variant(about="plain, without a filter", settings={"security_opt": ["seccomp=unconfined"]})
    monkeypatch.setitem(VARIANTS, "unfiltered", unfiltered)
    with launch("docker") as plain, launch("docker:unfiltered") as bare, launch("process") as process:
        filtered, control, outside = probe(plain, drop=False), probe(bare, drop=False), probe(process, drop=True)
        until(lambda: services(plain) == services(process) == 1)  # whoever tried is gone
    for probed in (filtered, control, outside):
        require_answers(probed)
    assert filtered.capabilities == control.capabilities != 0
    assert outside.capabilities == 0
    assert 0 not in outside.user_ids

    lost = {pair.call.name: pair for pair in differs(filtered.calls, control.calls)}
    assert BLOCKED - set(lost) <= {name for name in BLOCKED if said(control)[name] in ("ENOSYS", "EPERM")}
    assert {pair.call.said for pair in lost.values()} <= {"EPERM", "ENOSYS"}
    assert {"keyctl", "perf_event_open", "setns", "umount2"} <= set(lost)
    assert set(lost) <= {call.name for call in refused(filtered.calls, control.calls)}
    # Where the form's fault comes before the kernel's own check, a refusal can only have stood before the call.
    for unfiltered_calls in (control.calls, outside.calls):
        assert [call for call in refused(unfiltered_calls) if call.sees is Sees.FAULT] == []
    assert said(filtered)["personality"] == "ok"  # which the filter lets through for this operand alone

    assert said(filtered)["mount"] == "EPERM"
    assert said(filtered)["chroot"] == "ok"  # of Docker's default capabilities
    assert said(outside)["chroot"] == "EPERM"


@pytest.mark.engine("libvirt:microvm")
def test_a_guest_answers_with_its_own_kernel(launch: Launch) -> None:
    with launch("libvirt:microvm") as session:
        privileged, dropped = probe(session, drop=False), probe(session, drop=True)
    for probed in (privileged, dropped):
        require_answers(probed)
    assert dropped.capabilities == 0
    assert set(dropped.user_ids) == {65534}
    assert said(dropped)["init_module"] == "EPERM"  # the guest's kernel has modules
    assert said(dropped)["swapon"] == said(dropped)["mount"] == "EPERM"
    for probed in (privileged, dropped):
        assert [call for call in refused(probed.calls) if call.sees is Sees.FAULT] == []
