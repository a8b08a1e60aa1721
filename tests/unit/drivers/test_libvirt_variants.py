"""What each variant of libvirt's guests is made of, and what its kernel is told."""

from __future__ import annotations

import pytest

from drivers.libvirt import LibvirtDriver
from drivers.libvirt.domain import command_line
from drivers.libvirt.variants import VARIANTS
from lab.spec import Spec

LEAN = VARIANTS["microvm-lean"]
SHORTEST_LINE = 2048
"""COMMAND_LINE_SIZE of x86 (arch/x86/include/asm/setup.h), which cuts off the rest without a word."""


def words(name: str, **spec: object) -> list[str]:
    return command_line(VARIANTS[name], "tcg", Spec(**spec), disk=False, tsc_khz=5).split()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VARIANTS)
def test_no_guest_tests_its_ciphers(name: str) -> None:
    said = words(name)
    assert said.count("cryptomgr.notests=1") == 1
    (calls,) = [word.partition("=")[2].split(",") for word in said if word.startswith("initcall_blacklist=")]
    assert "crypto_kdf108_init" in calls and len(calls) == len(set(calls))


def test_the_default_leaves_out_nothing_else() -> None:
    for name in set(VARIANTS) - {"microvm-lean"}:
        assert VARIANTS[name].left_out == () and not VARIANTS[name].unsigned
        assert "initcall_blacklist=crypto_kdf108_init" in words(name)


def test_lean_is_a_microvm_of_its_own_that_names_all_that_it_leaves_out_on_one_line() -> None:
    said, plain = words("microvm-lean"), words("microvm")
    assert LEAN.machine == VARIANTS["microvm"].machine and LEAN.unsigned
    about = LibvirtDriver.variants()["microvm-lean"]
    assert "\n" not in about and "the same as" not in about
    assert all(part.what in about for part in LEAN.left_out)
    assert {"ipv6.disable=1", "audit=0", "init_on_alloc=0", "lsm=capability"} <= set(said) - set(plain)
    assert {word for word in plain if not word.startswith("initcall_blacklist=")} <= set(said)


def test_what_is_dear_in_an_emulator_alone_is_left_out_there_alone() -> None:
    hosted = command_line(LEAN, "kvm", Spec(), disk=False).split()
    assert "clearcpuid=rep_good" in words("microvm-lean") and "clearcpuid=rep_good" not in hosted
    assert "ipv6.disable=1" in hosted and len(LEAN.parts("kvm")) == len(LEAN.parts("tcg")) - 1


def test_timers_and_mitigations_stay() -> None:
    """A microvm without its APIC's timer has none (docs/guests.md), and boots as soon with mitigations as without."""
    assert not {"noapictimer", "nolapic", "mitigations=off"} & set(words("microvm-lean"))


def test_the_longest_line_reaches_the_kernel_whole() -> None:
    labels, nonce = {"lab.launch": "f" * 16}, "f" * 32
    spec = Spec(nonce=nonce, labels=labels, guest_panic=True, guest_clock_offset_s=-86_400, port=65_535)
    assert len(command_line(LEAN, "tcg", spec, disk=True, tsc_khz=9_999_999)) < SHORTEST_LINE - 256
