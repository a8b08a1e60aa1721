"""The same images laid by Docker's overlay2, for the bare runtime and on a guest's disk: the trees are the same."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import made_trees
import pytest
from made_image import docker_archive
from made_trees import MadeTree, tree_of

from drivers.barehost.rootfs import unpack
from drivers.dockerapi.images import layer_directories, load
from drivers.libvirt.rootfs import write_disk
from lab.image import open_image

pytestmark = [
    pytest.mark.engine("docker"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root lays out and mounts trees"),
]
TREES = made_trees.made_trees()
FILLED = ("dev", "etc", "lost+found", "proc", "run", "sys", "tmp")
"""What engines and the lab put into every container and guest."""
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def tag(engine: Any, labels: dict[str, str]) -> Iterator[str]:
    """A name for the image of one test, which is removed at the end."""
    name = f"stratalab/tree:{labels['lab.run']}"
    yield name
    for suffix in ("", "-lab"):
        with contextlib.suppress(Exception):  # a test that failed made none
            engine.remove_image(name + suffix)


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "mounted"
    point.mkdir()
    yield point
    while _libc.umount2(os.fsencode(point), 2) == 0:  # MNT_DETACH
        pass


@pytest.mark.parametrize("name", TREES)
def test_the_same_image_is_the_same_tree_everywhere(
    name: str, engine: Any, tag: str, labels: dict[str, str], tmp_path: Path, mount_point: Path
) -> None:
    made = TREES[name]
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(made.layers, tags=[tag], Cmd=["/none"]))
    by_lab = laid_by_the_lab(path, tmp_path, mount_point, engine, f"{tag}-lab", labels)
    if not made.irregular:
        load(engine, path.read_bytes())
        by_lab["docker, the file itself"] = in_docker(engine, tag, tmp_path, mount_point, implied(path))
    assert_same(by_lab)


def test_docker_refuses_what_is_called_irregular_and_loads_it_from_the_lab(engine: Any, tag: str) -> None:
    for made in TREES.values():
        if made.irregular:
            with pytest.raises(Exception, match=r"processing tar|could not load"):
                load(engine, docker_archive(made.layers, tags=[tag], Cmd=["/none"]))


BUILDERS = pytest.mark.skipif(
    not all(map(shutil.which, ("buildah", "skopeo", "umoci"))), reason="needs buildah, skopeo and umoci"
)


@BUILDERS
@pytest.mark.beyond_engine
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci", "dir", "oci-zstd", "docker-archive-gzip"])
@pytest.mark.parametrize("builder", ["buildah", "umoci"])
def test_images_of_other_builders_are_the_same_tree_everywhere(
    builder: str, form: str, engine: Any, tag: str, labels: dict[str, str], tmp_path: Path, mount_point: Path
) -> None:
    layout = built_by_buildah(tmp_path) if builder == "buildah" else built_by_umoci(tmp_path)
    path = copied(layout, form, tmp_path)
    by_lab = laid_by_the_lab(path, tmp_path, mount_point, engine, f"{tag}-lab", labels)
    plain = tmp_path / "for-docker.tar"
    run("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:made", f"docker-archive:{plain}:{tag}")
    load(engine, plain.read_bytes())
    by_lab["docker, by skopeo"] = in_docker(engine, tag, tmp_path, mount_point, implied(path))
    assert {"srv", "srv/kept", "srv/second"} <= set(by_lab["oci"])
    assert "srv/removed" not in by_lab["oci"]
    assert_same(by_lab)


def laid_by_the_lab(
    path: Path, folder: Path, mount_point: Path, engine: Any, tag: str, labels: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    untimed = implied(path)
    with open_image(path) as image:
        (folder / "unpacked").mkdir()
        unpack(image, folder / "unpacked")
        with image.loadable(tag=tag, labels=labels, scratch=folder) as blocks:
            load(engine, blocks)
    found = {
        "oci": tree_of(folder / "unpacked", without=FILLED, untimed=untimed),
        "docker": in_docker(engine, tag, folder, mount_point, untimed),
    }
    with open_image(path) as image:
        write_disk(image, folder / "disk")
    with mounted(["-o", "loop,ro", str(folder / "disk")], mount_point):
        found["guest"] = tree_of(mount_point, without=FILLED, untimed=untimed)
    return found


def in_docker(
    engine: Any, tag: str, folder: Path, mount_point: Path, untimed: Sequence[str]
) -> dict[str, dict[str, Any]]:
    (folder / "nothing").mkdir(exist_ok=True)
    lower = ":".join(map(str, [*layer_directories(engine, tag), folder / "nothing"]))
    with mounted(["-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}"], mount_point):
        return tree_of(mount_point, without=FILLED, untimed=untimed)


def implied(path: Path) -> list[str]:
    """Directories that no layer names have the time at which an engine made them."""
    with open_image(path) as image:
        return [entry.path for entry in image.entries() if entry.implied]


def assert_same(trees: Mapping[str, Mapping[str, Any]]) -> None:
    (first, expected), *others = trees.items()
    for name, tree in others:
        assert sorted(tree) == sorted(expected), f"the names in {name} are not those in {first}"
        for path, shown in tree.items():
            assert shown == expected[path], f"{path!r} in {name} is not as in {first}"


@contextlib.contextmanager
def mounted(arguments: Sequence[str], point: Path) -> Iterator[None]:
    run("mount", *arguments, str(point))
    try:
        yield
    finally:
        run("umount", str(point))


def built_by_buildah(folder: Path) -> Path:
    store = ["--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "runroot")]
    source = folder / "source"
    (source / "srv" / "deep").mkdir(parents=True)
    for name in ("kept", "removed", "deep/file"):
        (source / "srv" / name).write_text(name)
    (source / "srv" / "kept").chmod(0o4750)
    os.chown(source / "srv" / "kept", 12, 34)
    (source / "srv" / "link").symlink_to("kept")
    base = run("buildah", *store, "from", "scratch").strip()
    run("buildah", *store, "copy", base, str(source), "/")
    run("buildah", *store, "commit", "-q", base, "base")
    upper = run("buildah", *store, "from", "--pull-never", "base").strip()
    root = Path(run("buildah", *store, "mount", upper).strip())
    (root / "srv" / "removed").unlink()
    (root / "srv" / "second").write_text("second")
    run("buildah", *store, "umount", upper)
    run("buildah", *store, "config", "--cmd", "/none", upper)
    run("buildah", *store, "commit", "-q", upper, f"oci:{folder / 'layout'}:made")
    return folder / "layout"


def built_by_umoci(folder: Path) -> Path:
    layout = folder / "layout"
    run("umoci", "init", "--layout", str(layout))
    run("umoci", "new", "--image", f"{layout}:made")
    for number, change in enumerate((_first, _second)):
        bundle = folder / f"bundle-{number}"
        run("umoci", "unpack", "--image", f"{layout}:made", str(bundle))
        change(bundle / "rootfs")
        run("umoci", "repack", "--image", f"{layout}:made", str(bundle))
    run("umoci", "gc", "--layout", str(layout))
    return layout


def _first(root: Path) -> None:
    (root / "srv" / "deep").mkdir(parents=True)
    (root / "srv").chmod(0o710)
    for name in ("kept", "removed", "deep/file"):
        (root / "srv" / name).write_text(name)
    os.link(root / "srv" / "kept", root / "srv" / "hard")


def _second(root: Path) -> None:
    (root / "srv" / "removed").unlink()
    (root / "srv" / "deep" / "file").write_text("changed")  # umoci then leaves out srv and srv/deep
    (root / "srv" / "second").write_text("second")


def copied(layout: Path, form: str, folder: Path) -> Path:
    """The image in the form that skopeo writes it in; a file or a directory."""
    target = folder / f"copy-{form}"
    compress = ["--dest-compress", "--dest-compress-format", "zstd"] if form == "oci-zstd" else []
    kind = {"oci-zstd": "oci", "docker-archive-gzip": "docker-archive"}.get(form, form)
    run("skopeo", "copy", "-q", "--insecure-policy", *compress, f"oci:{layout}:made", f"{kind}:{target}")
    if form == "docker-archive-gzip":
        run("gzip", "-1", str(target))
        return target.with_name(f"{target.name}.gz")
    return target


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def test_there_are_twenty() -> None:
    assert len(TREES) >= 20 and all(isinstance(made, MadeTree) for made in TREES.values())
