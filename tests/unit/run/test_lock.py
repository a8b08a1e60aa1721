import fcntl
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.run.lock import LOCK_NAME, host_lock

ROOT = Path(__file__).parents[3]
NOBODY = 65534
HOLD = """
import sys
from pathlib import Path
from lab.run.lock import host_lock
with host_lock(sys.argv[1], wait="wait" in sys.argv, directories=[Path(sys.argv[2])],
               on_wait=lambda holder: print("waits:", holder, flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
print("left", flush=True)
"""

Holder = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Holder]:
    """Start another process that takes the lock in `tmp_path` and holds it until it gets a line."""
    started: list[subprocess.Popen[str]] = []

    def start(run_id: str, *more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, run_id, str(tmp_path), *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate(timeout=30)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 60)[0], "the process said nothing"
    return process.stdout.readline().strip()


def test_a_second_run_leaves_and_names_the_holder(hold: Holder, tmp_path: Path) -> None:
    first = hold("run-1")
    assert line(first) == "holds"
    with pytest.raises(LabError) as caught, host_lock("run-2", directories=[tmp_path]):
        pytest.fail("two hold the host")
    assert caught.value.brief.startswith(f"another lab run holds this host: pid {first.pid}, user ")
    assert ", run run-1, since 20" in caught.value.brief
    assert "--wait" in caught.value.resolution


def test_a_second_run_waits_until_the_first_has_left(hold: Holder, tmp_path: Path) -> None:
    with host_lock("run-1", directories=[tmp_path]):
        second = hold("run-2", "wait")
        assert line(second).startswith(f"waits: pid {os.getpid()}, user ")
        assert second.stdout is not None
        assert select.select([second.stdout], [], [], 0.3)[0] == []
    assert line(second) == "holds"
    second.communicate("\n", timeout=30)
    assert second.returncode == 0


def test_the_kernel_lets_go_of_a_killed_holders_lock(hold: Holder, tmp_path: Path) -> None:
    first = hold("run-1")
    assert line(first) == "holds"
    os.kill(first.pid, signal.SIGKILL)
    first.wait(timeout=30)
    assert "run-1" in (tmp_path / LOCK_NAME).read_text()  # what a dead holder wrote does not count
    with host_lock("run-2", directories=[tmp_path]):
        assert "run-2" in (tmp_path / LOCK_NAME).read_text()
        assert "run-1" not in (tmp_path / LOCK_NAME).read_text()
    assert (tmp_path / LOCK_NAME).read_text() == ""


def test_a_started_program_does_not_inherit_the_lock(tmp_path: Path) -> None:
    script = "import os; [print(os.path.realpath(f'/proc/self/fd/{fd}')) for fd in os.listdir('/proc/self/fd')]"
    with host_lock("run-1", directories=[tmp_path]), (tmp_path / "other").open("w") as other:
        os.set_inheritable(other.fileno(), True)
        told = subprocess.run(
            [sys.executable, "-c", script], close_fds=False, capture_output=True, text=True, check=True, timeout=60
        ).stdout.splitlines()
    assert str(tmp_path / "other") in told
    assert str(tmp_path / LOCK_NAME) not in told


def test_it_is_let_go_of_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), host_lock("run-1", directories=[tmp_path]):
        raise ZeroDivisionError
    with host_lock("run-2", directories=[tmp_path]):
        pass


def test_the_file_is_for_every_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with host_lock("run-1", directories=[tmp_path]):
            assert stat.S_IMODE((tmp_path / LOCK_NAME).stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_every_usable_directory_is_locked_once(tmp_path: Path) -> None:
    first, second, absent = tmp_path / "first", tmp_path / "second", tmp_path / "absent"
    first.mkdir()
    second.mkdir()
    (tmp_path / "link").symlink_to(first)
    everywhere = [absent, first, tmp_path / "link", second]
    with host_lock("run-1", directories=everywhere):
        for directory in (first, second):
            with pytest.raises(LabError, match="another lab run"), host_lock("run-2", directories=[directory]):
                pytest.fail("two hold the host")
    with host_lock("run-2", directories=[second]):
        with pytest.raises(LabError, match="another lab run"), host_lock("run-3", directories=everywhere):
            pytest.fail("two hold the host")
        with host_lock("run-4", directories=[first]):  # what run-3 had taken of it was given back
            pass


def make_link(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.symlink_to(victim)


def make_second_name(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    path.hardlink_to(victim)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("lay", [make_link, make_second_name, make_loop, os.mkfifo, Path.mkdir])
def test_what_is_no_plain_file_is_not_taken(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path / LOCK_NAME)
    with (
        pytest.raises(LabError, match="no lock for this host") as caught,
        host_lock("run-1", directories=[tmp_path]),
    ):
        pytest.fail("held")
    assert str(tmp_path) in caught.value.details
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_text() == "precious"


def test_what_another_user_wrote_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / LOCK_NAME
    path.write_bytes(b"pid 1\x1b[2J\n\xff" + b"x" * 1000)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LabError) as caught, host_lock("run-2", directories=[tmp_path]):
            pytest.fail("two hold the host")
    assert caught.value.brief.isprintable()
    assert len(caught.value.brief) < 400


def test_a_file_removed_while_it_was_waited_for_is_not_the_lock(tmp_path: Path) -> None:
    path = tmp_path / LOCK_NAME
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def remove_and_release(_: str) -> None:
            path.unlink()
            fcntl.flock(file, fcntl.LOCK_UN)

        with host_lock("run-1", wait=True, on_wait=remove_and_release, directories=[tmp_path]):
            assert "run-1" in path.read_text()
            with pytest.raises(LabError, match="another lab run"), host_lock("run-2", directories=[tmp_path]):
                pytest.fail("two hold the host")


def as_nobody(act: Callable[[], bool]) -> bool:
    """Whether `act` was true in a child of another user."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            code = 0 if act() else 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return code == 0


@pytest.fixture
def sticky() -> Iterator[Path]:
    """A directory as /tmp is, that every user can reach."""
    place = Path("/tmp") / f"stratalab-test-{os.getpid()}"
    place.mkdir()
    place.chmod(0o1777)
    yield place
    (place / LOCK_NAME).unlink(missing_ok=True)
    place.rmdir()


def can_take(directory: Path) -> bool:
    try:
        with host_lock("run-of-nobody", directories=[directory]):
            return True
    except LabError as error:
        if not error.brief.startswith("another lab run"):
            raise
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_users_share_one_lock(sticky: Path) -> None:
    with host_lock("run-of-root", directories=[sticky]):
        assert not as_nobody(lambda: can_take(sticky))
    assert as_nobody(lambda: can_take(sticky))
    (sticky / LOCK_NAME).unlink()
    assert as_nobody(lambda: can_take(sticky))  # now it is nobody's file
    assert (sticky / LOCK_NAME).stat().st_uid == NOBODY
    assert can_take(sticky)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_user_who_may_not_write_in_the_first_place_meets_the_others_in_the_second(
    sticky: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    def take_both() -> bool:
        try:
            with host_lock("run-of-nobody", directories=[closed, sticky]):
                return True
        except LabError:
            return False

    with host_lock("run-of-root", directories=[closed, sticky]):
        assert not as_nobody(take_both)
    assert as_nobody(take_both)
