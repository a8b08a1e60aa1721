"""Whether KVM really runs guests on this host: proven once per boot of the host, and kept. A no is kept for minutes
only, since the device may have been busy, or the machine slow, for that moment.

A /dev/kvm that opens is no proof (docs/method.md, rule 12): a host may interpret every instruction. Two things must be
seen, each in a process of its own with a deadline: a million counted loops within 0.1 s, and a Linux that boots to its
first line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab.errors import PlaceError
from lab.host.facts import boot_id
from lab.store.place import partial

LOOP_LIMIT_S = 0.1
"""A CPU that runs the guest's code itself needs about 0.001 s; one that interprets it, 0.5 s and more."""
_LOOP_DEADLINE_S = 3.0
_BOOT_DEADLINE_S = 5.0
_DEVICE = Path("/dev/kvm")
KEEP_NO_S = 300.0
"""How long a no is believed."""
_CLOCK_AHEAD_S = 5.0


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict, the reason in words, and when it was measured (seconds since 1970; 0 where nothing was)."""

    proven: bool
    reason: str
    measured_s: float = 0.0

    def told(self) -> str:
        """With when it was measured, and of a no how it is asked again."""
        if not self.measured_s:
            return self.reason
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.measured_s))
        again = f"; asked again {KEEP_NO_S / 60:.0f} minutes later, or at once with -o accel=kvm"
        return f"{self.reason} (measured {when}{'' if self.proven else again})"


def prove(cache_dir: Path, *, emulator: Path, qemu_version: str, kernel: Path | None, again: bool = False) -> Proof:
    """The verdict on this host, from `cache_dir` where it was reached since the host booted, else found out now; with
    `again`, a no that is kept is not believed.

    `kernel` is booted by `emulator`; without one, KVM that counts is still not proven.
    """
    if shut := device_shut():
        return Proof(False, shut)
    file = cache_dir / "kvm-proof.json"
    key = [boot_id(), os.uname().release, os.uname().version, qemu_version, str(emulator)]
    kept = _kept(file, key)
    if kept is not None and (kept.proven or not again):
        return kept
    proof = _count()
    if proof.proven:
        if kernel is None:
            return Proof(False, "KVM counts, and there is no guest kernel yet to prove that it boots")
        proof = _boot(emulator, kernel)
    proof = replace(proof, measured_s=time.time())
    with contextlib.suppress(PlaceError, OSError), partial(cache_dir, file.name) as made:
        made.write_text(json.dumps({"key": key, **asdict(proof)}))
        made.replace(file)
    return proof


def device_shut() -> str:
    """Why this user cannot open /dev/kvm, and the remedy; "" where it can."""
    if not _DEVICE.exists():
        return "there is no /dev/kvm"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return 'this user may not open /dev/kvm: sudo usermod -aG kvm "$USER", and log in again'
    return ""


def _kept(file: Path, key: list[str]) -> Proof | None:
    try:
        kept = json.loads(file.read_text())
        proof = Proof(bool(kept["proven"]), str(kept["reason"]), float(kept["measured_s"]))
        age_s = time.time() - proof.measured_s
        fresh = proof.proven or -_CLOCK_AHEAD_S < age_s < KEEP_NO_S
        return proof if kept["key"] == key and fresh else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not ours: the verdict is found anew


def _count() -> Proof:
    probe = Path(__file__).with_name("probe.py")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(probe)], capture_output=True, text=True, timeout=_LOOP_DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Proof(False, f"a million loops in a KVM guest took more than {_LOOP_DEADLINE_S:g} s")
    if done.returncode != 0:
        said = (done.stderr.strip() or "no word why").splitlines()[-1]
        return Proof(False, _busy(said) or f"KVM does not run a guest: {said}")
    seconds = float(done.stdout)
    if seconds > LOOP_LIMIT_S:
        return Proof(False, f"a million loops in a KVM guest took {seconds:.2f} s; a CPU of its own takes 0.001 s")
    return Proof(True, f"a million loops took {seconds:.4f} s")


def _boot(emulator: Path, kernel: Path) -> Proof:
    """Boot `kernel` under KVM until it says what it is."""
    argv = [str(emulator), "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "128", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel),
            "-append", "earlyprintk=serial,ttyS0,115200 console=ttyS0 panic=-1"]  # fmt: skip
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said = _read_until(process, b"Linux version", _BOOT_DEADLINE_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if b"Linux version" in said:
        return Proof(True, f"{kernel.name} booted under KVM")
    last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    if busy := _busy(last[0]):
        return Proof(False, busy)
    return Proof(False, f"no kernel line within {_BOOT_DEADLINE_S:g} s under KVM: {last[0][:200]}")


def _busy(said: str) -> str:
    """What it means where KVM says EBUSY; "" where it says something else."""
    if os.strerror(errno.EBUSY) not in said and f"Errno {errno.EBUSY}]" not in said:
        return ""
    return f"the CPU's virtualization is busy (EBUSY), as while another hypervisor has it: {said[:200]}"


def _read_until(process: subprocess.Popen[bytes], wanted: bytes, seconds: float) -> bytes:
    assert process.stdout is not None  # noqa: S101  asked for above
    said, deadline = b"", time.monotonic() + seconds
    while wanted not in said and (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        said += piece
    return said
