"""When a guest's pid 1 ends for a panic: only with leave for this very launch.

It runs here in namespaces of its own, where its end is theirs alone; a kernel's panic is seen in real guests.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from lab.service.build import build
from lab.service.guest_config import GuestConfig
from lab.units import MIB

NONCE = "5eed0000000000000000000000000005"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def guest_init(programs: Path) -> Path:
    flags = ['-DLAB_COMMAND_LINE="/lab/cmdline"', '-DLAB_CONSOLE="/lab/console"']
    return build("guest-init", programs, flags=flags)


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        (f"lab.nonce={NONCE} lab.panic={NONCE}", True),
        (f"lab.nonce={NONCE}", False),
        (f"lab.nonce={NONCE} lab.panic={NONCE}0", False),
        (f"lab.nonce={NONCE} lab.panic=", False),
        (f"lab.panic={NONCE}", False),
        (f"lab.nonce={NONCE} not.lab.panic={NONCE}", False),
    ],
)
def test_a_guests_init_ends_for_a_panic_only_with_leave_for_this_launch(
    binary: Path, guest_init: Path, tmp_path: Path, words: str, ends: bool
) -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--net"]
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=WAIT_S, check=False).returncode != 0:
        pytest.skip("namespaces cannot be made here")
    (tmp_path / "lab").mkdir()
    shutil.copy(guest_init, tmp_path / "init")
    shutil.copy(binary, tmp_path / "service")
    (tmp_path / "lab/cmdline").write_text(f"console=ttyS0 {words}\n")
    (tmp_path / "lab/config").write_bytes(GuestConfig(argv=["/service"], service=True, scratch_bytes=MIB).encode())
    command = [*unshare, f"--root={tmp_path}", "/init"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            assert [process.stdout.readline().split()[2] for _ in range(3)] == [b"init", b"main", b"listening"]
            (init,) = psutil.Process(process.pid).children()
            init.send_signal(signal.SIGUSR2)
            if not ends:
                init.terminate()  # which passes on to the service, in its own time
            last = process.stdout.read()
            assert last == (f"lab-guest panic {NONCE}\n".encode() if ends else b"lab-guest exit 0\n")
        finally:
            process.kill()
