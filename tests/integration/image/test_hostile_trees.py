"""Nothing that an image's tree holds leads out of it: by hundreds of images that try; `make accept` has 10,000."""

from __future__ import annotations

import os
from pathlib import Path

import hostile_trees
import pytest

from lab.image import tree as tree_module
from lab.image.tree import Tree, kernel_resolves

IMAGES = 300


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which paths are resolved: the kernel's, and the lab's own for older kernels."""
    if request.param == "walk":
        monkeypatch.setattr(tree_module, "kernel_resolves", lambda: False)
    elif not kernel_resolves():
        pytest.skip("this kernel has no openat2")
    return str(request.param)


def test_no_hostile_image_changes_or_reads_what_is_outside(way: str) -> None:
    outcome = hostile_trees.check(IMAGES, privileged=os.geteuid() == 0)
    assert outcome.problem == ""
    assert outcome.taken > IMAGES // 5, "too few of them were taken to tell anything"


@pytest.mark.skipif(os.geteuid() != 0, reason="the test before has no privilege either")
def test_no_hostile_image_does_so_without_privilege() -> None:
    assert hostile_trees.check(IMAGES, privileged=False).problem == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can keep such a lab from doing harm")
@pytest.mark.parametrize("privileged", [True, False])
def test_a_lab_that_followed_links_would_be_seen(monkeypatch: pytest.MonkeyPatch, privileged: bool) -> None:
    def naive(tree: Tree, path: str, content: bytes, *, mode: int = 0o644) -> None:
        (Path(f"/proc/self/fd/{tree._root}") / path.lstrip("/")).write_bytes(content)

    monkeypatch.setattr(Tree, "write", naive)
    assert "AssertionError" in hostile_trees.check(1000, privileged=privileged, shrink=False).problem
