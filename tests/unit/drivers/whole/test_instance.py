"""How a whole guest is brought to its end, and when the lab logs in; libvirt and SSH are played."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from drivers.libvirt.whole import instance as module
from drivers.libvirt.whole.instance import Login, WholeInstance
from drivers.libvirt.whole.progress import Progress
from drivers.libvirt.whole.way_in import NotYet
from lab.errors import DriverError
from lab.features import ExecResult
from lab.timeline import Phase, Source

SHUTS_DOWN = b"[  OK  ] Stopped target graphical.target - Graphical Interface."
UP = (b"[  OK  ] Reached target network-online.target", b"[  OK  ] Started ssh.service - OpenBSD")


class Domain:
    """libvirt's part: the power button says what `pressed` says on the console."""

    name = "lab-debian-0"

    def __init__(self, pressed: Callable[[], object]) -> None:
        self.calls: list[str] = []
        self.ended = False
        self._pressed = pressed

    def expect_end(self) -> bool:
        return True

    def ask(self, how: Any) -> bool:
        self.calls.append("ACPI")
        self._pressed()
        return True

    def ends(self, timeout_s: float) -> bool:
        self.calls.append("waited")
        return self.ended

    def destroy(self) -> None:
        self.calls.append("destroyed")

    def delete(self) -> None:
        self.calls.append("deleted")

    def reported(self) -> dict[str, str]:
        return {}


class Way:
    """SSH's part: each run is told and answered by the next of `answers`, the last again and again."""

    def __init__(self, *answers: Exception | None) -> None:
        self.runs: list[list[str]] = []
        self.asked = threading.Event()
        self._answers = list(answers)

    def run(self, argv: list[str], **_: Any) -> ExecResult:
        self.runs.append(list(argv))
        self.asked.set()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer
        return ExecResult(0, b"", b"")

    def abort(self) -> None: ...
    def close(self) -> None: ...


class Marks:
    def __init__(self) -> None:
        self.seen: list[tuple[Phase, Source]] = []

    def __call__(self, phase: Phase, *, source: Source) -> None:
        self.seen.append((phase, source))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEARD_S", 0.05)
    monkeypatch.setattr(module, "_BETWEEN_LOGINS_S", 0.01)


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def login(progress: Progress) -> Iterator[Callable[..., tuple[Login, Way, Marks]]]:
    made: list[Login] = []

    def make(*answers: Exception | None) -> tuple[Login, Way, Marks]:
        way, marks = Way(*answers), Marks()
        made.append(Login(way, progress, marks))  # type: ignore[arg-type]
        return made[-1], way, marks

    yield make
    for one in made:
        one.close()


def boot(progress: Progress, login: Login) -> None:
    for line in UP:
        progress.shown(line)
    login.wait(10)


def test_nobody_asks_before_the_console_has_said_that_it_may_be(login: Any, progress: Progress) -> None:
    one, way, marks = login(None)
    progress.shown(UP[1])
    assert not way.asked.wait(0.1)
    boot(progress, one)
    assert way.runs == [["true"]] and marks.seen == [(Phase.LOGIN, Source.RETURN)]


def test_a_login_that_is_early_is_tried_again_a_few_times_and_a_wrong_host_never(
    login: Any, progress: Progress
) -> None:
    one, way, marks = login(NotYet("early"), NotYet("early"), None)
    boot(progress, one)
    assert len(way.runs) == 3 and len(marks.seen) == 1 and one.error is None
    for error, tries in ((NotYet("never"), 5), (DriverError("another host key"), 1)):
        one, way, marks = login(error)
        boot(progress, one)
        assert len(way.runs) == tries and not marks.seen and one.error is error


def test_once_closed_nothing_is_marked_and_no_thread_is_left(login: Any) -> None:
    one, way, marks = login(None)
    one.close()
    one.close()
    assert not marks.seen and not way.runs


def ended(domain: Domain, one: Login, way: Way, progress: Progress) -> WholeInstance:
    guest = WholeInstance(domain, folder=None, way_in=way, login=one, progress=progress)  # type: ignore[arg-type]
    guest.stop(timeout_s=5)
    return guest


def test_a_guest_that_hears_of_its_power_button_is_not_asked_otherwise(login: Any, progress: Progress) -> None:
    one, way, _ = login(None)
    boot(progress, one)
    domain = Domain(partial(progress.shown, SHUTS_DOWN))
    domain.ended = True
    guest = ended(domain, one, way, progress)
    assert domain.calls == ["ACPI", "waited"] and way.runs == [["true"]]
    assert guest.reported()["stopped by"] == "ACPI" and not guest.was_killed()


def test_one_that_does_not_hear_is_asked_by_ssh(login: Any, progress: Progress) -> None:
    one, way, _ = login(None)
    boot(progress, one)
    domain = Domain(lambda: None)
    domain.ended = True
    guest = ended(domain, one, way, progress)
    assert domain.calls == ["ACPI", "waited"] and way.runs[-1] == ["systemctl", "poweroff"]
    assert guest.reported()["stopped by"] == "SSH" and not guest.was_killed()


def test_one_that_does_not_end_is_destroyed_and_that_is_told(login: Any, progress: Progress) -> None:
    one, way, _ = login(None)
    boot(progress, one)
    domain = Domain(partial(progress.shown, SHUTS_DOWN))
    guest = ended(domain, one, way, progress)
    assert domain.calls[-1] == "destroyed"
    assert guest.reported()["stopped by"] == "destroyed" and guest.was_killed()


def test_one_that_nobody_has_logged_into_is_not_asked_by_ssh(login: Any, progress: Progress) -> None:
    one, way, _ = login(None)
    guest = ended(domain := Domain(lambda: None), one, way, progress)
    assert domain.calls == ["ACPI", "destroyed"] and not way.runs and guest.was_killed()


def test_one_found_by_its_labels_has_no_key_and_says_so() -> None:
    guest = WholeInstance(Domain(lambda: None), folder=None)  # type: ignore[arg-type]
    with pytest.raises(DriverError, match="key"):
        guest.exec(["true"], timeout_s=1)
    guest.stop(timeout_s=1)
    guest.delete()
    assert guest.was_killed()
