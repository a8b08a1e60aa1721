"""A user's own unit and its files: taken as they are, or refused on one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli.guests.units import read_unit
from lab.cli.options import read_options
from lab.errors import BadInput

TEXT = "[Unit]\nDescription=mine\n[Service]\nExecStart=/opt/app\n"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    file = tmp_path / "app.service"
    file.write_text(TEXT)
    return file


def test_a_unit_and_its_files_are_taken_as_they_are(unit: Path, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    found = read_unit(unit, [f"{unit}:/opt/app", f"{tmp_path}/a:b:/srv/data"])
    assert (found.name, found.text) == ("app.service", TEXT)
    assert found.copies == ((unit, "/opt/app"), (tmp_path / "a:b", "/srv/data"))


@pytest.mark.parametrize("name", ["app.timer", "app", "../app.service/x", "a b.service", "app.service\n"])
def test_a_name_that_is_no_services_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="--unit"):
        read_unit(tmp_path / name, [])


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[Unit]\n", b"[Service]\n" + b"#" * 70_000, b"[Service]\n\0"])
def test_what_is_no_unit_is_refused_on_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "app.service"
    file.write_bytes(data)
    with pytest.raises(BadInput) as raised:
        read_unit(file, [])
    assert str(file) in raised.value.brief and "\n" not in raised.value.brief


@pytest.mark.parametrize(
    "copy",
    ["x", "app:", ":/opt/app", "/nonexistent:/opt", "{unit}:opt/app", "{unit}:/opt/../etc/x", "{unit}:/opt/",
     "{unit}:/run/x", "{unit}:/proc", "/dev/null:/opt/x"],
)  # fmt: skip
def test_a_copy_that_cannot_be_meant_is_refused_on_one_line(unit: Path, copy: str) -> None:
    with pytest.raises(BadInput, match="--copy") as raised:
        read_unit(unit, [copy.replace("{unit}", str(unit))])
    assert "\n" not in raised.value.brief


def test_it_is_that_unit_or_an_image_and_copies_go_with_it(unit: Path) -> None:
    given = {"targets": ["libvirt:debian"], "unit": unit}
    spec = read_options(given, None).spec({})
    assert spec.unit is not None and not spec.builtin and spec.ready_path == "/"
    with pytest.raises(BadInput, match="not both"):
        read_options({**given, "image": "x"}, None)
    with pytest.raises(BadInput, match="--copy goes with --unit"):
        read_options({"targets": ["libvirt:debian"], "copies": ["a:/b"]}, None)
