"""Why a guest's service ended, as its console tells it."""

from __future__ import annotations

import pytest

from drivers.libvirt.console import GuestEnd
from lab.errors import LaunchError
from lab.units import MIB

KERNEL = b"[    1.234567] Linux version 6.1"
KILLED = b"[    2.345678] Out of memory: Killed process 77 (odd) total-vm:400000kB, anon-rss:60000kB"
REFUSED = b"[    3.429388] __vm_enough_memory: pid: 82, comm: odd, no enough memory for the allocation"
DEADLOCKED = b"[    2.345678] Kernel panic - not syncing: System is deadlocked on memory"


def _told(*lines: bytes, gone: bytes | None = None, unasked: bool = True) -> list[LaunchError]:
    told: list[LaunchError] = []
    written = [*lines, *([gone] if gone is not None else [])]
    end = GuestEnd(told.append, console=lambda: b"\n".join(written), unasked=lambda: unasked, memory_bytes=96 * MIB)
    for line in lines:
        end.line(line)
    if gone is not None:
        end.gone()
    return told


@pytest.mark.parametrize(
    "lines,told",
    [
        ([b"lab-guest exit 3"], "the service ended with exit status 3"),
        ([b"lab-guest exit 139"], "the service was ended by signal SIGSEGV (11)"),
        ([KILLED, b"lab-guest exit 137"], "the service was killed: it wanted more than the 96 MiB of --memory"),
        (
            [KILLED, b"lab-guest exit 1"],
            "the service ended with exit status 1 after a process of it was killed: it wanted more than the 96 MiB of "
            "--memory",
        ),
        (
            [REFUSED, b"lab-guest exit 139"],
            "the service was ended by signal SIGSEGV (11) after the kernel had refused it memory: it wanted more than "
            "the 96 MiB of --memory",
        ),
        (
            [b"lab-guest error: /nope: No such file or directory", b"lab-guest exit 127"],
            "the service could not be started: /nope: No such file or directory",
        ),
    ],
)
def test_the_inits_word_is_told_before_the_machine_is_off(lines: list[bytes], told: str) -> None:
    (error,) = _told(*lines)
    assert error.brief == told


def test_the_services_last_lines_go_with_it_and_the_kernels_do_not() -> None:
    written = [b"line %d" % number for number in range(1, 31)]
    (error,) = _told(*written[:20], KERNEL, *written[20:], KERNEL, b"no end of linelab-guest exit 3")
    assert error.details.splitlines() == [
        *(f"line {number}" for number in range(22, 31)),
        "no end of linelab-guest exit 3",
    ]


@pytest.mark.parametrize(
    "lines,gone,told",
    [
        ([], b"x\nlab-guest error: /lab/config is missing\n", "lab-guest error: /lab/config is missing"),
        ([], b"[ 1.0] Kernel panic - not syncing: no init\n", "[ 1.0] Kernel panic - not syncing: no init"),
        ([], b"", "it did not say why, as where QEMU is killed"),
    ],
)
def test_a_machine_that_is_off_without_a_word_of_its_init(lines: list[bytes], gone: bytes, told: str) -> None:
    (error,) = _told(*lines, gone=gone)
    assert error.brief == f"the guest ended by itself: {told}"


def test_a_guest_that_died_for_want_of_memory_says_so() -> None:
    (error,) = _told(DEADLOCKED, gone=DEADLOCKED)
    assert error.brief == "the service was killed: it wanted more than the 96 MiB of --memory"


def test_an_end_is_told_once() -> None:
    assert len(_told(b"lab-guest exit 3", gone=b"lab-guest exit 3\n")) == 1


def test_an_end_that_was_asked_for_is_not_told() -> None:
    assert _told(b"lab-guest exit 0", gone=b"", unasked=False) == []
