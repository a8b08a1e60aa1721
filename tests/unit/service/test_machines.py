"""The service's sources on machines that are not this one: they compile, and know each system call's number there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.service import build
from lab.service.build import SOURCE_DIR, Compiler
from lab.store.place import cache_dir

pytest.importorskip("ziglang", reason="programs for other machines are built by ziglang: pip install 'stratalab[zig]'")

MACHINES = {"aarch64": "aarch64-linux-musl", "riscv64": "riscv64-linux-musl", "i386": "x86-linux-musl"}
LACKING = {"aarch64": set(), "riscv64": {"renameat"}}
DEPENDENT = ("surface/calls.c", "measure/syscall_mix.c")
"""The sources in which calls stand by their numbers; the rest is of the C library's interface alone."""
NUMBERS = """
#include <sys/syscall.h>
#include <asm/unistd.h>
#include "surface/calls_lacking.h"
#define TRY(name, sees, why, ...) TOLD name SYS_##name
#define NOT(name, why) TOLD name SYS_##name
#include "surface/calls_table.h"
#undef TRY
#undef NOT
#define TRY(name, sees, why, ...) KERNELS name __NR_##name
#define NOT(name, why) KERNELS name __NR_##name
#include "surface/calls_table.h"
#undef TRY_AT
#define TRY_AT(number, name, sees, why, ...) TOLD name number KERNELS name __NR_##name
#include "surface/calls_newer.h"
"""


def zig(target: str, *words: str) -> str:
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache_dir() / "zig")}
    environment["ZIG_LOCAL_CACHE_DIR"] = environment["ZIG_GLOBAL_CACHE_DIR"]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-I.", "-O0", "-Wall", "-Wextra", "-Werror"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *flags, *words]
    done = subprocess.run(
        command, cwd=SOURCE_DIR, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("machine", MACHINES)
def test_what_depends_on_the_machine_compiles_for_each(machine: str, tmp_path: Path) -> None:
    for source in DEPENDENT:
        zig(MACHINES[machine], "-c", "-o", str(tmp_path / "object"), source)


@pytest.mark.parametrize("machine", LACKING)
def test_each_call_has_the_number_that_the_kernels_headers_give_it_there(machine: str, tmp_path: Path) -> None:
    source = tmp_path / "numbers.c"
    source.write_text(NUMBERS)
    expanded = zig(MACHINES[machine], "-E", "-P", str(source))
    found = dict(re.findall(r"TOLD (\w+) \(?(-?\d+)", expanded))
    kernels = dict(re.findall(r"KERNELS (\w+) (\d+)", expanded))
    assert {name for name, number in found.items() if number == "-1"} == LACKING[machine]
    assert {name: number for name, number in found.items() if number != "-1" and name in kernels} == {
        name: number for name, number in kernels.items() if name in found
    }
    assert len(kernels) > 250
    # Of Linux's common table (include/uapi/asm-generic/unistd.h), by which machines since Arm's go.
    assert [found[name] for name in ("io_setup", "read", "getpid", "mmap", "bpf")] == ["0", "63", "172", "222", "280"]


def test_another_machines_compiler_is_ziglang_alone_and_its_lack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(build, "_asked", lambda *command: asked.append(command) or [Compiler(("zig",), "zig")])
    assert build._compilers_for("") is None
    compilers = build._compilers_for("riscv64")
    assert compilers is not None and len(compilers) == 1 and "riscv64-linux-musl" in str(asked[0])
    monkeypatch.setattr(build, "cross_compiles", lambda: False)
    with pytest.raises(build.LabError) as raised:
        build._compilers_for("riscv64")
    assert "riscv64" in raised.value.brief and raised.value.resolution == "pip install 'stratalab[zig]'"
