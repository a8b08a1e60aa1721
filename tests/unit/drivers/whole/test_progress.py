"""What a console shows of a boot, in the words of Debian 12 and 13."""

from __future__ import annotations

import pytest

from drivers.libvirt.whole.progress import Progress
from lab.timeline import Phase

BOOT = b"""\
Loading, please wait...\r
Begin: Running /scripts/init-bottom ... done.\r
Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!\r
[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mnetwork.target\x1b[0m - Network.\r
         Starting \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server...\r
\x1b[K[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mnetwork-online.target\x1b[0m - Network is Online.\r
lab 00000000000000000000000000000000 main 38087837453\r
[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server.\r
lab-guest login: lab-guest settled running\r
""".splitlines()
EARLIER = b"[  OK  ] Started OpenBSD Secure Shell server."


def test_each_phase_is_shown_by_its_line_and_once() -> None:
    progress = Progress()
    shown = [progress.shown(line) for line in BOOT]
    assert [phase for phase in shown if phase] == [Phase.INIT, Phase.USERSPACE, Phase.SSHD, Phase.SETTLED]
    assert not any(progress.shown(line) for line in BOOT)
    assert progress.state == "running"


def test_a_login_is_tried_only_once_sshd_is_up_and_has_a_network() -> None:
    sshd, network = BOOT[7], BOOT[5]
    for lines in ([sshd, network], [network, sshd]):
        progress = Progress()
        progress.shown(lines[0])
        assert not progress.reachable.is_set()
        progress.shown(lines[1])
        assert progress.reachable.is_set()


def test_where_the_console_is_silent_on_units_the_end_of_the_boot_is_waited_for() -> None:
    progress = Progress()
    progress.shown(b"lab-guest settled degraded")
    assert progress.reachable.is_set() and progress.settled.is_set() and progress.state == "degraded"


def test_the_words_of_a_systemd_that_leaves_out_units_names() -> None:
    assert Progress().shown(EARLIER) is Phase.SSHD


@pytest.mark.parametrize("line", [b"user said: Started ssh.servic", b"Welcomes", b"Starting ssh.service"])
def test_what_only_looks_alike_shows_nothing(line: bytes) -> None:
    assert Progress().shown(line) is None


@pytest.mark.parametrize(
    "line", [b"[\x1b[0;32m  OK  \x1b[0m] Stopped target \x1b[0;1;39mgraphical.target", b"[   12.3] reboot: Power down"]
)
def test_that_it_shuts_down_is_heard(line: bytes) -> None:
    progress = Progress()
    progress.shown(BOOT[2])
    assert not progress.ending.is_set()
    progress.shown(line)
    assert progress.ending.is_set()


def test_how_the_services_unit_ended_is_handed_on() -> None:
    told: list[tuple[str, str]] = []
    progress = Progress(lambda how, status: told.append((how, status)))
    for line in (b"lab-guest unit exited 3\r", b"login: lab-guest unit killed KILL", b"lab-guest unit"):
        progress.shown(line)
    assert told == [("exited", "3"), ("killed", "KILL")]
