"""The accepted build beside tonight's: a wheel in an environment of its own."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

import lab
from lab.cli.nightly import against
from lab.cli.nightly.against import LabBuild, build_of
from lab.cli.nightly.config import Wanted, read_job
from lab.errors import BadInput, LabError
from lab.store.record import Outcome, RunRecord

ROOT = Path(lab.__file__).parents[1]
VERSION = "7.7.7"


def make_wheel(folder: Path) -> Path:
    """A wheel of this lab under another version, as a build tool lays it out."""
    path = folder / f"stratalab-{VERSION}-py3-none-any.whl"
    info = f"stratalab-{VERSION}.dist-info"
    record = []
    with zipfile.ZipFile(path, "w") as wheel:
        for name in ("lab", "drivers", "scenarios"):
            for file in (ROOT / name).rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    record.append(str(file.relative_to(ROOT)))
                    text = file.read_bytes()
                    if record[-1] == "lab/__init__.py":
                        text = f'__version__ = "{VERSION}"\n'.encode()
                    wheel.writestr(record[-1], text)
        points = "[lab.drivers]\nprocess = drivers.process:ProcessDriver\n"
        points += "[lab.scenarios]\nboot = scenarios.boot:Boot\n"
        for name, text in (
            ("METADATA", f"Metadata-Version: 2.1\nName: stratalab\nVersion: {VERSION}\n"),
            ("WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            ("entry_points.txt", points),
        ):
            record.append(f"{info}/{name}")
            wheel.writestr(record[-1], text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{one},,\n" for one in [*record, f"{info}/RECORD"]))
    return path


def wanted_of(folder: Path, more: str = "") -> Wanted:
    path = folder / "nightly.toml"
    path.write_text(f"[scenarios.boot]\ntargets = ['process']\nrequire = ['process']\nenv = {{ A = 'b c' }}\n{more}")
    (wanted,) = read_job(path).wanted
    return wanted


def not_called(_: Wanted) -> RunRecord:
    raise AssertionError("no image is measured")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its builds are made anew; the compiled service is taken from where the others' is."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stratalab"
    mine = tmp_path / "cache"
    mine.mkdir()
    for one in kept.iterdir() if kept.is_dir() else ():
        if one.name not in ("partial", against.BUILDS):
            (mine / one.name).symlink_to(one)
    monkeypatch.setattr(against, "cache_dir", lambda: mine)


@pytest.mark.alone
def test_a_wheel_runs_in_an_environment_of_its_own_that_is_made_once(tmp_path: Path) -> None:
    wheel, wanted = make_wheel(tmp_path), wanted_of(tmp_path)
    build = build_of(wheel.name, [wanted], not_called, tmp_path)
    assert isinstance(build, LabBuild) and build.name == wheel.name
    record = build.run(wanted, rounds=2, warmup=1, max_s=600.0)
    assert record.run.lab_version == VERSION
    assert [target.outcome for target in record.targets] == [Outcome.OK]
    values = [one for one in record.samples if one.metric == "boot_s"]
    assert [one.warmup for one in values] == [True, False, False]
    assert set(record.run.parameters["spec"]["environment"]) == {"A"}
    made = build.python.stat().st_mtime_ns
    assert build_of(wheel.name, [wanted], not_called, tmp_path) == build
    assert build.python.stat().st_mtime_ns == made


def test_an_environment_whose_lab_is_another_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"x\.whl has no lab that runs: .*lab"):
        against._prove(Path(sys.executable), tmp_path, "x.whl")


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone.whl", "there is no such wheel"), ("other/image:1", "is an image, and boot measures the lab's own service")],
)
def test_what_is_no_build_of_what_is_measured_is_bad_input(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build_of(name, [wanted_of(tmp_path)], not_called, tmp_path)


def test_an_image_takes_the_place_of_the_one_under_test(tmp_path: Path) -> None:
    seen: list[Wanted] = []

    def measure(wanted: Wanted) -> RunRecord:
        seen.append(wanted)
        raise LabError("seen")

    wanted = wanted_of(tmp_path, "image = 'my/service:next'\nuntil_ci = '5%'\n")
    build = build_of("my/service:1.4", [wanted], measure, tmp_path)
    with pytest.raises(LabError, match="seen"):
        build.run(wanted, rounds=3, warmup=1, max_s=60.0)
    (asked,) = seen
    assert (asked.options.image, asked.options.rounds, asked.options.max_time) == ("my/service:1.4", 3, 60.0)
    assert asked.options.until_ci is None and asked.options.targets == ["process"]
