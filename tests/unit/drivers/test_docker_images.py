"""Which names of images are the lab's to remove, by what an engine lists."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.dockerapi.images import remnants

LABELS = {"lab.run": "20261130-120000-abcd", "lab.owner": "m:b:1:2"}
RUN = LABELS["lab.run"]


class Engine:
    def __init__(self, *listed: dict[str, Any]) -> None:
        self.listed = [{"Id": "sha256:1", "Labels": LABELS, "ParentId": "", **one} for one in listed]
        self.removed: list[tuple[str, dict[str, Any]]] = []

    def images(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        assert any(label.startswith("lab.run") for label in filters["label"])
        return self.listed

    def remove_image(self, name: str, **more: Any) -> None:
        self.removed.append((name, more))


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ({"RepoTags": [f"stratalab/service:{RUN}"]}, [f"stratalab/service:{RUN}"]),
        ({"RepoTags": ["theirs:1", f"stratalab/file-0123456789ab:{RUN}"]}, [f"stratalab/file-0123456789ab:{RUN}"]),
        ({"RepoTags": [f"docker.io/stratalab/service:{RUN}"]}, [f"docker.io/stratalab/service:{RUN}"]),
        ({"RepoTags": [f"localhost/stratalab/service:{RUN}"]}, [f"localhost/stratalab/service:{RUN}"]),
        ({"RepoTags": ["theirs:1"]}, []),
        ({"RepoTags": ["stratalab/service:mine", f"theirs/stratalab-service:{RUN}", f"x:5000/y:{RUN}"]}, []),
        ({"RepoTags": [f"stratalab/servicex:{RUN}", f"stratalab/file-x:{RUN}"]}, []),
        ({"RepoTags": None}, ["sha256:1"]),
        ({"RepoTags": ["<none>:<none>"]}, ["sha256:1"]),
        ({"RepoTags": None, "ParentId": "sha256:2"}, []),
    ],
)
def test_only_what_the_lab_named_is_removed_and_nothing_by_force(listed: dict[str, Any], names: list[str]) -> None:
    engine = Engine(listed)
    found = remnants(engine, {})
    for one in found:
        one.delete()
    assert [one.id for one in found] == names
    assert engine.removed == [(name, {}) for name in names]


def test_another_runs_is_left_out() -> None:
    engine = Engine({"RepoTags": [f"stratalab/service:{RUN}"]})
    assert not remnants(engine, {"lab.run": "another"}) and remnants(engine, {"lab.run": RUN})
