"""The proof of KVM, with programs that play QEMU and the counting guest."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest

from drivers.libvirt import host, kvm
from drivers.libvirt.engine import Emulator
from drivers.libvirt.kernel import Wanted
from drivers.libvirt.kvm import Proof, prove
from lab.errors import BadInput, DriverUnavailable


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens, which proves nothing."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(kvm, "_DEVICE", path)
    monkeypatch.setattr(kvm, "_LOOP_DEADLINE_S", 1.0)
    monkeypatch.setattr(kvm, "_BOOT_DEADLINE_S", 1.0)
    return path


def plays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Have `script` run in the place of the counting guest."""
    program = tmp_path / "counter"
    program.write_text(f"#!/bin/sh\nshift\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(kvm.sys, "executable", str(program))


def qemu(tmp_path: Path, script: str) -> Path:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def ask(tmp_path: Path, emulator: Path, kernel: Path | None = Path("/kernel"), *, again: bool = False) -> Proof:
    return prove(tmp_path, emulator=emulator, qemu_version="7.2.0", kernel=kernel, again=again)


LINUX = 'echo "[    0.000000] Linux version 6.1"; sleep 60'


def test_kvm_is_proven_by_counting_fast_and_booting(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(monkeypatch, tmp_path, "echo 0.001")
    started = time.monotonic()
    assert ask(tmp_path, qemu(tmp_path, LINUX)).proven
    assert time.monotonic() - started < 30, "QEMU is ended once it has said its line"


@pytest.mark.parametrize(
    ("counter", "emulator", "reason"),
    [
        ("echo 1.5", LINUX, "1.50 s"),
        ("sleep 60", LINUX, "more than 1 s"),
        ("echo 'Inappropriate ioctl' >&2; exit 1", LINUX, "Inappropriate ioctl"),
        ("echo 0.001", "echo 'SeaBIOS'; sleep 60", "SeaBIOS"),
        ("echo 0.001", "echo 'failed to set MSR 0x10a' >&2; exit 1", "MSR 0x10a"),
        ("echo 0.001", "exit 0", "said nothing"),
    ],
)
def test_it_is_not_by_anything_less(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counter: str, emulator: str, reason: str
) -> None:
    plays(monkeypatch, tmp_path, counter)
    proof = ask(tmp_path, qemu(tmp_path, emulator))
    assert not proof.proven
    assert reason in proof.reason and "\n" not in proof.reason


def test_the_verdict_is_kept_for_this_boot_of_the_host_alone(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(monkeypatch, tmp_path, "echo 0.001")
    assert ask(tmp_path, qemu(tmp_path, LINUX)).proven
    broken = qemu(tmp_path, "exit 1")
    assert ask(tmp_path, broken).proven, "nothing was run anew"
    monkeypatch.setattr(kvm, "boot_id", lambda: "another")
    assert not ask(tmp_path, broken).proven
    kept = tmp_path / "kvm-proof.json"
    assert json.loads(kept.read_text())["proven"] is False
    assert list((tmp_path / "partial").iterdir()) == []
    kept.write_text('{"key": 1')
    assert not ask(tmp_path, broken).proven, "a damaged verdict is none"
    assert ask(tmp_path, qemu(tmp_path, LINUX)).proven is False, "the new verdict is kept"


@pytest.mark.parametrize("later_s", [kvm.KEEP_NO_S + 1, -3600])
def test_a_no_is_believed_for_minutes_and_asked_again_at_once_on_request(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    plays(monkeypatch, tmp_path, "echo 'OSError: [Errno 16] Device or resource busy' >&2; exit 1")
    busy = ask(tmp_path, qemu(tmp_path, LINUX))
    assert not busy.proven and "EBUSY" in busy.reason and "another hypervisor" in busy.reason
    assert "measured 2" in busy.told() and "-o accel=kvm" in busy.told()
    plays(monkeypatch, tmp_path, "echo 0.001")
    assert not ask(tmp_path, qemu(tmp_path, LINUX)).proven, "nothing was run anew"
    assert ask(tmp_path, qemu(tmp_path, LINUX), again=True).proven
    kept = json.loads((tmp_path / "kvm-proof.json").read_text())
    (tmp_path / "kvm-proof.json").write_text(json.dumps(kept | {"proven": False}))
    now = time.time()
    monkeypatch.setattr(kvm.time, "time", lambda: now + later_s)
    assert ask(tmp_path, qemu(tmp_path, LINUX)).proven


def test_a_busy_device_that_only_qemu_meets_is_named_too(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(monkeypatch, tmp_path, "echo 0.001")
    said = "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy"
    assert "EBUSY" in ask(tmp_path, qemu(tmp_path, f"echo '{said}'; exit 1")).reason


def test_a_verdict_that_cannot_be_kept_is_told_all_the_same(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    plays(monkeypatch, tmp_path, "echo 0.001")
    emulator = qemu(tmp_path, LINUX)
    monkeypatch.setattr(Path, "write_text", full)
    assert ask(tmp_path, emulator).proven
    assert not (tmp_path / "kvm-proof.json").exists()


def test_without_a_device_or_a_kernel_nothing_is_claimed_and_nothing_kept(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plays(monkeypatch, tmp_path, "echo 0.001")
    assert not ask(tmp_path, qemu(tmp_path, LINUX), kernel=None).proven
    assert ask(tmp_path, qemu(tmp_path, LINUX)).proven, "it is asked again once there is a kernel"
    device.unlink()
    assert ask(tmp_path, qemu(tmp_path, LINUX)) == Proof(False, "there is no /dev/kvm")
    device.touch()
    monkeypatch.setattr(kvm.os, "access", lambda *_: False)
    assert "kvm" in ask(tmp_path, qemu(tmp_path, LINUX)).reason


def test_a_device_that_the_user_may_not_open_is_the_reason_also_where_libvirt_offers_no_kvm(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = Emulator(path=Path("/qemu"), version="7", machine="pc-q35-7.2", kvm=False)
    assert host._proof(emulator, "", tmp_path).reason == "libvirt offers no KVM on this host"
    monkeypatch.setattr(kvm.os, "access", lambda *_: False)
    assert "usermod -aG kvm" in host._proof(emulator, "", tmp_path).reason


class Connection:
    def getURI(self) -> str:  # noqa: N802  libvirt's name
        return "qemu:///session"


@pytest.fixture
def proof(monkeypatch: pytest.MonkeyPatch) -> list[Proof]:
    """What the host's proof is: the list's only item."""
    verdict = [Proof(False, "too slow")]
    emulator = Emulator(path=Path("/qemu"), version="7", machine="pc-q35-7.2", kvm=True)
    monkeypatch.setattr(host, "find_emulator", lambda *_: emulator)
    monkeypatch.setattr(host, "_proof", lambda *_, **__: verdict[0])
    return verdict


def asked(tmp_path: Path, accel: str) -> host.Host:
    return host.ask_host(Connection(), "q35", accel=accel, wanted=Wanted(), cache_dir=tmp_path)  # type: ignore[arg-type]


def test_emulation_is_the_answer_wherever_kvm_is_not_proven(proof: list[Proof], tmp_path: Path) -> None:
    assert asked(tmp_path, "").accel == asked(tmp_path, "tcg").accel == "tcg"
    with pytest.raises(DriverUnavailable, match="too slow"):
        asked(tmp_path, "kvm")
    with pytest.raises(BadInput):
        asked(tmp_path, "fast")
    proof[0] = Proof(True, "it booted")
    assert [asked(tmp_path, accel).accel for accel in ("", "kvm", "tcg")] == ["kvm", "kvm", "tcg"]
    assert asked(tmp_path, "").cpu_quota is False, "a user's own libvirt has no cgroups"


def test_another_architecture_is_refused_in_words(
    proof: list[Proof], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    with pytest.raises(DriverUnavailable, match="aarch64"):
        asked(tmp_path, "")


def test_the_counters_rate_is_the_nominal_one_where_it_is_told() -> None:
    intel = "model name\t: Intel(R) Xeon(R) CPU @ 2.60GHz\ncpu MHz\t\t: 800.000\n"
    amd = "model name\t: AMD EPYC\ncpu MHz\t\t: 2596.122\ncpu MHz\t\t: 1.0\n"
    assert (host.tsc_khz(intel), host.tsc_khz(amd), host.tsc_khz("")) == (2_600_000, 2_596_122, None)


def test_the_probe_ends_by_itself_where_there_is_no_kvm() -> None:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return  # the integration tests ask the real one
    assert not kvm._count().proven


@pytest.mark.parametrize(("mode", "shut"), [(0o600, True), (0o666, False), (0o660, True)])
def test_a_device_that_qemus_user_cannot_open_makes_launches_slow(mode: int, shut: bool, tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)
    assert host._shut_to_group_kvm(device) is shut
    assert host._shut_to_group_kvm(tmp_path / "none") is False
