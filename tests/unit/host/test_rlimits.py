"""One set of limits for the service, as far as whoever hands it on can give it."""

from __future__ import annotations

import resource
from pathlib import Path

from lab.host.rlimits import UNLIMITED, WANTED, granted, numbered, told

WITHOUT, WITH = "000001fffeffffff", "000001ffffffffff"  # CAP_SYS_RESOURCE is bit 24


def process(proc: Path, name: str, *, capabilities: str, **hard: str) -> None:
    titles = {"nofile": "Max open files", "nproc": "Max processes", "core": "Max core file size"}
    lines = "".join(f"{titles[key]:<26}64                   {value:<21}files\n" for key, value in hard.items())
    (proc / name).mkdir()
    (proc / name / "limits").write_text("Limit  Soft Limit  Hard Limit  Units\n" + lines)
    (proc / name / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")


def test_hard_limits_are_kept_below_what_cannot_be_raised(tmp_path: Path) -> None:
    process(tmp_path, "self", capabilities=WITHOUT, nofile="20000", nproc="9", core="unlimited")
    found = granted(proc=tmp_path, nr_open=tmp_path / "none")
    assert found == {**WANTED, "nofile": (1024, 20_000), "nproc": (9, 9)}
    process(tmp_path, "7", capabilities=WITHOUT, nofile="256", nproc="unlimited")
    assert granted(7, proc=tmp_path, nr_open=tmp_path / "none")["nofile"] == (256, 256)
    assert granted(7, proc=tmp_path, nr_open=tmp_path / "none")["nproc"] == (9, 9)


def test_who_may_raise_limits_is_bound_by_the_kernels_most_alone(tmp_path: Path) -> None:
    process(tmp_path, "self", capabilities=WITH, nofile="256")
    assert granted(proc=tmp_path, nr_open=tmp_path / "none") == dict(WANTED)
    (tmp_path / "most").write_text("5000\n")
    assert granted(proc=tmp_path, nr_open=tmp_path / "most")["nofile"] == (1024, 5000)


def test_a_daemon_that_cannot_be_looked_at_is_taken_to_be_able(tmp_path: Path) -> None:
    process(tmp_path, "self", capabilities=WITH)
    assert granted(99, proc=tmp_path, nr_open=tmp_path / "none") == dict(WANTED)


def test_every_limit_that_is_granted_can_be_set_here() -> None:
    for text in numbered(granted()):
        number, _, hard = (int(part) for part in text.split(":"))
        own = resource.prlimit(0, number)[1] if number != 11 else None
        assert own in (None, UNLIMITED) or hard <= own or Path("/proc/self/status").read_text().find(WITH) > 0


def test_limits_in_words() -> None:
    words = told({"nofile": (1024, 2048), "core": (0, UNLIMITED), "nproc": (UNLIMITED, UNLIMITED)})
    assert words == {"nofile": "1024:2048", "core": "0:unlimited", "nproc": "unlimited"}
    assert numbered({"nofile": (1024, UNLIMITED)}) == [f"7:1024:{2**64 - 1}"]


def test_who_may_raise_limits_in_a_user_namespace_of_its_own_alone_raises_none(tmp_path: Path) -> None:
    process(tmp_path, "self", capabilities=WITHOUT, nofile="20000")
    process(tmp_path, "7", capabilities=WITH, nofile="256")
    assert granted(7, proc=tmp_path, nr_open=tmp_path / "none")["nofile"] == (1024, 20_000)
    assert granted(7, user_namespace=True, proc=tmp_path, nr_open=tmp_path / "none")["nofile"] == (256, 256)
