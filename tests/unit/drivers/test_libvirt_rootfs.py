"""A foreign image's disk: what the lab adds lies where the image's links lead, and no name becomes a command."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import hostile_trees
import pytest
from hostile_trees import Member

from drivers.libvirt.rootfs import write_disk
from lab.errors import Unsupported
from lab.image import open_image

_ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def test_the_labs_hosts_lie_in_the_image_though_its_etc_leads_to_the_host(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "hosts").write_text("the host's")
    image = [[Member("etc", tarfile.SYMTYPE, str(outside), 0o777, {}), Member("a", tarfile.REGTYPE, "", 0o755, {})]]
    _disk(tmp_path, image)
    assert (outside / "hosts").read_text() == "the host's"
    assert _asked(tmp_path / "disk", f"cat {outside}/hosts") == "127.0.0.1\tlocalhost\n::1\tlocalhost\n"


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "/".join(['"' * 250] * 16 + ["!touch made-by-the-image"])])
def test_no_name_becomes_a_command_of_debugfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    _disk(tmp_path, [[Member(name, tarfile.REGTYPE, "", 0o755, {})]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "image.tar"]


@pytest.mark.parametrize("name", ["a\n!touch made-by-the-image", "a\r!touch made-by-the-image"])
def test_no_device_becomes_a_command_of_debugfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unsupported, match="holds a line break"):
        _disk(tmp_path, [[Member(name, tarfile.BLKTYPE, "", 0o755, {})]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar"]


def _disk(folder: Path, layers: list[list[Member]]) -> None:
    with open_image(hostile_trees.archive(folder / "image.tar", layers, "")) as image:
        write_disk(image, folder / "disk")


def _asked(disk: Path, command: str) -> str:
    told = subprocess.run(
        ["debugfs", "-R", command, str(disk)], env=_ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return told.stdout
