"""A foreign image's disk: what the lab adds lies where the image's links lead, and no name becomes a command."""

from __future__ import annotations

import tarfile
from pathlib import Path

import hostile_trees
import pytest
from hostile_trees import Member

from drivers.libvirt.rootfs import write_disk
from lab.errors import Unsupported
from lab.image import open_image


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
