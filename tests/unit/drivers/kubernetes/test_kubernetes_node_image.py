"""Node images whose kubelet would not start on this host's cgroups are refused before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from drivers.kubernetes import KubernetesDriver
from drivers.kubernetes.cluster.kind import Kind
from drivers.kubernetes.cluster.node_image import default_image, kubernetes_version
from lab.driver import Context
from lab.errors import DriverUnavailable

DIGEST = "@sha256:" + "0" * 64
Up = Callable[..., Any]


@pytest.fixture
def up(tmp_path: Path, kind: Any) -> Up:
    """`lab cluster up` on a host with cgroups of `cgroup`, of an image that says that it has `inside`."""
    (tmp_path / "run").mkdir()

    def make(*, image: str = "", config: Any = None, cgroup: str = "1", inside: str = "") -> Any:
        (kind.directory / "cgroup").write_text(cgroup)
        if inside:
            (kind.directory / "node-version").write_text(inside)
        options = {"kind-image": image} if image else {}
        if config is not None:
            (tmp_path / "kind.yaml").write_text(yaml.safe_dump(config))
            options["kind-config"] = str(tmp_path / "kind.yaml")
        context = Context(run_dir=tmp_path / "run", cache_dir=tmp_path / "cache", options=options)
        return KubernetesDriver("", context).cluster_up(lambda _: None)

    return make


@pytest.mark.parametrize(
    "given",
    [
        {"image": "kindest/node:v1.35.0"},
        {"image": f"registry.example:5000/node:v1.36.1{DIGEST}"},
        {"image": "kindest/node:own", "inside": "v1.35.0\n"},
        {"image": "kindest/node:v1.32.2", "inside": "v1.35.0\n"},  # what it is counts, not what it is called
        {"config": {"nodes": [{"role": "control-plane"}, {"role": "worker", "image": "kindest/node:v1.35.0"}]}},
        {"config": {"kubeadmConfigPatches": ["kind: KubeletConfiguration\nmaxPods: 10\n"]}, "image": "x:v1.35.0"},
    ],
)
def test_a_node_that_needs_cgroup_v2_is_refused_where_there_is_none(up: Up, kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(DriverUnavailable) as raised:
        up(**given)
    assert "does not start on this host's cgroups of version 1" in raised.value.brief
    assert "1.35" in raised.value.brief or "1.36" in raised.value.brief
    assert "--kind-image" in raised.value.resolution and "unified_cgroup_hierarchy" in raised.value.resolution
    assert not [call for call in kind.calls() if call[1:3] == ["create", "cluster"]] and not kind.names()


@pytest.mark.parametrize(
    "given",
    [
        {"image": "kindest/node:v1.34.3"},
        {"image": "kindest/node:v1.35.0", "cgroup": "2"},
        {"image": "kindest/node:v1.35.0", "cgroup": "<no value>"},
        {"image": "kindest/node:own"},
        {"image": "kindest/node:v1.35.0", "inside": "v1.32.2"},
        {
            "image": "kindest/node:v1.35.0",
            "config": {"kubeadmConfigPatches": ["kind: KubeletConfiguration\nfailCgroupV1: false\n"]},
        },
        {},
    ],
)
def test_all_others_are_made(up: Up, kind: Any, given: dict[str, Any]) -> None:
    up(**given)
    assert kind.has("stratalab")


def test_kinds_own_default_counts_where_no_image_is_named(up: Up, kind: Any) -> None:
    program = Path(Kind.find().program)
    program.write_bytes(program.read_bytes() + f"\n# kindest/node:v1.35.0{DIGEST}\n".encode())
    with pytest.raises(DriverUnavailable, match=r"kindest/node:v1\.35\.0@sha256"):
        up()
    up(image="kindest/node:v1.32.2")


def test_the_default_is_read_out_of_the_program(tmp_path: Path) -> None:
    program = tmp_path / "kind"
    program.write_bytes(b"\x7fELF\0" + f"kindest/node:v1.32.2{DIGEST}".encode() + b"\0more")
    assert default_image(program) == f"kindest/node:v1.32.2{DIGEST}"
    program.write_bytes(b"\x7fELF\0")
    assert default_image(program) == "" == default_image(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("kindest/node:v1.32.2", (1, 32)),
        (f"host:5000/node:1.35.0-rc.1{DIGEST}", (1, 35)),
        ("host:1.5/node", None),
        ("node:latest", None),
        ("node", None),
    ],
)
def test_a_tag_tells_the_version_where_the_image_is_not_here(
    kind: Any, image: str, version: tuple[int, int] | None
) -> None:
    assert kubernetes_version(Kind.find(), image) == version
