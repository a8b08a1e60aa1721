"""Nothing that an image's tree holds leads out of it: by single cases, and by the kernel's own word."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.image import tree as tree_module
from lab.image.tree import Tree, kernel_resolves

EXAMPLES = 100


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which paths are resolved: the kernel's, and the lab's own for older kernels."""
    if request.param == "walk":
        monkeypatch.setattr(tree_module, "kernel_resolves", lambda: False)
    elif not kernel_resolves():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/hosts").write_text("the host's")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def outside(root: Path) -> Path:
    return root.parent / "outside"


def test_an_absolute_link_ends_inside(way: str, root: Path, outside: Path) -> None:
    (root / "etc").symlink_to(outside)
    with Tree(root) as tree:
        with pytest.raises(FileNotFoundError):
            tree.read("/etc/hosts", limit_bytes=100)
        tree.write("/etc/hosts", b"the image's")
        assert tree.read("/etc/hosts", limit_bytes=100) == b"the image's"
    assert (outside / "hosts").read_text() == "the host's"
    assert (root / str(outside)[1:] / "hosts").read_text() == "the image's"


@pytest.mark.parametrize("climb", ["..", "../../../../../../..", "up", "up/..", "a/../../.."])
def test_climbing_ends_at_the_root(way: str, root: Path, climb: str) -> None:
    (root / "up").symlink_to("../..")
    (root / "a").mkdir()
    with Tree(root) as tree:
        tree.write(f"{climb}/hosts", b"x")
        with tree.at(f"{climb}/made") as path:
            path.mkdir()
    assert {path.name for path in root.iterdir()} == {"up", "a", "hosts", "made"}


def test_links_in_a_circle_are_told(way: str, root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with Tree(root) as tree, pytest.raises(OSError, match="symbolic links") as caught:
        tree.read("a/x", limit_bytes=1)
    assert caught.value.errno == errno.ELOOP


def test_the_last_name_is_not_followed_where_something_is_made(way: str, root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside)
    with Tree(root) as tree, tree.at("link") as path:
        with pytest.raises(FileExistsError):
            path.mkdir()
        path.unlink()
    assert (outside / "hosts").exists()


@pytest.mark.parametrize("path", ["", "/", ".", "..", "a/.."])
def test_a_path_that_names_no_entry_is_refused(way: str, root: Path, path: str) -> None:
    with Tree(root) as tree, pytest.raises(ValueError, match="names nothing"), tree.at(path):
        pass


def test_what_is_written_replaces_and_is_never_written_into(way: str, root: Path) -> None:
    first = root / "hosts"
    first.write_text("old")
    os.link(first, root / "other-name")
    os.mkfifo(root / "hostname")
    with Tree(root) as tree:
        tree.write("hosts", b"new", mode=0o640)
        tree.write("hostname", b"me")  # opening the FIFO would wait for a reader
    assert ((root / "other-name").read_text(), first.read_text()) == ("old", "new")
    assert stat.S_IMODE(first.stat().st_mode) == 0o640
    assert (root / "hostname").read_text() == "me"


def test_nothing_half_written_stays(way: str, root: Path) -> None:
    (root / "hosts").mkdir()
    with Tree(root) as tree, pytest.raises(IsADirectoryError):
        tree.write("hosts", b"x")
    assert list(root.iterdir()) == [root / "hosts"]


def test_directories_are_made_by_mode_whatever_the_umask_says(way: str, root: Path) -> None:
    before = os.umask(0o077)
    try:
        with Tree(root) as tree:
            assert tree.make_directory("var/lib/data", mode=0o1777)
            assert not tree.make_directory("var/lib/data", mode=0o700)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((root / path).stat().st_mode) for path in ("var", "var/lib", "var/lib/data")]
    assert modes == [0o755, 0o755, 0o1777]


def test_only_a_regular_file_of_bounded_length_is_read(way: str, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "long").write_bytes(b"12345")
    with Tree(root) as tree:
        for path, number in (("fifo", errno.EINVAL), ("/", errno.EINVAL), ("long", errno.EFBIG)):
            with pytest.raises(OSError) as caught:
                tree.read(path, limit_bytes=4)
            assert caught.value.errno == number


def test_a_root_that_is_a_link_is_refused(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    with pytest.raises(NotADirectoryError):
        Tree(root.parent / "link")


NAMES = st.sampled_from(["a", "b", "c", "..", "."])
PATHS = st.builds(lambda top, parts: top + "/".join(parts), st.sampled_from(["", "/"]), st.lists(NAMES, min_size=1))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(st.tuples(PATHS, st.none() | PATHS), max_size=8), asked=st.lists(PATHS, min_size=1, max_size=5))
def test_the_labs_own_walk_finds_what_the_kernel_finds(
    tmp_path: Path, made: list[tuple[str, str | None]], asked: list[str]
) -> None:
    if not kernel_resolves():
        pytest.skip("this kernel has no openat2")
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with Tree(tmp_path) as tree:
        for path, target in made:
            try:
                with tree.at(path) as place:
                    place.mkdir() if target is None else place.symlink_to(target)
            except (OSError, ValueError):
                continue
        for path in asked:
            assert _found(tree, path, walk=True) == _found(tree, path, walk=False)


def _found(tree: Tree, path: str, *, walk: bool) -> tuple[int, int] | int | None:
    with pytest.MonkeyPatch.context() as patch:
        if walk:
            patch.setattr(tree_module, "kernel_resolves", lambda: False)
        try:
            descriptor = tree.open(path, os.O_PATH)
        except OSError as error:
            return error.errno
    try:
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino
    finally:
        os.close(descriptor)
