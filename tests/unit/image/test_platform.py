"""Which machine an image is for, and what this host makes of that."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import BadInput
from lab.image import platform
from lab.image.platform import Platform, elf_architecture, emulator_of, require_runnable, x86_level
from lab.image.program import program_architecture


@pytest.fixture(autouse=True)
def amd64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(platform.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "x86_level", lambda: 2)
    monkeypatch.setattr(platform, "emulator_of", lambda _: "")
    platform.host_platforms.cache_clear()
    yield
    platform.host_platforms.cache_clear()


def elf(machine: int, bits: int = 2, order: int = 1) -> bytes:
    return b"\x7fELF" + bytes([bits, order]) + b"\0" * 12 + struct.pack("<H" if order == 1 else ">H", machine)


def test_platforms_are_normalized() -> None:
    assert str(Platform.of({"architecture": "x86_64", "variant": "v1"})) == "linux/amd64"
    assert str(Platform.of({"architecture": "aarch64", "variant": "8"})) == "linux/arm64"
    assert str(Platform.of({"architecture": "arm"})) == "linux/arm/v7"
    assert str(Platform.of({})) == "linux/amd64", "old builders left it out"


@pytest.mark.parametrize("told", [{}, {"architecture": "amd64"}, {"architecture": "amd64", "variant": "v2"},
                                  {"architecture": "386"}])  # fmt: skip
def test_what_this_host_runs_by_itself(told: dict[str, str]) -> None:
    assert require_runnable(Platform.of(told), "x") == ""


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"architecture": "arm64"}, "the image x is for arm64, this host is amd64"),
        ({"architecture": "amd64", "variant": "v3"}, "the image x is for amd64/v3, this host's CPU is amd64/v2"),
        ({"architecture": "amd64", "os": "windows"}, "the image x is for windows/amd64, this host is amd64"),
    ],
)
def test_what_it_does_not_run_is_named(told: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput) as raised:
        require_runnable(Platform.of(told), "x")
    assert raised.value.brief == said and "amd64" in raised.value.resolution


def test_by_an_emulator_of_the_kernel_it_is_run_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "emulator_of", lambda name: "/usr/bin/qemu-aarch64" if name == "arm64" else "")
    assert require_runnable(Platform.of({"architecture": "arm64"}), "x") == "qemu-user"
    with pytest.raises(BadInput):
        require_runnable(Platform.of({"architecture": "s390x"}), "x")


def test_an_emulator_counts_where_it_works_inside_containers(tmp_path: Path) -> None:
    told = "{state}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\nmagic 7f\n"
    entry = tmp_path / "qemu-aarch64"
    for state, flags, works in (("enabled", "OCF", True), ("enabled", "OC", False), ("disabled", "F", False)):
        entry.write_text(told.format(state=state, flags=flags))
        assert bool(emulator_of("arm64", tmp_path)) is works
    assert emulator_of("riscv64", tmp_path) == ""


def test_the_cpus_level_is_by_its_flags(tmp_path: Path) -> None:
    two = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"
    three = f"{two} avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
    for flags, level in (("fpu", 1), (two, 2), (f"{two} avx2", 2), (three, 3)):
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n\n")
        assert x86_level(tmp_path / "cpuinfo") == level


def test_elf_headers() -> None:
    assert elf_architecture(elf(62)) == "amd64"
    assert elf_architecture(elf(183)) == "arm64"
    assert elf_architecture(elf(3, bits=1)) == "386"
    assert elf_architecture(elf(22, order=2)) == "s390x"
    assert elf_architecture(elf(4711)) == "unknown"
    assert elf_architecture(b"#!/bin/sh\n" + b" " * 20) == ""


def test_a_program_is_found_as_an_engine_would_and_a_script_is_judged_by_its_interpreter() -> None:
    files = {"/opt/run": b"#! /bin/sh -e\n", "/bin/sh": elf(183), "/usr/bin/own": elf(62), "/srv/own": elf(183)}
    path = {"PATH": "/bin:/usr/bin"}
    assert program_architecture(files.get, ["/opt/run"], path, "/") == ("arm64", "/bin/sh")
    assert program_architecture(files.get, ["own"], path, "/srv") == ("amd64", "/usr/bin/own")
    assert program_architecture(files.get, ["absent"], path, "/") == ("", "")
    assert program_architecture(files.get, [], path, "/") == ("", "")
