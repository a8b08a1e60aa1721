"""What only a guest's own kernel can suffer: a panic, and a clock that is wrong; the host has neither."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from drivers.libvirt import LibvirtDriver
from lab.driver import Context
from lab.errors import Unsupported
from lab.launch.session import Session
from lab.service.ask import get
from lab.service.task import Trouble, start_task, task
from lab.spec import Spec
from lab.timeline import SystemClock

pytestmark = [pytest.mark.engine("libvirt"), pytest.mark.timeout(300)]
READY_S = 120
GONE_S = 60
DAY_S = 86_400


@pytest.mark.parametrize("variant", ["microvm", "q35"])
def test_a_guest_with_another_clock_panics_when_it_is_told_to_and_is_gone(
    variant: str, make_context: Callable[..., Context], labels: dict[str, str]
) -> None:
    driver = LibvirtDriver(variant, make_context())
    spec = Spec(labels=labels, guest_panic=True, guest_clock_offset_s=-DAY_S).for_launch()
    host_ns = time.time_ns() - time.monotonic_ns()
    try:
        driver.prepare(spec)
        with Session(driver, driver.info(), spec, SystemClock(), timeout_s=READY_S) as session:
            session.launch()
            behind_s = (time.time_ns() - get(session, "/clock")["realtime_ns"]) / 1e9
            assert abs(behind_s - DAY_S) < 10
            assert abs(time.time_ns() - time.monotonic_ns() - host_ns) < 1e9, "the host's own clock was changed"

            told = start_task(session, Trouble.PANIC, seconds=30)
            assert told["kind"] == "panic"
            assert session.instance is not None
            deadline = time.monotonic() + GONE_S
            while driver.list_instances({"lab.launch": spec.labels["lab.launch"]}):
                assert time.monotonic() < deadline, session.instance.logs()[-2000:]
                time.sleep(0.05)
            console = session.instance.logs()
            assert f"lab-guest panic {spec.nonce}".encode() in console
            assert b"Kernel panic - not syncing: Attempted to kill init" in console
    finally:
        driver.close()


def test_without_leave_a_guest_refuses_to_panic_and_its_clock_is_right(
    make_context: Callable[..., Context], labels: dict[str, str]
) -> None:
    driver = LibvirtDriver("microvm", make_context())
    spec = Spec(labels=labels).for_launch()
    try:
        driver.prepare(spec)
        with Session(driver, driver.info(), spec, SystemClock(), timeout_s=READY_S) as session:
            session.launch()
            assert abs(time.time_ns() - get(session, "/clock")["realtime_ns"]) < 10e9
            with pytest.raises(Unsupported, match="leave to panic"):
                start_task(session, Trouble.PANIC, seconds=5)
            assert task(session).kind == ""

            assert session.instance is not None
            # The memory of a guest is its own kernel's: it kills the task there, and neither the service nor init.
            start_task(session, Trouble.MEMORY, seconds=60, amount=512)
            deadline = time.monotonic() + 60
            while task(session).running:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            state = task(session)
            assert (state.signal, state.exit_code) == (9, None)
            assert 16 * 2**20 < state.bytes < spec.memory_bytes
            assert b"Out of memory: Killed process" in session.instance.logs()
    finally:
        driver.close()
