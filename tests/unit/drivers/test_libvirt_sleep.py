"""How a domain is saved, by what its libvirt and its QEMU can do; libvirt is played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.libvirt import sleep


class Domain:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def save(self, path: str) -> None:
        self.calls.append(("save", path))

    def saveParams(self, wanted: dict[str, str], flags: int) -> None:  # noqa: N802  libvirt's name
        self.calls.append(("saveParams", wanted, flags))


def connection(libvirt: int, qemu: int) -> Any:
    return SimpleNamespace(getLibVersion=lambda: libvirt, getVersion=lambda: qemu)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """libvirt's module of 11.2, as far as saving needs it."""
    made = SimpleNamespace(
        libvirtError=RuntimeError,
        VIR_DOMAIN_SAVE_PARAM_FILE="file",
        VIR_DOMAIN_SAVE_PARAM_IMAGE_FORMAT="image_format",
    )
    monkeypatch.setattr(sleep, "sdk", lambda: made)
    monkeypatch.setattr("drivers.libvirt.engine.sdk", lambda: made)
    return made


@pytest.mark.parametrize(
    ("libvirt", "qemu", "form"),
    [
        (9_000_000, 7_002_000, ""),
        (11_001_000, 10_000_000, ""),
        (11_002_000, 8_002_000, ""),
        (11_002_000, 9_000_000, "sparse"),
        (11_003_000, 10_000_008, "sparse"),
    ],
)
def test_memory_lies_at_fixed_places_of_the_file_where_both_have_that(
    library: SimpleNamespace, libvirt: int, qemu: int, form: str, tmp_path: Path
) -> None:
    assert sleep.save_format(connection(libvirt, qemu)) == form
    domain = Domain()
    sleep.save(domain, tmp_path / "saved", image_format=form)  # type: ignore[arg-type]
    wanted = {"file": str(tmp_path / "saved"), "image_format": "sparse"}
    assert domain.calls == [("saveParams", wanted, 0) if form else ("save", str(tmp_path / "saved"))]


def test_a_client_that_does_not_know_the_word_does_not_ask_for_it(library: SimpleNamespace) -> None:
    del library.VIR_DOMAIN_SAVE_PARAM_IMAGE_FORMAT
    assert sleep.save_format(connection(11_003_000, 10_000_000)) == ""
