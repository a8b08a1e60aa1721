"""Archives as builders write them: the same image whatever the form, or one clear line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_image
import pytest
import zstandard
from made_image import Layout, directory, docker_archive, layer, member

from lab.errors import BadInput
from lab.image import open_image
from lab.image.archive import machine_architecture

LAYERS = (layer(directory("d"), member("d/f", b"1")), layer(member("d/g", b"2")))
OTHER = (layer(member("other")),)
HERE = {"architecture": machine_architecture(), "os": "linux"}
ELSEWHERE = {"architecture": "s390x", "os": "linux"}


def zstd(content: bytes) -> bytes:
    """Two frames and a skippable one, as zstd:chunked has them."""
    half = len(content) // 2
    frames = [zstandard.ZstdCompressor().compress(part) for part in (content[:half], content[half:])]
    return frames[0] + frames[1] + b"\x50\x2a\x4d\x18\x04\0\0\0note"


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "zstd": zstd,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


def opened(path: Path) -> list[str]:
    with open_image(path) as image:
        return [entry.path for entry in image.entries()]


def written(folder: Path, content: bytes) -> Path:
    path = folder / "image.tar"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("inner", COMPRESSIONS)
@pytest.mark.parametrize("outer", COMPRESSIONS)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_both_forms_in_every_compression_and_with_dotted_names(
    tmp_path: Path, inner: str, outer: str, prefix: str
) -> None:
    compress = COMPRESSIONS[inner]
    layout = Layout()
    forms = [
        docker_archive(LAYERS, compress=compress, prefix=prefix),
        layout.tar(layout.image(LAYERS, compress=compress), prefix=prefix),
    ]
    for content in forms:
        assert opened(written(tmp_path, COMPRESSIONS[outer](content))) == ["d", "d/f", "d/g"]


def test_a_directory_is_read_as_the_tar_of_it(tmp_path: Path) -> None:
    layout = Layout()
    assert opened(layout.write(tmp_path / "layout", layout.image(LAYERS))) == ["d", "d/f", "d/g"]


def test_two_names_of_one_image_are_one(tmp_path: Path) -> None:
    assert opened(written(tmp_path, docker_archive(LAYERS, tags=["a:1", "b:2"]))) == ["d", "d/f", "d/g"]
    layout = Layout()
    image = layout.image(LAYERS)
    named = [{**image, "annotations": {"org.opencontainers.image.ref.name": name}} for name in ("1", "2")]
    assert opened(written(tmp_path, layout.tar(*named))) == ["d", "d/f", "d/g"]


def test_two_images_are_named_and_refused(tmp_path: Path) -> None:
    layout = Layout()
    named = [
        {**layout.image(layers), "annotations": {"org.opencontainers.image.ref.name": name}}
        for name, layers in (("one:1", LAYERS), ("two:2", OTHER))
    ]
    with pytest.raises(BadInput, match="it holds 2 images: one:1, two:2"):
        opened(written(tmp_path, layout.tar(*named)))


def test_other_machines_attestations_and_nested_indexes_are_passed_over(tmp_path: Path) -> None:
    layout = Layout()
    attestation = layout.image(
        OTHER, platform={"architecture": "unknown", "os": "unknown"}
    ) | {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}  # fmt: skip
    index = layout.index(layout.image(OTHER, platform=ELSEWHERE), layout.image(LAYERS), attestation)
    assert opened(written(tmp_path, layout.tar(layout.index(index)))) == ["d", "d/f", "d/g"]


def test_an_index_that_names_what_the_archive_has_not_is_no_matter(tmp_path: Path) -> None:
    layout = Layout()
    missing = layout.image(OTHER, platform=ELSEWHERE)
    del layout.files["blobs/sha256/" + missing["digest"].removeprefix("sha256:")]
    assert opened(written(tmp_path, layout.tar(missing, layout.image(LAYERS)))) == ["d", "d/f", "d/g"]


@pytest.mark.parametrize("told", [True, False])
def test_of_equal_entries_the_first_is_taken(tmp_path: Path, told: bool) -> None:
    layout = Layout()
    assert opened(written(tmp_path, layout.tar(layout.image(LAYERS, told=told), layout.image(OTHER, told=told)))) == [
        "d", "d/f", "d/g",
    ]  # fmt: skip


def test_one_that_tells_its_platform_goes_before_one_that_does_not(tmp_path: Path) -> None:
    layout = Layout()
    assert opened(written(tmp_path, layout.tar(layout.image(OTHER, told=False), layout.image(LAYERS)))) == [
        "d", "d/f", "d/g",
    ]  # fmt: skip


@pytest.mark.skipif(machine_architecture() != "amd64", reason="about amd64's variants")
@pytest.mark.parametrize("first", ["v2", "v3", "v4"])
def test_the_plain_variant_is_preferred_as_engines_do(tmp_path: Path, first: str) -> None:
    layout = Layout()
    rich = layout.image(OTHER, platform={**HERE, "variant": first})
    i386 = layout.image(OTHER, platform={"architecture": "386", "os": "linux"})
    plain = layout.image(LAYERS, platform={**HERE, "variant": "v1"})
    assert opened(written(tmp_path, layout.tar(rich, i386, plain))) == ["d", "d/f", "d/g"]


def test_an_index_for_other_machines_alone_names_them(tmp_path: Path) -> None:
    layout = Layout()
    others = [layout.image(OTHER, platform={"architecture": name, "os": "linux"}) for name in ("s390x", "ppc64le")]
    with pytest.raises(BadInput, match=rf"is for linux/ppc64le, linux/s390x, this host is {machine_architecture()}"):
        opened(written(tmp_path, layout.tar(*others)))


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_file_with_both_forms_is_read_once(tmp_path: Path, form: str) -> None:
    layout = Layout()
    image = layout.image(LAYERS, compress=bytes)
    config = made_image.config_json(LAYERS)
    names = [f"blobs/sha256/{made_image.sha256(content)}" for content in LAYERS]
    manifest: list[dict[str, Any]] = [
        {"Config": f"blobs/sha256/{made_image.sha256(config)}", "RepoTags": None, "Layers": names}
    ]
    layout.files["manifest.json"] = json.dumps(manifest if form == "docker" else []).encode()
    assert opened(written(tmp_path, layout.tar(image))) == ["d", "d/f", "d/g"]


def test_layers_of_no_bytes_and_of_no_members(tmp_path: Path) -> None:
    layers = [b"", LAYERS[0], b"", layer(), LAYERS[1]]
    assert opened(written(tmp_path, docker_archive(layers))) == ["d", "d/f", "d/g"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "xz", "bzip2"])
def test_damage_in_a_compressed_file_is_one_clear_line(tmp_path: Path, compression: str) -> None:
    content = bytearray(COMPRESSIONS[compression](docker_archive(LAYERS)))
    for broken in (bytes(content[: len(content) // 2]), bytes(content[:40] + b"\xff" * 40 + content[80:])):
        with pytest.raises(BadInput) as raised:
            opened(written(tmp_path, broken))
        assert "image.tar" in raised.value.brief and "\n" not in raised.value.brief


def test_a_plain_layer_whose_first_name_looks_compressed_is_plain(tmp_path: Path) -> None:
    assert opened(written(tmp_path, docker_archive([layer(member("BZh91 file"))]))) == ["BZh91 file"]


def test_what_is_loadable_is_the_same_image_with_labels(tmp_path: Path) -> None:
    layout = Layout()
    path = written(tmp_path, layout.tar(layout.image(LAYERS, compress=zstd, Labels={"own": "1"})))
    with open_image(path) as image, image.loadable(tag="x:1", labels={"lab.run": "r"}, scratch=tmp_path) as blocks:
        (tmp_path / "loadable.tar").write_bytes(b"".join(blocks))
    with open_image(tmp_path / "loadable.tar") as again:
        assert again.config.labels == {"own": "1", "lab.run": "r"}
        assert [entry.path for entry in again.entries()] == ["d", "d/f", "d/g"]
